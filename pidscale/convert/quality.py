"""What a converted set is worth: its own residual, that of a null solution, and what the scheme reaches on the same grid.

Reads the set as training does. Must not know where it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde, solution_mask, truths
from pidscale.pde.evolution import Evolution
from pidscale.pde.residuals import truth_residuals
from pidscale.pde.terms import NORMS
from pidscale.records.manifest import Manifest
from pidscale.records.read import ShardSet

_NULL_VALUES = 2**23  # values that null solutions are measured on
_SOLVED, _SOLVED_VALUES = 32, 2**20  # most samples, and most values, that are solved here
TOLD = 3.0  # a truth tells itself from nothing if its residual is this many times smaller
HARDLY = 0.01  # share of a null solution's residual below which a set is never doubted, and no sample of it
ODD = 10.0  # a sample is told of whose residual is this many times the median
ALIKE = 0.5  # what a factor may leave of the difference to our own solution, and still be a matter of scaling
SCALED = 1.25  # a factor to our own solution that a coarse grid alone may leave


@dataclass(frozen=True)
class Odd:
    """Samples far above the others: how many of how many, the largest l2, and which sample of which file has it.

    file: of several, that file's name in the request; None of one.
    """

    count: int
    of: int
    largest: float
    source: int
    file: str | None = None


@dataclass(frozen=True)
class Worth:
    """Residuals by norm: of the data, of a null solution with their inputs, of samples solved here (None if none can be).

    against: of a steady equation, the factor that brings the solutions of the data nearest to those solved here from the
    same inputs, and the relative difference that is left. odd: samples that stand out, of all splits.
    """

    data: Mapping[str, float]
    trivial: Mapping[str, float]
    own: Mapping[str, float] | None
    against: tuple[float, float] | None
    odd: Odd | None = None

    def warnings(self, pde: Pde, scale: float = 1.0) -> list[str]:
        """What a user must know before training on the residual, in plain words. scale: of the solution, already applied."""
        said = []
        data, trivial = self.data["l2"], self.trivial["l2"]
        if self.against is not None and not 1 / SCALED < self.against[0] < SCALED:
            factor, left = self.against
            channel = next(c.name for c in pde.channels if c.role == "solution")
            found = (
                f"{channel} has an unknown scaling: solved here from the same inputs it is {factor:.3g} times as large"
            )
            said.append(
                f"{found} (and differs by {left:.0%} even then); set scale.{channel}={factor * scale:.3g}"
                if left <= ALIKE
                else f"{found} and differs by {left:.0%} even then: no factor alone mends that"
            )
        if data * TOLD > trivial:
            said.append(
                f"these data do not obey {pde.name} on this grid: l2 is {data:.2g}, that of a null solution {trivial:.2g}; a "
                "residual loss would teach nothing true. Sub-sampled fields, other parameters or another scaling do this: "
                "take the full grid, or train without the residual"
            )
        elif self.own is not None and data > HARDLY * trivial and data > TOLD * self.own["l2"]:
            said.append(
                f"l2 is {data:.2g}, where the scheme reaches {self.own['l2']:.2g} on this grid: coarse times or places, or "
                "parameters that are not quite those of the data"
            )
        if self.odd is not None:
            said.append(
                f"{self.odd.count} of {self.odd.of} samples have an l2 more than {ODD:g} times the median, the largest "
                f"{self.odd.largest:.2g} in sample {self.odd.source} of {self.odd.file or 'the file'}: look at them, and "
                "leave out what is wrong"
            )
        return said

    def table(self) -> list[str]:
        """Three rows of numbers."""
        rows = {"these data": self.data, "null solution": self.trivial, "solved here": self.own}
        lines = [f"  {'residual':<14}" + "".join(f"{norm:>10}" for norm in NORMS)]
        for name, row in rows.items():
            cells = (
                [f"{row[norm]:>10.2g}" for norm in NORMS]
                if row is not None
                else ["       (cannot be solved on this grid)"]
            )
            lines.append(f"  {name:<14}" + "".join(cells))
        return lines


def judge(root: str | Path, manifest: Manifest, pde: Pde, grid: Grid) -> Worth:
    """Measure a set: null solutions on part of the train split, and samples solved here, 32 at most."""
    shards = ShardSet(root, "train")
    one = len(pde.channels) * grid.shape[0] * grid.shape[1]
    ids = range(min(len(shards), max(1, _NULL_VALUES // one)))
    fields, params = shards.read(ids), shards.params(ids, pde.varying)
    null = _rms(truth_residuals(pde, grid, pde.trivial(torch.from_numpy(fields)).numpy(), params))
    floor = manifest.truth_residual["train"]
    count = max(1, min(_SOLVED, _SOLVED_VALUES // one))
    try:
        own = truths(pde, 0, range(2**41, 2**41 + count), grid)
        reached = _rms(truth_residuals(pde, grid, own.fields.float().numpy(), own.params.numpy()))
        against = _against(pde, grid, fields[:count])
    except (ValueError, IndexError, ZeroDivisionError):  # solvers may need other numbers of points than residuals
        return Worth({n: floor[n] for n in NORMS}, null, None, None, _odd(root, manifest, HARDLY * null["l2"]))
    odd = _odd(root, manifest, max(HARDLY * null["l2"], TOLD * reached["l2"]))
    return Worth({n: floor[n] for n in NORMS}, null, reached, against, odd)


def _odd(root: str | Path, manifest: Manifest, least: float) -> Odd | None:
    """The samples that stand out, by the residual that the set keeps of each. least: what a coarse grid may leave."""
    sets = [ShardSet(root, split) for split in sorted(manifest.splits)]
    metas = [shards.meta(i) for shards in sets for i in range(len(shards))]
    l2 = np.array([meta["residual"]["l2"] for meta in metas])
    count = int((l2 > max(ODD * float(np.median(l2)), least)).sum())
    worst = int(np.argmax(l2))
    number, file = int(metas[worst].get("source", worst)), metas[worst].get("file")
    name = None if file is None else manifest.request["source"]["files"][file]["file"]
    return Odd(count, len(l2), float(l2[worst]), number, name) if count else None


def _rms(norms: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float(np.sqrt(np.mean(np.square(values)))) for name, values in norms.items()}


def _against(pde: Pde, grid: Grid, fields: np.ndarray) -> tuple[float, float] | None:
    """Factor and what is left of the difference between given and solved solutions, of equations without time."""
    if isinstance(pde, Evolution) or not pde.unknown(grid).all():  # input and solution are one quantity
        return None
    mask = solution_mask(pde, grid).numpy()
    given = np.stack([field[mask] for field in fields]).astype(np.float64)
    solved = np.stack([pde.solve(field, grid)[0][mask] for field in fields])
    factor = float((given * solved).sum() / max((given * given).sum(), 1e-300))
    return factor, float(np.linalg.norm(factor * given - solved) / np.linalg.norm(solved))
