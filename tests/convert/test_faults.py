"""The message about an unreadable file names the cause and its remedy; a file is called damaged only if nothing else fits."""

import errno
import subprocess
import sys

import h5py
import numpy as np
import pytest

from pidscale.config import UserError
from pidscale.convert.layouts.faults import file_errors
from tests.convert import foreign
from tests.convert.foreign import has, refused

BLOSC = 32001


def filtered(path, code, burgers, name="u"):
    """Write HDF5 with an array whose one chunk needs a filter that is not available."""
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(burgers.shape)
        plist.set_filter(code, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple(burgers.shape)
        dataset = h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_FLOAT, space, plist)
        dataset.write_direct_chunk((0,) * burgers.ndim, burgers.tobytes())
    return path


@pytest.mark.parametrize(("code", "name"), [(32019, "unnamed"), (32024, "sz3")])
def test_a_filter_that_is_not_available_is_named(tmp_path, burgers, code, name):
    line = refused(filtered(tmp_path / "a.h5", code, burgers), "burgers")
    has(
        line,
        "a.h5: dataset '/u' is compressed by HDF5 filter",
        f"{code} ({name}), which is not available",
        "hdf5plugin",
    )
    assert "damaged" not in line


def test_a_missing_filter_of_an_unused_array_does_not_matter(tmp_path, burgers):
    path = filtered(tmp_path / "a.h5", 32019, burgers, "other")
    with h5py.File(path, "r+") as file:
        file["velocity"] = burgers
    foreign.converted(path, tmp_path / "set", "burgers")


def test_a_file_open_for_writing_elsewhere_is_not_called_damaged(tmp_path, burgers):
    path = foreign.plain(tmp_path / "a.h5", u=burgers)
    code = f"import h5py; f = h5py.File({str(path)!r}, 'r+'); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "open\n"
        line = refused(path, "burgers")
        writer.communicate("\n")
    has(line, "a.h5: another process has it open for writing; wait")
    assert "damaged" not in line
    foreign.converted(path, tmp_path / "after", "burgers")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "permission denied; name a file that this process may read"),
        (OSError(errno.EIO, "Input/output error"), "input/output error: the disk or the network file system failed"),
        (OSError("Can't read data (file read failed, errno = 5, error message = 'Input/output error')"), "input/output"),
        (OSError("Unable to open (unable to lock file, errno = 11, error message = 'x')"), "another process has it open"),
        (OSError("Unable to open (unable to lock file, errno = 37, error message = 'x')"), "HDF5_USE_FILE_LOCKING=FALSE"),
        (OSError("Unable to open (unable to lock file, errno = 38, error message = 'x')"), "file system has no locks"),
        (OSError("file is already open for write (may use <h5clear file> to clear file consistency flags)"), "h5clear"),
        (OSError(errno.ESTALE, "Stale file handle"), "stale handle"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (FileNotFoundError(errno.ENOENT, "No such file"), "no longer exists"),
        (ModuleNotFoundError("No module named 'h5py'", name="h5py"), "needs the library h5py, which is missing: pip"),
        (OSError("Unable to open file (truncated file: eof = 5)"), "it is truncated, damaged or of another layout"),
        (ValueError("bad magic"), "cannot be read as hdf5 (bad magic): it is truncated, damaged"),
    ],
)  # fmt: skip
def test_each_system_error_has_its_own_remedy(tmp_path, error, message):
    """Errors as the libraries raise them, word for word; a test cannot make a disk fail."""
    with pytest.raises(UserError) as line, file_errors(tmp_path / "a.h5", "hdf5"):
        raise error
    has(str(line.value), f"{tmp_path / 'a.h5'}: ", message)
    assert ("damaged" in str(line.value)) == ("damaged" in message)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.mat", "a.h5", "a.pt"])
def test_a_file_without_read_permission_is_refused_in_every_layout(tmp_path, burgers, name):
    """Runs in a process without root's rights, because root may read every file."""
    path = tmp_path / name
    np.save(path, burgers) if name == "a.npy" else foreign.plain(path, u=burgers)
    path.chmod(0o000)
    code = (
        "import os; os.getuid() or (os.setgroups([]), os.setgid(65534), os.setuid(65534))\n"
        "from pathlib import Path\nfrom pidscale.config import UserError\n"
        "try:\n    open_source(Path({path!r}))\nexcept UserError as error:\n    print(error)"
    )
    code = "from pidscale.convert.layouts import open_source\n" + code.format(path=name)
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    has(found.stdout, f"{name}: permission denied; name a file that this process may read")


@pytest.mark.parametrize(("version", "words"), [(5, "64-bit data (CDF-5)"), (7, "an unknown version, 7")])
def test_netcdf_of_a_variant_that_is_not_read_is_named(tmp_path, version, words):
    (tmp_path / "a.nc").write_bytes(b"CDF" + bytes([version]) + bytes(100))
    has(refused(tmp_path / "a.nc"), words, "nccopy -k nc4 a.nc NEW.nc")
