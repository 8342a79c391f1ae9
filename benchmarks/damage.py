"""Kinds of damage to a shard set, for benchmarks/fuzz.py: to bytes, to files, and edits of its JSON under true hashes.

A kind takes a random generator and a Victim, the set's files in memory, and leaves it damaged.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pidscale.records.format import index_name
from pidscale.records.json_checks import canonical
from pidscale.records.write import checksums

MANIFEST = "manifest.json"
RAW = {  # tokens that json.dumps would not write, by the string that stands for them
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


@dataclass
class Victim:
    """The files of a set before they are written."""

    files: dict[str, bytes]
    other: dict[str, bytes]  # a set of the same form and other fields
    strange: list[Callable[[Path], None]] = field(default_factory=list)  # what is done to the folder afterwards
    edited: bool = False  # hashes were made true again: the set says something else now
    refused: bool = False  # reading it all must not succeed

    def tars(self) -> list[str]:
        return sorted(name for name in self.files if name.endswith(".tar"))

    def indices(self) -> list[str]:
        return sorted(name for name in self.files if name.endswith(".index.json"))

    def any(self, rng: random.Random) -> str:
        """Some file: a tar, an index, or the manifest."""
        return rng.choice([rng.choice(self.tars()), rng.choice(self.indices()), MANIFEST])


def _place(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.choice([1, 4, 64, 512, 5000]))


def flip_a_bit(rng: random.Random, victim: Victim) -> None:
    name = victim.any(rng)
    data, at = victim.files[name], rng.randrange(len(victim.files[name]))
    victim.files[name] = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def overwrite(rng: random.Random, victim: Victim) -> None:
    name = victim.any(rng)
    data = victim.files[name]
    first, last = _place(rng, data)
    new = rng.choice([rng.randbytes(last - first), bytes(last - first)])
    victim.files[name] = data[:first] + new + data[last:]


def truncate(rng: random.Random, victim: Victim) -> None:
    """At random; in a header; between two members; in their data."""
    name = victim.any(rng)
    data = victim.files[name]
    cut = rng.randrange(len(data))
    if name.endswith(".tar") and rng.random() < 0.8:
        sample = rng.choice(json.loads(victim.files[index_name(name)])["samples"])
        member = rng.choice([sample["fields"], sample["json"]])
        header = member["offset"] - tarfile.BLOCKSIZE
        cut = rng.choice([header, header + rng.randrange(512), member["offset"] + rng.randrange(member["bytes"])])
    victim.files[name] = data[:cut]


def append(rng: random.Random, victim: Victim) -> None:
    victim.files[victim.any(rng)] += rng.choice([b"\n", b"}", bytes(512), rng.randbytes(rng.randrange(1, 2000))])


def delete_a_stretch(rng: random.Random, victim: Victim) -> None:
    name = victim.any(rng)
    first, last = _place(rng, victim.files[name])
    victim.files[name] = victim.files[name][:first] + victim.files[name][last:]


def repeat_a_stretch(rng: random.Random, victim: Victim) -> None:
    name = victim.any(rng)
    first, last = _place(rng, victim.files[name])
    victim.files[name] = victim.files[name][:last] + victim.files[name][first:]


def swap_tars(rng: random.Random, victim: Victim, names: list[str] | None = None) -> None:
    a, b = rng.sample(names or victim.tars(), 2)
    victim.files[a], victim.files[b] = victim.files[b], victim.files[a]


def swap_indices(rng: random.Random, victim: Victim) -> None:
    swap_tars(rng, victim, victim.indices())


def of_another_set(rng: random.Random, victim: Victim) -> None:
    """One tar, one index, or both."""
    name = rng.choice(victim.tars())
    for one in rng.choice([[name], [index_name(name)], [name, index_name(name)]]):
        victim.files[one] = victim.other[one]


def delete_a_file(rng: random.Random, victim: Victim) -> None:
    del victim.files[victim.any(rng)]


def empty_a_file(rng: random.Random, victim: Victim) -> None:
    victim.files[victim.any(rng)] = b""


def no_plain_file(rng: random.Random, victim: Victim) -> None:
    """A folder, a named pipe, a link to itself, round in a circle, to nothing, or out of the set."""
    name = victim.any(rng)
    data = victim.files.pop(name)
    kind = rng.choice(["folder", "pipe", "itself", "circle", "nothing", "out"])

    def strange(root: Path) -> None:
        path = root / name
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "circle":
            path.symlink_to("circle")
            (root / "circle").symlink_to(name)
        elif kind == "out":
            (root.parent / "outside").write_bytes(data)
            path.symlink_to(root.parent / "outside")
        else:
            path.symlink_to(name if kind == "itself" else "nothing")

    victim.strange.append(strange)


def some_place(rng: random.Random, tree: Any) -> tuple[Any, Any, Any]:
    """A place in a tree of JSON, found by going down from its root: what holds it, its key, what is there."""
    while True:
        key = rng.choice(sorted(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
        holder, tree = tree, tree[key]
        if not isinstance(tree, (dict, list)) or not tree or rng.random() < 0.2:
            return holder, key, tree


def edit(rng: random.Random, tree: Any) -> None:
    """One edit anywhere: another value, another type, a key gone or new, items gone, twice or swapped."""
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
    """Spell a tree of JSON with the raw tokens in it; with rng, at times with a key that stands there twice."""
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
    """As an accident does: data_hash stays what it was."""
    tree = json.loads(victim.files[MANIFEST])
    edit(rng, tree)
    victim.files[MANIFEST] = spelled(tree, rng)


def edit_manifest_and_hash(rng: random.Random, victim: Victim) -> None:
    tree = json.loads(victim.files[MANIFEST])
    for _ in range(rng.choice([1, 1, 2])):
        if isinstance(tree, dict) and tree:
            edit(rng, tree)
    rehash(victim, tree, rng)


def edit_index_and_hash(rng: random.Random, victim: Victim) -> None:
    name, tree = rng.choice(victim.indices()), json.loads(victim.files[MANIFEST])
    index = json.loads(victim.files[name])
    for _ in range(rng.choice([1, 1, 2])):
        branch = rng.choice([index, index.get("samples") or index])
        if isinstance(branch, (dict, list)) and branch:
            edit(rng, branch)
    victim.files[name] = spelled(index, rng)
    rehash(victim, tree)


def edit_numbers_together(rng: random.Random, victim: Victim) -> None:
    """Edits that agree among themselves, so that no single check of a sum or a hash sees them."""
    tree = json.loads(victim.files[MANIFEST])
    train, test = tree["splits"]["train"], tree["splits"]["test"]
    first, second = train["shards"][:2]
    huge = rng.choice([10**9, 10**18, 2**63, 10**30])

    def samples(one: int, two: int) -> None:
        first["samples"], second["samples"] = one, two
        train["samples"] = sum(entry["samples"] for entry in train["shards"])

    def shape() -> None:
        large, size = [[2**40, 1], [1, 2**40], [2**31, 2**31], [2**15, 2**15]], rng.choice([0, 2**62, 2**80])
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
    """Values that are not finite, under checksums and hashes that are right; or so large that their sum is not finite."""
    name, tree = rng.choice(victim.tars()), json.loads(victim.files[MANIFEST])
    index, data = json.loads(victim.files[index_name(name)]), bytearray(victim.files[name])
    sample = rng.choice(index["samples"])
    start, count = sample["fields"]["array"], int(np.prod(sample["shape"]))
    values = np.frombuffer(data, dtype="<f4", count=count, offset=start).copy()
    value, at = rng.choice([np.nan, np.inf, -np.inf, 3e38]), rng.randrange(count // 2)
    victim.refused = not np.isfinite(value)
    values[at : at + (1 if victim.refused else 40)] = value
    data[start : start + 4 * count] = values.tobytes()
    victim.files[name] = bytes(data)
    sample["checksums"] = checksums(values.reshape(sample["shape"]))
    entry = next(e for s in tree["splits"].values() for e in s["shards"] if e["name"] == name)
    entry["sha256"] = index["sha256"] = hashlib.sha256(data).hexdigest()
    victim.files[index_name(name)] = spelled(index)
    rehash(victim, tree)


BYTES = (flip_a_bit, overwrite, truncate, append, delete_a_stretch, repeat_a_stretch)
FILES = (swap_tars, swap_indices, of_another_set, delete_a_file, empty_a_file, no_plain_file)
EDITS = (edit_manifest, edit_manifest_and_hash, edit_index_and_hash, edit_numbers_together, edit_data_and_hashes)
