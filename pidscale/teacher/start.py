"""A finished teacher that another goes on from (`teacher.start`): more steps, another rate, another set of its equation.

Weights mean what they mean in the units and at the levels they were trained in, so both stay the start's: its normaliser
always, its noise where the settings leave sigma_max, p_mean and p_std open. Knows no ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pidscale.config import Settings, UserError
from pidscale.dataset.problem import Problem
from pidscale.diffusion.normaliser import Normaliser
from pidscale.generator.artifact import read_card, read_weights
from pidscale.generator.card import Card, Kind
from pidscale.pde import build_pde
from pidscale.run.preflight import model_description

FAR = 4.0  # times the start's standard deviation: a set with more spread or another mean is another problem for its weights


@dataclass(frozen=True)
class Start:
    """A teacher's folder and its card, which fits the run."""

    folder: Path
    card: Card

    @property
    def normaliser(self) -> Normaliser:
        """Units of its weights."""
        return self.card.normaliser

    @property
    def seconds(self) -> float:
        """Seconds of training that its weights took already."""
        return self.card.metrics.train_seconds or 0.0

    @property
    def provenance(self) -> dict[str, Any]:
        """What the card of a teacher that goes on says of its start, and of that one's start."""
        own = self.card.provenance
        named = {"data_hash": own.data_hash, "seed": own.seed, "steps": own.steps, "start": own.start}
        kept = {key: value for key, value in named.items() if value is not None}
        return {"sha256": self.card.weights_sha256, "params": dict(self.card.equation.params), **kept}

    @property
    def line(self) -> str:
        """One sentence for whoever starts the run."""
        own = self.card.provenance
        steps = "unknown" if own.steps is None else own.steps
        known = f"{steps} steps on the set {(own.data_hash or 'unknown')[:12]}"
        levels = "at its levels where teacher.sigma_max, teacher.p_mean and teacher.p_std are null"
        return f"teacher: goes on from {self.folder} ({known}), in its units, {levels}"

    def weights(self) -> dict[str, Tensor]:
        """Its average by name. Raises UserError where the file is not what the card says."""
        return read_weights(self.folder, self.card)


def open_start(settings: Settings, problem: Problem) -> Start | None:
    """The teacher that this run goes on from, None without `teacher.start`; reads its card alone.

    Equation, channels, ranges of varying parameters, kind and edge of the grid, network and kind of noise must be the run's;
    the number of points and other parameters of the equation may differ. Raises UserError with what does not fit.
    """
    if settings.teacher.start is None:
        return None
    folder = Path(settings.teacher.start).absolute()
    card = read_card(folder)
    if card.kind is not Kind.TEACHER:
        raise UserError(f"teacher.start={folder}: holds a {card.kind}, expected a teacher")
    return _fitting(Start(folder, card), settings, problem)


def _fitting(start: Start, settings: Settings, problem: Problem) -> Start:
    """The start, if it fits the run."""
    for what, have, want in _compared(settings, problem, start.card):
        if have != want:
            raise UserError(
                f"teacher.start={start.folder}: {what} {_difference(have, want)}; change it, or choose another start"
            )
    _check_units(start, problem)
    return start


def _compared(settings: Settings, problem: Problem, card: Card) -> list[tuple[str, Any, Any]]:
    """What must be the same: its name, that of the start, that of this run."""
    pde = problem.pde
    grid = problem.grid.describe()
    have = card.grid.describe()
    names = [("pde.name", card.equation.name, pde.name)]
    if card.equation.name != pde.name:
        return names
    theirs = build_pde(pde.name, card.equation.params)
    wanted = model_description(settings, problem.shape[0], len(pde.varying))
    return [
        *names,
        ("the channels", [c.name for c in card.channels], [c.name for c in pde.channels]),
        ("varying parameters (pde.params)", dict(theirs.varying), dict(pde.varying)),
        *((f"the grid's {key}", have[key], grid[key]) for key in ("kind", "boundary")),
        ("teacher.noise", card.noise.kind, settings.teacher.noise),
        ("model.kind", card.architecture["kind"], wanted["kind"]),
        ("the network (model)", dict(card.architecture), wanted),
    ]


def _difference(have: Any, want: Any) -> str:
    """Both values; of two mappings those that differ."""
    if isinstance(have, dict) and isinstance(want, dict):
        keys = [key for key in {**have, **want} if have.get(key) != want.get(key)]
        have, want = ({key: one.get(key) for key in keys} for one in (have, want))
    return f"was {have!r} there and is {want!r} in this run"


def _check_units(start: Start, problem: Problem) -> None:
    """Raise UserError where this set is far from the units that the start's weights know."""
    old, new = start.normaliser, problem.normaliser
    rows = zip(problem.pde.channels, old.mean, old.std, new.mean, new.std, strict=True)
    for channel, mean, std, own_mean, own_std in rows:
        if not std / FAR <= own_std <= FAR * std or abs(own_mean - mean) > FAR * std:
            raise UserError(
                f"teacher.start={start.folder}: {channel.name} has mean {own_mean:.4g} and standard deviation {own_std:.4g} "
                f"in {problem.data.path}, {mean:.4g} and {std:.4g} where the start was trained: too far for its weights "
                f"(a factor or shift of {FAR:g}); choose another start, or start without one"
            )
