"""The card of a generator: everything needed to build and use its network, typed and checked when it is read.

A card may come from an untrusted source, so fields are checked here, once, for type, range and finiteness. What only the
equation can check is checked when the generator is loaded: `equation` and `constraints` (load.py). Contents of
`metrics.report` and of a mapping `provenance.start`, and other keys of `provenance` and `metrics`, are kept unchecked, as no
code computes with them. `weights.file` is ignored: the file is always weights.safetensors. Knows no files and no ranks.

Format, version 1 (JSON): kind, equation {name, params}, grid {shape, extent, kind, boundary}, channels [{name, unit, role}],
normaliser {mean, std}, architecture (models.architecture), noise (Noise.describe), constraints [name], head (number of solver
steps behind every field; a missing one is 0), call_levels [sigma] (of further calls; none if it is missing),
told (so version 1 calls the network level; null if it is that of the noise), provenance, metrics, weights {file, bytes,
sha256}. `artifact.py` adds version and sha256.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pidscale.config import UserError
from pidscale.diffusion.noise import Noise, noise_from
from pidscale.diffusion.normaliser import Normaliser
from pidscale.generator.section import REMEDY, Section
from pidscale.models import check_description, row_unit
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde

MOST_POINTS = 2**14  # along one side of a grid
_NETWORK_LEVEL = "told"  # key of the network level in cards of version 1
_NAMED_PROVENANCE = ("data_hash", "seed", "steps", "teacher", "objective", "start", "scales", "residual_floor")
_NAMED_METRICS = ("train_seconds", "wait_share", "report")


class Kind(StrEnum):
    """The kinds of networks: generators, and one that predicts the solution of given inputs (regression.py)."""

    STUDENT = "student"
    TEACHER = "teacher"
    REGRESSION = "regression"


@dataclass(frozen=True)
class Equation:
    """Name and parameters of an equation, as plain JSON values.

    Attributes:
        name: A key of `PDES`, or `module:Class`.
        params: Parameters of the equation.
    """

    name: str
    params: Mapping[str, Any]


@dataclass(frozen=True)
class ChannelInfo:
    """One physical field.

    Attributes:
        name: Name of the field.
        unit: Physical unit, "1" where it is dimensionless.
        role: `input` or `solution` of the equation.
    """

    name: str
    unit: str
    role: str


@dataclass(frozen=True)
class WeightsFile:
    """The file of weights that belongs to a card.

    Attributes:
        bytes: Size of the file.
        sha256: SHA-256 of the file, in hex.
        file: Name of the file.
    """

    bytes: int
    sha256: str
    file: str = "weights.safetensors"


@dataclass(frozen=True)
class Provenance:
    """The origin of a generator. A value that was not recorded is None.

    Attributes:
        data_hash: Hash of the shard set that the generator was trained on.
        seed: Seed of the run.
        steps: Number of training steps.
        teacher: For a student, SHA-256 of its teacher's weights.
        objective: Objective that the generator was trained with.
        start: For a student, `teacher` or `scratch`; for a teacher that continues another one, the provenance of that one.
        scales: For a student, the squared residual scales s_k^2 by term.
        residual_floor: Relative l2 residual of the truths that the generator was trained on.
        further: Other recorded values, which no code reads.
    """

    data_hash: str | None = None
    seed: int | None = None
    steps: int | None = None
    teacher: str | None = None
    objective: str | None = None
    start: str | Mapping[str, Any] | None = None
    scales: Mapping[str, float] | None = None
    residual_floor: float | None = None
    further: Mapping[str, Any] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values, without those that were not recorded."""
        own = {name: getattr(self, name) for name in _NAMED_PROVENANCE}
        return {key: value for key, value in own.items() if value is not None} | dict(self.further)

    @classmethod
    def from_section(cls, section: Section) -> Provenance:
        """Read a section. A value of a wrong type or range raises a UserError that names its key."""
        found: dict[str, Any] = {}
        for key in ("data_hash", "teacher", "objective"):
            if section.has(key):
                found[key] = section.text(key)
        for key in ("seed", "steps"):
            if section.has(key):
                found[key] = section.whole(key)
        if section.has("start"):
            is_name = isinstance(section.get("start"), str)
            found["start"] = section.text("start") if is_name else section.mapping("start")
        if section.has("scales"):
            scales = section.section("scales")
            found["scales"] = {name: scales.number(name, math.ulp(0.0), 1e300) for name in scales.plain}
        if section.has("residual_floor"):
            found["residual_floor"] = section.number("residual_floor", 0.0)
        found["further"] = {k: v for k, v in section.plain.items() if k not in _NAMED_PROVENANCE}
        return cls(**found)


