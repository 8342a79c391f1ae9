"""The quality of a converted set: its own residual, that of a null solution, and what our solver reaches on the same grid.

Reads the set as training does. Must not know where the set came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pidscale.ops.grid import Grid
from pidscale.pde.base import UNSEEN, Pde, solution_mask, truths
from pidscale.pde.evolution import Evolution
from pidscale.pde.residuals import truth_residuals
from pidscale.pde.terms import NORMS
from pidscale.records.manifest import Manifest
from pidscale.records.read import ShardSet

_MAX_NULL_VALUES = 2**23  # values of the null solutions that are measured
_MAX_SOLVED = 32  # samples that are solved for comparison
_MAX_SOLVED_VALUES = 2**20  # values of them
CLEAR_RATIO = 3.0  # two residuals differ clearly if one is this many times the other
MIN_SUSPICIOUS = 0.01  # share of a null solution's residual below which no set and no sample is suspicious
OUTLIER_RATIO = 10.0  # a sample whose residual is this many times the median is an outlier
MAX_MISMATCH = 0.5  # relative difference from our own solution, after scaling, up to which a factor is advised
MAX_OWN_FACTOR = 1.25  # largest scale factor attributable to grid coarseness


@dataclass(frozen=True)
class Outliers:
    """Samples with a residual far above the others.

    Attributes:
        count: The number of outliers.
        of: The number of samples in the set.
        largest: The largest l2 residual.
        source: The number of the sample that has it, in its file.
        file: The name of its file in the request, where the set comes from several.
    """

    count: int
    of: int
    largest: float
    source: int
    file: str | None = None


@dataclass(frozen=True)
class Quality:
    """The residuals of a set in each norm, beside those of null solutions and of samples that are solved here.

    Attributes:
        data: Residuals of the data.
        null: Residuals of a null solution with the inputs of the data.
        solved: Residuals of samples that are solved here on the same grid; None if they cannot be.
        scaling: Of a steady equation, the factor that brings the solutions of the data nearest to those solved here from the
            same inputs, and the relative difference that is left.
        outliers: The outliers of all splits; None if there are none.
    """

    data: Mapping[str, float]
    null: Mapping[str, float]
    solved: Mapping[str, float] | None
    scaling: tuple[float, float] | None
    outliers: Outliers | None = None

    def warnings(self, pde: Pde, scale: float = 1.0) -> list[str]:
        """Warn of what matters before training on the residual.

        Args:
            pde: The equation.
            scale: The factor that the conversion already applied to the solution.

        Returns:
            One line for each warning.
        """
        return [*self._scaling_warnings(pde, scale), *self._residual_warnings(pde), *self._outlier_warnings()]

    def _scaling_warnings(self, pde: Pde, scale: float) -> list[str]:
        if self.scaling is None or 1 / MAX_OWN_FACTOR < self.scaling[0] < MAX_OWN_FACTOR:
            return []
        factor, mismatch = self.scaling
        channel = next(c.name for c in pde.channels if c.role == "solution")
        found = f"{channel} has an unknown scaling: solved here from the same inputs it is {factor:.3g} times as large"
        if mismatch <= MAX_MISMATCH:
            return [f"{found}, to within {mismatch:.0%}; set scale.{channel}={factor * scale:.3g}"]
        return [f"{found}, and differs by {mismatch:.0%} even then: a factor alone does not correct that"]

    def _residual_warnings(self, pde: Pde) -> list[str]:
        data = self.data["l2"]
        null = self.null["l2"]
        if data * CLEAR_RATIO > null:
            return [
                f"these data do not satisfy {pde.name} on this grid: l2 is {data:.2g}, that of a null solution {null:.2g}; a "
                "residual loss would train on wrong physics. Causes are sub-sampled fields, other parameters or another "
                "scaling: use the full grid, or train without the residual"
            ]
        if self.solved is not None and data > MIN_SUSPICIOUS * null and data > CLEAR_RATIO * self.solved["l2"]:
            return [
                f"l2 is {data:.2g}, where our solver reaches {self.solved['l2']:.2g} on this grid: grid or times are coarse, "
                "or the parameters are not exactly those of the data"
            ]
        return []

    def _outlier_warnings(self) -> list[str]:
        if self.outliers is None:
            return []
        found = self.outliers
        return [
            f"{found.count} of {found.of} samples have an l2 more than {OUTLIER_RATIO:g} times the median, the largest "
            f"{found.largest:.2g} in sample {found.source} of {found.file or 'the file'}: look at them, and omit those that "
            "are wrong"
        ]

    def table(self) -> list[str]:
        """Return a table of the residuals, line by line."""
        rows = {"these data": self.data, "null solution": self.null, "solved here": self.solved}
        lines = [f"  {'residual':<14}" + "".join(f"{norm:>10}" for norm in NORMS)]
        for name, row in rows.items():
            cells = ["       (cannot be solved on this grid)"]
            if row is not None:
                cells = [f"{row[norm]:>10.2g}" for norm in NORMS]
            lines.append(f"  {name:<14}" + "".join(cells))
        return lines


def measure_quality(root: str | Path, manifest: Manifest, pde: Pde, grid: Grid) -> Quality:
    """Measure the quality of a set.

    Args:
        root: The folder of the set.
        manifest: Its manifest.
        pde: Its equation.
        grid: Its grid.

    Returns:
        The residuals of the train split, of null solutions for a part of it, and of up to 32 samples that are solved here.
    """
    shards = ShardSet(root, "train")
    size = len(pde.channels) * grid.shape[0] * grid.shape[1]
    ids = range(min(len(shards), max(1, _MAX_NULL_VALUES // size)))
    fields = shards.read(ids)
    params = shards.params(ids, pde.varying)
    null = _rms(truth_residuals(pde, grid, pde.trivial(torch.from_numpy(fields)).numpy(), params))
    floor = manifest.truth_residual["train"]
    data = {norm: floor[norm] for norm in NORMS}
    count = max(1, min(_MAX_SOLVED, _MAX_SOLVED_VALUES // size))
    try:
        own = truths(pde, 0, range(UNSEEN, UNSEEN + count), grid)
        solved = _rms(truth_residuals(pde, grid, own.fields.float().numpy(), own.params.numpy()))
        scaling = _solution_scaling(pde, grid, fields[:count])
    except (ValueError, IndexError, ZeroDivisionError):  # solvers may need other numbers of points than residuals
        return Quality(data, null, None, None, _find_outliers(root, manifest, MIN_SUSPICIOUS * null["l2"]))
    least = max(MIN_SUSPICIOUS * null["l2"], CLEAR_RATIO * solved["l2"])
    return Quality(data, null, solved, scaling, _find_outliers(root, manifest, least))


def _find_outliers(root: str | Path, manifest: Manifest, least: float) -> Outliers | None:
    """Find the outliers among the residuals that the set stores; those up to `least` are due to the grid."""
    sets = [ShardSet(root, split) for split in sorted(manifest.splits)]
    metas = [shards.meta(i) for shards in sets for i in range(len(shards))]
    l2 = np.array([meta["residual"]["l2"] for meta in metas])
    count = int((l2 > max(OUTLIER_RATIO * float(np.median(l2)), least)).sum())
    if count == 0:
        return None
    worst = int(np.argmax(l2))
    file = metas[worst].get("file")
    name = None if file is None else manifest.request["source"]["files"][file]["file"]
    return Outliers(count, len(l2), float(l2[worst]), int(metas[worst].get("source", worst)), name)


def _rms(norms: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float(np.sqrt(np.mean(np.square(values)))) for name, values in norms.items()}


def _solution_scaling(pde: Pde, grid: Grid, fields: np.ndarray) -> tuple[float, float] | None:
    """Return factor and remaining difference between given and solved solutions of an equation without time."""
    if isinstance(pde, Evolution) or not pde.unknown(grid).all():  # input and solution are one quantity
        return None
    mask = solution_mask(pde, grid).numpy()
    given = np.stack([field[mask] for field in fields]).astype(np.float64)
    solved = np.stack([pde.solve(field, grid)[0][mask] for field in fields])
    factor = float((given * solved).sum() / max((given * given).sum(), 1e-300))
    return factor, float(np.linalg.norm(factor * given - solved) / np.linalg.norm(solved))
