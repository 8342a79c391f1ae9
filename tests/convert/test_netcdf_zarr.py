"""netCDF's formats and zarr stores, written by xarray, netCDF4 and zarr: the numbers that xarray itself reads from them."""

import json
import pickle
import shutil
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from pidscale.convert.layouts import open_source
from pidscale.ops.grid import Grid
from pidscale.records.check import load_manifest
from tests.convert import foreign
from tests.convert.foreign import DARCY, WAVE, converted, has, npz, refused
from tests.convert.test_layouts import stored

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}") for text in ("Failed to open Zarr store", "Cannot close a netcdf")
]
NETCDF = ("NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF4")
FORMATS = (*NETCDF, "zarr2", "zarr3", "zarr3.zip", "zarr2.zip", "sharded")
PACKED = {"dtype": "i2", "scale_factor": 2.0**-12, "add_offset": 0.125, "_FillValue": -32767}


def write(data: xr.Dataset, folder: Path, form: str, encoding: dict | None = None, records: str | None = None) -> Path:
    """Write a data set by the package of the format; `records` is the unlimited dim."""
    encoding = {name: dict(one) for name, one in (encoding or {}).items()}
    if form.startswith("NETCDF"):
        engine = "netcdf4"  # scipy writes records over scalars
        data.to_netcdf(folder / "a.nc", format=form, engine=engine, encoding=encoding, unlimited_dims=records)
        return folder / "a.nc"
    path = folder / "a.zarr"
    if form == "sharded":
        for name, one in data.data_vars.items():
            if one.ndim > 2:
                sizes = {"chunks": (1, *one.shape[1:]), "shards": (2, *one.shape[1:])}
                encoding[name] = encoding.get(name, {}) | sizes
    data.to_zarr(
        path, zarr_format=2 if form.startswith("zarr2") else 3, encoding=encoding, consolidated=form == "zarr2"
    )
    if form == "zarr3.zip":  # the store is the root of the zip file, or a folder in it
        return Path(shutil.make_archive(str(folder / "b"), "zip", path))
    if form == "zarr2.zip":
        return Path(shutil.make_archive(str(folder / "b"), "zip", folder, "a.zarr"))
    return path


@pytest.fixture(scope="module")
def waves() -> xr.Dataset:
    fields = foreign.truths(WAVE, Grid((8, 10), (1.0, 1.0), "periodic", "periodic"), 4)
    return xr.Dataset(
        {"u": (("sample", "time", "lat", "lon"), fields, {"units": "m"}), "c": 1.0, "mass": ("sample", np.arange(4.0))},
        {"time": ("time", np.linspace(0, 0.3, 4)), "lat": np.arange(8) / 8, "lon": np.arange(10) / 10},
    )


def opened(path: Path, form: str, **how) -> xr.Dataset:
    """Return what xarray reads."""
    if form.startswith("NETCDF"):
        return xr.load_dataset(path, engine="netcdf4" if form == "NETCDF4" else "scipy", **how)
    if form == "zarr2.zip":
        return xr.load_dataset(path.with_name("a.zarr"), engine="zarr", **how)
    if form == "zarr3.zip":
        with zarr.storage.ZipStore(path, mode="r") as store:
            return xr.load_dataset(store, engine="zarr", **how)
    return xr.load_dataset(path, engine="zarr", **how)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("encoding", [{}, {"u": PACKED}], ids=["plain", "packed"])
def test_the_numbers_are_those_that_xarray_reads(tmp_path, waves, form, encoding):
    turned = waves.transpose("time", "lon", "sample", "lat")  # names of dims give the order
    path = write(turned, tmp_path, form, encoding, "time")
    done = converted(path, tmp_path / "set", "wave", test=0)
    read = opened(path, form).transpose("sample", "time", "lat", "lon")
    other = npz(tmp_path, u=read.u.values, t=read.time.values, c=read.c.values, mass=read["mass"].values)
    converted(other, tmp_path / "other", "wave", test=0)
    fields, metas = stored(tmp_path / "set")
    np.testing.assert_array_equal(fields, stored(tmp_path / "other")[0])
    np.testing.assert_allclose(fields, waves.u, atol=2.0**-13 if encoding else 0)
    assert [one["params"] for one in metas] == [one["params"] for one in stored(tmp_path / "other")[1]]
    assert done.pde.params.duration == 0.3 and done.pde.params.speed == 1.0 and not done.warnings
    assert any("displacement in m" in note for note in done.notes)


@pytest.mark.parametrize("form", FORMATS)
def test_missing_values_are_named_in_every_format(tmp_path, waves, form):
    holes = waves.copy(deep=True)
    holes.u[2, 1, 3, 5] = np.nan
    for name, encoding, reason in (
        ("packed", PACKED, "a declared missing value, _FillValue=-32767"),
        ("plain", {"_FillValue": np.float32(-999)}, "a declared missing value, _FillValue=-999"),
        ("nan", {}, "nan"),
    ):
        (tmp_path / name).mkdir()
        path = write(holes, tmp_path / name, form, {"u": encoding})
        has(
            refused(path, "wave"),
            "1 of 4 samples",
            "sample 2 (displacement, array 'u', at t 1, y 3, x 5",
            reason,
            "bad=omit",
        )
        done = converted(path, tmp_path / name / "out", "wave", bad="omit", test=0)
        assert done.manifest.request["left_out"] == [2]


