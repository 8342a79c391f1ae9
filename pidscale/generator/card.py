"""What `card.json` says of a generator: everything needed to build and use its network, typed and checked when it is read.

A card may come from anywhere, so every field is checked for type, range and finiteness here, once. Nothing else reads the
JSON. Knows no files and no ranks.

Format, version 1 (JSON): kind, equation {name, params}, grid {shape, extent, kind, boundary}, channels [{name, unit, role}],
normaliser {mean, std}, architecture (models.architecture), noise (Noise.describe), constraints [name], told (the network
level, null where it is that of the noise), provenance, metrics, weights {file, bytes, sha256}; `artifact.py` adds version and
sha256.
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
from pidscale.models import check_description, row_unit
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde

REMEDY = "copy the folder again from where it was made"
MOST_POINTS = 2**14  # a side
_SHOWN = 60  # characters of a wrong value in a message
_LONGEST_NAME = 200  # characters of a name
_LARGEST = 1e15  # numbers that mean something: seconds, steps, residuals


class Kind(StrEnum):
    """What a generator is."""

    STUDENT = "student"
    TEACHER = "teacher"


class Section:
    """A mapping of a card, read key by key. Every mistake is one line that names the file and the key."""

    def __init__(self, where: str, name: str, plain: Any) -> None:
        self.where = where
        self.name = name
        if not isinstance(plain, Mapping):
            self.refuse(None, plain, "a section with keys")
        self.plain: Mapping[str, Any] = plain

    def refuse(self, key: str | None, value: Any, expected: str) -> None:
        """Raise UserError for the value of a key.

        Args:
            key: The key; None for the section itself.
            value: What was found.
            expected: What was expected.

        Raises:
            UserError: Always.
        """
        named = ".".join(part for part in (self.name, key) if part)
        shown = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        raise UserError(f"{self.where}: {named!r} is {shown}, expected {expected}; {REMEDY}")

    def get(self, key: str) -> Any:
        """The value of a key; a missing one is refused."""
        if key not in self.plain:
            raise UserError(f"{self.where}: {'.'.join(p for p in (self.name, key) if p)!r} is missing; {REMEDY}")
        return self.plain[key]

    def has(self, key: str) -> bool:
        """Whether a key is there and not null."""
        return self.plain.get(key) is not None

    def section(self, key: str) -> Section:
        """The section of a key."""
        return Section(self.where, f"{self.name}.{key}" if self.name else key, self.get(key))

    def text(self, key: str) -> str:
        """A string of a key."""
        value = self.get(key)
        if not isinstance(value, str) or len(value) > _LONGEST_NAME:
            self.refuse(key, value, f"a string of at most {_LONGEST_NAME} characters")
        return str(value)

    def number(self, key: str, least: float = -_LARGEST, most: float = _LARGEST) -> float:
        """A finite number of a key, between two bounds."""
        return self._number(key, self.get(key), least, most)

    def numbers(self, key: str, least: float = -_LARGEST, most: float = _LARGEST) -> tuple[float, ...]:
        """A list of finite numbers."""
        return tuple(self._number(key, value, least, most) for value in self.listed(key))

    def whole(self, key: str, least: int = 0, most: int = 2**62) -> int:
        """A whole number of a key, between two bounds."""
        return self._whole(key, self.get(key), least, most)

    def wholes(self, key: str, least: int, most: int) -> tuple[int, ...]:
        """A list of whole numbers."""
        return tuple(self._whole(key, value, least, most) for value in self.listed(key))

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        values = self.listed(key)
        for value in values:
            if not isinstance(value, str) or len(value) > _LONGEST_NAME:
                self.refuse(key, value, "a list of names")
        return tuple(values)

    def listed(self, key: str) -> list[Any]:
        """A list of at most a million values."""
        value = self.get(key)
        if not isinstance(value, list) or len(value) > 10**6:
            self.refuse(key, value, "a list")
        return list(value)

    def mapping(self, key: str) -> dict[str, Any]:
        """A mapping whose contents are not looked at."""
        return dict(self.section(key).plain)

    def _number(self, key: str, value: Any, least: float, most: float) -> float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not least <= value <= most:  # which no NaN is
            self.refuse(key, value, f"a number from {least:g} to {most:g}")
        return float(value)

    def _whole(self, key: str, value: Any, least: int, most: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.refuse(key, value, f"a whole number from {least} to {most}")
        return int(value)


@dataclass(frozen=True)
class Equation:
    """The equation by name, with its parameters as plain JSON values.

    Attributes:
        name: A name of `PDES`, or `module:Class`.
        params: The equation's own parameters.
    """

    name: str
    params: Mapping[str, Any]


@dataclass(frozen=True)
class ChannelInfo:
    """One physical field.

    Attributes:
        name: The name.
        unit: The unit, "1" where there is none.
        role: `input` or `solution`.
    """

    name: str
    unit: str
    role: str


@dataclass(frozen=True)
class WeightsFile:
    """The weights beside a card.

    Attributes:
        bytes: Size of the file.
        sha256: Its checksum.
        file: Its name.
    """

    bytes: int
    sha256: str
    file: str = "weights.safetensors"


@dataclass(frozen=True)
class Provenance:
    """Where a generator comes from; a value that was not recorded is None.

    Attributes:
        data_hash: Hash of the shard set that it was trained on.
        seed: Seed of its run.
        steps: Training steps.
        teacher: Of a student, SHA-256 of its teacher's weights.
        objective: Of a student, the objective that it was trained with.
        start: Of a student, `teacher` or `scratch`; of a teacher that continues another, that one's provenance.
        scales: Of a student, the squared residual scales s_k^2 by term.
        residual_floor: The relative l2 residual of the truths it was trained on.
        further: All that was recorded besides and is read by people only.
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
        """Return plain JSON values; what was not recorded is absent."""
        own = {name: getattr(self, name) for name in _NAMED_PROVENANCE}
        return {key: value for key, value in own.items() if value is not None} | dict(self.further)

    @classmethod
    def from_section(cls, section: Section) -> Provenance:
        """Read a section. Raises UserError that names the key."""
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


