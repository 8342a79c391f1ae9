"""Every layout returns the fields that were written, in our order of channels and axes."""

import dataclasses

import h5py
import numpy as np
import pytest
import torch
from scipy.io import savemat

from pidscale.ops.grid import Grid
from pidscale.pde.advection_diffusion import AdvectionDiffusion
from pidscale.pde.base import truths
from pidscale.pde.burgers import Burgers
from pidscale.pde.darcy import Darcy
from pidscale.pde.heat import Heat
from pidscale.pde.reaction_diffusion import ReactionDiffusion
from pidscale.pde.stokes import Stokes
from pidscale.pde.wave import Wave
from pidscale.records.check import load_manifest
from pidscale.records.read import ShardSet
from tests.convert import foreign
from tests.convert.foreign import converted, has, refused

DARCY = Darcy()
BURGERS = Burgers()
NODES = Grid((9, 12))  # not square, so that swapped axes are noticed
STRIP = Grid((9, 16), (1.0, 1.0), "strip", "periodic")
WAVE = Wave.from_params({"frames": 5, "duration": 0.4})
TORUS = dataclasses.replace(WAVE.grid(8), shape=(8, 10))
REACTION = ReactionDiffusion.from_params({"frames": 5, "duration": 0.2})
FLAT = {"frames": 5, "diffusivity_low": 0.002, "diffusivity_high": 0.002}
CELLS = dataclasses.replace(REACTION.grid(8), shape=(8, 10))


@pytest.fixture(scope="module")
def darcy():
    return foreign.truths(DARCY, NODES, 6)


def stored(root):
    """Return the fields [N, C, Y, X] and the metadata of a set in the order of the file."""
    fields = {}
    metas = {}
    for split in load_manifest(root).splits:
        shards = ShardSet(root, split)
        for n in range(len(shards)):
            metas[shards.meta(n)["source"]] = shards.meta(n)
            fields[shards.meta(n)["source"]] = shards.read([n])[0]
    return np.stack([fields[n] for n in sorted(fields)]), [metas[n] for n in sorted(metas)]


@pytest.mark.parametrize("name", ["a.npz", "a.mat", "a.h5", "a.pt"])
def test_named_arrays_are_found_by_their_names(tmp_path, darcy, name):
    path = foreign.plain(tmp_path / name, coeff=darcy[:, 0], sol=darcy[:, 1])
    done = converted(path, tmp_path / "set")
    assert done.reader.source.layout == {"npz": "npz", "mat": "mat5", "h5": "hdf5", "pt": "pt"}[name[2:]]
    np.testing.assert_array_equal(stored(tmp_path / "set")[0], darcy)
    assert done.manifest.truth_residual["train"]["l2"] < 1e-3 and not done.warnings


def test_matlab73_has_reversed_axes(tmp_path, darcy):
    path = foreign.matlab73(tmp_path / "a.mat", a=darcy[:, 0].astype(np.float64), u=darcy[:, 1].astype(np.float64))
    done = converted(path, tmp_path / "set")
    assert done.reader.source.layout == "mat73"
    np.testing.assert_array_equal(stored(tmp_path / "set")[0], darcy)


def test_logical_arrays_become_phases(tmp_path, darcy):
    high = darcy[:, 0] > 5
    files = [
        foreign.matlab73(tmp_path / "a.mat", a=high, u=darcy[:, 1]),
        foreign.plain(tmp_path / "b.mat", a=high, u=darcy[:, 1]),
        foreign.plain(tmp_path / "c.pt", x=high, y=darcy[:, 1]),
    ]
    for path in files:
        converted(path, tmp_path / path.stem)
        np.testing.assert_array_equal(stored(tmp_path / path.stem)[0], darcy)


@pytest.mark.parametrize("compressed", [True, False])
def test_matlab5_is_read_with_and_without_compression(tmp_path, darcy, compressed):
    others = {"note": "made", "cell": np.array([1, "a"], dtype=object), "z": darcy[:, 0] * 1j, "n": {"a": 1.0}, "c": 1}
    arrays = {"a": darcy[:, 0].astype(np.uint8), "u": np.asfortranarray(darcy[:, 1].astype(np.float64))}
    savemat(tmp_path / "a.mat", {**others, **arrays}, do_compression=compressed)
    converted(tmp_path / "a.mat", tmp_path / "set")
    np.testing.assert_array_equal(stored(tmp_path / "set")[0], darcy)


