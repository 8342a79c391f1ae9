"""Attributes of HDF5 and netCDF files are applied or refused by name: packing, missing values, units, dims."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pidscale.convert import units
from pidscale.pde import build_pde
from pidscale.pde.base import Channel
from pidscale.pde.heat import Heat
from tests.convert import foreign
from tests.convert.foreign import converted, has, refused
from tests.convert.test_layouts import stored

HEAT = {"frames": 4}
FILL = 9.969209968386869e36


@pytest.fixture(scope="module")
def heat():
    fields = foreign.truths(Heat.from_params(HEAT), foreign.WAVE.grid(8), 4)
    return fields.astype(np.float64) * 5 + 293.15


@pytest.fixture(scope="module")
def diffusivity():
    return np.array([0.001, 0.002, 0.003, 0.004])


def written(path: Path, arrays, attributes=None, dims=None, netcdf=False):
    """Write HDF5 of named arrays with attributes by name, and dimension scales {array: names}."""
    with h5py.File(path, "w") as file:
        if netcdf:
            file.attrs["_NCProperties"] = "version=2"
        for name, values in arrays.items():
            file[name] = values
            file[name].attrs.update((attributes or {}).get(name, {}))
        for name, names in (dims or {}).items():
            for i, dim in enumerate(names):
                if dim not in file:
                    scale = file.create_dataset(dim, data=np.zeros(file[name].shape[i], ">f4"))
                    scale.make_scale("This is a netCDF dimension but not a netCDF variable.")
                elif not file[dim].is_scale:
                    file[dim].make_scale(dim)
                file[name].dims[i].attach_scale(file[dim])
    return path


def packed(fields, kind, low, high):
    """Return stored numbers from low to high, and the attributes that unpack them."""
    scale = (fields.max() - fields.min()) / (high - low)
    offset = fields.min()
    raw = (fields - offset) / scale + low
    return (raw if kind == "f8" else np.round(raw)).astype(kind), {
        "scale_factor": scale,
        "add_offset": offset - low * scale,
    }


@pytest.mark.parametrize(
    ("kind", "low", "high", "more"),
    [
        ("i2", -30000, 30000, {"_FillValue": np.int16(-32767), "valid_range": np.array([-30000, 30000], "i2")}),
        (">i2", -30000, 30000, {"missing_value": np.array([-32767, -32766], "i2")}),
        ("u2", 0, 65000, {}),
        ("unsigned", 0, 65000, {"_Unsigned": "true", "_FillValue": np.int16(-1)}),
        ("i4", 0, 10**9, {"valid_min": 276.0 - 50, "valid_max": 306.0 + 50}),  # floats bound the unpacked numbers
        ("f8", -3.0, 3.0, {}),
        ("unsigned", 0, 65000, {"_unsigned": "TRUE", "valid_range": [-1.0, 1000.0]}),
    ],
)
def test_packed_numbers_are_unpacked(tmp_path, heat, diffusivity, kind, low, high, more):
    raw, attributes = packed(heat, "u2" if kind == "unsigned" else kind, low, high)
    raw = raw.view("i2") if kind == "unsigned" else raw
    small, of_alpha = packed(diffusivity, "i2", 1, 30000)
    arrays = {"temperature": raw, "alpha": small, "t": np.array([0, 1, 2, 3], "i1")}
    attributes = {"temperature": attributes | more, "alpha": of_alpha, "t": {"scale_factor": 1 / 3, "add_offset": 2.0}}
    done = converted(written(tmp_path / "a.nc", arrays, attributes), tmp_path / "set", "heat")
    fields, metas = stored(tmp_path / "set")
    np.testing.assert_allclose(fields, heat, rtol=0, atol=(heat.max() - heat.min()) / 30000)
    np.testing.assert_allclose([m["params"]["diffusivity"] for m in metas], diffusivity, atol=1e-7)
    assert done.pde.params.duration == 1.0 and not done.warnings


@pytest.mark.parametrize(
    ("more", "value", "netcdf", "reason"),
    [
        ({"_FillValue": np.float32(FILL)}, FILL, False, "a declared missing value, _FillValue=9.96921e+36"),
        ({"missing_value": -999.0}, -999.0, False, "a declared missing value, missing_value=-999"),
        ({"nodata": "-999.9"}, -999.9, False, "a declared missing value, nodata=-999.9"),
        (
            {"_FillValue": np.float32(1e20), "missing_value": 300.5},
            300.5,
            False,
            "a declared missing value, missing_value=300.5",
        ),
        ({"valid_range": [200.0, 400.0]}, 431.0, False, "431, outside the valid range 200 to 400"),
        ({"valid_max": 400.0}, 400.0001, False, "400.0001, outside the valid range -inf to 400 that"),
        ({"valid_min": 0.0}, -0.5, False, "-0.5, outside the valid range 0 to inf"),
        ({}, FILL, True, "a declared missing value, netCDF's own fill value"),
        ({}, FILL, False, "9.96921e+36, other values from 2"),
        ({}, 1e20, False, "1e+20, other values from"),
        ({}, -999.0, False, "-999, other values from 2"),
        ({}, -32768.0, False, "-32768, other values from"),
        ({}, 4.2e24, False, "4.2e+24, other values from"),
    ],
)
def test_missing_values_are_named_with_their_place(tmp_path, heat, diffusivity, more, value, netcdf, reason):
    fields = heat.astype(np.float32)
    fields[2, 1, 3, 5] = value
    fields[3, 0, 0, 0] = value
    path = written(tmp_path / "a.nc", {"T": fields, "alpha": diffusivity}, {"T": more}, netcdf=netcdf)
    line = refused(path, "heat")
    has(
        line,
        "2 of 4 samples",
        f"sample 2 (temperature, array 'T', at t 1, y 3, x 5: {reason}",
        "sample 3 (",
        "bad=omit",
    )
    assert ("force=true" in line) == (not more and not netcdf)
    done = converted(path, tmp_path / "set", "heat", bad="omit", test=0)
    assert done.manifest.request["left_out"] == [2, 3] and any("2 of 4 samples" in note for note in done.notes)
    assert [m["source"] for m in stored(tmp_path / "set")[1]] == [0, 1]


def test_numbers_that_look_missing_are_kept_by_force_with_a_warning(tmp_path, heat, diffusivity):
    fields = heat.astype(np.float32)
    fields[2, 1, 3, 5] = -999
    path = written(tmp_path / "a.h5", {"T": fields, "alpha": diffusivity})
    done = converted(path, tmp_path / "set", "heat", force="true")
    assert any("kept unchanged: 1 of 4 samples" in line for line in done.warnings)
    assert stored(tmp_path / "set")[0].min() == -999


def test_large_fields_and_fields_up_to_a_mark_are_not_missing_values(tmp_path, heat, diffusivity):
    for fields in (heat * 1e15, np.minimum(heat + 700, 999)):
        path = written(tmp_path / "a.h5", {"T": fields, "alpha": diffusivity})
        assert not converted(path, tmp_path / f"set{fields.max():g}", "heat", test=1).manifest.request.get("left_out")


def test_missing_parameters_and_coordinates_are_named(tmp_path, heat, diffusivity):
    lost = np.where(diffusivity == 0.003, -999.0, diffusivity)
    arrays = {"T": heat, "alpha": lost}
    has(refused(written(tmp_path / "a.nc", arrays), "heat"), "sample 2, 'diffusivity' is -999", "force=true")
    path = written(tmp_path / "c.nc", arrays, {"alpha": {"_FillValue": -999.0}})
    has(refused(path, "heat"), "sample 2, 'diffusivity' is missing or not finite", "1 of 4", "bad=omit")
    done = converted(path, tmp_path / "made", "heat", bad="omit", test=0)
    assert any("sample 2 ('diffusivity' is missing" in note for note in done.notes)
    assert done.manifest.request["left_out"] == [2] and done.pde.params.diffusivity_high == 0.004
    arrays = {"T": heat, "alpha": diffusivity, "t": np.array([0, 1, FILL, 3])}
    path = written(tmp_path / "b.nc", arrays, {"t": {"_FillValue": FILL}})
    line = refused(path, "heat")
    has(line, "1 of the 4 values of its times are missing or not finite")
    assert "nan" not in line


@pytest.mark.parametrize(
    "names",
    [("sample", "time", "y", "x"), ("time", "lat", "lon", "member"), ("", "lon", "lat", "t"), ("x", "", "", "n")],
)
@pytest.mark.parametrize("how", ["scales", "labels", "xarray"])
def test_names_of_dims_determine_the_order_of_axes(tmp_path, diffusivity, names, how):
    grid = foreign.WAVE.grid(8)
    fields = foreign.truths(Heat.from_params(HEAT), grid, 4)[:, :, :, :7] + 1.0
    known = {"N": ("sample", "member", "n"), "T": ("time", "t"), "Y": ("y", "lat"), "X": ("x", "lon")}
    own = [next((letter for letter, words in known.items() if name in words), "") for name in names]
    left = [letter for letter in "NTYX" if letter not in own]
    order = [letter or left.pop(0) for letter in own]
    values = fields.transpose(["NTYX".index(letter) for letter in order])
    scales = {"T": [name or f"other{i}" for i, name in enumerate(names)]} if how == "scales" else {}
    path = written(tmp_path / "a.h5", {"T": values, "alpha": diffusivity}, dims=scales)
    with h5py.File(path, "r+") as file:
        if how == "labels":
            for i, name in enumerate(names):
                file["T"].dims[i].label = name
        elif how == "xarray":
            file["T"].attrs["_ARRAY_DIMENSIONS"] = np.array(names, dtype=h5py.string_dtype())
    done = converted(path, tmp_path / "made", "heat", force="true")
    assert done.reader.picks[0].axes == "".join(order)
    np.testing.assert_array_equal(stored(tmp_path / "made")[0], fields)
    if own[0] not in ("", "N"):
        line = refused(path, "heat", axes={"T": "NTYX"})
        has(line, "axes.T=NTYX", f"{names[0]} is {own[0]}", "omit axes.T")


def test_names_of_dims_that_do_not_fit_are_refused(tmp_path):
    path = written(tmp_path / "a.h5", {"a": np.ones((3, 8, 8)), "u": np.ones((3, 8, 8))})
    with h5py.File(path, "r+") as file:
        for name in "au":
            for i, dim in enumerate(("x", "x", "y")):
                file[name].dims[i].label = dim
    has(refused(path), "array 'a' [3, 8, 8] has dims named (x, x, y)", "[N, Y, X]", "set axes.a")


@pytest.mark.parametrize(
    ("array", "more", "message"),
    [
        ("T", {"gain": 0.5}, "an attribute gain=0.5 that is not of the CF conventions"),
        ("T", {"Offset": 273.15}, "an attribute offset=273.15"),
        ("T", {"scale_factor": "large"}, "scale_factor='large', expected a number"),
        ("T", {"scale_factor": [1.0, 2.0]}, "scale_factor=[1.0, 2.0], expected one finite number"),
        ("T", {"valid_range": 3.0}, "valid_range=[3.0], expected two numbers"),
        ("T", {"scale_factor": 0.0}, "scale_factor=0"),
        ("alpha", {"slope": 2.0}, "array 'alpha' has an attribute slope=2"),
        ("t", {"slope": 2.0}, "array 't' has an attribute slope=2"),
    ],
)
def test_attributes_that_cannot_be_applied_are_refused_by_name(tmp_path, heat, diffusivity, array, more, message):
    arrays = {"T": heat, "alpha": diffusivity, "t": np.linspace(0, 1, 4), "other": heat}
    has(refused(written(tmp_path / "a.nc", arrays, {array: more}), "heat"), message, "force=true")
    path = written(tmp_path / "b.nc", arrays, {"other": more})  # the attributes of an unused array do not matter
    assert not converted(path, tmp_path / "set", "heat", channels={"temperature": "T"}).warnings


def test_units_are_reported_and_those_of_two_axes_must_agree(tmp_path, heat, diffusivity):
    arrays = {"T": heat, "alpha": diffusivity, "t": np.linspace(0, 1, 4), "x": np.arange(8) / 8, "y": np.arange(8) / 8}
    stated = {"T": "degC", "t": "hours since 2000-01-01", "x": "m", "y": "m"}
    attributes = {name: {"units": unit} for name, unit in stated.items()}
    done = converted(written(tmp_path / "a.nc", arrays, attributes), tmp_path / "made", "heat")
    assert any("temperature in degC, times in hours since 2000-01-01" in note for note in done.notes)
    attributes["y"] = {"units": "km"}
    has(refused(written(tmp_path / "b.nc", arrays, attributes), "heat"), "x coordinate is in m, its y coordinate in km")


@pytest.mark.parametrize(
    ("own", "stated", "message"),
    [
        ("m", "km", "expects m; set scale.source=1000"),
        ("K", "degC", "expects K; write it in K"),
        ("K", "Pa", "expects K; check channels"),
        ("K", "kelvin", ""),
    ],
)
def test_the_unit_of_a_channel_must_be_that_of_the_file(tmp_path, own, stated, message):
    fields = foreign.truths(build_pde("poisson"), build_pde("poisson").grid(9), 3)
    arrays = {"source": fields[:, 0], "solution": fields[:, 1]}
    done = converted(written(tmp_path / "a.h5", arrays, {"source": {"units": stated}}), tmp_path / "set", "poisson")
    pde = replace(done.pde, channels=(Channel("source", own, "input"), Channel("solution", "1", "solution")))
    found, _ = units.check_units(pde, done.reader)
    assert message in "".join(found) and bool(found) is bool(message)


def test_packed_float64_is_unpacked_in_parameters_and_times_too(tmp_path, heat, diffusivity):
    attributes = {"alpha": {"scale_factor": 0.1}, "t": {"scale_factor": 0.5, "add_offset": 1.0}}
    arrays = {"temperature": heat, "alpha": diffusivity * 10, "t": np.linspace(0.0, 2.0, 4)}
    done = converted(written(tmp_path / "a.h5", arrays, attributes), tmp_path / "set", "heat")
    assert done.pde.params.duration == 1.0 and not done.warnings
    np.testing.assert_allclose([m["params"]["diffusivity"] for m in stored(tmp_path / "set")[1]], diffusivity)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"scale_factor": 5.0, "add_offset": 2.0}, "array 'permeability' holds booleans, but has attributes of packed"),
        ({"_FillValue": np.uint8(1)}, "array 'permeability' holds booleans, but has attributes of packed or missing"),
        ({"gain": 2.0}, "array 'permeability' has an attribute gain=2"),
    ],
)
def test_attributes_of_packed_booleans_are_refused(tmp_path, darcy, more, message):
    permeability, pressure = darcy.swapaxes(0, 1)
    arrays = {"permeability": permeability > permeability.mean(), "pressure": pressure}
    has(refused(written(tmp_path / "a.h5", arrays, {"permeability": more}), "darcy"), message)


def test_an_attribute_in_two_spellings_and_a_range_without_an_end_are_named(tmp_path, heat, diffusivity):
    arrays = {"T": heat, "alpha": diffusivity}
    twice = {"scale_factor": 1.0, "Scale_Factor": 2.0}
    has(
        refused(written(tmp_path / "a.h5", arrays, {"T": twice}), "heat"),
        "array 'T' has",
        "twice, in lower and in upper case",
    )
    half = {"valid_range": [np.nan, 400.0]}
    has(refused(written(tmp_path / "b.h5", arrays, {"T": half}), "heat"), "array 'T' has a valid range of nan to 400")


def test_attributes_of_matlab73_are_applied(tmp_path, darcy):
    permeability, pressure = darcy.swapaxes(0, 1)
    path = foreign.matlab73(tmp_path / "a.mat", permeability=permeability, pressure=pressure * 2 - 1)
    with h5py.File(path, "r+") as file:
        file["pressure"].attrs.update(scale_factor=0.5, add_offset=0.5)
    converted(path, tmp_path / "whole", "darcy")
    np.testing.assert_allclose(stored(tmp_path / "whole")[0][:, 1], pressure, rtol=1e-5, atol=1e-6)
    with h5py.File(path, "r+") as file:
        file["permeability"].attrs["_FillValue"] = permeability.flat[3]
    has(refused(path, "darcy"), "a declared missing value, _FillValue=")


def test_units_are_shown_in_one_line(tmp_path, heat, diffusivity):
    path = written(tmp_path / "a.h5", {"T": heat, "alpha": diffusivity}, {"T": {"units": "K\n" * 1000 + "\x1b[31m"}})
    done = converted(path, tmp_path / "set", "heat")
    assert all("\n" not in note and "\x1b" not in note and len(note) < 300 for note in done.notes)