_NAMED_PROVENANCE = ("data_hash", "seed", "steps", "teacher", "objective", "start", "scales", "residual_floor")


@dataclass(frozen=True)
class Metrics:
    """What was measured of a generator.

    Attributes:
        train_seconds: Seconds of training, those of a student's teacher and endpoints included; None if unknown.
        wait_share: Share of the training steps' time that was spent waiting for data or endpoints; None if unknown.
        report: Its row of the last report, empty before there is one.
        further: All other figures, for people.
    """

    train_seconds: float | None = None
    wait_share: float | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    further: Mapping[str, Any] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values; what is unknown is absent."""
        named = {"train_seconds": self.train_seconds, "wait_share": self.wait_share}
        own = {key: value for key, value in named.items() if value is not None}
        return {**self.further, **own, **({"report": dict(self.report)} if self.report else {})}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Metrics:
        """Build from figures by name."""
        further = {key: value for key, value in plain.items() if key not in _NAMED_METRICS}
        return cls(plain.get("train_seconds"), plain.get("wait_share"), dict(plain.get("report", {})), further)

    @classmethod
    def from_section(cls, section: Section) -> Metrics:
        """Read a section. Raises UserError that names the key."""
        seconds = section.number("train_seconds", 0.0) if section.has("train_seconds") else None
        share = section.number("wait_share", 0.0, 1.0) if section.has("wait_share") else None
        report = section.mapping("report") if section.has("report") else {}
        further = {key: value for key, value in section.plain.items() if key not in _NAMED_METRICS}
        return cls(seconds, share, report, further)


_NAMED_METRICS = ("train_seconds", "wait_share", "report")


@dataclass(frozen=True)
class Card:
    """A generator's card.

    Attributes:
        kind: Student or teacher.
        equation: Name and parameters of the equation.
        grid: The grid that it makes fields on.
        channels: The physical fields, in the order of the joint field.
        normaliser: Between physical units and the units of the network.
        architecture: The network, as `models.architecture` describes it.
        noise: The noise schedule.
        constraints: Hard constraints that its output is held to.
        network_level: The noise level that a student's network is conditioned on, where it is not that of its noise.
        provenance: Where it comes from.
        metrics: What was measured of it.
        weights: The file beside the card; None before it is written.
    """

    kind: Kind
    equation: Equation
    grid: Grid
    channels: tuple[ChannelInfo, ...]
    normaliser: Normaliser
    architecture: Mapping[str, Any]
    noise: Noise
    constraints: tuple[str, ...] = ()
    network_level: float | None = None
    provenance: Provenance = field(default_factory=Provenance)
    metrics: Metrics = field(default_factory=Metrics)
    weights: WeightsFile | None = None

    @classmethod
    def of(cls, kind: Kind | str, pde: Pde, **fields: Any) -> Card:
        """The card of a generator of an equation.

        Args:
            kind: Student or teacher.
            pde: The equation, which gives name, parameters and channels.
            **fields: The other fields of a card.

        Returns:
            The card, not yet checked against the equation.
        """
        channels = tuple(ChannelInfo(c.name, c.unit, c.role) for c in pde.channels)
        return cls(kind=Kind(kind), equation=Equation(pde.name, pde.params_dict()), channels=channels, **fields)

    @property
    def weights_sha256(self) -> str:
        """Checksum of the weights: the identity of a trained network; empty before it is written."""
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
            _NETWORK_LEVEL: self.network_level,
            "provenance": self.provenance.to_plain(),
            "metrics": self.metrics.to_plain(),
        }
        if self.weights is not None:
            plain["weights"] = {"file": self.weights.file, "bytes": self.weights.bytes, "sha256": self.weights.sha256}
        return plain

    @classmethod
    def from_plain(cls, plain: Any, where: str) -> Card:
        """Read a card from plain JSON values.

        Args:
            plain: The values.
            where: The file, for messages.

        Returns:
            The card; that it fits its equation is `check_fits_equation`'s to say.

        Raises:
            UserError: When a key is missing or holds a value of a wrong type or range; the line names the key.
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
            network_level=_network_level(card, noise),
            provenance=Provenance.from_section(card.section("provenance")),
            metrics=Metrics.from_section(card.section("metrics")),
            weights=_weights(card.section("weights")),
        )

    def check_fits_equation(self, pde: Pde, where: str) -> None:
        """Raise UserError where the card describes a generator that is none of this equation.

        Args:
            pde: The equation that the card names.
            where: The file, for messages.

        Raises:
            UserError: When channels, normaliser, conditions, noise or grid do not fit equation and network.
        """
        names = [channel.name for channel in pde.channels]
        counts = len(self.normaliser.mean), len(self.normaliser.std), self.architecture["channels"]
        wrong = None
        if [channel.name for channel in self.channels] != names:
            wrong = f"its channels are not those of {pde.name}"
        elif set(counts) != {len(names)}:
            wrong = f"the normaliser or the network does not have the {len(names)} channels of {pde.name}"
        elif self.architecture.get("conditions", 0) != len(pde.varying):
            wrong = f"the network is not conditioned on the {len(pde.varying)} varying parameters of {pde.name}"
        if wrong is None:
            wrong = self._misfit_of_grid()
        if wrong is not None:
            raise UserError(f"{where}: card and weights do not fit together ({wrong}); {REMEDY}")

    def _misfit_of_grid(self) -> str | None:
        """Why the network cannot be built, or cannot take fields of this grid."""
        try:
            unit = row_unit(self.architecture)
        except (TypeError, ValueError, RuntimeError) as error:
            return f"the network cannot be built: {' '.join(str(error).split())[:100]}"
        if any(points % unit for points in self.grid.shape):
            return f"a grid of {self.grid.shape} does not divide by {unit}, as the network needs"
        return None


_NETWORK_LEVEL = "told"  # its key in cards of version 1


def _grid(section: Section) -> Grid:
    shape = section.wholes("shape", 4, MOST_POINTS)
    extent = section.numbers("extent", 1e-30, 1e30)
    if len(shape) != 2 or len(extent) != 2:
        section.refuse("shape", list(shape), "two numbers each of shape and extent")
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
    if "sigma_data" not in values:
        section.get("sigma_data")
    try:
        noise = noise_from(values)
    except (KeyError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:100]
        raise UserError(f"{section.where}: 'noise' is not a noise schedule ({said}); {REMEDY}") from None
    try:
        levels = noise.levels(18)[:-1].float()
        falls = bool(levels.isfinite().all() and (levels > 0).all() and (levels.diff() < 0).all())
    except ArithmeticError:
        falls = False
    if not falls:
        section.refuse(None, section.plain, "a schedule whose levels are finite and fall")
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


def _weights(section: Section) -> WeightsFile:
    return WeightsFile(section.whole("bytes"), section.text("sha256"))
