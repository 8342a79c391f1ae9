"""What the reader of shard sets does with damaged ones: random damage, each case under a time limit, outcomes counted.

python -m benchmarks.fuzz [--cases 3000] [--seed 0] [--json benchmarks/results/fuzz.json]

Whatever is done to its files, a set is read right or refused in one line that names one of them. Exit status 1 if not.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.damage import BYTES, EDITS, FILES, MANIFEST, Victim
from benchmarks.report import options, processor, save
from pidscale.config import UserError
from pidscale.records.format import VERSION, index_name, sample_key
from pidscale.records.manifest import ChannelInfo, Manifest, Split
from pidscale.records.read import ShardSet
from pidscale.records.write import checksums, merge_stats, publish_manifest, write_shard

SHAPE = (2, 20, 6)  # two blocks of rows, the second a short one
SHARDS = {"train": (3, 3, 2), "test": (2, 2)}
OUTCOMES = ("right", "refused", "message", "wrong", "crashed", "hung")  # a case counts as the worst of its reads
LIMIT, ROOM = 10.0, 2**31  # seconds of a case; bytes that it may take
Kind = Callable[[random.Random, Victim], None]


class Hung(BaseException):
    """The time of a case is over."""


def truth(seed: int, split: str, number: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Fields and meta of a sample."""
    at = number + 1000 * (split == "test")
    fields = np.random.default_rng([seed, at]).normal(2.0, 3.0, SHAPE).astype(np.float32)
    return fields, {"seed": at, "params": {"nu": (at + seed) / 8}, "residual": {"l2": 1e-6}}


def make(root: Path, seed: int) -> dict[str, bytes]:
    """Write a set; its files."""
    root.mkdir(parents=True)
    splits, stats = {}, []
    for split, counts in SHARDS.items():
        ends = np.cumsum(counts).tolist()
        made = [
            write_shard(root, split, i, ((sample_key(n), *truth(seed, split, n)) for n in range(end - count, end)))
            for i, (count, end) in enumerate(zip(counts, ends, strict=True))
        ]
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


@contextmanager
def limits(seconds: float = LIMIT, room: int = ROOM) -> Iterator[Callable[[], None]]:
    """Bounds of time and memory; what is given back starts the clock anew. Main thread only.

    Not by SIGALRM, which the test runner has for itself.
    """
    clock, over = [time.monotonic()], threading.Event()
    main, soft_hard = threading.get_ident(), resource.getrlimit(resource.RLIMIT_AS)

    def ring(number: int, frame: Any) -> None:
        raise Hung

    def watch() -> None:
        while not over.wait(0.5):
            if time.monotonic() - clock[0] > seconds:
                clock[0] = time.monotonic()
                signal.pthread_kill(main, signal.SIGUSR1)

    before, thread = signal.signal(signal.SIGUSR1, ring), threading.Thread(target=watch, daemon=True)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    thread.start()
    resource.setrlimit(resource.RLIMIT_AS, (taken + room, soft_hard[1]))
    try:
        yield lambda: clock.__setitem__(0, time.monotonic())
    finally:
        over.set()
        thread.join()
        resource.setrlimit(resource.RLIMIT_AS, soft_hard)
        signal.signal(signal.SIGUSR1, before)


class Bench:
    """A set, another one, and a folder in which damaged ones are laid out and read."""

    def __init__(self, folder: Path) -> None:
        self.files, self.other = make(folder / "true", 1), make(folder / "other", 2)
        self.root = folder / "case" / "set"
        self.hash = json.loads(self.files[MANIFEST])["data_hash"]

    def victim(self) -> Victim:
        """The set, whole."""
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

    def judge(
        self, victim: Victim, opened: dict[str, ShardSet] | None = None, span: slice | None = None
    ) -> tuple[str, str]:
        """Read all of a set that lies there: the worst outcome, and what was said to it."""
        found = [("right", "")]
        for split in SHARDS:
            shards: ShardSet | None = (opened or {}).get(split)
            if shards is None:
                shards = self._try(found, partial(ShardSet, self.root, split))
            if shards is not None:
                if not victim.edited and shards.manifest.data_hash != self.hash:
                    found.append(("wrong", "another manifest"))
                for n in range(min(len(shards), 50)):
                    self._sample(found, victim, shards, split, n, span or slice(None))
                shards.close()
        if victim.refused and all(outcome == "right" for outcome, _ in found):
            return "wrong", "read although it must be refused"
        return max(found, key=lambda one: OUTCOMES.index(one[0]))

    def _sample(self, found: list, victim: Victim, shards: ShardSet, split: str, n: int, span: slice) -> None:
        fields = self._try(found, lambda: shards.read([n])[0])
        rows = self._try(found, lambda: shards.read([n], span)[0])
        meta = self._try(found, lambda: shards.meta(n))
        nu = self._try(found, lambda: shards.params([n], ["nu"])[0, 0])
        try:
            same = all(
                (
                    meta is None or nu is None or nu == meta["params"]["nu"],
                    fields is None or rows is None or np.array_equal(rows, fields[:, span]),
                    _said(victim, split, n, fields, meta) if victim.edited else _true(split, n, fields, meta),
                )
            )
        except Exception as error:  # the set does not say what was read from it
            found.append(("wrong", f"{split} {n}: accepted, but {error!r:.200}"))
        else:
            if not same:
                found.append(("wrong", f"{split} {n}: not what is stored"))

    def _try(self, found: list[tuple[str, str]], call: Callable[[], Any]) -> Any:
        try:
            return call()
        except UserError as error:
            said = str(error)
            named = any(str(self.root / name) in said for name in self.files)
            one = len(said.splitlines()) == 1 and said.isprintable() and len(said) < 1000
            found.append(("refused" if named and one else "message", said))
        except Hung:
            found.append(("hung", traceback.format_exc(limit=-3)))
        except (Exception, MemoryError):
            found.append(("crashed", traceback.format_exc(limit=-3)))
        return None