def test_tensors_of_the_format_before_zip_are_read(tmp_path, darcy):
    tensors = {"x": torch.from_numpy(darcy[:, 0]), "y": torch.from_numpy(darcy[:, 1]).contiguous()}
    torch.save(tensors, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    converted(tmp_path / "a.pt", tmp_path / "set")
    np.testing.assert_array_equal(stored(tmp_path / "set")[0], darcy)


def test_npy_of_joint_fields_is_read(tmp_path, darcy):
    np.save(tmp_path / "a.npy", darcy)
    converted(tmp_path / "a.npy", tmp_path / "set")
    np.testing.assert_array_equal(stored(tmp_path / "set")[0], darcy)
    np.save(tmp_path / "b.npy", darcy[:, ::-1].transpose(0, 2, 3, 1))  # components last and in reverse order
    channels = {"permeability": "data:1", "pressure": "data:0"}
    converted(tmp_path / "b.npy", tmp_path / "other", channels=channels)
    np.testing.assert_array_equal(stored(tmp_path / "other")[0], darcy)


def test_groups_of_plain_hdf5_are_named_by_their_path(tmp_path, darcy):
    path = foreign.plain(tmp_path / "a.h5", **{"in/first": darcy[:, 0], "out/second": darcy[:, 1]})
    converted(path, tmp_path / "set", channels={"permeability": "in/first", "pressure": "out/second"})
    np.testing.assert_array_equal(stored(tmp_path / "set")[0], darcy)


def test_pdebench_darcy_has_cell_centres_and_a_source(tmp_path, darcy):
    path = foreign.pdebench_darcy(tmp_path / "2D_DarcyFlow_beta2.0_Train.hdf5", darcy[:, 0], 2 * darcy[:, 1], beta=2.0)
    done = converted(path, tmp_path / "set", force="true")
    assert done.reader.source.layout == "pdebench" and done.pde.params.source == 2.0
    assert any("cell centres" in warning for warning in done.warnings)
    np.testing.assert_array_equal(stored(tmp_path / "set")[0][:, 0], darcy[:, 0])
    assert (
        done.manifest.truth_residual["train"]["l2"] < 1e-3
    )  # the fields are on nodes, only the coordinates are of cells


def test_pdebench_burgers_has_a_scaled_viscosity_and_an_extra_time(tmp_path):
    pde = Burgers.from_params({"viscosity": 0.0318310})
    fields = foreign.truths(pde, STRIP, 5)
    path = foreign.pdebench_burgers(tmp_path / "1D_Burgers_Sols_Nu0.1.hdf5", fields[:, 0], nu=0.1)
    done = converted(path, tmp_path / "set", "burgers")
    assert done.pde.params.viscosity == 0.031831 and done.pde.params.duration == 1.0
    assert any("Nu / pi" in note for note in done.notes)
    np.testing.assert_array_equal(stored(tmp_path / "set")[0], fields)
    half = converted(path, tmp_path / "half", "burgers", {"duration": 0.75}, start=2, every=2)
    np.testing.assert_array_equal(stored(tmp_path / "half")[0], fields[:, :, 2::2])
    assert half.grid.extent == (0.75, 1.0) and half.grid.shape == (4, 16)


def test_pdebench_reaction_diffusion_is_read_from_groups(tmp_path):
    fields = foreign.truths(REACTION, CELLS, 4)
    path = foreign.pdebench_groups(tmp_path / "2D_diff-react_NA_NA.h5", fields.reshape(4, 5, 2, 8, 10), 0.2)
    done = converted(path, tmp_path / "set", "reaction_diffusion")
    np.testing.assert_array_equal(stored(tmp_path / "set")[0], fields)
    assert done.pde.params == REACTION.params and done.grid == CELLS
    assert [c.name for c in done.manifest.channels[:3]] == ["activator_00", "inhibitor_00", "activator_01"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda group: group["grid/t"].__setitem__(..., group["grid/t"][...] * 10), "group 0003: grid/t differs"),
        (lambda group: group["grid/x"].attrs.update(units="km"), "group 0003: grid/x differs"),
        (lambda group: group["data"].attrs.update(scale_factor=2.0), "group 0003: data differs"),
        (lambda group: group["data"].attrs.update(gain=7.0), "has an attribute gain=7"),
        (lambda group: group["data"].attrs.update(scale_factor="seven"), "scale_factor='seven', expected a number"),
        (lambda group: group.attrs.update(config="sim:\n  Du: 0.001\n  k: 0.005\n"), "group 0003: its config"),
        (
            lambda group: group.attrs.update(config="sim:\n  Du: 0.1\n  Dv: 0.005\n  k: 0.005\n"),
            "diffusion_u",
        ),
    ],
)
def test_a_group_that_differs_from_the_first_is_named(tmp_path, change, message):
    fields = foreign.truths(REACTION, CELLS, 4)
    path = foreign.pdebench_groups(tmp_path / "a.h5", fields.reshape(4, 5, 2, 8, 10), 0.2)
    with h5py.File(path, "r+") as file:
        change(file["0003"])
    has(refused(path, "reaction_diffusion"), message)


