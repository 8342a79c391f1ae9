"""What the reader of shard sets does with damaged ones: random damage, each case under a time limit, outcomes counted.

python -m benchmarks.proofs.fuzz [--cases 3000] [--seed 0] [--quick] [--json benchmarks/results/fuzz.json]

Whatever is done to its files, a set is read right or refused in one line that names one of them. Exit status 1 if not. Two
options show that the benchmark finds what it looks for: --unchecked reads without checksums, --limit 0.0001 ends every case.
"""

from __future__ import annotations

import random
import resource
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.proofs.damage import BYTES, FILES, Victim
from benchmarks.proofs.edits import EDITS
from benchmarks.proofs.fuzz_bench import OUTCOMES, SHAPE, SHARDS, Bench, Hung
from benchmarks.report import Row, circumstances, options, save
from pidscale.records.read import ShardSet

QUICK = 400  # cases
LIMIT = 10.0  # seconds of a case
ROOM = 2**31  # bytes that the cases may take
OPEN = "while it is open"  # the kind of damage to a set that is being read
KINDS: dict[str, Callable[[random.Random, Victim], None]] = {
    kind.__name__.replace("_", " "): kind for kind in (*BYTES, *FILES, *EDITS)
}


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise Hung in a block that takes longer, every LIMIT seconds from then on, and at its end. Main thread only.

    The end counts whatever came of the interruption: some code swallows it (a finaliser), some fails on it in its own way.
    """
    late = False

    def on_alarm(number: int, frame: Any) -> None:
        nonlocal late
        late = True
        raise Hung

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if late:
            raise Hung


def limit_memory(room: int = ROOM) -> None:
    """Let this process take so many more bytes of memory."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + room, resource.getrlimit(resource.RLIMIT_AS)[1]))


def damage_and_read(bench: Bench, name: str, rng: random.Random) -> tuple[str, str]:
    """Damage a set in one way and read it: the worst outcome, and the words with it."""
    victim = bench.victim()
    first = rng.randrange(SHAPE[1])
    rows = slice(first, rng.randrange(first, SHAPE[1]) + 1)
    if name != OPEN:
        KINDS[name](rng, victim)
        bench.lay(victim)
        return bench.read(victim, rows)
    bench.lay(victim)
    opened = {split: bench.open_set(bench.root, split) for split in SHARDS}
    if rng.random() < 0.7:  # some shards are in use already, others are not
        opened["train"].read([rng.randrange(8)])
        opened["test"].meta(rng.randrange(4))
    rng.choice([*BYTES, *FILES])(rng, victim)
    bench.change(victim, rename=rng.random() < 0.5)
    return bench.read(victim, rows, opened)


def case(bench: Bench, seed: int, number: int, limit: float) -> tuple[str, str, str]:
    """Return kind of damage, outcome and words of one case, a function of seed and number."""
    names = [*KINDS, OPEN]
    name = names[number % len(names)]
    try:
        with time_limit(limit):
            return name, *damage_and_read(bench, name, random.Random(f"{seed}/{number}"))
    except Hung:
        return name, "hung", traceback.format_exc(limit=-3)


def run(cases: int, seed: int, limit: float, verify: bool) -> tuple[list[Row], list[Row]]:
    """Return the outcomes by kind of damage, and the cases in which a set was neither read right nor refused."""
    counts: dict[str, Counter[str]] = {}
    broken: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), partial(ShardSet, verify=verify))
        for number in range(cases):
            name, outcome, words = case(bench, seed, number, limit)
            counts.setdefault(name, Counter())[outcome] += 1
            if outcome not in ("right", "refused"):
                broken.append({"case": number, "kind": name, "outcome": outcome, "said": words[:2000]})
    rows = [{"damage": name} | {outcome: found[outcome] for outcome in OUTCOMES} for name, found in counts.items()]
    return rows, broken


def show(rows: list[Row], broken: list[Row]) -> None:
    """Print the outcomes, and the first cases that broke the law."""
    total = {"damage": "all"} | {outcome: sum(row[outcome] for row in rows) for outcome in OUTCOMES}
    print(f"{'damage':<24}" + "".join(f"{outcome:>9}" for outcome in OUTCOMES))
    for row in [*rows, total]:
        print(f"{row['damage']:<24}" + "".join(f"{row[outcome]:>9}" for outcome in OUTCOMES))
    for one in broken[:20]:
        print(f"\ncase {one['case']}, {one['kind']}: {one['outcome']}\n{one['said']}")


def main() -> None:
    """Run the cases, print a table and write the rows."""
    parser = options(__doc__, "fuzz")
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} cases")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of a case")
    parser.add_argument("--unchecked", action="store_true", help="read without checksums: some damage is not seen")
    arguments = parser.parse_args()
    cases = QUICK if arguments.quick else arguments.cases
    limits = resource.getrlimit(resource.RLIMIT_AS)
    limit_memory()
    began = time.perf_counter()
    rows, broken = run(cases, arguments.seed, arguments.limit, verify=not arguments.unchecked)
    seconds = time.perf_counter() - began
    resource.setrlimit(resource.RLIMIT_AS, limits)  # what circumstances() imports takes more
    show(rows, broken)
    meta = circumstances(seed=arguments.seed, cases=cases, seconds=round(seconds, 1))
    save(arguments.json, {"rows": rows, "broken": broken, "meta": meta})
    raise SystemExit(bool(broken))


if __name__ == "__main__":
    main()
