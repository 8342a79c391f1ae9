"""A run that diverges ends with one line: steps that could not be taken are counted, and nothing is kept that is not finite.

Every rank counts alike, since norms and averages are the same on all of them; the first one speaks. Knows no equations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from pidscale.config import TrainSettings, UserError
from pidscale.engine.checkpoint import last_sealed
from pidscale.engine.ema import Ema, pieces
from pidscale.engine.zero import Zero
from pidscale.parallel.mesh import Mesh
from pidscale.plain import not_finite

LARGE = 100.0  # samples so many times as large as data are those of a run that diverged


@dataclass
class Skipped:
    """Steps that one network could not take: in all, in a row until now, and the last of them (finished steps, from 1)."""

    total: int = 0
    row: int = 0
    last: int = 0


@dataclass
class Guard:
    """What a loop looks at so that no diverged run goes on, or counts as finished.

    phase: `teacher` or `distill`, the section of its settings. root: where its checkpoints are.
    """

    phase: str
    settings: TrainSettings
    root: Path
    mesh: Mesh
    say: Callable[[str], None]
    skipped: dict[str, Skipped] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Steps skipped so far, of all networks."""
        return sum(one.total for one in self.skipped.values())

    def state(self) -> dict[str, Any]:
        """The counts as a checkpoint keeps them, so that a row of skips goes on over a restart."""
        return {name: asdict(one) for name, one in self.skipped.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the counts of a checkpoint; one of before there were counts has none."""
        self.skipped = {name: Skipped(**one) for name, one in state.get("skipped", {}).items()}

    def step(self, name: str, step: int, norm: float, applied: bool) -> None:
        """Count a step (from 0) of a network. Raises UserError after max_skips steps in a row that taught it nothing.

        norm: of its gradient; one of zero everywhere teaches as little as one that is not finite.
        """
        one = self.skipped.setdefault(name, Skipped())
        if applied and norm > 0:
            one.row = 0
            return
        one.total, one.row, one.last = one.total + 1, one.row + 1, step + 1
        why = "zero" if applied else "not finite"
        if one.row >= self.settings.max_skips:
            raise UserError(
                f"{self.phase}: {name} skipped {one.row} steps in a row, the last at step {one.last} of "
                f"{self.settings.steps}: its gradient is {why}; {self._remedy()}"
            )
        if self.mesh.first and one.total.bit_count() == 1:  # the first, second, fourth, eighth, ...
            counted = f"{one.total} step{'s' * (one.total > 1)}"
            self.say(
                f"warning: {name}: {counted} skipped so far, the last at step {one.last}: its gradient is {why}; "
                f"{self.phase}.max_skips={self.settings.max_skips} in a row end the run"
            )

    def weights(self, step: int, networks: Iterable[Zero], averages: Iterable[Ema]) -> None:
        """Raise UserError where a weight or an average is not finite after so many steps: it is then never written."""
        held = [p for zero in networks for p in pieces(zero.module, zero.settings.stage, self.mesh).values()]
        held += [p for ema in averages for p in ema.pieces.values()]
        if self.mesh.any(not all(bool(torch.isfinite(one).all()) for one in held)):
            raise UserError(
                f"{self.phase}: weights are not finite at step {step} of {self.settings.steps}, so none are written; "
                f"{self._remedy()}"
            )

    def result(self, numbers: Mapping[str, Any], sizes: Mapping[str, float]) -> None:
        """Raise UserError where a number that the run ends with is not finite, or samples are: nothing is then published.

        sizes: root mean square of samples beside that of data, by who made them.
        """
        wrong = [f"{name} is not a finite number" for name in not_finite(numbers)]
        wrong += [f"the size of samples of {name} is not a finite number" for name in not_finite(sizes)]
        wrong += [
            f"samples of {n} are {v:.3g} times as large as data" for n, v in sizes.items() if LARGE < v < math.inf
        ]
        if wrong:
            raise UserError(
                f"{self.phase}: {wrong[0]} after step {self.settings.steps}, so nothing is published; {self._remedy()}"
            )

    def _remedy(self) -> str:
        p, last, clip = self.phase, last_sealed(self.root), self.settings.clip
        kept = "no checkpoint was written, so the same run.name takes other values"
        if last is not None:
            kept = f"the checkpoint of step {last} stays in {self.root}; other values need another run.name"
        clipped = "" if 0 < clip <= 1 else f", set {p}.clip=1 (now {clip:g})"
        return (
            f"lower {p}.lr={self.settings.lr:g}{clipped}, or look for bad values with `pidscale shards verify`; {kept}"
        )


def shown(value: float | None) -> str:
    """A loss as a message shows it."""
    if value is None:
        return "unknown, no step was taken"
    return f"{value:.4f}" if math.isfinite(value) else "not finite"
