"""Observations: known values of fields in physical units, where they are known, and their uncertainty.

Knows no files and no networks. Shapes: values_NCYX joint fields of N observations; known_NCYX bool; sigma_NC one standard
deviation for each channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pidscale.caller import sheltered
from pidscale.config import UserError, distinct
from pidscale.generator.arguments import as_amount, as_real
from pidscale.generator.generator import Generator
from pidscale.generator.tasks.readings import TOLERANCE_OF_SOME, Readings, check_channel
from pidscale.pde.base import solution_mask
from pidscale.plain import shown

TASKS = ("forward", "inverse", "reconstruct")
# sigma of noiseless values in standard deviations of a channel, as near as students come to a whole field
TOLERANCE = 0.03
USUAL = 5.0  # standard deviations from the mean of the training data beyond which a value gets a warning


@dataclass(frozen=True)
class Observation:
    """Known values of N fields.

    Attributes:
        values_NCYX: Known values in physical units; 0 where a value is not known.
        known_NCYX: Whether a value is known, bool.
        sigma_NC: Standard deviation of the noise of the values, or the tolerance of noiseless ones.
        whole_NC: Whether a channel is known at every point and without noise, bool. Such a channel may replace the generated
            one in a residual.
        readings: Readings that are not values at grid points.
    """

    values_NCYX: Tensor
    known_NCYX: Tensor
    sigma_NC: Tensor
    whole_NC: Tensor
    readings: tuple[Readings, ...] = ()

    def __len__(self) -> int:
        return len(self.values_NCYX)

    def __getitem__(self, some: slice) -> Observation:
        values, known, sigma, whole = (t[some] for t in self._tensors)
        return Observation(values, known, sigma, whole, tuple(one[some] for one in self.readings))

    def on(self, device: torch.device) -> Observation:
        """Return the observation on a device."""
        values, known, sigma, whole = (t.to(device) for t in self._tensors)
        return Observation(values, known, sigma, whole, tuple(one.on(device) for one in self.readings))

    @property
    def _tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.values_NCYX, self.known_NCYX, self.sigma_NC, self.whole_NC

    @property
    def points(self) -> Tensor:
        """Number of values and readings of each field that are known, [N]."""
        counts = [self.known_NCYX.flatten(1).sum(dim=1), *(one.known_NM.sum(dim=1) for one in self.readings)]
        return torch.stack(counts).sum(dim=0)


@sheltered
def observe(
    generator: Generator,
    task: str,
    values: Any,
    mask: Any = None,
    sigma: Any = None,
    where: str = "values",
    readings: Sequence[Readings] = (),
) -> Observation:
    """Check a user's values and build an observation from them.

    A channel may be an input at some points and the solution at others (Burgers: its first row is the input). Points that a
    task does not take are then ignored.

    Args:
        generator: A generator of the equation.
        task: `forward` takes the inputs of the equation, `inverse` its solution, `reconstruct` any channels.
        values: A dict of channel name to [Y, X] or [n, Y, X]; or an array of all channels that the task takes, [Y, X],
            [n, Y, X], [C, Y, X] or [n, C, Y, X]. None if there are only readings.
        mask: True where values are known: of the shape of the values or [Y, X], by channel or for all. None: everywhere for
            `forward` and `inverse`, where values are not NaN for `reconstruct`.
        sigma: Standard deviation of the noise in physical units, one number or a dict by channel; None for no noise.
        where: Name of the values in messages.
        readings: Readings that are not values at grid points (readings.py), for `reconstruct`.

    Returns:
        The observation, on the CPU.

    Raises:
        UserError: When a value, mask or sigma is wrong. The error is one line that names the channel.
    """
    places = _places(generator, task)
    takes = [name for name, at in zip(generator.channels, places, strict=True) if at.any()]
    _check_readings(readings)
    if readings and task != "reconstruct":
        raise UserError(f"readings: {task} takes none; give them to reconstruct")
    given = {} if values is None and readings else _by_channel(generator, task, values, takes, where)
    masks = _masks(generator, mask, list(given), None if isinstance(values, Mapping) else takes, where)
    count = _count(where, given, masks, readings)
    joint = torch.zeros(count, len(generator.channels), *generator.grid.shape, dtype=torch.float32)
    known = torch.zeros(joint.shape, dtype=torch.bool)
    for name, field in given.items():
        c = generator.channels.index(name)
        everywhere = ~field.isnan() if task == "reconstruct" else torch.ones_like(field, dtype=torch.bool)
        known[:, c] = masks.get(name, everywhere) & places[c]
        joint[:, c] = torch.where(known[:, c], field, 0.0)
        if not joint[:, c].isfinite().all():
            number, y, x = (~joint[:, c].isfinite()).nonzero()[0].tolist()
            raise UserError(
                f"{where}: {name} of field {number} is not finite in single precision at y={y}, x={x}; give a "
                "number, or reconstruct without it"
            )
    seen = known.flatten(1).any(dim=1) | bool(readings)
    if not seen.all():
        number = int((~seen).nonzero()[0])
        raise UserError(f"{where}: no value of field {number} is known: its mask is empty, or all values are NaN")
    sigma_NC, noisy_C = _sigma(generator, sigma, list(given), known.to(torch.float32).mean(dim=(2, 3)))
    whole_NC = known.all(dim=(2, 3)) & ~noisy_C
    return Observation(joint, known, sigma_NC, whole_NC, tuple(one.expanded(count) for one in readings))


def warnings_for(generator: Generator, observation: Observation) -> list[str]:
    """List channels with values that the equation does not allow, or that lie outside the training data.

    A student can only extrapolate to the latter.

    Args:
        generator: A generator of the equation.
        observation: Known values.

    Returns:
        One line for each finding, which begins with `warning:`.
    """
    lines = []
    units = generator.normaliser
    for c, (channel, mean, std) in enumerate(zip(generator.pde.channels, units.mean, units.std, strict=True)):
        name = channel.name
        parts = [observation.values_NCYX[:, c][observation.known_NCYX[:, c]]]
        parts += [one.values_NM[one.known_NM] for one in observation.readings if one.channel == name]
        values = torch.cat(parts)
        if channel.positive and (values <= 0).any():
            lines.append(
                f"warning: {name}: {int((values <= 0).sum())} of {len(values)} known values are not above 0 (the least is "
                f"{float(values.min()):.4g}), where {generator.pde.name} is not defined"
            )
        far = (values - mean).abs() > USUAL * std
        if far.any():
            farthest = float(values[(values - mean).abs().argmax()])
            low, high, value = distinct(mean - USUAL * std, mean + USUAL * std, farthest)
            lines.append(
                f"warning: {name}: {int(far.sum())} of {len(values)} known values lie outside {low} to {high}, the mean of "
                f"the training data and {USUAL:g} standard deviations; the farthest is {value}; the answer extrapolates"
            )
    return lines


def _check_readings(readings: Any) -> None:
    """Raise UserError if readings are no list of Readings."""
    listed = isinstance(readings, (list, tuple))
    wrong = [type(one).__name__ for one in readings if not isinstance(one, Readings)] if listed else []
    if wrong or not listed:
        found = f"a {wrong[0]} among them" if wrong else f"a {type(readings).__name__}"
        raise UserError(
            f"readings: {found}; expected a list of what points, means, slopes and linear return (tasks/readings.py)"
        )


def _count(where: str, given: Mapping[str, Tensor], masks: Mapping[str, Tensor], readings: Sequence[Readings]) -> int:
    """Return the number of fields that are observed. Raises UserError where some have another number than others."""
    sizes = [(name, len(field)) for name, field in given.items()] + [("readings", len(one)) for one in readings]
    count = max(size for _, size in sizes)
    for name, size in (*sizes, *((name, len(mask)) for name, mask in masks.items())):
        if size not in (1, count):
            raise UserError(
                f"{where}: {size} fields or masks of {name} beside {count} of another; give as many of each"
            )
    return count


def _places(generator: Generator, task: str) -> Tensor:
    """Return the points that a task takes, bool [C, Y, X]."""
    if task not in TASKS:
        raise UserError(f"task={shown(task)}: expected one of {', '.join(TASKS)}")
    solution = solution_mask(generator.pde, generator.grid)
    return {"forward": ~solution, "inverse": solution, "reconstruct": torch.ones_like(solution)}[task]


def _by_channel(generator: Generator, task: str, values: Any, takes: list[str], where: str) -> dict[str, Tensor]:
    """Return fields [n, Y, X] by name, which may hold NaN."""
    if not isinstance(values, Mapping):
        values = _unstacked(generator, as_real(where, values), takes, where)
    if not values:
        raise UserError(f"{where}: no values of any channel; {task} takes {', '.join(takes)}")
    fields = {}
    for name in values:
        check_channel(generator, name, where)
        if name not in takes:
            raise UserError(f"{where}[{name!r}]: {task} finds this channel; it takes {', '.join(takes)}")
        fields[name] = _field(generator, as_real(f"{where}[{name!r}]", values[name]), f"{where}[{name!r}]")
    return fields


def _field(generator: Generator, field: Tensor, label: str) -> Tensor:
    """Return a field [Y, X] or [n, Y, X] as [n, Y, X] on the CPU."""
    height, width = generator.grid.shape
    one = field[None] if field.ndim == 2 else field
    if one.ndim != 3 or tuple(one.shape[1:]) != (height, width) or not len(one):
        raise UserError(f"{label}: shape {list(field.shape)}, expected [{height}, {width}] or [n, {height}, {width}]")
    return one.detach().cpu()


def _unstacked(generator: Generator, joint: Tensor, takes: list[str], where: str) -> dict[str, Tensor]:
    """Return an array of all channels that a task takes as fields by name."""
    grid = tuple(generator.grid.shape)
    if tuple(joint.shape[-2:]) == grid:
        if len(takes) == 1 and joint.ndim in (2, 3):
            return {takes[0]: joint}
        if joint.ndim in (3, 4) and joint.shape[-3] == len(takes):
            return dict(zip(takes, joint.unbind(dim=-3), strict=True))
    size = ", ".join(map(str, grid))
    wanted = f"[{size}] or [n, {size}]" if len(takes) == 1 else f"[{len(takes)}, {size}] or [n, {len(takes)}, {size}]"
    named = takes[0] if len(takes) == 1 else f"{takes[0]} to {takes[-1]}"
    raise UserError(f"{where}: shape {list(joint.shape)}, expected {wanted}: {named} on the student's grid")


def _masks(generator: Generator, mask: Any, names: list[str], takes: list[str] | None, where: str) -> dict[str, Tensor]:
    """Return where values are known, bool [n, Y, X] by channel; empty without masks.

    names: channels that have values. takes: channels of the values if these are one joint array, else None.
    """
    if mask is None:
        return {}
    if not isinstance(mask, Mapping):
        joint = as_real("mask", mask)
        is_stacked = takes is not None and joint.ndim > 2
        mask = _unstacked(generator, joint, takes or [], "mask") if is_stacked else dict.fromkeys(names, joint)
    found = {}
    for name, one in mask.items():
        label = f"mask[{name!r}]" if where == "values" else f"{where}: mask[{name!r}]"
        check_channel(generator, name, "mask" if where == "values" else f"{where}: mask")
        if name not in names:
            raise UserError(f"{label}: this channel has no values; give them, or omit its mask")
        field = _field(generator, as_real(label, one), label)
        if not bool(((field == 0) | (field == 1)).all()):
            raise UserError(f"{label}: expected true or false at every point, or 1 and 0")
        found[name] = field > 0
    return found


def _sigma(generator: Generator, sigma: Any, names: list[str], share_NC: Tensor) -> tuple[Tensor, Tensor]:
    """Return the standard deviation of each channel, float32 [N, C], and whether it is that of noise, bool [C].

    names: channels that have values. share_NC: fraction of the points of each channel that is known.
    """
    given = sigma if isinstance(sigma, Mapping) else {} if sigma is None else dict.fromkeys(generator.channels, sigma)
    std = torch.tensor(generator.normaliser.std, dtype=torch.float32)
    sigma_NC = torch.where(share_NC < 0.5, TOLERANCE_OF_SOME * std, TOLERANCE * std)
    for name, value in given.items():
        check_channel(generator, name, "sigma")
        if isinstance(sigma, Mapping) and name not in names:
            raise UserError(f"sigma[{name!r}]: this channel has no values; give them, or omit its sigma")
        label = f"sigma[{name!r}]" if isinstance(sigma, Mapping) else "sigma"
        sigma_NC[:, generator.channels.index(name)] = as_amount(label, value)
    return sigma_NC, torch.tensor([name in given for name in generator.channels])
