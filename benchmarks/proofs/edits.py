"""Kinds of damage to a shard set, for benchmarks.proofs.fuzz: edits of its JSON and of its fields under true hashes."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from typing import Any

import numpy as np

from benchmarks.proofs.damage import MANIFEST, Victim
from pidscale.records.format import index_name
from pidscale.records.json_checks import canonical
from pidscale.records.write import checksums

RAW = {  # tokens that json.dumps would not write, by the string that stands for each
    "@large": b"1e400",
    "@long": b"9" * 5000,
    "@deep": b"[" * 400 + b"]" * 400,
    "@deeper": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "@bytes": b'"\xff\xfe"',
}
NASTY: list[Any] = [-1, 0, 1, 2, 2**31, 2**40, 2**63, 10**18, 10**400, -(10**400)]
NASTY += [0.5, 2.0, 1e300, -0.0, float("nan"), float("inf"), True, False, None, [], {}, [0], {"a": 1}, [[]]]
NASTY += ["", "1", "0x1", "a\nb", "a\u2028b", "\ud800", "\0", "x" * 10_000, "../../etc/passwd"]
NASTY += ["train-00001.tar", "test-00000.tar", "train", [2**40, 1], [-1, -1], [True, True], *RAW]


def some_place(rng: random.Random, tree: Any) -> tuple[Any, Any, Any]:
    """Return a place in a tree of JSON, found by going down from its root: what holds it, its key, and what is there."""
    while True:
        holder = tree
        key = rng.choice(sorted(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
        tree = holder[key]
        if not isinstance(tree, (dict, list)) or not tree or rng.random() < 0.2:
            return holder, key, tree


def anything(rng: random.Random, depth: int = 3) -> Any:
    """Return any JSON: a value that readers stumble over, a number, a text, or lists and objects of such."""
    kind = rng.choice(["nasty", "number", "text", "list", "object"][: 5 if depth else 3])
    if kind == "nasty":
        return copy.deepcopy(rng.choice(NASTY))
    if kind == "number":
        return rng.choice([rng.randrange(-(2**70), 2**70), rng.randrange(-5, 50), rng.uniform(-1e6, 1e6), rng.random()])
    if kind == "text":
        return "".join(
            chr(rng.choice([rng.randrange(32), rng.randrange(128), rng.randrange(0x11_0000)])) for _ in range(4)
        )
    inner = [anything(rng, depth - 1) for _ in range(rng.randrange(4))]
    return inner if kind == "list" else {str(anything(rng, 0)): one for one in inner}


def edit(rng: random.Random, tree: Any) -> None:
    """Edit one place: another value, another type, a key gone or new, items gone, twice or swapped."""
    holder, key, value = some_place(rng, tree)
    kind = rng.choice(["nasty", "nasty", "near", "delete", "new", "items"])
    if kind == "delete":
        del holder[key]
    elif kind == "new" and isinstance(holder, dict):
        holder[rng.choice(["colour", "a\nb", "", "\ud800", "test2"])] = copy.deepcopy(value)
    elif kind == "items" and isinstance(value, list) and value:
        holder[key] = rng.choice([value * 2, value[::-1], value[1:], [*value, value[0]]])
    elif kind == "near" and isinstance(value, (int, float)):
        near = [value + 1, value - 1, -value, value * 2, float(value), str(value), [value], value + 0.5]
        holder[key] = rng.choice(near)
    elif kind == "near" and isinstance(value, str):
        holder[key] = rng.choice([value + "\n", value.upper(), value[1:], " " + value, [value], list(value)])
    else:
        holder[key] = copy.deepcopy(rng.choice(NASTY))


def spelled(tree: Any, rng: random.Random | None = None) -> bytes:
    """Return a tree of JSON as bytes with the raw tokens in it; with rng, at times with a key that appears twice."""
    data = json.dumps(tree).encode()
    for name, token in RAW.items():
        data = data.replace(f'"{name}"'.encode(), token)
    if rng is not None and rng.random() < 0.1 and isinstance(tree, dict) and tree:
        data = b'{"' + rng.choice(sorted(tree)).encode("ascii", "ignore") + b'": 7, ' + data[1:]
    return data


def rehash(victim: Victim, tree: Any, rng: random.Random | None = None) -> None:
    """Write a manifest whose hashes of indices and whose data hash are true, where they can be."""
    victim.edited = True
    try:
        for split in tree["splits"].values():
            for entry in split["shards"]:
                if index_name(entry["name"]) in victim.files:
                    entry["index_sha256"] = hashlib.sha256(victim.files[index_name(entry["name"])]).hexdigest()
    except (AttributeError, KeyError, TypeError):
        pass
    data = spelled(tree, rng)
    try:
        plain = json.loads(data)
        seen = {k: v for k, v in plain.items() if k not in ("truth_residual", "request", "data_hash")}
        data = data.replace(plain["data_hash"].encode(), hashlib.sha256(canonical(seen)).hexdigest().encode())
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        pass
    victim.files[MANIFEST] = data


def edit_manifest(rng: random.Random, victim: Victim) -> None:
    """Edit the manifest as an accident does: data_hash stays what it was."""
    tree = json.loads(victim.files[MANIFEST])
    edit(rng, tree)
    victim.files[MANIFEST] = spelled(tree, rng)


def edit_manifest_and_hash(rng: random.Random, victim: Victim) -> None:
    """Edit the manifest, and make its hash true."""
    tree = json.loads(victim.files[MANIFEST])
    for _ in range(rng.choice([1, 1, 2])):
        if isinstance(tree, dict) and tree:
            edit(rng, tree)
    rehash(victim, tree, rng)


def edit_index_and_hash(rng: random.Random, victim: Victim) -> None:
    """Edit an index, and make its hash in the manifest true."""
    name = rng.choice(victim.indices())
    tree = json.loads(victim.files[MANIFEST])
    index = json.loads(victim.files[name])
    for _ in range(rng.choice([1, 1, 2])):
        branch = rng.choice([index, index.get("samples") or index])
        if isinstance(branch, (dict, list)) and branch:
            edit(rng, branch)
    victim.files[name] = spelled(index, rng)
    rehash(victim, tree)


def edit_to_anything(rng: random.Random, victim: Victim) -> None:
    """Put any JSON in any place of the manifest, of an index or of both; in half of the cases under true hashes."""
    name = rng.choice(victim.indices())
    manifest = json.loads(victim.files[MANIFEST])
    index = json.loads(victim.files[name])
    for tree in rng.choice([[manifest], [manifest] * 2, [index], [index] * 2, [manifest, index]]):
        if tree:
            holder, key, _ = some_place(rng, tree)
            kind = rng.choice(["set", "delete", "insert"])
            if kind == "delete":
                del holder[key]
            elif kind == "insert" and isinstance(holder, list):
                holder.insert(key, anything(rng))
            else:
                holder[f"{key}+" if kind == "insert" else key] = anything(rng)
    if index != json.loads(victim.files[name]):
        victim.files[name] = spelled(index)
    if rng.random() < 0.5:
        rehash(victim, manifest)
    else:
        victim.files[MANIFEST] = spelled(manifest)


def edit_numbers_together(rng: random.Random, victim: Victim) -> None:
    """Make edits that agree among themselves, so that no single check of a sum or a hash sees them."""
    tree = json.loads(victim.files[MANIFEST])
    train = tree["splits"]["train"]
    test = tree["splits"]["test"]
    first, second = train["shards"][:2]
    huge = rng.choice([10**9, 10**18, 2**63, 10**30])

    def samples(one: int, two: int) -> None:
        first["samples"] = one
        second["samples"] = two
        train["samples"] = sum(entry["samples"] for entry in train["shards"])

    def shape() -> None:
        large = [[2**40, 1], [1, 2**40], [2**31, 2**31], [2**15, 2**15]]
        size = rng.choice([0, 2**62, 2**80])
        tree["grid"]["shape"] = rng.choice([*large, [0, 6], [-20, -6], [6, 20], [120, 1]])
        for entry in (*train["shards"], *test["shards"]):
            entry["bytes"] = size or entry["bytes"]

    def channels() -> None:
        tree["channels"] = rng.choice([[], tree["channels"] * 2, tree["channels"][:1], tree["channels"] * 500])
        tree["normaliser"] = {"mean": [0.0] * len(tree["channels"]), "std": [1.0] * len(tree["channels"])}

    def twice() -> None:
        train["shards"].append(rng.choice([first, test["shards"][0]]))
        samples(first["samples"], second["samples"])

    def nothing() -> None:
        train.update(rng.choice([{"shards": [], "samples": 0}, test, {"shards": train["shards"][::-1]}]))

    def bytes_too() -> None:
        first["bytes"] = huge * 10**4
        samples(huge, second["samples"])

    sums = [lambda: samples(huge, 3), lambda: samples(-huge, huge), lambda: samples(0, 6), lambda: samples(-3, 9)]
    rng.choice([*sums, shape, channels, twice, nothing, bytes_too])()
    rehash(victim, tree)


def edit_data_and_hashes(rng: random.Random, victim: Victim) -> None:
    """Write values that are not finite under true checksums and hashes, or such that their sum is not finite."""
    name = rng.choice(victim.tars())
    tree = json.loads(victim.files[MANIFEST])
    index = json.loads(victim.files[index_name(name)])
    data = bytearray(victim.files[name])
    sample = rng.choice(index["samples"])
    start = sample["fields"]["array"]
    count = int(np.prod(sample["shape"]))
    values = np.frombuffer(data, dtype="<f4", count=count, offset=start).copy()
    value = rng.choice([np.nan, np.inf, -np.inf, 3e38])
    at = rng.randrange(count // 2)
    victim.refused = not np.isfinite(value)
    values[at : at + (1 if victim.refused else 40)] = value
    data[start : start + 4 * count] = values.tobytes()
    victim.files[name] = bytes(data)
    sample["checksums"] = checksums(values.reshape(sample["shape"]))
    entry = next(e for s in tree["splits"].values() for e in s["shards"] if e["name"] == name)
    entry["sha256"] = index["sha256"] = hashlib.sha256(data).hexdigest()
    victim.files[index_name(name)] = spelled(index)
    rehash(victim, tree)


EDITS = (
    edit_manifest,
    edit_manifest_and_hash,
    edit_index_and_hash,
    edit_to_anything,
    edit_numbers_together,
    edit_data_and_hashes,
)
