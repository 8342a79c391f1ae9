"""Which array of a file is which channel of an equation, and which dim of it is which axis.

Must not know where points sit or what bounds them (points.py), nor parameters (parameters.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pidscale.config import UserError
from pidscale.convert.axes import axes_of
from pidscale.convert.layouts.source import Array, Source
from pidscale.convert.reading import Pick, Reading
from pidscale.convert.request import Asked, is_count
from pidscale.pde.base import Pde
from pidscale.pde.evolution import Evolution

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
        axes = axes_of(array, self.target, len(self.slots), self.asked, path)
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
        if "Y" in axes and "Y" not in self.target and pick.length("Y") != 1:
            raise UserError(
                f"{path}: array '{array.name}' has {pick.length('Y')} points along y, {self.equation} has none; save one row"
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
        if turned and pick.axes == "NTYX" and not pick.array.axes and not pick.array.said.dims:
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
