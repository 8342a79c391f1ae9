"""Which array of a file is which channel of an equation, and samples in the order and shape that a set stores.

Must not know where points sit or what bounds them (points.py), nor parameters (parameters.py).
Shapes: a target is "YX" for steady equations, "TYX" where channels are frames, "TX" where rows are times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pidscale.config import UserError
from pidscale.generate.asked import Asked, is_count
from pidscale.generate.layouts.source import Array, Source
from pidscale.pde.base import Pde
from pidscale.pde.evolution import Evolution

BLOCK_BYTES = 2**25  # read from a file at once

# Names that others give to our channels. Those of one equation do not overlap.
ALIASES: dict[str, dict[str, tuple[str, ...]]] = {
    "advection_diffusion": {"concentration": ("u", "c", "data")},
    "darcy": {
        "permeability": ("a", "coeff", "k", "K", "nu", "x", "perm", "thresh_a_data"),
        "pressure": ("u", "sol", "p", "y", "tensor", "thresh_p_data"),
    },
    "heat": {"temperature": ("u", "T", "data")},
    "poisson": {"source": ("f", "f_data", "x"), "solution": ("u", "phi", "phi_data", "sol", "y")},
    "helmholtz": {"source": ("f", "f_data", "x"), "solution": ("u", "psi", "psi_data", "sol", "y")},
    "burgers": {"velocity": ("u", "tensor", "output", "y", "data")},
    "navier_stokes": {"vorticity": ("w", "omega", "u", "data")},
    "reaction_diffusion": {"activator": ("u", "A"), "inhibitor": ("v", "B")},
    "stokes": {"velocity": ("u", "data")},
    "wave": {"displacement": ("u", "data")},
}


@dataclass(frozen=True)
class Pick:
    """One array for one slot (a channel, or a species whose frames are channels): its axes, its component, its factor."""

    slot: str
    array: Array
    axes: str
    component: int | None
    scale: float

    def length(self, axis: str) -> int:
        """Points along an axis; 1 where the array does not have it."""
        return self.array.shape[self.axes.index(axis)] if axis in self.axes else 1

    def describe(self) -> dict[str, Any]:
        """Plain values for the request."""
        plain = {"array": self.array.name, "axes": self.axes, "component": self.component, "scale": self.scale}
        return {**plain, "stored": str(self.array.dtype)}


@dataclass(frozen=True)
class Reading:
    """How samples are read.

    phases: the two values of a boolean coefficient (low, high). times: which are taken. ends: points dropped at the end of
    (Y, X).
    """

    source: Source
    target: str
    picks: tuple[Pick, ...]
    count: int
    times: range
    ends: tuple[int, int] = (0, 0)
    phases: tuple[float, float] = (0.0, 1.0)

    @property
    def shape(self) -> tuple[int, int]:
        """Points (Y, X) of a stored field; times and places where rows are times."""
        first = self.picks[0]
        rows = len(self.times) if self.target == "TX" else first.length("Y") - self.ends[0]
        return rows, first.length("X") - self.ends[1]

    @property
    def block(self) -> int:
        """Samples that are read at once."""
        one = sum(math.prod(p.array.shape) // p.length("N") * p.array.dtype.itemsize for p in self.picks)
        return max(1, BLOCK_BYTES // max(1, one))

    def read(self, first: int, last: int) -> np.ndarray:
        """Samples [first, last) as float32 [n, C, Y, X], in the order of the equation's channels."""
        with np.errstate(over="ignore"):
            parts = [self._part(pick, first, last).astype(np.float32) for pick in self.picks]
        if self.target == "TX":
            return np.ascontiguousarray(np.stack(parts, axis=1))
        stacked = np.stack(parts, axis=-3)  # [n, (T), S or C, Y, X]
        return np.ascontiguousarray(stacked.reshape(last - first, -1, *stacked.shape[-2:]))

    def _part(self, pick: Pick, first: int, last: int) -> np.ndarray:
        """One slot, [n, T, Y, X], [n, T, X] or [n, Y, X]."""
        times = slice(self.times.start, self.times.stop, self.times.step)
        some = {"N": slice(first, last), "T": times if "T" in self.target else slice(0, 1)}
        some |= {"Y": slice(0, pick.length("Y") - self.ends[0]), "X": slice(0, pick.length("X") - self.ends[1])}
        at = pick.component or 0
        values = self.source.read(pick.array, tuple(some.get(a, slice(at, at + 1)) for a in pick.axes))
        order = "N" + self.target
        values = values.squeeze(tuple(i for i, a in enumerate(pick.axes) if a not in order))
        kept = [a for a in pick.axes if a in order]
        values = values.transpose([kept.index(a) for a in order])
        if values.dtype == bool:
            values = np.where(values, self.phases[1], self.phases[0])
        return values * pick.scale if pick.scale != 1.0 else values

    def blocks(self, numbers: Sequence[int]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Samples of rising numbers, a block at a time: numbers and fields [n, C, Y, X]."""
        at = 0
        while at < len(numbers):
            end = at
            while end < len(numbers) and numbers[end] < numbers[at] + self.block:
                end += 1
            some = list(numbers[at:end])
            yield some, self.read(some[0], some[-1] + 1)[[n - some[0] for n in some]]
            at = end


def slots_of(pde: Pde) -> tuple[tuple[str, ...], str]:
    """What is looked for in a file, species or channels, and the target of each."""
    if isinstance(pde, Evolution):
        return pde.species, "TYX"
    return tuple(c.name for c in pde.channels), "TX" if pde.grid(8).kind == "strip" else "YX"


def map_channels(pde: Pde, source: Source, asked: Asked) -> Reading:
    """Find an array for every slot. UserError names the channel, what the file has, and what to say."""
    slots, target = slots_of(pde)
    for key in ("channels", "scale"):
        for name in getattr(asked, key):
            if name not in slots:
                raise UserError(f"{key}.{name}: {pde.name} has no such channel; it has {', '.join(slots)}")
    for name in asked.axes:
        if name not in source.arrays:
            raise UserError(
                f"axes.{name}: {source.path} has no such array; it has {', '.join(source.arrays) or 'no fields'}"
            )
    search = _Search(pde.name, slots, target, source, asked)
    picks = tuple(map(search.pick, slots))
    used = [(pick.array.name, pick.component) for pick in picks]
    for use in used:
        if used.count(use) > 1:
            sharing = " and ".join(p.slot for p, u in zip(picks, used, strict=True) if u == use)
            raise UserError(
                f"{source.path}: array '{use[0]}' would be {sharing}, one of which is missing; of real arrays of numbers it "
                f"has {search.has}: set channels.NAME=ARRAY"
            )
    _check_shapes(source, target, picks)
    return Reading(source, target, picks, picks[0].length("N"), _times(source, target, picks[0], asked))


@dataclass(frozen=True)
class _Search:
    """Looks through a file for the slots of an equation."""

    equation: str
    slots: tuple[str, ...]
    target: str
    source: Source
    asked: Asked

    @property
    def has(self) -> str:
        """The arrays of the file, for messages."""
        return ", ".join(f"{a.name} {list(a.shape)}" for a in self.source.arrays.values()) or "no fields"

    def pick(self, slot: str) -> Pick:
        """The array of a slot with its axes, component and factor."""
        (array, component), path = self.array(slot), self.source.path
        axes = self.asked.axes.get(array.name) or array.axes or _guessed(array.shape, self.target, len(self.slots))
        if len(axes) != len(array.shape) or not set("N" + self.target) <= set(axes):
            frames = ": frames of at least 4 times, two ends alone cannot carry the equation" * ("T" in self.target)
            raise UserError(
                f"{path}: array '{array.name}' for {slot} is {list(array.shape)}, expected [{', '.join('N' + self.target)}]"
                f"{frames}; set axes.{array.name} to the letters of its dims (N T S Y X), or channels.{slot}=ARRAY"
            )
        pick = Pick(slot, array, axes, component, self.asked.scale.get(slot, 1.0))
        if "S" not in axes and component is not None:
            raise UserError(f"channels.{slot}={array.name}:{component}: the array has no axis S; set axes.{array.name}")
        if component is not None and component >= pick.length("S"):
            raise UserError(
                f"channels.{slot}={array.name}:{component}: the array has {pick.length('S')} components, from 0"
            )
        if "T" in axes and "T" not in self.target and pick.length("T") != 1:
            raise UserError(
                f"{path}: array '{array.name}' has {pick.length('T')} times, {self.equation} is steady; "
                "it takes one: save that one"
            )
        return replace(pick, component=self._component(pick)) if "S" in axes and component is None else pick

    def _component(self, pick: Pick) -> int:
        """Which component of an array that has several, where the arguments do not say."""
        if pick.length("S") == len(self.slots):
            return self.slots.index(pick.slot)
        if pick.length("S") != 1:
            raise UserError(
                f"{self.source.path}: array '{pick.array.name}' has {pick.length('S')} components, {self.equation} takes "
                f"{len(self.slots)}; set channels.{pick.slot}={pick.array.name}:NUMBER"
            )
        return 0

    def array(self, slot: str) -> tuple[Array, int | None]:
        """The array of a slot: named in the arguments, of our name, of a known alias, or one that holds all slots."""
        source = self.source
        if slot in self.asked.channels:
            name, _, component = self.asked.channels[slot].partition(":")
            if name not in source.arrays or not (is_count(component) or not component):
                raise UserError(
                    f"channels.{slot}={self.asked.channels[slot]}: expected ARRAY or ARRAY:NUMBER; {source.path} has "
                    f"{self.has}"
                )
            return source.arrays[name], int(component) if component else None
        if slot in source.arrays:
            return source.arrays[slot], None
        fits = {name: a for name, a in source.arrays.items() if len(a.shape) > len(self.target)}
        aliases = ALIASES.get(self.equation, {}).get(slot, ())
        known = [name for name in source.arrays if name.rsplit("/", 1)[-1] in aliases]
        known = [name for name in known if name in fits] or known
        if not known and len(source.arrays) == 1 and len(fits) == 1:
            known = list(fits)
        if len(known) != 1:
            found = f"{' and '.join(known)} could be {slot}" if known else f"no array is known as {slot}"
            raise UserError(f"{source.path}: {found}; it has {self.has}: set channels.{slot}=ARRAY")
        return source.arrays[known[0]], None


def _guessed(shape: tuple[int, ...], target: str, slots: int) -> str:
    """Axes of an array that does not say: samples first, components after times or last, where their number fits."""
    plain = "N" + target
    if len(shape) == len(plain):
        return plain
    if len(shape) != len(plain) + 1:
        return ""
    place = 2 if target == "TYX" else 1
    if shape[place] in (1, slots):
        return plain[:place] + "S" + plain[place:]
    return plain + "S" if shape[-1] in (1, slots) else ""


def _check_shapes(source: Source, target: str, picks: tuple[Pick, ...]) -> None:
    """All slots have the same samples, times and places; axes that look like another order are named."""
    for pick in picks:
        shapes = [[p.length(axis) for axis in "N" + target] for p in (picks[0], pick)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{source.path}: {picks[0].slot} is {shapes[0]} and {pick.slot} {shapes[1]} in "
                f"[{', '.join('N' + target)}]; they must agree: set axes.{pick.array.name} or channels.{pick.slot}"
            )
        turned = target == "TYX" and pick.length("Y") != pick.length("X") and pick.length("T") == pick.length("Y")
        if turned and pick.axes == "NTYX" and not pick.array.axes:
            raise UserError(
                f"{source.path}: array '{pick.array.name}' {list(pick.array.shape)} looks like [N, Y, X, T]; "
                f"set axes.{pick.array.name}=NYXT, or =NTYX if that is its order"
            )
        for axis, places in source.places.items():
            if axis.upper() in target and len(places) != pick.length(axis.upper()):
                raise UserError(
                    f"{source.path}: array '{pick.array.name}' has {pick.length(axis.upper())} points along {axis}, its "
                    f"coordinate {len(places)}; set axes.{pick.array.name} to the letters of its dims"
                )


def _times(source: Source, target: str, pick: Pick, asked: Asked) -> range:
    """Which times are taken."""
    if "T" not in target:
        if asked.start or asked.every != 1:
            raise UserError(f"start={asked.start}, every={asked.every}: the equation has no times; leave both away")
        return range(1)
    chosen = range(asked.start, pick.length("T"), asked.every)
    if len(chosen) < 4:
        raise UserError(
            f"{source.path}: {pick.length('T')} times, of which start={asked.start} every={asked.every} leaves "
            f"{len(chosen)}; at least 4 are needed: the two ends alone cannot carry an equation in time"
        )
    return chosen