@dataclass(frozen=True)
class Metrics:
    """Measured figures of a generator.

    Attributes:
        train_seconds: Seconds of training; those of a student include its teacher and its endpoints. None if unknown.
        wait_share: Fraction of the time of the training steps that was spent waiting for data or endpoints. None if unknown.
        report: The generator's row of the last report; empty before the first one.
        further: Other figures, which no code reads.
    """

    train_seconds: float | None = None
    wait_share: float | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    further: Mapping[str, Any] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values, without those that are unknown."""
        named = {"train_seconds": self.train_seconds, "wait_share": self.wait_share}
        own = {key: value for key, value in named.items() if value is not None}
        return {**self.further, **own, **({"report": dict(self.report)} if self.report else {})}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Metrics:
        """Build from figures by name, without checking them."""
        further = {key: value for key, value in plain.items() if key not in _NAMED_METRICS}
        return cls(plain.get("train_seconds"), plain.get("wait_share"), dict(plain.get("report", {})), further)

    @classmethod
    def from_section(cls, section: Section) -> Metrics:
        """Read a section. A value of a wrong type or range raises a UserError that names its key."""
        seconds = section.number("train_seconds", 0.0) if section.has("train_seconds") else None
        share = section.number("wait_share", 0.0, 1.0) if section.has("wait_share") else None
        report = section.mapping("report") if section.has("report") else {}
        further = {key: value for key, value in section.plain.items() if key not in _NAMED_METRICS}
        return cls(seconds, share, report, further)


@dataclass(frozen=True)
class Card:
    """The card of a generator.

    Attributes:
        kind: Student or teacher.
        equation: Name and parameters of the equation.
        grid: Grid of the generated fields.
        channels: Physical fields, in the order of the joint field.
        normaliser: Conversion between physical units and units of the model.
        architecture: Description of the network, as `models.architecture` returns it.
        noise: Noise schedule.
        constraints: Names of the hard constraints that the output satisfies.
        head: Number of solver steps of the equation behind every field.
        network_level: Noise level that a student's network is conditioned on; None if it is the level of its noise.
        call_levels: Falling noise levels of a student's further calls, if it was trained for several; k calls take the last
            k - 1.
        provenance: Origin of the generator.
        metrics: Measured figures.
        weights: File of the weights; None before it is written.
    """

    kind: Kind
    equation: Equation
    grid: Grid
    channels: tuple[ChannelInfo, ...]
    normaliser: Normaliser
    architecture: Mapping[str, Any]
    noise: Noise
    constraints: tuple[str, ...] = ()
    head: int = 0
    network_level: float | None = None
    call_levels: tuple[float, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)
    metrics: Metrics = field(default_factory=Metrics)
    weights: WeightsFile | None = None

    @classmethod
    def of(cls, kind: Kind | str, pde: Pde, **fields: Any) -> Card:
        """Build the card of a generator of an equation, without checking it.

        Args:
            kind: Student or teacher.
            pde: The equation; name, parameters and channels follow from it.
            **fields: Further attributes of the card.

        Returns:
            The card.
        """
        channels = tuple(ChannelInfo(c.name, c.unit, c.role) for c in pde.channels)
        return cls(kind=Kind(kind), equation=Equation(pde.name, pde.params_dict()), channels=channels, **fields)

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights, which identifies a trained network; empty before the weights are written."""
        return "" if self.weights is None else self.weights.sha256

    def to_plain(self) -> dict[str, Any]:
        """Return the card as plain JSON values."""
        plain = {
            "kind": str(self.kind),
            "equation": {"name": self.equation.name, "params": dict(self.equation.params)},
            "grid": self.grid.describe(),
            "channels": [{"name": c.name, "unit": c.unit, "role": c.role} for c in self.channels],
            "normaliser": {"mean": list(self.normaliser.mean), "std": list(self.normaliser.std)},
            "architecture": dict(self.architecture),
            "noise": self.noise.describe(),
            "constraints": list(self.constraints),
            "head": self.head,
            _NETWORK_LEVEL: self.network_level,
            **({"call_levels": list(self.call_levels)} if self.call_levels else {}),
            "provenance": self.provenance.to_plain(),
            "metrics": self.metrics.to_plain(),
        }
        if self.weights is not None:
            plain["weights"] = {"file": self.weights.file, "bytes": self.weights.bytes, "sha256": self.weights.sha256}
        return plain

    @classmethod
    def from_plain(cls, plain: Any, where: str) -> Card:
        """Read a card from plain JSON values.

        A missing key, or a value of a wrong type or range, raises a UserError that names the key. Whether the card fits its
        equation is checked by `check_fits_equation`.

        Args:
            plain: The values.
            where: The file, for messages.

        Returns:
            The card.
        """
        card = Section(where, "", plain)
        kind = card.text("kind")
        if kind not in list(Kind):
            card.refuse("kind", kind, f"one of {', '.join(Kind)}")
        noise = _noise(card.section("noise"))
        return cls(
            kind=Kind(kind),
            equation=Equation(card.section("equation").text("name"), card.section("equation").mapping("params")),
            grid=_grid(card.section("grid")),
            channels=_channels(card),
            normaliser=_normaliser(card.section("normaliser")),
            architecture=_architecture(card.section("architecture")),
            noise=noise,
            constraints=card.texts("constraints") if card.has("constraints") else (),
            head=card.whole("head") if card.has("head") else 0,
            network_level=_network_level(card, noise),
            call_levels=_call_levels(card, noise),
            provenance=Provenance.from_section(card.section("provenance")),
            metrics=Metrics.from_section(card.section("metrics")),
            weights=_weights(card.section("weights")),
        )

    def check_fits_equation(self, pde: Pde, where: str) -> None:
        """Check that the card describes a generator of this equation.

        Args:
            pde: The equation that the card names.
            where: The file, for messages.

        Raises:
            UserError: When channels, normaliser, conditions or grid do not fit the equation and the network.
        """
        names = [channel.name for channel in pde.channels]
        counts = {len(self.normaliser.mean), len(self.normaliser.std), self.architecture["channels"]}
        wrong = None
        if [channel.name for channel in self.channels] != names:
            wrong = f"its channels are not those of {pde.name}"
        elif counts != {len(names)}:
            wrong = f"the normaliser or the network does not have the {len(names)} channels of {pde.name}"
        elif self.architecture.get("conditions", 0) != len(pde.varying):
            wrong = f"the network is not conditioned on the {len(pde.varying)} varying parameters of {pde.name}"
        if wrong is None:
            wrong = self._misfit_of_grid()
        if wrong is not None:
            raise UserError(f"{where}: card and weights do not fit together ({wrong}); {REMEDY}")

    def _misfit_of_grid(self) -> str | None:
        """Return why the network cannot be built or cannot take fields on this grid; None if it can."""
        try:
            unit = row_unit(self.architecture)
        except (TypeError, ValueError, RuntimeError) as error:
            return f"the network cannot be built: {' '.join(str(error).split())[:100]}"
        if any(points % unit for points in self.grid.shape):
            return f"the network needs a grid whose sides are multiples of {unit}, not {self.grid.shape}"
        return None