def _true(split: str, n: int, fields: np.ndarray | None, meta: dict[str, Any] | None) -> bool:
    wanted = truth(1, split, n)
    return (fields is None or np.array_equal(fields, wanted[0])) and (meta is None or meta == wanted[1])


def _said(victim: Victim, split: str, n: int, fields: np.ndarray | None, meta: dict[str, Any] | None) -> bool:
    """Whether this is what the edited files say, by another way of reading them."""
    if fields is None and meta is None:
        return True
    tree = json.loads(victim.files[MANIFEST])
    position, entries = n, iter(tree["splits"][split]["shards"])
    entry = next(entries)
    while position >= entry["samples"]:
        position, entry = position - entry["samples"], next(entries)
    sample = json.loads(victim.files[index_name(entry["name"])])["samples"][position]
    if meta is not None and meta != sample["meta"]:
        return False
    if fields is None:  # its rows were refused
        return True
    blocks = [[int(block, 16) for block in channel] for channel in sample["checksums"]]
    shape = (len(tree["channels"]), *tree["grid"]["shape"])
    same = blocks == [[int(block, 16) for block in channel] for channel in checksums(fields)]
    return same and fields.shape == shape and bool(np.isfinite(fields).all())


def kinds() -> dict[str, Kind]:
    """Every kind of damage by its name."""
    return {kind.__name__.replace("_", " "): kind for kind in (*BYTES, *FILES, *EDITS)}


def case(bench: Bench, seed: int, number: int) -> tuple[str, str, str]:
    """One case, a function of seed and number: kind of damage, outcome, what was said."""
    rng = random.Random(f"{seed}/{number}")
    named, victim = kinds(), bench.victim()
    name = list(named)[number % (len(named) + 1)] if number % (len(named) + 1) < len(named) else "while it is open"
    first = rng.randrange(SHAPE[1])
    span = slice(first, rng.randrange(first, SHAPE[1]) + 1)
    if name != "while it is open":
        named[name](rng, victim)
        bench.lay(victim)
        return name, *bench.judge(victim, span=span)
    bench.lay(victim)
    opened = {split: ShardSet(bench.root, split) for split in SHARDS}
    if rng.random() < 0.7:  # some shards are in use already, others are not
        opened["train"].read([rng.randrange(8)])
        opened["test"].meta(rng.randrange(4))
    rng.choice([*BYTES, *FILES])(rng, victim)
    bench.change(victim, rename=rng.random() < 0.5)
    return name, *bench.judge(victim, opened, span)


def run(cases: int, seed: int) -> tuple[dict[str, Counter[str]], list[dict[str, Any]]]:
    """Outcomes by kind of damage, and the cases that broke the law."""
    counts: dict[str, Counter[str]] = {}
    broken: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, limits() as start:
        bench = Bench(Path(folder))
        for number in range(cases):
            start()
            name, outcome, said = case(bench, seed, number)
            counts.setdefault(name, Counter())[outcome] += 1
            if outcome not in ("right", "refused"):
                broken.append({"case": number, "kind": name, "outcome": outcome, "said": said[:2000]})
    return counts, broken


def main() -> None:
    """Run, print a table, write JSON."""
    parser = options(__doc__, "fuzz")
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.perf_counter()
    counts, broken = run(arguments.cases, arguments.seed)
    seconds = time.perf_counter() - began
    total = sum(counts.values(), Counter())
    print(f"{'damage':<24}" + "".join(f"{outcome:>9}" for outcome in OUTCOMES))
    for name, found in [*counts.items(), ("all", total)]:
        print(f"{name:<24}" + "".join(f"{found[outcome]:>9}" for outcome in OUTCOMES))
    for one in broken[:20]:
        print(f"\ncase {one['case']}, {one['kind']}: {one['outcome']}\n{one['said']}")
    from pidscale.run.phases import versions  # after the limits of memory: it loads all that trains

    rows = [{"damage": name} | {outcome: found[outcome] for outcome in OUTCOMES} for name, found in counts.items()]
    meta = {"versions": versions(), "machine": processor(), "seed": arguments.seed, "cases": arguments.cases}
    result = {"rows": rows, "broken": broken, "meta": meta | {"seconds": round(seconds, 1)}}
    save(arguments.json, result)
    raise SystemExit(1 if broken else 0)


if __name__ == "__main__":
    main()
