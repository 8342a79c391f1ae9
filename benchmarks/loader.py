"""Fields a second from one core: our reader, the stock webdataset library and torch's DataLoader; and bytes read per rank.

python -m benchmarks.loader [--json benchmarks/results/loader.json] [--page docs/loader.md] [--repeats 5] [--gib 1]

The same numbers, [2, 1024, 1024] (8 MiB) and [1, 128, 128] (64 KiB), lie in a shard set, in npy files and in an HDF5 file,
in the page cache. Each contestant (benchmarks/contestants.py) is a process on one core with one thread of torch; only a
DataLoader with workers may use all cores. They take turns, one epoch each in random order, `--repeats` times; an epoch
before that warms them and proves that all deliver the same numbers. Ours delivers batches [B, C, Y, X] in a shuffled order,
a DataLoader collated ones in the order of the files, webdataset single decoded arrays, not collated and in order: that
favours it. Its best setting is chosen by measurement, for each size.

Ours reads with preadv into the batch itself, 1 MiB at a time. Milliseconds per 8 MiB on 2 shared cores of an AMD EPYC, over
several runs: preadv 0.75 to 1.35 into memory aligned to 64 bytes, as torch's is, 1.0 to 1.9 into numpy's, aligned to 16; a
copy out of mmap 0.65 to 0.85. With checksums, in one run: 0.83 in pieces of 256 KiB, 0.72 of 1 MiB, 0.85 of 8 MiB. So mmap
is as fast or faster; it is not used because a file that is cut or fails while it is read would end the process instead of
being named, and because the kernel does not count what is read through it.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import xxhash

from benchmarks.contestants import CHECKED, CONTESTANTS, DECODE, SEED, UNCHECKED, Case, Epoch
from benchmarks.loader_page import best, page
from benchmarks.report import options, processor, save
from pidscale.parallel.mesh import rank_slice
from pidscale.records.format import VERSION, sample_key
from pidscale.records.manifest import ChannelInfo, Manifest, Split
from pidscale.records.read import ShardSet
from pidscale.records.write import merge_stats, publish_manifest, write_shard
from pidscale.run.phases import versions

GIB = 2**30
SPACE = (1, 2, 4)
TOLERANCE = 0.05  # of bytes per rank
GOALS = {("checked", "decode()", "8 MiB"): 4.0, ("checked", "decode()", "64 KiB"): 2.0}
GOALS |= {
    (ours, "best setting", size): goal
    for size in ("8 MiB", "64 KiB")
    for ours, goal in (("unchecked", 2.5), ("checked", 1.5))
}


def cases(root: Path, gib: float) -> list[Case]:
    """Large and small fields; the small ones an eighth of the bytes."""
    found = []
    for name, shape, batch, total in (("8 MiB", (2, 1024, 1024), 4, gib), ("64 KiB", (1, 128, 128), 64, gib / 8)):
        batches = max(1, round(total * GIB / (4 * int(np.prod(shape)) * batch)))
        found.append(Case(name, shape, batch, batch * batches, root / name.replace(" ", "")))
    return found


def make(case: Case) -> None:
    """The same numbers three times: shards of about 128 MiB, npy files, one HDF5 file."""
    shards, per = case.root / "shards", max(1, 2**27 // case.size)
    for folder in (shards, case.root / "npy"):
        folder.mkdir(parents=True)
    with h5py.File(case.root / "fields.h5", "w") as file:
        fields = file.create_dataset("fields", (case.samples, *case.shape), np.float32)

        def drawn(first: int, last: int) -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:
            for n in range(first, last):
                field = np.random.default_rng([SEED, n]).standard_normal(case.shape, np.float32)
                fields[n] = field
                np.save(case.root / "npy" / f"{sample_key(n)}.npy", field)
                yield sample_key(n), field, {"seed": n, "params": {}, "residual": {}}

        starts = range(0, case.samples, per)
        parts = [write_shard(shards, "train", i, drawn(n, min(n + per, case.samples))) for i, n in enumerate(starts)]
    stats = merge_stats([stats for _, stats in parts])
    split = Split((0, case.samples), case.samples, tuple(entry for entry, _ in parts))
    manifest = Manifest(
        version=VERSION,
        equation="darcy",
        channels=tuple(ChannelInfo(f"c{c}", "1", "input") for c in range(case.shape[0])),
        grid={"kind": "node", "shape": list(case.shape[1:]), "extent": [1.0, 1.0], "boundary": "dirichlet"},
        params={},
        normaliser={"mean": list(stats.mean), "std": list(stats.std)},
        dtype="float32",
        splits={"train": split},
        truth_residual={},
        request={},
    )
    publish_manifest(shards, manifest)


def _sum(epoch: Epoch, case: Case) -> tuple[int, int]:
    """Samples of an epoch, and the sum of their hashes: the same in any order."""
    count, total = 0, 0
    for delivered in epoch():
        for sample in delivered.reshape(-1, *case.shape):
            count, total = count + 1, total + xxhash.xxh3_64_intdigest(np.ascontiguousarray(sample).data)
    return count, total % 2**64


def _seconds(epoch: Epoch, case: Case) -> float:
    began, delivered = time.perf_counter(), 0
    for batch in epoch():
        delivered += batch.size
    seconds = time.perf_counter() - began
    assert 4 * delivered == case.samples * case.size
    return seconds


def _serve(open_it: Callable[[Case], Epoch], case: Case, cores: set[int], line: Connection, far: Connection) -> None:
    """A contestant's process: an epoch each time that it is asked for one."""
    far.close()
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(1)
    epoch = open_it(case)
    while (asked := line.recv()) != "end":
        line.send(_sum(epoch, case) if asked == "sum" else _seconds(epoch, case))


