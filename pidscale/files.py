"""Files that exist with all their bytes or not at all, and checksums of files. Knows paths and
bytes, and which file marks what folder, only."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from pidscale.setting import UserError

_MARKS = {"card.json": "a student or a teacher", "manifest.json": "a shard set", "config.json": "a run"}


def refuse_folder_in_use(folder: Path, mark: str, key: str) -> None:
    """Refuse a folder that holds something else of pidscale's, into which a new set or run would be mixed.

    Args:
        folder: The folder, which may be missing.
        mark: The file that marks what is about to be written: `manifest.json` or `config.json`.
        key: The setting that chose the folder, for the message.

    Raises:
        UserError: The folder has the mark of something else.
    """
    for name, what in _MARKS.items():
        if name != mark and (folder / name).is_file():
            raise UserError(f"{folder}: holds {what} ({name}); choose another {key}")


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write a file that readers see with all its bytes or not at all: temporary name, fsync, rename, fsync of the folder.

    Args:
        path: The file; one that exists is replaced.
        data: Its contents.

    Raises:
        OSError: The file could not be written. The error names it, and nothing of the new contents is left.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:  # after a signal too, nothing is left under a temporary name
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder durable, by fsync."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_files(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted by their path as POSIX writes it."""
    found = (Path(root, name) for root, _, names in os.walk(folder, followlinks=True) for name in names)
    return sorted(found, key=lambda path: path.as_posix())


def tree_sha256(folder: Path) -> str:
    """Return the SHA-256, in hex, of the lines that sha256sum writes for all files below a folder, sorted by path."""
    lines = (f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in tree_files(folder))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
