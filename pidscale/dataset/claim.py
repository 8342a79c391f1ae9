"""Whose folder it is: a set's request stands in it before any shard, and one maker at a time holds it.

A request alone made nothing and gives way; shards of another request are refused, by the keys that differ. Knows requests
as plain JSON; must not know equations or what a request means.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pidscale.config import UserError
from pidscale.files import write_atomic
from pidscale.records.check import load_manifest
from pidscale.records.json_checks import canonical, read_json
from pidscale.records.lock import held


def check_request(root: Path, request: Mapping[str, Any], key: str = "data.path") -> None:
    """Refuse a folder that holds anything but this request's set, whole or in part; a request alone made nothing.

    Only the keys of `request` are compared. key: the setting that chose the folder, for the message.
    """
    path = root / "request.json"
    if path.exists() and not any(root.glob("*.tar")):
        return
    if path.exists():
        found = read_json(path)
    elif (root / "manifest.json").exists():
        path, found = root / "manifest.json", load_manifest(root).request
    elif any(root.glob("*.tar")):
        raise UserError(f"{root}: holds tars that were not made here (no request.json); choose another {key}")
    else:
        return
    if differs := list(_differences(found if isinstance(found, dict) else {}, request)):
        what = f"{', '.join(differs)}, not as asked for now"
        raise UserError(f"{path}: a set of another request ({what}); choose another {key} or delete it yourself")


def _differences(found: Mapping[str, Any], request: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The keys that differ, with both values where they are short."""
    for key, asked in request.items():
        had, name = found.get(key), f"{above}{key}"
        if isinstance(had, dict) and isinstance(asked, Mapping):
            yield from _differences(had, asked, f"{name}.")
        elif had != asked:
            short = len(f"{had}{asked}") < 60 and not isinstance(asked, Mapping)
            yield f"{name} {had!r} there and {asked!r} here" if short else name


@contextmanager
def hold_set(root: Path, request: Mapping[str, Any], key: str = "data.path") -> Iterator[None]:
    """Hold the folder alone, with its request written down. UserError names the folder and the setting `key`."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not os.access(root, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(f"{root}: {error.strerror}; {key} must be a folder that this run may write") from None
    with held(root) as alone:
        if not alone:
            raise UserError(f"{root}: another run is making this set; wait for it or change {key}")
        check_request(root, request, key)
        write_atomic(root / "request.json", canonical(request) + b"\n")
        for left in root.glob(".*.tmp"):  # of a run that was killed: nobody else writes here now
            left.unlink(missing_ok=True)
        yield