def test_the_well_is_read_with_times(tmp_path):
    fields = foreign.truths(WAVE, TORUS, 4)
    scalars = {"c": np.float32(1.0), "Rayleigh": np.array([1, 2, 3, 4], np.float32)}
    path = foreign.well(tmp_path / "a.hdf5", {"displacement": fields}, 0.4, scalars)
    done = converted(path, tmp_path / "set", "wave")
    values, metas = stored(tmp_path / "set")
    np.testing.assert_array_equal(values, fields)
    assert [meta["params"] for meta in metas] == [{"Rayleigh": n} for n in (1.0, 2.0, 3.0, 4.0)]
    assert done.pde.params == WAVE.params and done.manifest.truth_residual["train"]["l2"] < 1e-3


def test_the_well_is_read_without_times(tmp_path, darcy):
    path = foreign.well(
        tmp_path / "a.h5", {"permeability": darcy[:, 0], "pressure": darcy[:, 1]}, edges="WALL", end=True
    )
    converted(path, tmp_path / "set")
    np.testing.assert_array_equal(stored(tmp_path / "set")[0], darcy)


def test_a_field_of_the_well_that_does_not_vary_is_repeated(tmp_path, darcy):
    path = foreign.well(
        tmp_path / "a.h5", {"permeability": darcy[:, 0], "pressure": darcy[:, 1]}, edges="WALL", end=True
    )
    with h5py.File(path, "r+") as file:
        del file["t0_fields/permeability"]
        file["t0_fields/permeability"] = darcy[0, 0].T
        flags = {"sample_varying": False, "time_varying": False, "dim_varying": [True, True]}
        file["t0_fields/permeability"].attrs.update(flags)
    converted(path, tmp_path / "set")
    np.testing.assert_array_equal(stored(tmp_path / "set")[0][3, 0], darcy[0, 0])


def test_axes_in_another_order_are_named_by_an_argument(tmp_path):
    fields = foreign.truths(WAVE, TORUS, 3)
    path = foreign.matlab73(
        tmp_path / "a.mat", u=fields.transpose(0, 3, 2, 1), t=np.linspace(0, 0.4, 5)[None].astype(np.float64)
    )
    done = converted(path, tmp_path / "set", "wave", axes={"u": "NXYT"})
    np.testing.assert_array_equal(stored(tmp_path / "set")[0], fields)
    assert done.pde.params.duration == 0.4


@pytest.mark.parametrize(
    "storage",
    [
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "lzf", "chunks": (2, 3, 8)},
        {"dtype": ">f4"},
        {"dtype": "f8", "maxshape": (None, None, None)},
    ],
)
def test_hdf5_of_any_storage_has_the_same_numbers(tmp_path, storage):
    """On a grid that is neither square nor even, in a file whose name has blanks, `=`, a comma and letters beyond ASCII."""
    fields = np.stack([DARCY.sample(7, i, Grid((7, 9), (1.0, 1.0), "node", "dirichlet"))[0] for i in range(3)])
    path = tmp_path / "é a=b, 日本.h5"
    with h5py.File(path, "w") as file:
        for name, values in zip(("permeability", "pressure"), fields.swapaxes(0, 1), strict=True):
            file.create_dataset(name, data=np.asfortranarray(values), **storage)
    converted(path, tmp_path / "set", test=1)
    np.testing.assert_array_equal(stored(tmp_path / "set")[0], fields.astype(np.float32))


def test_a_repeated_end_is_omitted_on_request(tmp_path):
    fields = foreign.truths(WAVE, TORUS, 3)
    path = foreign.plain(tmp_path / "a.npz", u=np.pad(fields, ((0, 0), (0, 0), (0, 1), (0, 1)), mode="wrap"))
    converted(path, tmp_path / "set", "wave", {"duration": 0.4}, drop_end="true")
    np.testing.assert_array_equal(stored(tmp_path / "set")[0], fields)


