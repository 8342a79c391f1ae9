"""What a manifest contradicts, and what lies beside its set: every finding, not only the first.

Must not know equations, ranks or torch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from pidscale.config import UserError
from pidscale.records.layout import Manifest, index_name, parsed
from pidscale.records.stores.base import Store

_AGAIN = "restore it, or make the set again"


def strays(manifest: Manifest, store: Store, sizes: Mapping[str, int]) -> list[str]:
    """A line for each tar, index or left-over that no entry of the manifest lists: nothing reads it."""
    known = {name for entry in manifest.entries for name in (entry.name, index_name(entry.name))}
    loose = [name for name in sizes if name.endswith((".tar", ".index.json", ".tmp")) and name not in known]
    return [f"{store.where(name)}: no entry of manifest.json lists it, so nothing reads it" for name in sorted(loose)]


def manifest_findings(manifest: Manifest, store: Store, sizes: Mapping[str, int]) -> list[str]:
    """What a manifest that is whole in itself contradicts: its own request, request.json, and seeds of its splits."""
    where, found = store.where("manifest.json"), []
    asked = manifest.request
    stands = {"equation": manifest.equation, "params": manifest.params, "grid": manifest.grid}
    stands["samples"] = {name: split.samples for name, split in manifest.splits.items()}
    for key, value in stands.items():
        if key in asked and not _same(asked[key], value):
            found.append(f"{where}: key '{key}' is not what its own request says; restore the file")
    if "request.json" in sizes:
        found += _request_findings(asked, store)
    for (name, split), (other, second) in combinations(sorted(manifest.splits.items()), 2):
        (low, high), (first, last) = split.seeds, second.seeds
        if max(low, first) < min(high, last):
            found.append(
                f"{where}: seeds {[low, high]} of split '{name}' overlap {[first, last]} of '{other}'; make the set again"
            )
    for name, split in manifest.splits.items():
        if split.seeds[1] - split.seeds[0] != split.samples:
            found.append(f"{where}: split '{name}' has {split.samples} samples and seeds {list(split.seeds)}; {_AGAIN}")
    for name, count in Counter(entry.name for entry in manifest.entries).items():
        if count > 1:
            found.append(f"{where}: lists {name} {count} times; restore the file")
    return found


def _request_findings(asked: Mapping[str, Any], store: Store) -> list[str]:
    where = store.where("request.json")
    try:
        other = parsed(store.read("request.json"), where)
    except UserError as error:
        return [str(error)]
    if not isinstance(other, dict):
        return [f"{where}: expected a JSON object, found {type(other).__name__}; restore it"]
    keys = sorted({*asked, *other})
    differs = [k for k in keys if k not in asked or k not in other or not _same(asked[k], other[k])]
    if not differs:
        return []
    return [
        f"{where}: {', '.join(differs)} not as in the request of manifest.json; restore the one that is not this set's"
    ]


def _same(one: object, other: object) -> bool:
    """Whether two values are spelled alike in JSON, NaN included, which only a damaged file holds."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
