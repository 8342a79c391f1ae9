"""Kinds of damage to a shard set, for benchmarks.proofs.fuzz: to bytes and to files.

A kind takes a random generator and a Victim, the set's files in memory, and leaves it damaged. Edits of JSON are in edits.py.
"""

from __future__ import annotations

import json
import os
import random
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pidscale.records.format import index_name

MANIFEST = "manifest.json"


@dataclass
class Victim:
    """The files of a set before they are written."""

    files: dict[str, bytes]
    other: dict[str, bytes]  # a set of the same form and other fields
    strange: list[Callable[[Path], None]] = field(default_factory=list)  # what is done to the folder afterwards
    edited: bool = False  # its hashes are true again: the set says something else now
    refused: bool = False  # reading all of it must not succeed

    def tars(self) -> list[str]:
        """Return the names of the tars."""
        return sorted(name for name in self.files if name.endswith(".tar"))

    def indices(self) -> list[str]:
        """Return the names of the indices."""
        return sorted(name for name in self.files if name.endswith(".index.json"))

    def any(self, rng: random.Random) -> str:
        """Return the name of some file: a tar, an index, or the manifest."""
        return rng.choice([rng.choice(self.tars()), rng.choice(self.indices()), MANIFEST])


def _place(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.choice([1, 4, 64, 512, 5000]))


def flip_a_bit(rng: random.Random, victim: Victim) -> None:
    """Flip one bit of a file."""
    name = victim.any(rng)
    data = victim.files[name]
    at = rng.randrange(len(data))
    victim.files[name] = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def overwrite(rng: random.Random, victim: Victim) -> None:
    """Write random bytes or zeros over a stretch of a file."""
    name = victim.any(rng)
    data = victim.files[name]
    first, last = _place(rng, data)
    new = rng.choice([rng.randbytes(last - first), bytes(last - first)])
    victim.files[name] = data[:first] + new + data[last:]


def truncate(rng: random.Random, victim: Victim) -> None:
    """Cut a file: at random, in a header, between two members, or in their data."""
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
    """Add bytes to the end of a file."""
    victim.files[victim.any(rng)] += rng.choice([b"\n", b"}", bytes(512), rng.randbytes(rng.randrange(1, 2000))])


def delete_a_stretch(rng: random.Random, victim: Victim) -> None:
    """Leave a stretch of a file out."""
    name = victim.any(rng)
    first, last = _place(rng, victim.files[name])
    victim.files[name] = victim.files[name][:first] + victim.files[name][last:]


def repeat_a_stretch(rng: random.Random, victim: Victim) -> None:
    """Repeat a stretch of a file."""
    name = victim.any(rng)
    first, last = _place(rng, victim.files[name])
    victim.files[name] = victim.files[name][:last] + victim.files[name][first:]


def swap_tars(rng: random.Random, victim: Victim, names: list[str] | None = None) -> None:
    """Swap two tars, or two other files."""
    a, b = rng.sample(names or victim.tars(), 2)
    victim.files[a], victim.files[b] = victim.files[b], victim.files[a]


def swap_indices(rng: random.Random, victim: Victim) -> None:
    """Swap two indices."""
    swap_tars(rng, victim, victim.indices())


def of_another_set(rng: random.Random, victim: Victim) -> None:
    """Put a tar, an index, or both of another set in their places."""
    name = rng.choice(victim.tars())
    for one in rng.choice([[name], [index_name(name)], [name, index_name(name)]]):
        victim.files[one] = victim.other[one]


def delete_a_file(rng: random.Random, victim: Victim) -> None:
    """Delete a file."""
    del victim.files[victim.any(rng)]


def empty_a_file(rng: random.Random, victim: Victim) -> None:
    """Empty a file."""
    victim.files[victim.any(rng)] = b""


def no_plain_file(rng: random.Random, victim: Victim) -> None:
    """Put a folder, a named pipe, or a link (to itself, in a circle, to nothing, out of the set) in a file's place."""
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


BYTES = (flip_a_bit, overwrite, truncate, append, delete_a_stretch, repeat_a_stretch)
FILES = (swap_tars, swap_indices, of_another_set, delete_a_file, empty_a_file, no_plain_file)