def test_one_channel_can_be_scaled(tmp_path, darcy):
    path = foreign.plain(tmp_path / "a.npz", a=darcy[:, 0], u=darcy[:, 1] * 128)
    converted(path, tmp_path / "set", scale={"pressure": 1 / 128})
    np.testing.assert_array_equal(stored(tmp_path / "set")[0], darcy)


def test_phases_of_the_file_become_parameters_of_the_equation(tmp_path):
    pde = Darcy.from_params({"low": 0.1, "high": 1.0})
    fields = foreign.truths(pde, NODES, 4)
    path = foreign.plain(tmp_path / "a.npz", a=fields[:, 0], u=fields[:, 1])
    done = converted(path, tmp_path / "set")
    assert (done.pde.params.low, done.pde.params.high) == (0.1, 1.0) == (done.manifest.params["low"], 1.0)
    assert done.manifest.truth_residual["train"]["l2"] < 1e-3


def test_parameters_of_each_sample_are_used_in_the_residual(tmp_path):
    pde = Heat.from_params({"frames": 5})
    grid = dataclasses.replace(pde.grid(8), shape=(8, 10))
    drawn = truths(pde, 7, range(6), grid)
    alpha = drawn.params[:, 0].numpy().astype(np.float32)
    path = foreign.well(tmp_path / "a.h5", {"T": drawn.fields.float().numpy()}, 1.0, {"alpha": alpha})
    done = converted(path, tmp_path / "set", "heat")
    assert done.manifest.truth_residual["train"]["l2"] < 1e-3
    assert done.pde.params.diffusivity_low == float(str(alpha.min())) < done.pde.params.diffusivity_high
    assert [meta["params"]["diffusivity"] for meta in stored(tmp_path / "set")[1]] == [float(str(a)) for a in alpha]
    assert ShardSet(tmp_path / "set", "train").params([0], done.pde.varying).shape == (1, 1)
    fields = foreign.truths(Heat.from_params(FLAT), grid, 4)
    once = foreign.plain(tmp_path / "b.npz", u=fields, alpha=0.002, other=fields[:, 0])
    one = converted(once, tmp_path / "one", "heat")
    assert "not used: other; set channels.NAME=ARRAY to use another array" in one.notes and not done.notes
    assert one.manifest.truth_residual["train"]["l2"] < 1e-3 and one.pde.params.diffusivity_high == 0.002


def test_columns_of_a_table_become_parameters(tmp_path):
    pde = AdvectionDiffusion.from_params({"frames": 5})
    drawn = truths(pde, 7, range(6), TORUS)
    table = drawn.params.numpy()
    path = foreign.plain(tmp_path / "a.h5", u=drawn.fields.float().numpy(), b=table[:, :2], kappa=table[:, 2])
    columns = {"velocity_x": "b:0", "velocity_y": "b:1"}
    done = converted(path, tmp_path / "set", "advection_diffusion", parameters=columns)
    assert done.manifest.truth_residual["train"]["l2"] < 1e-3
    assert done.pde.params.speed == pytest.approx(abs(table[:, :2]).max())


def test_rows_that_are_times_are_read(tmp_path):
    pde = Stokes()
    grid = dataclasses.replace(pde.grid(33), shape=(33, 40))
    drawn = truths(pde, 7, range(5), grid)
    arrays = {"t": np.linspace(0, 1, 33)[None], "x": np.linspace(0, 1, 40)[None], "nu": drawn.params.numpy()}
    path = foreign.matlab73(tmp_path / "a.mat", u=drawn.fields[:, 0].numpy(), **arrays)
    done = converted(path, tmp_path / "set", "stokes")
    assert done.grid == grid and done.manifest.truth_residual["train"]["l2"] < 0.05 and not done.warnings


def test_hdf5_is_read_in_blocks(tmp_path, monkeypatch):
    """At most one block of bytes is read at once, even if samples are the last axis of the stored array."""
    fields = foreign.truths(BURGERS, STRIP, 40)[:, 0]
    path = foreign.matlab73(tmp_path / "a.mat", u=fields)
    monkeypatch.setattr("pidscale.convert.sample_reader.BLOCK_BYTES", 4 * fields[0].nbytes)
    sizes = []
    read = h5py.Dataset.__getitem__

    def counted(self, index):
        values = read(self, index)
        sizes.append(np.asarray(values).nbytes)
        return values

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    converted(path, tmp_path / "set", "burgers", test=0.5)
    assert 0 < max(sizes) <= 4 * fields[0].nbytes
    np.testing.assert_array_equal(stored(tmp_path / "set")[0][:, 0], fields)
