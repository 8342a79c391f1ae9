"""Files that cannot be converted: one line names the file and what to do; nothing is written, no pickle is loaded."""

import pickle
import subprocess
import sys
import warnings

import h5py
import numpy as np
import pytest
import torch

from tests.convert import foreign
from tests.convert.foreign import has, npz, refused
from tests.scripts import ROOT


def test_missing_empty_and_unknown_files_are_refused(tmp_path):
    has(refused(tmp_path / "a.npz"), "a.npz: no such file")
    has(refused(tmp_path), "a folder without a file that ends in", ".hdf5")
    (tmp_path / "b.npz").write_bytes(b"")
    has(refused(tmp_path / "b.npz"), "b.npz: empty, 0 bytes")
    (tmp_path / "c.csv").write_text("1,2,3\n")
    has(refused(tmp_path / "c.csv"), "none of the supported layouts", "npz")


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.mat", "a73.mat", "a.h5", "a.pt"])
@pytest.mark.parametrize("share", [0.02, 0.6, 0.97])
def test_truncated_files_are_refused(tmp_path, name, share):
    noise = np.random.default_rng(0).normal(size=(20, 2, 16, 16)).astype(np.float32)
    path = tmp_path / name
    if name == "a.npy":
        np.save(path, noise)
    elif name == "a73.mat":
        foreign.matlab73(path, a=noise[:, 0], u=noise[:, 1])
    else:
        foreign.plain(path, a=noise[:, 0], u=noise[:, 1])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    has(refused(path), name)


def test_damaged_data_in_hdf5_are_refused(tmp_path, burgers):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("u", data=burgers, compression="gzip", fletcher32=True)
    whole = bytearray(path.read_bytes())
    whole[-200:-100] = bytes(100)
    path.write_bytes(whole)
    has(refused(path, "burgers"), "a.h5: cannot be read as hdf5")


class Trap:
    """An object whose unpickling fails the test."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.pt", "a.pkl", "a.dat"])
def test_pickles_are_refused_and_never_loaded(tmp_path, name):
    path = tmp_path / name
    if name == "a.npy":
        np.save(path, np.array([Trap()], dtype=object), allow_pickle=True)
    elif name == "a.npz":
        np.savez(path, a=np.array([Trap()], dtype=object))
    elif name == "a.pt":
        torch.save({"x": Trap()}, path)
    else:
        path.write_bytes(pickle.dumps({"x": Trap()}))
    has(refused(path), name, "pickled objects", "never loaded", "npz")


def test_a_pickle_without_a_container_is_refused_without_a_warning(tmp_path):
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"x": [1.0, 2.0]}, protocol=4))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        has(refused(tmp_path / "a.pt"), "a.pt")
    assert not caught


def test_a_file_of_another_layout_than_named_is_refused(tmp_path, darcy):
    path = npz(tmp_path, a=darcy[:, 0], u=darcy[:, 1])
    has(refused(path, layout="mat73"), "layout=mat73, but the file is npz", "set layout=npz")
    has(refused(path, layout="netcdf"), "layout=netcdf: unknown", "pdebench")
    plain = foreign.plain(tmp_path / "a.h5", a=darcy[:, 0], u=darcy[:, 1])
    has(refused(plain, layout="well"), "t0_fields", "layout=hdf5")
    has(refused(plain, layout="pdebench"), "tensor", "layout=hdf5")


def test_numbers_in_other_files_are_not_read(tmp_path, burgers):
    foreign.plain(tmp_path / "other.h5", u=burgers)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["u"] = h5py.ExternalLink("other.h5", "u")
    has(refused(tmp_path / "a.h5", "burgers"), "holds no array of numbers")
    layout = h5py.VirtualLayout(shape=burgers.shape, dtype=burgers.dtype)
    layout[...] = h5py.VirtualSource(str(tmp_path / "other.h5"), "u", burgers.shape)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_virtual_dataset("u", layout)
    has(refused(tmp_path / "b.h5", "burgers"), "stores its numbers in other files")


def test_groups_of_different_shapes_are_refused(tmp_path):
    frames = np.random.default_rng(0).normal(size=(3, 5, 2, 8, 8)).astype(np.float32)
    path = foreign.pdebench_groups(tmp_path / "a.h5", frames, 0.4)
    with h5py.File(path, "r+") as file:
        del file["0002/data"]
        file["0002/data"] = frames[2, :4].transpose(0, 2, 3, 1)
    has(refused(path, "reaction_diffusion"), "group 0002 has data [4, 8, 8, 2]", "group 0000 [5, 8, 8, 2]")


@pytest.mark.parametrize("kind", ["float8", "meta", "negated"])
def test_tensors_without_a_numpy_type_are_refused_in_one_line(tmp_path, kind):
    plain = torch.rand(4, 9, 9)
    other = {
        "float8": lambda: plain.to(torch.float8_e4m3fn),
        "meta": lambda: plain.to("meta"),
        "negated": lambda: torch.complex(plain, plain).conj().imag,
    }[kind]()
    torch.save({"a": plain, "u": other}, tmp_path / "a.pt")
    assert "a.pt" in refused(tmp_path / "a.pt")


def test_a_name_with_a_line_break_is_shown_in_one_line(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one\ntwo"] = np.ones((4, 9, 9))
        file["three"] = np.ones((4, 9, 9))
    script = [sys.executable, str(ROOT / "launch" / "convert.py"), f"out={tmp_path / 'set'}", "pde=darcy"]
    found = subprocess.run([*script, f"source={tmp_path / 'a.h5'}"], capture_output=True, text=True, timeout=120)
    assert found.returncode == 2 and found.stderr.startswith("error: ") and found.stderr.count("\n") == 1, found.stderr
    assert "one two" in found.stderr


def test_a_header_that_needs_all_memory_is_refused_in_one_line(tmp_path):
    script = [sys.executable, str(ROOT / "launch" / "convert.py"), f"out={tmp_path / 'set'}", "pde=darcy"]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("a", "u"):
            file.create_dataset(name, (2, 10**6, 10**6), "f4", chunks=(1, 1000, 1000))
    found = subprocess.run([*script, f"source={tmp_path / 'a.h5'}"], capture_output=True, text=True, timeout=120)
    assert found.returncode == 2 and found.stderr.startswith("error: ") and found.stderr.count("\n") == 1, found.stderr
