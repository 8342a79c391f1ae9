"""What decides every byte of a converted set: its files, what was asked, and which samples are in which split.

No path of this machine gets into it. Must not know how samples are read or written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pidscale import seeds
from pidscale.config import UserError
from pidscale.convert.files import files_of, short_names
from pidscale.convert.layouts.source import Source
from pidscale.convert.parameters import Parameters
from pidscale.convert.reading import Reading
from pidscale.convert.request import Asked
from pidscale.convert.scan import Scan
from pidscale.files import file_sha256
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde
from pidscale.records.format import VERSION
from pidscale.records.json_checks import canonical


@dataclass(frozen=True)
class Files:
    """The files of a conversion: those of `source`, then those of `test` where it names some. word: all of them, in short."""

    source: tuple[Path, ...]
    test: tuple[Path, ...]
    word: str

    @staticmethod
    def of(asked: Asked) -> Files:
        """Find them. UserError for a word that names none, or a file that is in both."""
        source = files_of("source", asked.source)
        test = files_of("test", asked.test) if isinstance(asked.test, str) else []
        both = {path.resolve() for path in source} & {path.resolve() for path in test}
        if both:
            raise UserError(f"test={asked.test}: {min(both)} is in source too; a test split holds what no training saw")
        single = len(source) + len(test) == 1
        return Files(tuple(source), tuple(test), str(source[0]) if single else asked.source)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them, in the order of their samples."""
        return self.source + self.test

    def held_out(self, counts: Sequence[int]) -> range | None:
        """The samples of the test files, None where there are none. counts: samples of each file."""
        return range(sum(counts[: len(self.source)]), sum(counts)) if self.test else None

    def origins(self) -> list[dict[str, Any]]:
        """Name, bytes and SHA-256 of each."""
        names = short_names(self.paths)
        return [
            {"file": name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
            for name, path in zip(names, self.paths, strict=True)
        ]


def asked_for(asked: Asked, files: Files, pde: Pde, grid: Grid, reading: Reading, found: Parameters) -> dict[str, Any]:
    """What decides every byte of the set but what the samples themselves say."""
    origins, layout = files.origins(), {"layout": reading.source.layout}
    ends = ["train"] * len(files.source) + ["test"] * len(files.test)
    several = {"files": [one | {"split": split} for one, split in zip(origins, ends, strict=True)]}
    times = {"start": reading.times.start, "step": reading.times.step, "count": len(reading.times)}
    chosen = {"test": asked.test, "seed": asked.seed, "duplicates": asked.duplicates, "force": asked.force}
    chosen |= {"test": "files"} if files.test else {}
    chosen |= {"bad": asked.bad} if asked.bad != "refuse" else {}  # sets of before there was a choice have no such key
    return _plain(
        {
            "format": VERSION,
            "equation": pde.name,
            "params": pde.params_dict(),
            "grid": grid.describe(),
            "source": {**(origins[0] if len(origins) == 1 else several), **layout},
            "channels": {pick.slot: pick.describe() for pick in reading.picks},
            "parameters": found.used,
            "times": times,
            "ends": list(reading.ends),
            "samples_per_shard": asked.samples_per_shard,
            **chosen,
        }
    )


def settled(request: Mapping[str, Any], pde: Pde, numbers: Mapping[str, Sequence[int]], seen: Scan) -> dict[str, Any]:
    """The request with what the samples themselves say. left_out: bad ones, by their number over all files."""
    said: dict[str, Any] = {
        "params": pde.params_dict(),
        "samples": {split: len(some) for split, some in numbers.items()},
    }
    said |= {"left_out": [one.number for one in seen.bad]} if "bad" in request else {}
    return _plain({**request, **said})


def splits(
    source: Source, asked: Asked, seen: Scan, held_out: range | None
) -> tuple[dict[str, list[int]], list[tuple[int, int]]]:
    """Samples of each split, rising, without copies: those of the test files, or a draw of the seed."""
    kept, copies = seen.kept()
    if copies and asked.duplicates == "refuse":
        names = [
            f"{path.name}: sample {own}" if source.files else str(own) for path, own in map(source.place, copies[0])
        ]
        raise UserError(
            f"{source.path}: {len(copies)} samples are copies, {'sample ' * (not source.files)}{' of '.join(names)}; set "
            "duplicates=drop to leave them out"
        )
    if len(kept) > 99999 * asked.samples_per_shard:
        raise UserError(f"samples_per_shard={asked.samples_per_shard}: more than 99999 shards a split; make it larger")
    chosen = set(held_out or ()) & set(kept) if held_out is not None else _drawn(source.path, asked, kept)
    if held_out is not None and not 0 < len(chosen) < len(kept):
        empty = "source" if chosen else f"test={asked.test}"
        raise UserError(f"{empty}: every sample of it is bad or a copy of one of source; name other files")
    found = {"train": [n for n in kept if n not in chosen]}
    if chosen:
        found["test"] = [n for n in kept if n in chosen]
    return found, copies


def _drawn(path: Path, asked: Asked, kept: Sequence[int]) -> set[int]:
    """The test samples that the seed chooses."""
    assert not isinstance(asked.test, str)
    count = round(asked.test * len(kept)) if asked.test < 1 else int(asked.test)
    count = max(count, int(asked.test > 0))
    if count >= len(kept):
        raise UserError(
            f"test={asked.test:g}: {path} has {len(kept)} different sample{'s' * (len(kept) != 1)}, and some must be left to "
            "train on; set test=0 to train on all"
        )
    order = seeds.permutation(asked.seed, "convert/test", 0, len(kept))
    return {kept[i] for i in order[:count].tolist()}


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    plain_values: dict[str, Any] = json.loads(canonical(value))
    return plain_values
