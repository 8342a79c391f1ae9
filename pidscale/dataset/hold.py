"""Holds the folder of a set: its request is written before any shard, and one process at a time makes the set.

A request without shards is replaced; shards of another request are refused, and the message lists the keys that differ. Knows
requests as plain JSON; must not know equations, or what a request means.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pidscale.config import UserError
from pidscale.files import refuse_folder_in_use, write_atomic
from pidscale.records.check import load_manifest
from pidscale.records.json_checks import canonical, read_json
from pidscale.records.lock import held


def check_request(root: Path, request: Mapping[str, Any], key: str = "data.path") -> None:
    """Refuse a folder that holds shards of another request.

    Args:
        root: The folder of the set.
        request: The request, or a part of it: only its keys are compared.
        key: The setting that chose the folder, for messages.

    Raises:
        UserError: The folder holds shards of another request, or tars that pidscale did not write.
    """
    path = root / "request.json"
    if path.exists() and not any(root.glob("*.tar")):
        return
    if path.exists():
        found = read_json(path)
    elif (root / "manifest.json").exists():
        path = root / "manifest.json"
        found = load_manifest(root).request
    elif any(root.glob("*.tar")):
        raise UserError(f"{root}: holds tar files that were not made here (no request.json); choose another {key}")
    else:
        return
    if differences := list(_differences(found if isinstance(found, dict) else {}, request)):
        raise UserError(
            f"{path}: a set of another request ({', '.join(differences)}); choose another {key} or delete the set yourself"
        )


def _differences(found: Mapping[str, Any], request: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield what differs: each key, with both values where they are short."""
    for key, requested in request.items():
        stored = found.get(key)
        name = f"{prefix}{key}"
        if isinstance(stored, dict) and isinstance(requested, Mapping):
            yield from _differences(stored, requested, f"{name}.")
        elif stored != requested:
            short = len(f"{stored}{requested}") < 60 and not isinstance(requested, Mapping)
            yield f"{name} is {stored!r} there and {requested!r} here" if short else f"{name} differs"


@contextmanager
def hold_set(root: Path, request: Mapping[str, Any], key: str = "data.path") -> Iterator[None]:
    """Hold the folder of a set for this process alone, with the request stored in it.

    Args:
        root: The folder; made if it is missing.
        request: What determines every byte of the set, as plain JSON values.
        key: The setting that chose the folder, for messages.

    Yields:
        Nothing; the folder is held in the body of the `with` statement.

    Raises:
        UserError: The folder cannot be written, is held by another process, or holds shards of another request.
    """
    refuse_folder_in_use(root, "manifest.json", key)
    _make_writable(root, key)
    with held(root) as alone:
        if not alone:
            raise UserError(f"{root}: another run is making this set; wait for it or change {key}")
        check_request(root, request, key)
        write_atomic(root / "request.json", canonical(request) + b"\n")
        _sweep(root)  # what a killed run has left
        yield
        _sweep(root)  # what killed tasks of this run have left


def _sweep(root: Path) -> None:
    """Remove unfinished files of a set. The process that holds it calls this while no task is at work."""
    for leftover in root.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def _make_writable(root: Path, key: str) -> None:
    """Make the folder if it is missing. Raises UserError if this process may not write into it."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not os.access(root, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(f"{root}: {error.strerror}; {key} must be a folder that this process may write") from None
