"""Contradictions within a manifest, and files beside its set that it does not list: every finding, not only the first.

Must not know equations, ranks or torch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from pidscale.config import UserError
from pidscale.records.format import index_name
from pidscale.records.json_checks import parsed
from pidscale.records.manifest import Manifest
from pidscale.records.stores.base import Store

_AGAIN = "restore it, or make the set again"


def strays(manifest: Manifest, store: Store, sizes: Mapping[str, int]) -> list[str]:
    """Return a line for each tar, index or temporary file that the manifest does not list.

    Args:
        manifest: The manifest.
        store: The store of the set.
        sizes: The sizes of all files, from `Store.sizes`.

    Returns:
        The lines.
    """
    known = {name for entry in manifest.entries for name in (entry.name, index_name(entry.name))}
    unlisted = [name for name in sizes if name.endswith((".tar", ".index.json", ".tmp")) and name not in known]
    return [f"{store.where(name)}: manifest.json does not list it, so nothing reads it" for name in sorted(unlisted)]


def manifest_findings(manifest: Manifest, store: Store, sizes: Mapping[str, int]) -> list[str]:
    """Compare a valid manifest with its own request and with request.json, and the seeds of its splits with each other.

    Args:
        manifest: The manifest.
        store: The store of the set.
        sizes: The sizes of all files, from `Store.sizes`.

    Returns:
        The findings, one line each.
    """
    where = store.where("manifest.json")
    found: list[str] = []
    request = manifest.request
    stated = {"equation": manifest.equation, "params": manifest.params, "grid": manifest.grid}
    stated["samples"] = {name: split.samples for name, split in manifest.splits.items()}
    for key, value in stated.items():
        if key in request and not _same(request[key], value):
            found.append(f"{where}: key '{key}' is not what its own request says; restore the file")
    if "request.json" in sizes:
        found += _request_findings(request, store)
    for (name, split), (other_name, other) in combinations(sorted(manifest.splits.items()), 2):
        if max(split.seeds[0], other.seeds[0]) < min(split.seeds[1], other.seeds[1]):
            overlap = f"seeds {list(split.seeds)} of split '{name}' overlap {list(other.seeds)} of '{other_name}'"
            found.append(f"{where}: {overlap}; make the set again")
    for name, split in manifest.splits.items():
        if split.seeds[1] - split.seeds[0] != split.samples:
            found.append(f"{where}: split '{name}' has {split.samples} samples and seeds {list(split.seeds)}; {_AGAIN}")
    for name, count in Counter(entry.name for entry in manifest.entries).items():
        if count > 1:
            found.append(f"{where}: lists {name} {count} times; restore the file")
    return found


def _request_findings(request: Mapping[str, Any], store: Store) -> list[str]:
    """Return the findings of comparing the manifest's request with request.json."""
    where = store.where("request.json")
    try:
        stored = parsed(store.read("request.json"), where)
    except UserError as error:
        return [str(error)]
    if not isinstance(stored, dict):
        return [f"{where}: expected a JSON object, found {type(stored).__name__}; restore it"]
    keys = sorted({*request, *stored})
    differs = [k for k in keys if k not in request or k not in stored or not _same(request[k], stored[k])]
    if not differs:
        return []
    return [f"{where}: {', '.join(differs)} not as in the request of manifest.json; restore the wrong one of the two"]


def _same(one: object, other: object) -> bool:
    """Return whether two values have the same JSON, including NaN, which only damaged files hold."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