def _grid(section: Section) -> Grid:
    shape = section.wholes("shape", 4, MOST_POINTS)
    extent = section.numbers("extent", 1e-30, 1e30)
    if len(shape) != 2 or len(extent) != 2:
        section.refuse("shape", list(shape), "two numbers, and as many in 'extent'")
    try:
        return Grid((shape[0], shape[1]), (extent[0], extent[1]), section.text("kind"), section.text("boundary"))
    except ValueError as error:
        raise UserError(f"{section.where}: {error}; {REMEDY}") from None


def _channels(card: Section) -> tuple[ChannelInfo, ...]:
    found = []
    for number, plain in enumerate(card.listed("channels")):
        one = Section(card.where, f"channels.{number}", plain)
        found.append(ChannelInfo(one.text("name"), one.text("unit"), one.text("role")))
    return tuple(found)


def _noise(section: Section) -> Noise:
    values: dict[str, Any] = {"kind": section.text("kind")} if "kind" in section.plain else {}
    values |= {key: section.number(key, -1e300, 1e300) for key in section.plain if key != "kind"}
    section.get("sigma_data")  # required, although a schedule has a default
    try:
        noise = noise_from(values)
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{section.where}: 'noise' is not a noise schedule ({reason}); {REMEDY}") from None
    try:
        levels = noise.levels(18)[:-1].float()
        falls = bool(levels.isfinite().all() and (levels > 0).all() and (levels.diff() < 0).all())
    except ArithmeticError:
        falls = False
    if not falls:
        section.refuse(None, section.plain, "a schedule of finite, positive, decreasing levels")
    return noise


def _normaliser(section: Section) -> Normaliser:
    mean = section.numbers("mean", -1e300, 1e300)
    std = section.numbers("std", -1e300, 1e300)
    try:
        return Normaliser(mean, std)
    except ValueError as error:
        raise UserError(f"{section.where}: {str(error)[:150]}; {REMEDY}") from None


def _architecture(section: Section) -> Mapping[str, Any]:
    try:
        check_description(section.plain)
    except ValueError as error:
        raise UserError(f"{section.where}: {str(error)[:150]}; {REMEDY}") from None
    return dict(section.plain)


def _network_level(card: Section, noise: Noise) -> float | None:
    if not card.has(_NETWORK_LEVEL):
        return None
    return card.number(_NETWORK_LEVEL, min(1e-30, noise.sigma_max), noise.sigma_max)


def _call_levels(card: Section, noise: Noise) -> tuple[float, ...]:
    if not card.has("call_levels"):
        return ()
    levels = card.numbers("call_levels", min(1e-30, noise.sigma_max), noise.sigma_max)
    if list(levels) != sorted(set(levels), reverse=True):
        card.refuse("call_levels", list(levels), "falling noise levels")
    return levels


def _weights(section: Section) -> WeightsFile:
    return WeightsFile(section.whole("bytes"), section.text("sha256"))
