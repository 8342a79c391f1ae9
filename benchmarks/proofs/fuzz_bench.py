"""A small shard set that benchmarks.proofs.fuzz damages, and what comes of reading it.

Reading is right when it gives what was written, or what edited files hold by another way of reading them.
"""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.proofs.damage import MANIFEST, Victim
from pidscale.config import UserError
from pidscale.records.format import VERSION, index_name, sample_key
from pidscale.records.manifest import ChannelInfo, Manifest, Split
from pidscale.records.read import ShardSet
from pidscale.records.write import checksums, merge_stats, publish_manifest, write_shard

SHAPE = (2, 20, 6)  # two blocks of rows, the second a short one
SHARDS = {"train": (3, 3, 2), "test": (2, 2)}
OUTCOMES = ("right", "refused", "message", "wrong", "crashed", "hung")  # a case counts as the worst of its reads
MOST = 50  # samples of a split that are read, however many it claims
Found = list[tuple[str, str]]  # outcomes, and the words with each


class Hung(BaseException):
    """The time of a case is over."""


def truth(seed: int, split: str, number: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the fields and the meta of a sample."""
    at = number + 1000 * (split == "test")
    fields = np.random.default_rng([seed, at]).normal(2.0, 3.0, SHAPE).astype(np.float32)
    return fields, {"seed": at, "params": {"nu": (at + seed) / 8}, "residual": {"l2": 1e-6}}


def make(root: Path, seed: int) -> dict[str, bytes]:
    """Write a set, and return its files."""
    root.mkdir(parents=True)
    splits = {}
    stats = []
    for split, counts in SHARDS.items():
        ends = np.cumsum(counts).tolist()
        made = []
        for i, (count, end) in enumerate(zip(counts, ends, strict=True)):
            samples = ((sample_key(n), *truth(seed, split, n)) for n in range(end - count, end))
            made.append(write_shard(root, split, i, samples))
        first = truth(seed, split, 0)[1]["seed"]
        splits[split] = Split((first, first + ends[-1]), ends[-1], tuple(entry for entry, _ in made))
        stats += [s for _, s in made] if split == "train" else []
    merged = merge_stats(stats)
    manifest = Manifest(
        version=VERSION,
        equation="darcy",
        channels=(ChannelInfo("permeability", "1", "input"), ChannelInfo("pressure", "1", "solution")),
        grid={"kind": "node", "shape": list(SHAPE[1:]), "extent": [1.0, 1.0], "boundary": "dirichlet"},
        params={"variant": "two_phase", "source": 1.0},
        normaliser={"mean": list(merged.mean), "std": list(merged.std)},
        dtype="float32",
        splits=splits,
        truth_residual={"train": {"l2": 1e-6, "max_l2": 2e-6}},
        request={"seed": seed},
    )
    publish_manifest(root, manifest)
    return {path.name: path.read_bytes() for path in sorted(root.iterdir())}


class Bench:
    """A set, another one, and a folder in which damaged ones are laid out and read."""

    def __init__(self, folder: Path, open_set: Callable[[Path, str], ShardSet]) -> None:
        self.files = make(folder / "true", 1)
        self.other = make(folder / "other", 2)
        self.root = folder / "case" / "set"
        self.hash = json.loads(self.files[MANIFEST])["data_hash"]
        self.open_set = open_set

    def victim(self) -> Victim:
        """Return the set, whole."""
        return Victim(dict(self.files), self.other)

    def lay(self, victim: Victim) -> None:
        """Write a damaged set."""
        shutil.rmtree(self.root.parent, ignore_errors=True)
        self.root.mkdir(parents=True)
        for name, data in victim.files.items():
            (self.root / name).write_bytes(data)
        for strange in victim.strange:
            strange(self.root)

    def change(self, victim: Victim, rename: bool) -> None:
        """Damage a set that lies there and is open: in its files, or by others in their place."""
        for name in self.files:
            path = self.root / name
            if name not in victim.files:
                path.unlink()
            elif victim.files[name] != self.files[name] and rename:
                path.with_suffix(".new").write_bytes(victim.files[name])
                path.with_suffix(".new").replace(path)
            elif victim.files[name] != self.files[name]:
                path.write_bytes(victim.files[name])
        for strange in victim.strange:
            strange(self.root)

    def read(self, victim: Victim, rows: slice, opened: dict[str, ShardSet] | None = None) -> tuple[str, str]:
        """Read all of the set that lies there.

        Args:
            victim: What was done to it.
            rows: The rows that are also read alone.
            opened: The splits that are open already.

        Returns:
            The worst outcome, and the words with it.
        """
        found: Found = [("right", "")]
        for split in SHARDS:
            shards: ShardSet | None = (opened or {}).get(split)
            if shards is None:
                shards = self._try(found, partial(self.open_set, self.root, split))
            if shards is not None:
                if not victim.edited and shards.manifest.data_hash != self.hash:
                    found.append(("wrong", "another manifest"))
                for n in range(min(len(shards), MOST)):
                    self._sample(found, victim, shards, split, n, rows)
                shards.close()
        if victim.refused and all(outcome == "right" for outcome, _ in found):
            return "wrong", "read although it must be refused"
        return max(found, key=lambda one: OUTCOMES.index(one[0]))

    def _sample(self, found: Found, victim: Victim, shards: ShardSet, split: str, n: int, span: slice) -> None:
        """Read a sample in every way, and compare what came."""
        fields = self._try(found, lambda: shards.read([n])[0])
        rows = self._try(found, lambda: shards.read([n], span)[0])
        meta = self._try(found, lambda: shards.meta(n))
        nu = self._try(found, lambda: shards.params([n], ["nu"])[0, 0])
        try:
            same = all(
                (
                    meta is None or nu is None or nu == meta["params"]["nu"],
                    fields is None or rows is None or np.array_equal(rows, fields[:, span]),
                    _as_edited(victim, split, n, fields, meta) if victim.edited else _as_made(split, n, fields, meta),
                )
            )
        except Exception as error:  # the set does not hold what was read from it
            found.append(("wrong", f"{split} {n}: accepted, but {error!r:.200}"))
        else:
            if not same:
                found.append(("wrong", f"{split} {n}: not what is stored"))

    def _try(self, found: Found, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except UserError as error:
            words = str(error)
            named = any(str(self.root / name) in words for name in self.files)
            one_line = len(words.splitlines()) == 1 and words.isprintable() and len(words) < 1000
            found.append(("refused" if named and one_line else "message", words))
        except Hung:
            found.append(("hung", traceback.format_exc(limit=-3)))
        except (Exception, MemoryError):
            found.append(("crashed", traceback.format_exc(limit=-3)))
        return None


def _as_made(split: str, n: int, fields: np.ndarray | None, meta: dict[str, Any] | None) -> bool:
    wanted = truth(1, split, n)
    return (fields is None or np.array_equal(fields, wanted[0])) and (meta is None or meta == wanted[1])


def _as_edited(victim: Victim, split: str, n: int, fields: np.ndarray | None, meta: dict[str, Any] | None) -> bool:
    """Whether this is what the edited files hold, by another way of reading them."""
    if fields is None and meta is None:
        return True
    tree = json.loads(victim.files[MANIFEST])
    position = n
    entries = iter(tree["splits"][split]["shards"])
    entry = next(entries)
    while position >= entry["samples"]:
        position -= entry["samples"]
        entry = next(entries)
    sample = json.loads(victim.files[index_name(entry["name"])])["samples"][position]
    if meta is not None and meta != sample["meta"]:
        return False
    if fields is None:  # its rows were refused
        return True
    blocks = [[int(block, 16) for block in channel] for channel in sample["checksums"]]
    shape = (len(tree["channels"]), *tree["grid"]["shape"])
    same = blocks == [[int(block, 16) for block in channel] for channel in checksums(fields)]
    return same and fields.shape == shape and bool(np.isfinite(fields).all())
