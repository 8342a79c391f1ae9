"""Why a file cannot be read, as one line with a remedy for that cause: a lock, a filter, a permission, a disk, or damage.

Must not know layouts or equations.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pidscale.config import UserError

_LOCKED = "another process has it open for writing; wait until that process has closed it, or convert a copy"
_NO_LOCKS = (
    "its file system has no locks; set HDF5_USE_FILE_LOCKING=FALSE in the environment if no process writes the file now, or "
    "copy it to a local disk"
)
_REMEDIES = {
    errno.EACCES: "permission denied; name a file that this process may read",
    errno.EPERM: "permission denied; name a file that this process may read",
    errno.EAGAIN: _LOCKED,
    errno.ENOLCK: _NO_LOCKS,
    errno.ENOSYS: _NO_LOCKS,
    errno.EOPNOTSUPP: _NO_LOCKS,
    errno.EIO: "input/output error: the disk or the network file system failed; try again, or copy the file elsewhere",
    errno.ESTALE: "the network file system has lost it (stale handle); try again, or copy the file to a local disk",
    errno.ETIMEDOUT: "the network file system does not answer; try again, or copy the file to a local disk",
    errno.ENODEV: "its file system cannot map files into memory; copy the file to a local disk",
    errno.EMFILE: "too many files are open; raise `ulimit -n`, or merge the files into fewer",
    errno.ENFILE: "too many files are open on this machine; close some, or merge the files into fewer",
    errno.ENOENT: "no longer exists; it was moved or deleted",
    errno.EISDIR: "a folder, expected a file",
}
# filters of which HDF5 files store only the number, and which the HDF5 library does not include
_FILTERS = {
    4: "szip", 307: "bzip2", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd",
    32017: "sz", 32024: "sz3", 32026: "blosc2",
}  # fmt: skip
_NEEDS_CODE = ("allow_pickle", "Python objects", "Weights only")  # parts of messages about pickled objects


@contextmanager
def file_errors(path: Path, layout: str) -> Iterator[None]:
    """Turn every exception that a library raises while it reads a file into a UserError of one line.

    Args:
        path: The file.
        layout: The name of its layout, for the message.

    Yields:
        Nothing; the body of the `with` statement reads the file.

    Raises:
        UserError: The body raised any exception but a MemoryError. A file with pickled objects is named as such.
        MemoryError: The body raised it.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except ImportError as error:
        missing = error.name or str(error)
        raise UserError(
            f"{path}: {layout} needs the library {missing}, which is missing: pip install {missing}"
        ) from None
    except Exception as error:  # libraries raise exceptions of every type for a damaged file
        reason = re.sub(r"\s+", " ", str(error).replace(str(path), path.name)).strip()[:160] or type(error).__name__
        if type(error).__name__ == "UnpicklingError" or any(part in reason for part in _NEEDS_CODE):
            raise UserError(pickle_refusal(path)) from None
        raise UserError(f"{path}: {_system_cause(error) or _damaged(reason, layout)}") from None


def _system_cause(error: Exception) -> str:
    """Return cause and remedy if the operating system reported an error; empty if the file itself is at fault."""
    text = re.sub(r"\s+", " ", str(error))
    number = re.search(r"errno = (\d+)", text)  # HDF5 quotes the error number of a failed system call
    code = int(number[1]) if number else getattr(error, "errno", None)
    if "already open for write" in text or "consistency flags" in text:
        return f"{_LOCKED}; if the writing process died, run `h5clear -s FILE`"
    if "unable to lock file" in text and code not in _REMEDIES:
        return f"cannot be locked ({text[-120:]}): {_NO_LOCKS}"
    return _REMEDIES.get(code, "") if code is not None else ""


def _damaged(reason: str, layout: str) -> str:
    return (
        f"cannot be read as {layout} ({reason}): it is truncated, damaged or of another layout: download it again, or name "
        "its layout with layout="
    )


def pickle_refusal(path: Path) -> str:
    """Return the message that refuses a file which could run code when it is loaded."""
    return (
        f"{path}: holds pickled objects, which can run any code and are never loaded; save plain arrays: npz, HDF5, "
        "or a .pt of a dict of tensors"
    )


def require_filters(path: Path, dataset: Any) -> Any:
    """Return an HDF5 dataset whose filters are all available; imports hdf5plugin for those that HDF5 does not include.

    Args:
        path: The file, for the message.
        dataset: An open h5py dataset.

    Returns:
        The same dataset.

    Raises:
        UserError: A filter is not available; the message names its number and its name.
    """
    from h5py import h5z

    for code, name in _filters(dataset):
        if h5z.filter_avail(code):
            continue
        try:
            import hdf5plugin  # noqa: F401  (the import registers the filters)

            remedy = f"nor in hdf5plugin; repack the file where it can be read: h5repack -f GZIP=4 {path.name} NEW"
        except ImportError:
            remedy = "pip install hdf5plugin, and this command will use it"
        if not h5z.filter_avail(code):
            raise UserError(
                f"{path}: dataset '{dataset.name}' is compressed by HDF5 filter {code} ({name}), which is not available; "
                f"{remedy}"
            )
    return dataset


def _filters(dataset: Any) -> list[tuple[int, str]]:
    """Return number and name of each filter of a dataset."""
    plist = dataset.id.get_create_plist()
    found = [plist.get_filter(i) for i in range(plist.get_nfilters())]
    return [(code, _FILTERS.get(code) or name.decode("ascii", "replace") or "unnamed") for code, _, _, name in found]
