"""What a conversion is asked for: typed, from `key=value` words. Must not know files' contents or equations."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from pidscale.config import UserError
from pidscale.ops.grid import KINDS
from pidscale.paths import expanded, refuse_address, refuse_job_package

_TRUTH = {"true": True, "false": False}
_NAMED = ("channels", "axes", "scale", "parameters")  # asked for as NAMED.key=value


@dataclass(frozen=True)
class Asked:
    """A conversion.

    source: a file, or several that are read as one: a folder, a pattern, or names with commas between. out: the folder of
    the set. layout: recognised unless named. grid: node, cell, periodic or strip; the equation's own unless stated. test: a
    share below 1, a count, or what files have the test split. seed: chooses the test samples. start, every: first time
    taken, and every how many. drop_end: leave away the repeated end point of periodic axes. duplicates: drop or refuse.
    bad: refuse or omit samples with missing values or values beyond float32. force: take data that contradict the grid, or
    numbers that look like missing values, all the same. channels.NAME=ARRAY or ARRAY:i: the array of a channel
    or species, and which component of it. axes.ARRAY=LETTERS: its dims, of N T S Y X. scale.NAME=number: factor of a
    channel. parameters.NAME=ARRAY: the array of a parameter.
    """

    source: str
    out: str
    layout: str | None = None
    grid: str | None = None
    test: float | str = 0.1
    seed: int = 0
    start: int = 0
    every: int = 1
    drop_end: bool = False
    duplicates: str = "drop"
    bad: str = "refuse"
    samples_per_shard: int = 512
    force: bool = False
    channels: Mapping[str, str] = field(default_factory=dict)
    axes: Mapping[str, str] = field(default_factory=dict)
    scale: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("source", "out"):
            if not getattr(self, key).strip():
                raise UserError(f"{key}=: expected a {'file' if key == 'source' else 'folder'}")
        object.__setattr__(self, "out", expanded(self.out, "out"))
        refuse_address(self.out, "out", "a set is made in a folder; make it there and copy the folder up")
        refuse_job_package(self.out, "out")
        if self.grid is not None and self.grid not in KINDS:
            raise UserError(f"grid={self.grid}: expected one of {', '.join(KINDS)}")
        for key, choices in (("duplicates", ("drop", "refuse")), ("bad", ("refuse", "omit"))):
            if getattr(self, key) not in choices:
                raise UserError(f"{key}={getattr(self, key)}: expected {' or '.join(choices)}")
        for key, least in (("every", 1), ("samples_per_shard", 1), ("start", 0), ("seed", 0)):
            if getattr(self, key) < least:
                raise UserError(f"{key}={getattr(self, key)}: expected a whole number, {least} or more")
        share = 0.0 if isinstance(self.test, str) else self.test
        if not 0 <= share < math.inf or (share > 1 and share != int(share)):
            raise UserError(f"test={share}: expected a share below 1, a whole number of samples, or a file")
        for name, axes in self.axes.items():
            if len(set(axes)) != len(axes) or not set("NX") <= set(axes) <= set("NTSYX"):
                raise UserError(
                    f"axes.{name}={axes}: expected each dim once: N samples, T times, S species, Y, X places"
                )
        for name, factor in self.scale.items():
            if not math.isfinite(factor) or factor == 0:
                raise UserError(f"scale.{name}={factor}: expected a finite number, not 0")


def is_count(text: str) -> bool:
    """Whether a text is a whole number, 0 or more, in plain digits."""
    return text.isascii() and text.isdecimal()


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words about the conversion, and words about the equation (pde=..., pde.params....), which others read."""
    pde = [word for word in words if word.split("=")[0] == "pde" or word.startswith("pde.")]
    return [word for word in words if word not in pde], pde


def asked_from(words: Sequence[str]) -> Asked:
    """Build from `key=value` words. UserError names an unknown key, a value of a wrong kind, or a key that is missing."""
    kinds = {f.name: str(f.type) for f in fields(Asked)}
    values: dict[str, Any] = {name: {} for name in _NAMED}
    for word in words:
        key, equals, value = word.partition("=")
        group, dot, name = key.partition(".")
        if not equals or (group in _NAMED) != bool(dot and name) or group not in kinds:
            close = difflib.get_close_matches(group, [*kinds, "pde"], n=1)
            advice = f"did you mean {close[0]}?" if close and close[0] != group else f"keys: pde, {', '.join(kinds)}"
            form = f"{group}.NAME=value" if group in _NAMED else "key=value"
            raise UserError(f"{word!r}: expected {form}; {advice}")
        if group in _NAMED:
            values[group][name] = _number(key, value, float) if group == "scale" else value
        else:
            values[key] = _typed(key, value, kinds[key])
    for key in ("source", "out"):
        if key not in values:
            raise UserError(f"{key}=: missing; expected pidscale convert source=FILE out=FOLDER pde=NAME")
    return Asked(**values)


def _typed(key: str, value: str, kind: str) -> Any:
    if kind == "bool":
        if value not in _TRUTH:
            raise UserError(f"{key}={value}: expected true or false")
        return _TRUTH[value]
    if kind == "float | str":
        try:
            return float(value)
        except ValueError:
            return value
    return _number(key, value, int) if kind == "int" else value


def _number(key: str, value: str, kind: type) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise UserError(f"{key}={value}: expected a {'whole ' * (kind is int)}number") from None
