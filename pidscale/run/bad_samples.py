"""Handles unreadable samples: either raise an error, or skip those in a list that all ranks agree on.

The list is stored in the run's folder, so that every attempt sees the same samples in the same order. Knows no models.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from pidscale.config import UserError
from pidscale.dataset.problem import Problem
from pidscale.files import write_atomic
from pidscale.parallel.mesh import Mesh, rank_slice
from pidscale.plain import json_text

LIST = "bad-samples.json"
_SHOWN = 3  # number of bad samples that are listed on the terminal; the file lists all


def settled(
    problem: Problem,
    folder: Path,
    mesh: Mesh,
    say: Callable[[str], None],
    keep: Callable[[Path], None] = lambda path: None,
) -> Problem:
    """Return the problem with the samples that a run uses. All ranks call it.

    With `data.on_bad_sample=refuse`, these are all samples. With `skip`, bad samples are omitted. A list from an earlier
    attempt is used unchanged; otherwise each rank reads its share of the samples once. Two broadcasts and one all-reduce of 8
    bytes; for a new list also a barrier and, for each split, a broadcast and an all-reduce of 8 bytes per sample.

    Args:
        problem: The problem with all samples.
        folder: Folder of the run, which holds the list.
        mesh: The mesh of ranks.
        say: Prints a line; called on the first rank if a new list omits samples.
        keep: Called with the file of a new list on the first rank.

    Returns:
        The problem with its `omitted` attribute set.

    Raises:
        UserError: When hosts see different sets, no sample of a split can be read, or the run's list cannot be used.
    """
    own = problem.manifest.data_hash
    first = mesh.broadcast(own)
    if mesh.any(own != first):
        raise UserError(
            f"data.path={problem.data.path}: rank {mesh.rank} sees a set with data_hash {own[:12]}, rank 0 one with "
            f"{first[:12]}; all hosts must see the same set"
        )
    path = folder / LIST
    known = mesh.broadcast(_known(path, problem) if mesh.first else None)
    if problem.data.on_bad_sample == "refuse":
        if known is not None and any(known.values()):
            raise UserError(f"{path}: this run omits bad samples; continue it with data.on_bad_sample=skip")
        return problem
    if known is None:
        aside = mesh.aside()  # whose collectives wait for ranks that read for hours
        known = {split: _bad(problem, split, aside) for split in problem.manifest.splits}
        if mesh.first:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json_text({"data_hash": own, "bad": known}, indent=1).encode())
            keep(path)
            for split, found in known.items():
                _warn(split, found, problem.manifest.splits[split].samples, path, say)
        aside.barrier()
        aside.leave()
    return replace(problem, omitted={split: sorted(map(int, found)) for split, found in known.items()})


def _known(path: Path, problem: Problem) -> dict[str, dict[str, str]] | None:
    """Return the list of an earlier attempt: for each split, the reason by sample number. None if there is no list."""
    if not path.exists():
        return None
    try:
        held = json.loads(path.read_bytes())
        known = {split: {str(int(n)): str(why) for n, why in found.items()} for split, found in held["bad"].items()}
        for split, found in known.items():
            count = problem.manifest.splits[split].samples
            if len(found) >= count or not all(0 <= int(n) < count for n in found):
                raise ValueError(split)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: not a list of bad samples; delete it, and the set is checked again") from None
    if held.get("data_hash") != problem.manifest.data_hash:
        raise UserError(f"{path}: a list for another set; change run.name, or delete it, and the set is checked again")
    return known


def _bad(problem: Problem, split: str, mesh: Mesh) -> dict[str, str]:
    """Return the bad samples of a split: reason by sample number. One all-reduce of 8 bytes per sample, one broadcast."""
    shards = problem.shards(split, whole=False)
    mine = rank_slice(len(shards), mesh.rank, mesh.world)
    flags = torch.zeros(len(shards))
    flags[list(shards.faults(range(mine.start, mine.stop)))] = 1
    numbers = mesh.sum(flags).nonzero().flatten().tolist()
    if len(numbers) == len(shards):
        raise UserError(f"{shards.where}: no sample of split {split!r} can be read; restore the set")
    reasons = shards.faults(numbers) if mesh.first else {}
    shards.close()
    found: dict[str, str] = mesh.broadcast({str(n): reasons.get(n, "read well the second time") for n in numbers})
    return found


def _warn(split: str, found: dict[str, str], total: int, path: Path, say: Callable[[str], None]) -> None:
    if found:
        shown = "; ".join(list(found.values())[:_SHOWN])
        say(f"warning: {len(found)} of {total} {split} samples are bad and omitted ({shown}); see {path}")
