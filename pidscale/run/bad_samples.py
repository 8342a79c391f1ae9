"""Samples that cannot be read: an error, or left out of a run by one list that all ranks agree on before it starts.

The list is kept with the run, so that every attempt sees the same samples in the same order. Knows no models.
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
_TOLD = 3  # samples named on the terminal; the file has all


def settled(problem: Problem, folder: Path, mesh: Mesh, say: Callable[[str], None]) -> Problem:
    """The problem on the samples that this run is to see.

    With data.on_bad_sample=refuse those are all of them. With skip, every sample is read once, each rank a share, and the
    bad ones are left out; a list that is there already is taken as it stands. UserError where hosts see different sets, or
    nothing is left.
    """
    own, first = problem.manifest.data_hash, mesh.broadcast(problem.manifest.data_hash)
    if mesh.any(own != first):
        raise UserError(
            f"data.path={problem.data.path}: rank {mesh.rank} finds a set with data_hash {own[:12]}, rank 0 one with "
            f"{first[:12]}; all hosts must see the same set"
        )
    path = folder / LIST
    known = mesh.broadcast(_known(path, problem) if mesh.first else None)
    if problem.data.on_bad_sample == "refuse":
        if known is not None and any(known.values()):
            raise UserError(f"{path}: this run leaves out bad samples; go on with data.on_bad_sample=skip")
        return problem
    if known is None:
        known = {split: _bad(problem, split, mesh) for split in problem.manifest.splits}
        if mesh.first:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json_text({"data_hash": own, "bad": known}, indent=1).encode())
            for split, found in known.items():
                _tell(split, found, problem.manifest.splits[split].samples, path, say)
        mesh.barrier()
    return replace(problem, omitted={split: sorted(map(int, found)) for split, found in known.items()})


def _known(path: Path, problem: Problem) -> dict[str, dict[str, str]] | None:
    """The list of an earlier attempt: reasons by stored number, by split."""
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
        raise UserError(f"{path}: not a list of bad samples; delete it to have the set looked through again") from None
    if held.get("data_hash") != problem.manifest.data_hash:
        raise UserError(f"{path}: a list for another set; change run.name, or delete it to have the set looked through")
    return known


def _bad(problem: Problem, split: str, mesh: Mesh) -> dict[str, str]:
    """Bad samples of a split, the same on every rank. One all-reduce of 8 bytes a sample."""
    shards = problem.shards(split, whole=False)
    mine = rank_slice(len(shards), mesh.rank, mesh.world)
    flags = torch.zeros(len(shards))
    flags[list(shards.faults(range(mine.start, mine.stop)))] = 1
    numbers = mesh.sum(flags).nonzero().flatten().tolist()
    if len(numbers) == len(shards):
        raise UserError(f"{shards.where}: no sample of split '{split}' can be read; restore the set")
    reasons = shards.faults(numbers) if mesh.first else {}
    shards.close()
    found: dict[str, str] = mesh.broadcast({str(n): reasons.get(n, "read well the second time") for n in numbers})
    return found


def _tell(split: str, found: dict[str, str], total: int, path: Path, say: Callable[[str], None]) -> None:
    if found:
        shown = "; ".join(list(found.values())[:_TOLD])
        say(f"warning: {len(found)} of {total} {split} samples are bad and left out ({shown}); see {path}")