class _Contestant:
    """A process that reads, and its turns."""

    def __init__(self, name: str, case: Case) -> None:
        free = os.sched_getaffinity(0)
        cores = free if name.endswith(("1 workers", "2 workers")) else {max(free)}
        self._line, other = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")  # what is imported is shared
        self._process = context.Process(target=_serve, args=(CONTESTANTS[name], case, cores, other, self._line))
        self._process.start()
        other.close()
        self.name, self.cores, self.seconds = name, len(cores), list[float]()

    def ask(self, what: str) -> Any:
        """The answer; SystemExit where the process has ended instead, and said why."""
        try:
            self._line.send(what)
            return self._line.recv()
        except (BrokenPipeError, EOFError, ConnectionResetError):
            raise SystemExit(f"error: '{self.name}' ended without an answer") from None

    def end(self) -> None:
        """End the process, which may have ended."""
        with suppress(BrokenPipeError):
            self._line.send("end")
        self._process.join(timeout=10)
        self._process.terminate()
        self._process.join()


def measure(case: Case, repeats: int) -> list[dict[str, Any]]:
    """A row per contestant. SystemExit if one delivers other numbers."""
    running: list[_Contestant] = []
    try:
        running.extend(_Contestant(name, case) for name in CONTESTANTS)
        sums = {one.name: one.ask("sum") for one in running}
        if len(set(sums.values())) > 1 or sums[CHECKED][0] != case.samples:
            raise SystemExit(f"error: {case.name}: contestants delivered different numbers: {sums}")
        for turn in range(repeats):  # in another order each time: who comes after whom must not decide
            for i in np.random.default_rng([SEED, turn]).permutation(len(running)):
                running[i].seconds.append(running[i].ask("time"))
    finally:
        for one in running:
            one.end()
    rows = []
    for one in running:
        rates = [case.samples / seconds for seconds in one.seconds]
        middle = statistics.median(rates)
        rows.append(
            {
                "case": case.name,
                "shape": case.shape,
                "batch": case.batch,
                "samples": case.samples,
                "contestant": one.name,
            }
            | {"cores": one.cores, "sum": f"{sums[one.name][1]:016x}", "fields_per_second": middle}
            | {"low": min(rates), "high": max(rates), "gib_per_second": middle * case.size / GIB, "runs": rates}
        )
    return rows