@pytest.mark.parametrize("form", FORMATS)
def test_booleans_of_xarray_become_phases(tmp_path, form):
    fields = foreign.truths(DARCY, Grid((9, 12)), 3)
    data = xr.Dataset({"a": (("n", "y", "x"), fields[:, 0] > 5), "u": (("n", "y", "x"), fields[:, 1])})
    converted(write(data, tmp_path, form), tmp_path / "set", test=1)
    np.testing.assert_array_equal(stored(tmp_path / "set")[0], fields)


@pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF4", "zarr2", "zarr3"])
def test_valid_ranges_unsigned_numbers_and_dates_are_read(tmp_path, waves, form):
    shown = waves.assign(u=waves.u.astype("f8") * 20)
    scale = float(shown.u.max() - shown.u.min()) / 200
    raw = np.round((shown.u - shown.u.min()) / scale).astype("u1").values.view("i1")
    attributes = {
        "scale_factor": scale,
        "add_offset": float(shown.u.min()),
        "_Unsigned": "true",
        "valid_range": [0.0, 50.0],
    }
    attributes["valid_range"] = [-1e9, float(shown.u.max()) + 1e-6]
    data = waves.assign(u=(waves.u.dims, raw, attributes))
    data["time"] = ("time", np.array([0, 1, 2, 3], "i4"), {"units": "hours since 2000-01-01"})
    done = converted(write(data, tmp_path, form), tmp_path / "set", "wave", test=0)
    assert done.pde.params.duration == 3.0 and any("times in hours since 2000-01-01" in note for note in done.notes)
    np.testing.assert_allclose(stored(tmp_path / "set")[0], shown.u, atol=0.51 * scale)
    (tmp_path / "narrow").mkdir()
    data.u.attrs["valid_range"] = [-1e9, float(shown.u.values[1].max()) - scale]
    has(refused(write(data, tmp_path / "narrow", form), "wave"), "outside the valid range", "sample 1 (")


@pytest.mark.parametrize("version", [2, 3])
def test_a_store_without_names_of_dims_is_read_and_its_zeros_stay(tmp_path, darcy, version):
    """Format 2 names 0 as the fill value of every array; xarray takes those of the edge for missing, or refuses the store."""
    zarr.save_group(tmp_path / "a.zarr", zarr_format=version, permeability=darcy[:, 0], pressure=darcy[:, 1])
    converted(tmp_path / "a.zarr", tmp_path / "set", test=1)
    np.testing.assert_array_equal(stored(tmp_path / "set")[0], darcy)
    assert (darcy[:, 1] == 0).any()
    zarr.save_array(tmp_path / "one.zarr", darcy, zarr_format=version)
    channels = {"permeability": "data:0", "pressure": "data:1"}
    converted(tmp_path / "one.zarr", tmp_path / "joint", channels=channels, test=1)
    np.testing.assert_array_equal(stored(tmp_path / "joint")[0], darcy)
    group = zarr.open_group(tmp_path / "deep.zarr", mode="w", zarr_format=version)
    for name, values in zip(("a", "u"), darcy.swapaxes(0, 1), strict=True):
        group.create_array(f"fields/{name}", data=values)
    assert set(open_source(tmp_path / "deep.zarr").arrays) == {"fields/a", "fields/u"}


def chunked(folder: Path, darcy, fill=0.0, count=None, version=3) -> Path:
    """Write a store with a chunk for each sample, of which only `count` are written."""
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=version)
    for name, values in zip(("permeability", "pressure"), darcy.swapaxes(0, 1), strict=True):
        array = group.create_array(name, shape=values.shape, chunks=(1, *values.shape[1:]), dtype="f4", fill_value=fill)
        array[:count] = values[:count]
    return folder / "a.zarr"


@pytest.mark.parametrize("version", [2, 3])
def test_chunks_that_are_not_stored_are_no_numbers(tmp_path, darcy, version):
    path = chunked(tmp_path, darcy, count=3, version=version)
    has(
        refused(path),
        "array 'permeability' has 2 of 5 chunks that are not stored, which zarr reads as 0.0",
        "force=true",
    )
    has(refused(chunked(tmp_path, darcy, np.nan, 3, version)), "2 of 5 samples have missing values", "sample 3 (")
    has(refused(chunked(tmp_path, darcy, -7.0, 3, 2)), "2 of 5 samples", "a declared missing value, _FillValue=-7")


