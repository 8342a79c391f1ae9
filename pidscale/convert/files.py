"""Which files a word names: one, all of a folder, a pattern, or several with commas between. Must not read them."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pidscale.config import UserError
from pidscale.paths import expanded, is_address

ENDINGS = (".npy", ".npz", ".mat", ".h5", ".hdf5", ".hdf", ".nc", ".nc4", ".pt", ".pth")  # taken of a folder


def files_of(key: str, word: str) -> list[Path]:
    """The files of a word, those of folders and patterns by name. UserError names the key where there is none.

    A word that is a file as it stands is that file, whatever signs it has.
    """
    if is_address(word):
        raise UserError(f"{key}={word}: an address; files are converted where they lie, so copy it into a folder first")
    if Path(expanded(word, key)).is_file():
        return [Path(expanded(word, key))]
    listed = word[1:-1] if word.startswith("[") and word.endswith("]") else word
    names = [name for part in listed.split(",") if (name := part.strip().strip("'\""))]
    found = [path for name in names for path in _of_one(key, name)]
    again = [path for path, count in Counter(path.resolve() for path in found).items() if count > 1]
    if again:
        raise UserError(f"{key}={word}: names {again[0]} twice; name each file once")
    if not found:
        raise UserError(f"{key}={word}: names no file")
    return found


def _of_one(key: str, name: str) -> list[Path]:
    """The files of one name: a file, a folder or a pattern."""
    if is_address(name):
        raise UserError(f"{key}={name}: an address; files are converted where they lie, so copy it into a folder first")
    path = Path(expanded(name, key))
    if path.is_dir():
        taken = sorted(
            one for one in path.iterdir() if one.is_file() and one.suffix.lower() in ENDINGS and one.name[0] != "."
        )
        if not taken:
            raise UserError(f"{key}={name}: a folder without a file of {', '.join(ENDINGS)}; name a file or a pattern")
        return taken
    if path.exists():
        if not path.is_file():
            raise UserError(f"{key}={name}: neither a file nor a folder; name a file of npy, npz, MATLAB, HDF5 or .pt")
        return [path]
    if not glob.has_magic(name):
        raise UserError(f"{key}={name}: no such file")
    matched = sorted(Path(one) for one in glob.glob(str(path), recursive=True) if Path(one).is_file())
    if not matched:
        raise UserError(f"{key}={name}: no file has such a name")
    return matched


def short_names(files: Sequence[Path]) -> list[str]:
    """Names that tell files apart and say as little of this machine as they can: as many folders as that takes."""
    parts = [path.absolute().parts for path in files]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(names):
            break
    return names
