"""Which array of a file is which channel of an equation, and which dim of it is which axis.

Must not know where points lie or what bounds the fields (grid_checks.py), nor parameters (parameters.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pidscale.config import UserError
from pidscale.convert.axes import find_axes
from pidscale.convert.layouts.source import Array, Source
from pidscale.convert.request import ConversionRequest, is_index
from pidscale.convert.sample_reader import Pick, SampleReader
from pidscale.pde.base import Pde
from pidscale.pde.evolution import Evolution

# Names that other programs give to our channels. Those of one equation do not overlap.
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
    """Return the slots of an equation, its channels or species, and the axes of one sample of a slot."""
    if isinstance(pde, Evolution):
        return pde.species, "TYX"
    return tuple(c.name for c in pde.channels), "TX" if pde.grid(8).kind == "strip" else "YX"


def map_channels(pde: Pde, source: Source, request: ConversionRequest) -> SampleReader:
    """Find the array of every slot of an equation.

    Args:
        pde: The equation.
        source: The open file.
        request: The arguments of the conversion.

    Returns:
        The reader of the samples.

    Raises:
        UserError: A channel has no array, or several; the message lists the arrays of the file and the argument to set.
    """
    slots, sample_axes = slots_of(pde)
    for key in ("channels", "scale"):
        for name in getattr(request, key):
            if name not in slots:
                raise UserError(f"{key}.{name}: {pde.name} has no such channel; it has {', '.join(slots)}")
    for name in request.axes:
        if name not in source.arrays:
            raise UserError(
                f"axes.{name}: {source.path} has no such array; it has {', '.join(source.arrays) or 'no fields'}"
            )
    search = _ArraySearch(pde.name, slots, sample_axes, source, request)
    picks = tuple(map(search.pick, slots))
    used = [(pick.array.name, pick.component) for pick in picks]
    for use in used:
        if used.count(use) > 1:
            sharing = " and ".join(p.slot for p, u in zip(picks, used, strict=True) if u == use)
            raise UserError(
                f"{source.path}: array '{use[0]}' would be {sharing}, one of which is missing; the real numeric arrays "
                f"are {search.listing}: set channels.NAME=ARRAY"
            )
    _check_shapes(source, sample_axes, picks)
    return SampleReader(
        source, sample_axes, picks, picks[0].length("N"), _times(source, sample_axes, picks[0], request)
    )


@dataclass(frozen=True)
class _ArraySearch:
    """Searches a file for the slots of an equation."""

    equation: str
    slots: tuple[str, ...]
    sample_axes: str
    source: Source
    request: ConversionRequest

    @property
    def listing(self) -> str:
        """The arrays of the file, for messages."""
        return ", ".join(f"{a.name} {list(a.shape)}" for a in self.source.arrays.values()) or "no fields"

    def pick(self, slot: str) -> Pick:
        """Find the array of a slot, with its axes, component and factor."""
        array, component = self._find_array(slot)
        axes = find_axes(array, self.sample_axes, len(self.slots), self.request, self.source.path)
        self._check_axes(slot, array, axes)
        pick = Pick(slot, array, axes, component, self.request.scale.get(slot, 1.0))
        if "S" not in axes and component is not None:
            raise UserError(f"channels.{slot}={array.name}:{component}: the array has no axis S; set axes.{array.name}")
        if component is not None and component >= pick.length("S"):
            raise UserError(
                f"channels.{slot}={array.name}:{component}: the array has {pick.length('S')} components, counted from 0"
            )
        if "Y" in axes and "Y" not in self.sample_axes and pick.length("Y") != 1:
            raise UserError(
                f"{self.source.path}: array '{array.name}' has {pick.length('Y')} points along y, {self.equation} has no "
                "y axis; save one row"
            )
        if "T" in axes and "T" not in self.sample_axes and pick.length("T") != 1:
            raise UserError(
                f"{self.source.path}: array '{array.name}' has {pick.length('T')} times, {self.equation} is steady; "
                "save one time only"
            )
        return replace(pick, component=self._component(pick)) if "S" in axes and component is None else pick

    def _check_axes(self, slot: str, array: Array, axes: str) -> None:
        """Raise UserError unless the axes are known for all dims and include those of a sample."""
        if len(axes) == len(array.shape) and set("N" + self.sample_axes) <= set(axes):
            return
        frames = ": frames of at least 4 times, the two ends alone do not determine an equation in time"
        raise UserError(
            f"{self.source.path}: array '{array.name}' for {slot} is {list(array.shape)}, expected "
            f"[{', '.join('N' + self.sample_axes)}]{frames * ('T' in self.sample_axes)}; set axes.{array.name} to the "
            f"letters of its dims (N T S Y X), or channels.{slot}=ARRAY"
        )

    def _component(self, pick: Pick) -> int:
        """Return the component of an array with several, where the arguments do not name one."""
        if pick.length("S") == len(self.slots):
            return self.slots.index(pick.slot)
        if pick.length("S") != 1:
            raise UserError(
                f"{self.source.path}: array '{pick.array.name}' has {pick.length('S')} components, {self.equation} needs "
                f"{len(self.slots)}; set channels.{pick.slot}={pick.array.name}:NUMBER"
            )
        return 0

    def _find_array(self, slot: str) -> tuple[Array, int | None]:
        """Find the array of a slot: the one named in the arguments, one with our name or an alias, or the only one."""
        arrays = self.source.arrays
        if slot in self.request.channels:
            return self._named_array(slot)
        if slot in arrays:
            return arrays[slot], None
        fits = {name: a for name, a in arrays.items() if len(a.shape) > len(self.sample_axes)}
        aliases = ALIASES.get(self.equation, {}).get(slot, ())
        known = [name for name in arrays if name.rsplit("/", 1)[-1] in aliases]
        known = [name for name in known if name in fits] or known
        if not known and len(arrays) == 1 and len(fits) == 1:
            known = list(fits)
        if len(known) != 1:
            found = f"{' and '.join(known)} could be {slot}" if known else f"no array is known as {slot}"
            raise UserError(f"{self.source.path}: {found}; it has {self.listing}: set channels.{slot}=ARRAY")
        return arrays[known[0]], None

    def _named_array(self, slot: str) -> tuple[Array, int | None]:
        """Return the array and the component that the arguments name for a slot."""
        word = self.request.channels[slot]
        name, _, component = word.partition(":")
        if name not in self.source.arrays or not (is_index(component) or not component):
            raise UserError(
                f"channels.{slot}={word}: expected ARRAY or ARRAY:NUMBER; {self.source.path} has {self.listing}"
            )
        return self.source.arrays[name], int(component) if component else None


def _check_shapes(source: Source, sample_axes: str, picks: tuple[Pick, ...]) -> None:
    """Raise UserError if slots or coordinates differ in length, or the axes look like another order."""
    for pick in picks:
        first, own = ([p.length(axis) for axis in "N" + sample_axes] for p in (picks[0], pick))
        if first != own:
            raise UserError(
                f"{source.path}: {picks[0].slot} is {first} and {pick.slot} {own} in [{', '.join('N' + sample_axes)}]; "
                f"they must agree: set axes.{pick.array.name} or channels.{pick.slot}"
            )
        turned = sample_axes == "TYX" and pick.length("Y") != pick.length("X") and pick.length("T") == pick.length("Y")
        if turned and pick.axes == "NTYX" and not pick.array.axes and not pick.array.attributes.dims:
            raise UserError(
                f"{source.path}: array '{pick.array.name}' {list(pick.array.shape)} looks like [N, Y, X, T]; "
                f"set axes.{pick.array.name}=NYXT, or =NTYX if that is its order"
            )
        for axis, line in source.coordinates.items():
            if axis.upper() in sample_axes and len(line) != pick.length(axis.upper()):
                raise UserError(
                    f"{source.path}: array '{pick.array.name}' has {pick.length(axis.upper())} points along {axis}, its "
                    f"coordinate {len(line)}; set axes.{pick.array.name} to the letters of its dims"
                )


def _times(source: Source, sample_axes: str, pick: Pick, request: ConversionRequest) -> range:
    """Return the indices of the times that are used."""
    if "T" not in sample_axes:
        if request.start or request.every != 1:
            raise UserError(
                f"start={request.start}, every={request.every}: the equation has no times; omit start and every"
            )
        return range(1)
    chosen = range(request.start, pick.length("T"), request.every)
    if len(chosen) < 4:
        raise UserError(
            f"{source.path}: {pick.length('T')} times, of which start={request.start} every={request.every} leaves "
            f"{len(chosen)}; at least 4 are needed: the two ends alone do not determine an equation in time"
        )
    return chosen
