"""Why a file cannot be read, as one line with the remedy of that cause: a lock, a filter, a permission, a disk, or damage.

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

_LOCKED = "another process has it open for writing; wait until that has closed it, or convert a copy"
_NO_LOCKS = (
    "its file system has no locks; set HDF5_USE_FILE_LOCKING=FALSE in the environment if nobody writes the file now, or "
    "copy it to a local disk"
)
_REMEDIES = {
    errno.EACCES: "permission denied; it must be a file that this run may read",
    errno.EPERM: "permission denied; it must be a file that this run may read",
    errno.EAGAIN: _LOCKED,
    errno.ENOLCK: _NO_LOCKS,
    errno.ENOSYS: _NO_LOCKS,
    errno.EOPNOTSUPP: _NO_LOCKS,
    errno.EIO: "input/output error: the disk or the network file system failed; try again, or copy the file elsewhere",
    errno.ESTALE: "its network file system has lost it (stale handle); try again, or copy the file to a local disk",
    errno.ETIMEDOUT: "its network file system does not answer; try again, or copy the file to a local disk",
    errno.ENODEV: "its file system cannot map files into memory; copy the file to a local disk",
    errno.EMFILE: "too many files are open; raise `ulimit -n`, or join the files into fewer",
    errno.ENFILE: "too many files are open on this machine; close some, or join the files into fewer",
    errno.ENOENT: "no such file any more; it was moved or deleted",
    errno.EISDIR: "a folder, not a file",
}
# HDF5 filters that its own library lacks, where a file gives only their number
_FILTERS = {
    4: "szip", 307: "bzip2", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd",
    32017: "sz", 32024: "sz3", 32026: "blosc2",
}  # fmt: skip


@contextmanager
def readable(path: Path, layout: str) -> Iterator[None]:
    """Turn whatever a library says of a file it cannot read into one line; a pickle is refused by name."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except ImportError as error:
        missing = error.name or str(error)
        raise UserError(
            f"{path}: {layout} needs the library {missing}, which is not here: pip install {missing}"
        ) from None
    except Exception as error:  # these libraries raise of every kind for a damaged file
        said = re.sub(r"\s+", " ", str(error).replace(str(path), path.name)).strip()[:160] or type(error).__name__
        code = ("allow_pickle", "Python objects", "Weights only")
        if type(error).__name__ == "UnpicklingError" or any(word in said for word in code):
            raise pickled(path) from None
        raise UserError(f"{path}: {_cause(error) or _damaged(said, layout)}") from None


def _cause(error: Exception) -> str:
    """The line of what the machine says, "" where it says nothing: then it is the file itself."""
    text = re.sub(r"\s+", " ", str(error))
    number = re.search(r"errno = (\d+)", text)  # HDF5 writes down what its call to the system ended with
    code = int(number[1]) if number else getattr(error, "errno", None)
    if "already open for write" in text or "consistency flags" in text:
        return f"{_LOCKED}; if its writer died, `h5clear -s FILE` frees it"
    if "unable to lock file" in text and code not in _REMEDIES:
        return f"cannot be locked ({text[-120:]}): {_NO_LOCKS}"
    return _REMEDIES.get(code, "") if code is not None else ""


def _damaged(said: str, layout: str) -> str:
    return (
        f"cannot be read as {layout} ({said}): it is truncated, damaged or of another layout: fetch it again, or name "
        "its layout by layout="
    )


def pickled(path: Path) -> UserError:
    """The refusal of a file that could run code when it is loaded."""
    return UserError(
        f"{path}: holds pickled objects, which can run any code and are never loaded; save plain arrays: npz, HDF5, "
        "or a .pt of a dict of tensors"
    )


def with_filters(path: Path, dataset: Any) -> Any:
    """The dataset, once every filter that its numbers went through is here; those of hdf5plugin are, where it is installed.

    UserError names number and name of one that is not.
    """
    from h5py import h5z

    for code, name in _filters(dataset):
        if h5z.filter_avail(code):
            continue
        try:
            import hdf5plugin  # noqa: F401  (importing it registers its filters)

            remedy = f"nor does hdf5plugin have it; repack the file where it is: h5repack -f GZIP=4 {path.name} NEW"
        except ImportError:
            remedy = "pip install hdf5plugin, and this command will use it"
        if not h5z.filter_avail(code):
            raise UserError(
                f"{path}: dataset '{dataset.name}' is compressed by HDF5 filter {code} ({name}), which is not here; {remedy}"
            )
    return dataset


def _filters(dataset: Any) -> list[tuple[int, str]]:
    """Number and name of each filter of a dataset."""
    plist = dataset.id.get_create_plist()
    found = [plist.get_filter(i) for i in range(plist.get_nfilters())]
    return [(code, _FILTERS.get(code) or name.decode("ascii", "replace") or "unnamed") for code, _, _, name in found]
