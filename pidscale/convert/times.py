"""Frames and duration of an equation in time, from the times of a file that are used. Must not know channels or shards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pidscale.config import UserError, distinct
from pidscale.convert.layouts.source import Source
from pidscale.convert.parameters import CLOSE, checked_value
from pidscale.pde.base import Pde
from pidscale.pde.evolution import Evolution


def add_times(pde: Pde, source: Source, times: range, given: Mapping[str, Any], fixed: dict[str, Any]) -> None:
    """Add frames and duration to the parameters `fixed` of an equation in time.

    Args:
        pde: The equation with the parameters of the settings.
        source: The open file.
        times: The indices of the times that are used.
        given: The parameters that the settings give, by name.
        fixed: The parameters of file and settings, by name; changed in place.

    Raises:
        UserError: The times have uneven steps, are not known, or contradict the settings.
    """
    in_frames = isinstance(pde, Evolution)
    if in_frames:
        if given.get("frames", len(times)) != len(times):
            raise UserError(
                f"{source.path}: {len(times)} times are used, pde.params.frames={given['frames']}; set pde.params.frames="
                f"{len(times)}, or choose others with start= and every="
            )
        fixed["frames"] = len(times)
    if not in_frames and pde.grid(8).kind != "strip":
        return
    if source.times is not None:
        _add_duration(pde, source, source.times, times, given, fixed)
    elif (times.start != 0 or times.step != 1) and "duration" not in given:
        remedy = "set pde.params.duration"
        if "duration" not in pde.params_dict():
            remedy = f"write its times into the file: {pde.name} has a duration of {pde.grid(8).extent[0]:g}"
        raise UserError(
            f"{source.path}: has no times, so the duration that start={times.start} every={times.step} leaves is not known; "
            f"{remedy}"
        )


def _add_duration(
    pde: Pde, source: Source, stored: np.ndarray, times: range, given: Mapping[str, Any], fixed: dict[str, Any]
) -> None:
    """Add the duration of the stored times that are used, or check it where the equation's is fixed."""
    if len(stored) < times[-1] + 1:
        raise UserError(
            f"{source.path}: {len(stored)} values in its time coordinate, {times[-1] + 1} times; repair the file"
        )
    used = stored[times.start : times.stop : times.step].astype(np.float64)
    steps = np.diff(used)
    if (steps < 0).all():
        raise UserError(
            f"{source.path}: its times decrease; write them and the fields in ascending order into a new file"
        )
    even = (abs(steps - steps.mean()) <= 1e-3 * abs(steps.mean())).all()
    if not np.isfinite(used).all() or not even or steps[0] <= 0:
        shortest, longest = distinct(steps.min(), steps.max(), digits=3)
        raise UserError(
            f"{source.path}: its times do not have even steps ({shortest} to {longest}); choose even ones "
            "with start= and every=, or write them into a new file"
        )
    duration = float(f"{used[-1] - used[0]:.6g}")
    length = pde.grid(8).extent[0]
    if "duration" in pde.params_dict():
        fixed["duration"] = checked_value(pde.name, "duration", duration, given, source)
    elif not math.isclose(duration, length, rel_tol=CLOSE):
        spans, expected = distinct(duration, length)
        raise UserError(
            f"{source.path}: its times span {spans}, {pde.name} has a duration of {expected}; rescale time and "
            "parameters"
        )