def test_only_the_chunks_of_a_block_are_read(tmp_path, darcy, monkeypatch):
    path = chunked(tmp_path, darcy)
    monkeypatch.setattr("pidscale.convert.sample_reader.BLOCK_BYTES", 2 * darcy[0].nbytes)
    sizes = []
    read = zarr.Array.__getitem__
    monkeypatch.setattr(
        zarr.Array, "__getitem__", lambda self, index: sizes.append((v := read(self, index)).nbytes) or v
    )
    converted(path, tmp_path / "set", test=1)
    assert 0 < max(sizes) <= darcy[0].nbytes  # two samples of one channel
    np.testing.assert_array_equal(stored(tmp_path / "set")[0], darcy)


class Touch:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("dims", ["sample", 3])
def test_names_of_dims_that_are_no_list_are_refused(tmp_path, darcy, dims):
    path = chunked(tmp_path, darcy, version=2)
    (path / "pressure" / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": dims}))
    has(refused(path), "a.zarr: ", "array 'pressure'", "_ARRAY_DIMENSIONS", repr(dims))


@pytest.mark.parametrize("place", ["compressor", "filters"])
def test_a_codec_that_runs_code_is_refused_and_not_run(tmp_path, darcy, place):
    path = chunked(tmp_path, darcy, version=2)
    codec = {"id": "pickle", "protocol": 5}
    described = json.loads((path / "pressure" / ".zarray").read_text())
    described |= {"compressor": None, "filters": None, place: codec if place == "compressor" else [codec]}
    (path / "pressure" / ".zarray").write_text(json.dumps(described))
    (path / "pressure" / "0.0.0").write_bytes(pickle.dumps(Touch(tmp_path / "ran")))
    has(refused(path), "a.zarr: ", "pickle")
    assert not (tmp_path / "ran").exists()


def test_stores_are_sources_like_files(tmp_path, darcy):
    (tmp_path / "in").mkdir()
    for name, part in (("b", darcy[:3]), ("a", darcy[3:])):
        zarr.save_group(tmp_path / "in" / f"{name}.zarr", permeability=part[:, 0], pressure=part[:, 1])
    for n, word in enumerate(("in", "in/*.zarr", "in/**", "in/a.zarr,in/b.zarr")):
        names = ",".join(str(tmp_path / one) for one in word.split(","))
        done = converted(names, tmp_path / f"set{n}", test=1)
        files = done.manifest.request["source"]["files"]
        assert [one["file"] for one in files] == ["a.zarr", "b.zarr"] and all(one["bytes"] > 0 for one in files)
        assert load_manifest(tmp_path / f"set{n}").splits["train"].samples == 4
    has(refused(tmp_path / "in" / "a.zarr", given={"low": 4.0}), "a.zarr: permeability")
    shutil.copytree(tmp_path / "in" / "a.zarr", tmp_path / "c.zarr")
    converted(tmp_path / "c.zarr", tmp_path / "one", test=0)
    zarr.open_group(tmp_path / "c.zarr", mode="a")["pressure"][0, 3, 3] += 1
    has(refused_into(tmp_path / "c.zarr", tmp_path / "one"), "source")
    has(refused_into(tmp_path / "in" / "a.zarr", tmp_path / "in" / "a.zarr" / "set"), "the folder of the files")


def refused_into(path, out):
    with pytest.raises(foreign.UserError) as error:
        converted(path, out, test=0)
    return str(error.value)


@pytest.mark.parametrize("form", [*NETCDF[:2], "zarr3.zip"])
@pytest.mark.parametrize("share", [0.0001, 0.02, 0.6, 0.97])
def test_truncated_files_are_refused_in_one_line(tmp_path, waves, form, share):
    path = write(waves, tmp_path, form, records="sample")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size) + 4])
    has(refused(path, "wave"), path.name)


def test_damaged_stores_are_refused_in_one_line(tmp_path, darcy):
    for name, data in (("pressure/c/1/0/0", b"no chunk"), ("pressure/zarr.json", b"{"), ("zarr.json", b"[]")):
        path = chunked(tmp_path, darcy)
        (path / name).write_bytes(data)
        has(refused(path), "a.zarr: ")
    path = chunked(tmp_path, darcy)
    (path / "pressure" / "zarr.json").unlink()
    with warnings.catch_warnings():  # of which zarr has its own
        warnings.simplefilter("error")
        has(refused(path), "a.zarr: array ")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    has(refused(tmp_path / "other.zip"), "neither npz nor .pt nor a zarr store")


def test_damage_anywhere_in_a_header_is_refused_or_read(tmp_path, waves):
    path = write(waves, tmp_path, "NETCDF3_64BIT", records="sample")
    data = path.read_bytes()
    draw = np.random.default_rng(0)
    for at in draw.integers(4, 700, 300).tolist():
        path.write_bytes(data[:at] + draw.bytes(1) + data[at + 1 :])
        try:
            source = open_source(path)
            for array in source.arrays.values():
                source.read(array, tuple(slice(None) for _ in array.shape))
        except foreign.UserError as error:
            assert "\n" not in str(error)


def test_without_the_package_the_extra_is_named(tmp_path, darcy, monkeypatch):
    path = chunked(tmp_path, darcy)
    monkeypatch.setitem(sys.modules, "zarr", None)
    has(refused(path), "a.zarr: zarr stores need a package of their own; pip install 'pidscale[zarr]'")