def ratios(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of one case: ours to the others, by medians; low and high over the repeats, in which they took turns."""
    by_name = {row["contestant"]: row for row in rows}
    others = {"decode()": by_name[DECODE], "best setting": best(rows, "webdataset")}
    others |= {f"DataLoader, {kind}": best(rows, f"DataLoader, {kind}") for kind in ("npy", "HDF5")}
    found: dict[str, Any] = {}
    for label, name in (("checked", CHECKED), ("unchecked", UNCHECKED)):
        for to, other in others.items():
            each = [a / b for a, b in zip(by_name[name]["runs"], other["runs"], strict=True)]
            ratio = by_name[name]["fields_per_second"] / other["fields_per_second"]
            goal = GOALS.get((label, to, rows[0]["case"]))
            found[f"{label} to {to}"] = {"ratio": ratio, "low": min(each), "high": max(each), "goal": goal}
            found[f"{label} to {to}"] |= {"other": other["contestant"]}
    return found


def _rchar() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def bytes_per_rank(case: Case) -> list[dict[str, Any]]:
    """What each rank of a space axis reads, as the reader and as the kernel count it. SystemExit for another share."""
    found = []
    for space in SPACE:
        for rank in range(space):
            shards, rows = ShardSet(case.root / "shards", "train"), rank_slice(case.shape[1], rank, space)
            for sample in range(len(shards)):
                shards.meta(sample)  # indices are read before the count begins
            before = _rchar()
            shards.read(range(case.batch), rows)
            counted, whole = _rchar() - before, case.batch * case.size
            row: dict[str, Any] = {
                "case": case.name,
                "space": space,
                "rank": rank,
                "bytes": shards.bytes_read,
                "rchar": counted,
            }
            row |= {"share": shards.bytes_read / whole, "rchar_share": counted / whole, "samples": case.batch}
            if any(abs(row[key] * space - 1) > TOLERANCE for key in ("share", "rchar_share")):
                raise SystemExit(f"error: a rank read another share than 1 / {space}: {row}")
            found.append(row)
    return found


def check_room(folder: Path, gib: float) -> None:
    """SystemExit if the data does not fit on disk, or not into the page cache."""
    needed = int(3.2 * 1.125 * gib * GIB) + 2**28
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    info = Path("/proc/meminfo").read_text().splitlines()
    memory = max([memory, *(1024 * int(line.split()[1]) for line in info if line.startswith("MemAvailable"))])
    for what, there in (("disk", shutil.disk_usage(folder).free), ("memory", memory)):
        if there < needed:
            raise SystemExit(f"error: {needed / GIB:.1f} GiB of {what} needed, {there / GIB:.1f} are free; lower --gib")


def report(result: dict[str, Any]) -> None:
    """Print rows, ratios and bytes."""
    for row in result["rows"]:
        print(
            f"{row['case']:>7}  {row['contestant']:<52} {row['fields_per_second']:>9.0f} fields/s "
            f"({row['low']:.0f} to {row['high']:.0f})  {row['gib_per_second']:.2f} GiB/s"
        )
    for name, found in result["ratios"].items():
        for label, one in found.items():
            goal = "" if one["goal"] is None else f"  goal {one['goal']:g}"
            print(
                f"{name:>7}  {label:<32} {one['ratio']:6.2f} ({one['low']:.2f} to {one['high']:.2f}){goal}  {one['other']}"
            )
    for row in result["bytes"]:
        rank = f"rank {row['rank']} of {row['space']}"
        print(f"{row['case']:>7}  {rank}: {row['share']:.4f} of the bytes, rchar {row['rchar_share']:.4f}")


def main() -> None:
    """Make the data, measure, print, write JSON, delete the data."""
    parser = options(__doc__, "loader", "docs/loader.md")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gib", type=float, default=1.0)
    arguments = parser.parse_args()
    meta = {"machine": processor(), "repeats": arguments.repeats, "seeds": [SEED], "gib": arguments.gib}
    meta["versions"] = versions() | {name: version(name) for name in ("h5py", "xxhash")}
    result: dict[str, Any] = {"rows": [], "ratios": {}, "bytes": [], "meta": meta}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="loader-") as folder:
        check_room(Path(folder), arguments.gib)
        for case in cases(Path(folder), arguments.gib):
            make(case)
            rows = measure(case, arguments.repeats)
            result["rows"] += rows
            result["ratios"][case.name] = ratios(rows)
            result["bytes"] += bytes_per_rank(case)
            shutil.rmtree(case.root)
    report(result)
    save(arguments.json, result)
    arguments.page.write_text(page(result))


if __name__ == "__main__":
    main()
