"""A finished teacher as the start of another (`teacher.start`), for more steps, another learning rate or another shard set.

Weights are valid only for the units and noise levels they were trained with, so both are kept: the normaliser always, and
sigma_max, p_mean and p_std unless the settings give values for them. Knows no ranks.
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

FAR = 4.0  # largest factor between the standard deviations, and largest shift of the mean in standard deviations


@dataclass(frozen=True)
class Start:
    """A finished teacher that fits the run: its folder and its card."""

    folder: Path
    card: Card

    @property
    def normaliser(self) -> Normaliser:
        """Normaliser that the weights were trained with."""
        return self.card.normaliser

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self.card.metrics.train_seconds or 0.0

    @property
    def provenance(self) -> dict[str, Any]:
        """Description of this start for the card of the new teacher, including the start of this start."""
        own = self.card.provenance
        named = {"data_hash": own.data_hash, "seed": own.seed, "steps": own.steps, "start": own.start}
        kept = {key: value for key, value in named.items() if value is not None}
        return {"sha256": self.card.weights_sha256, "params": dict(self.card.equation.params), **kept}

    @property
    def line(self) -> str:
        """One sentence for the user."""
        own = self.card.provenance
        steps = "unknown" if own.steps is None else own.steps
        known = f"{steps} steps on the set {(own.data_hash or 'unknown')[:12]}"
        levels = "at its levels where teacher.sigma_max, teacher.p_mean and teacher.p_std are null"
        return f"teacher: goes on from {self.folder} ({known}), in its units, {levels}"

    def weights(self) -> dict[str, Tensor]:
        """Return the averaged weights by parameter name. Raises UserError if the file does not match the card."""
        return read_weights(self.folder, self.card)


def open_start(settings: Settings, problem: Problem) -> Start | None:
    """Return the teacher that the run starts from, or None without `teacher.start`. Reads the card only.

    Equation, channels, ranges of varying parameters, kind and boundary of the grid, network and noise schedule must be those
    of the run. The number of points and other parameters of the equation may differ. Raises UserError if the start does not
    fit.
    """
    if settings.teacher.start is None:
        return None
    folder = Path(settings.teacher.start).absolute()
    card = read_card(folder)
    if card.kind is not Kind.TEACHER:
        raise UserError(f"teacher.start={folder}: holds a {card.kind}, expected a teacher; name another folder")
    return _fitting(Start(folder, card), settings, problem)


def _fitting(start: Start, settings: Settings, problem: Problem) -> Start:
    """Return the start if it fits the run. Raises UserError otherwise."""
    for what, have, want in _compared(settings, problem, start.card):
        if have != want:
            raise UserError(
                f"teacher.start={start.folder}: {what} {_difference(have, want)}; change it, or choose another start"
            )
    _check_units(start, problem)
    return start


def _compared(settings: Settings, problem: Problem, card: Card) -> list[tuple[str, Any, Any]]:
    """Return what must agree: its name, the value of the start, and the value of this run."""
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
    """Describe two different values; of two mappings, only the entries that differ."""
    if isinstance(have, dict) and isinstance(want, dict):
        keys = [key for key in {**have, **want} if have.get(key) != want.get(key)]
        have, want = ({key: one.get(key) for key in keys} for one in (have, want))
    return f"was {have!r} there and is {want!r} in this run"


def _check_units(start: Start, problem: Problem) -> None:
    """Raise UserError if mean or standard deviation of the set are far from those of the start."""
    old, new = start.normaliser, problem.normaliser
    rows = zip(problem.pde.channels, old.mean, old.std, new.mean, new.std, strict=True)
    for channel, mean, std, own_mean, own_std in rows:
        if not std / FAR <= own_std <= FAR * std or abs(own_mean - mean) > FAR * std:
            raise UserError(
                f"teacher.start={start.folder}: {channel.name} has mean {own_mean:.4g} and standard deviation {own_std:.4g} "
                f"in {problem.data.path}, {mean:.4g} and {std:.4g} where the start was trained: too far for its weights "
                f"(a factor or shift of {FAR:g}); choose another start, or start without one"
            )
