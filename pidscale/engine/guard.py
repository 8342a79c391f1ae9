"""Guards against divergence: skipped steps are counted and end a run, and nothing that is not finite is written.

Norms and averages are the same on all ranks, so that every rank counts alike; the first rank reports. Knows no equations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from pidscale.config import TrainSettings, UserError
from pidscale.engine.ema import Ema, values
from pidscale.engine.shelf import Shelf
from pidscale.engine.zero import Zero
from pidscale.parallel.mesh import Mesh
from pidscale.plain import not_finite

LARGE = 100.0  # samples that are larger than the data by this factor belong to a run that has diverged


def _nothing() -> None:
    """Wait for nothing."""


@dataclass
class Skipped:
    """The skipped steps of one network.

    Attributes:
        total: All skipped steps.
        row: The skipped steps in a row until now.
        last: The last skipped step, counted from 1.
    """

    total: int = 0
    row: int = 0
    last: int = 0


@dataclass
class Guard:
    """What a training loop asks so that a diverged run neither goes on nor counts as finished.

    Attributes:
        phase: `teacher` or `distill`; also the name of the section of its settings.
        settings: The section itself.
        shelf: Where the checkpoints lie.
        mesh: The mesh of ranks.
        say: Prints a line.
        settle: Waits for a checkpoint that is being written, so that a message names the newest one.
        skipped: The skipped steps by the name of the network.
    """

    phase: str
    settings: TrainSettings
    shelf: Shelf
    mesh: Mesh
    say: Callable[[str], None]
    settle: Callable[[], None] = _nothing
    skipped: dict[str, Skipped] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The number of skipped steps so far, of all networks."""
        return sum(one.total for one in self.skipped.values())

    def state(self) -> dict[str, Any]:
        """Return the counts as a checkpoint stores them, so that skipped steps in a row are counted across a restart."""
        return {name: asdict(one) for name, one in self.skipped.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over the counts of a checkpoint; old checkpoints without counts restore none."""
        self.skipped = {name: Skipped(**one) for name, one in state.get("skipped", {}).items()}

    def step(self, name: str, step: int, norm: float, applied: bool) -> None:
        """Count a step of a network, and end the run after `max_skips` skipped steps in a row.

        A step with a gradient of zero counts as skipped too: it teaches the network nothing.

        Args:
            name: The name of the network.
            step: The step, counted from 0.
            norm: The norm of its gradient.
            applied: Whether the step was taken.

        Raises:
            UserError: The network has skipped too many steps in a row.
        """
        one = self.skipped.setdefault(name, Skipped())
        if applied and norm > 0:
            one.row = 0
            return
        one.total += 1
        one.row += 1
        one.last = step + 1
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
        """Refuse weights that are not finite before they are written. One all-reduce of 8 bytes.

        Args:
            step: The number of finished steps.
            networks: The networks.
            averages: The averages of their weights.

        Raises:
            UserError: A weight or an average is not finite on any rank.
        """
        held = [p for zero in networks for p in values(zero.module, zero.settings.stage, self.mesh)]
        held += [p for ema in averages for p in ema.values()]
        if self.mesh.any(not all(bool(torch.isfinite(one).all()) for one in held)):
            raise UserError(
                f"{self.phase}: weights are not finite at step {step} of {self.settings.steps}, so none are written; "
                f"{self._remedy()}"
            )

    def result(self, numbers: Mapping[str, Any], sizes: Mapping[str, float]) -> None:
        """Refuse the result of a diverged run before it is published.

        Args:
            numbers: The metrics that the run ends with.
            sizes: The root mean square of samples relative to that of the data, by the name of the network.

        Raises:
            UserError: A metric is not finite, or samples are far larger than the data.
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
        """Return what to change, and what becomes of the checkpoints."""
        phase = self.phase
        clip = self.settings.clip
        self.settle()
        last = self.shelf.newest_step()
        kept = "no checkpoint was written, so the same run.name takes other values"
        if last is not None:
            kept = f"the checkpoint of step {last} stays in {self.shelf}; other values need another run.name"
        clipped = "" if 0 < clip <= 1 else f", set {phase}.clip=1 (now {clip:g})"
        rate = f"lower {phase}.lr={self.settings.lr:g}"
        return f"{rate}{clipped}, or look for bad values with `pidscale shards verify`; {kept}"


def shown(value: float | None) -> str:
    """Return a loss as messages show it; None stands for a run that took no step."""
    if value is None:
        return "unknown, no step was taken"
    return f"{value:.4f}" if math.isfinite(value) else "not finite"
