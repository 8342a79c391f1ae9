"""What determines every byte of a converted set: its files, the arguments, and which samples are in which split.

It is stored as the set's request. No path of this machine is part of it. Must not know how samples are read or written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pidscale import seeds
from pidscale.config import UserError
from pidscale.convert.files import find_files, short_names
from pidscale.convert.layouts.source import Source
from pidscale.convert.parameters import Parameters
from pidscale.convert.request import ConversionRequest
from pidscale.convert.sample_reader import SampleReader
from pidscale.convert.scan import Scan
from pidscale.files import file_sha256, tree_files, tree_sha256
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde
from pidscale.records.format import VERSION
from pidscale.records.json_checks import canonical


@dataclass(frozen=True)
class SourceFiles:
    """The files of a conversion.

    Attributes:
        source: The files of `source`.
        test: The files of `test`, where it names any.
        label: The text that names all files in messages.
    """

    source: tuple[Path, ...]
    test: tuple[Path, ...]
    label: str

    @staticmethod
    def find(request: ConversionRequest) -> SourceFiles:
        """Find the files that a request names.

        Args:
            request: The arguments of the conversion.

        Returns:
            The files.

        Raises:
            UserError: An argument names no file, or a file is in both `source` and `test`.
        """
        source = find_files("source", request.source)
        test = find_files("test", request.test) if isinstance(request.test, str) else []
        both = {path.resolve() for path in source} & {path.resolve() for path in test}
        if both:
            raise UserError(
                f"test={request.test}: {min(both)} is in source too; a test split must not hold samples that train"
            )
        single = len(source) + len(test) == 1
        return SourceFiles(tuple(source), tuple(test), str(source[0]) if single else request.source)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files, in the order of their samples."""
        return self.source + self.test

    def test_samples(self, counts: Sequence[int]) -> range | None:
        """Return the numbers of the samples in the test files, None if there are no such files.

        Args:
            counts: The number of samples in each file.

        Returns:
            A range of sample numbers over all files.
        """
        return range(sum(counts[: len(self.source)]), sum(counts)) if self.test else None

    def describe(self) -> list[dict[str, Any]]:
        """Return name, size in bytes and SHA-256 of each file, for a folder of all files in it."""
        names = short_names(self.paths)
        return [{"file": name} | _fingerprint(path) for name, path in zip(names, self.paths, strict=True)]


def _fingerprint(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    return {"bytes": sum(one.stat().st_size for one in tree_files(path)), "sha256": tree_sha256(path)}


def build_recipe(
    request: ConversionRequest, files: SourceFiles, pde: Pde, grid: Grid, reader: SampleReader, parameters: Parameters
) -> dict[str, Any]:
    """Build the part of the recipe that is known before the samples are read.

    Args:
        request: The arguments of the conversion.
        files: The files.
        pde: The equation.
        grid: The grid of the set.
        reader: The samples.
        parameters: The parameters of file and settings.

    Returns:
        Plain JSON values.
    """
    described = files.describe()
    layout = {"layout": reader.source.layout}
    splits = ["train"] * len(files.source) + ["test"] * len(files.test)
    several = {"files": [one | {"split": split} for one, split in zip(described, splits, strict=True)]}
    times = {"start": reader.times.start, "step": reader.times.step, "count": len(reader.times)}
    chosen = {"test": request.test, "seed": request.seed, "duplicates": request.duplicates, "force": request.force}
    chosen |= {"test": "files"} if files.test else {}
    chosen |= {"bad": request.bad} if request.bad != "refuse" else {}  # the requests of older sets have no such key
    return _plain(
        {
            "format": VERSION,
            "equation": pde.name,
            "params": pde.params_dict(),
            "grid": grid.describe(),
            "source": {**(described[0] if len(described) == 1 else several), **layout},
            "channels": {pick.slot: pick.describe() for pick in reader.picks},
            "parameters": parameters.used,
            "times": times,
            "ends": list(reader.dropped_ends),
            "samples_per_shard": request.samples_per_shard,
            **chosen,
        }
    )


def complete_recipe(
    recipe: Mapping[str, Any], pde: Pde, numbers: Mapping[str, Sequence[int]], found: Scan
) -> dict[str, Any]:
    """Add what only the samples determine: parameters, samples of each split, and the bad samples that are omitted.

    Args:
        recipe: The recipe without it.
        pde: The equation with its final parameters.
        numbers: The sample numbers of each split.
        found: Result of one pass over the samples.

    Returns:
        Plain JSON values.
    """
    added: dict[str, Any] = {
        "params": pde.params_dict(),
        "samples": {split: len(some) for split, some in numbers.items()},
    }
    added |= {"left_out": [one.number for one in found.bad]} if "bad" in recipe else {}
    return _plain({**recipe, **added})


def choose_splits(
    source: Source, request: ConversionRequest, found: Scan, test_samples: range | None
) -> tuple[dict[str, list[int]], list[tuple[int, int]]]:
    """Divide the samples that are neither bad nor copies into splits.

    Args:
        source: The open files.
        request: The arguments of the conversion.
        found: Result of one pass over the samples.
        test_samples: The samples of the test files; None to draw the test split with the seed.

    Returns:
        The sample numbers of each split in ascending order, and the copies as pairs (copy, original).

    Raises:
        UserError: There are copies that the request refuses, too many shards, or a split without samples.
    """
    kept, copies = found.distinct_samples()
    if copies and request.duplicates == "refuse":
        copy, original = (
            f"{path.name}: sample {local}" if source.files else str(local)
            for path, local in map(source.locate, copies[0])
        )
        raise UserError(
            f"{source.path}: {len(copies)} samples are copies, {'sample ' * (not source.files)}{copy} of {original}; set "
            "duplicates=drop to omit them"
        )
    if len(kept) > 99999 * request.samples_per_shard:
        raise UserError(
            f"samples_per_shard={request.samples_per_shard}: more than 99999 shards a split; make it larger"
        )
    if test_samples is None:
        chosen = _draw_test_samples(source.path, request, kept)
    else:
        chosen = set(test_samples) & set(kept)
        if not 0 < len(chosen) < len(kept):
            empty = "source" if chosen else f"test={request.test}"
            raise UserError(f"{empty}: all its samples are bad, or copies of samples of source; name other files")
    splits = {"train": [n for n in kept if n not in chosen]}
    if chosen:
        splits["test"] = [n for n in kept if n in chosen]
    return splits, copies


def _draw_test_samples(path: Path, request: ConversionRequest, kept: Sequence[int]) -> set[int]:
    """Draw the test samples with the seed."""
    assert not isinstance(request.test, str)
    count = round(request.test * len(kept)) if request.test < 1 else int(request.test)
    count = max(count, int(request.test > 0))
    if count >= len(kept):
        raise UserError(
            f"test={request.test:g}: {path} has {len(kept)} distinct sample{'s' * (len(kept) != 1)}, and some must remain to "
            "train on; set test=0 to train on all"
        )
    order = seeds.permutation(request.seed, "convert/test", 0, len(kept))
    return {kept[i] for i in order[:count].tolist()}


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    plain_values: dict[str, Any] = json.loads(canonical(value))
    return plain_values
