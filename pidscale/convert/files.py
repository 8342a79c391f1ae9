"""Which files `source` or `test` names: one, a folder, a pattern, or several separated by commas. Must not read them.

A folder that is a zarr store counts as a file.
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pidscale.config import UserError
from pidscale.convert.layouts.zarr import is_store
from pidscale.paths import expanded, is_address

ENDINGS = (
    ".npy",
    ".npz",
    ".mat",
    ".h5",
    ".hdf5",
    ".hdf",
    ".nc",
    ".nc3",
    ".nc4",
    ".cdf",
    ".pt",
    ".pth",
)  # used from a folder


def find_files(key: str, word: str) -> list[Path]:
    """Find the files that an argument names. Folders and patterns are sorted by name.

    Args:
        key: The key of the argument, for messages.
        word: Its value. If a file has exactly this name, it is that file, whatever characters the name holds.

    Returns:
        The files, each once, at least one.

    Raises:
        UserError: The value is an address, names no file, or names a file twice.
    """
    _refuse_address(key, word)
    if _is_data(Path(expanded(word, key))):
        return [Path(expanded(word, key))]
    listed = word[1:-1] if word.startswith("[") and word.endswith("]") else word
    names = [name for part in listed.split(",") if (name := part.strip().strip("'\""))]
    found = [path for name in names for path in _find_one(key, name)]
    repeated = [path for path, count in Counter(path.resolve() for path in found).items() if count > 1]
    if repeated:
        raise UserError(f"{key}={word}: names {repeated[0]} twice; name each file once")
    if not found:
        raise UserError(f"{key}={word}: names no file")
    return found


def _refuse_address(key: str, name: str) -> None:
    if is_address(name):
        raise UserError(
            f"{key}={name}: an address of a remote store; files are converted on local disks, so copy it into a folder first"
        )


def _find_one(key: str, name: str) -> list[Path]:
    """Find the files of one name: a file, a folder or a pattern."""
    _refuse_address(key, name)
    path = Path(expanded(name, key))
    if is_store(path):
        return [path]
    if path.is_dir():
        found = sorted(one for one in path.iterdir() if one.name[0] != "." and _is_known(one))
        if not found:
            raise UserError(
                f"{key}={name}: a folder without a file that ends in {', '.join(ENDINGS)}; name a file or a pattern"
            )
        return found
    if path.exists():
        if not path.is_file():
            raise UserError(f"{key}={name}: neither a file nor a folder; name a file, a folder or a zarr store")
        return [path]
    if not glob.has_magic(name):
        raise UserError(f"{key}={name}: no such file")
    matched = sorted(Path(one) for one in glob.glob(str(path), recursive=True) if _is_data(Path(one)))
    matched = [one for one in matched if not any(map(is_store, one.parents))]  # a pattern with ** goes into stores
    if not matched:
        raise UserError(f"{key}={name}: no file matches this pattern")
    return matched


def _is_data(path: Path) -> bool:
    return path.is_file() or is_store(path)


def _is_known(path: Path) -> bool:
    """Return whether a folder that is named as a source stands for this entry of it too."""
    return is_store(path) or (path.is_file() and path.name.lower().endswith((*ENDINGS, ".zarr.zip")))


def short_names(files: Sequence[Path]) -> list[str]:
    """Return distinct names of files: the last parts of their paths, as few as keep all names distinct."""
    parts = [path.absolute().parts for path in files]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(names):
            break
    return names
