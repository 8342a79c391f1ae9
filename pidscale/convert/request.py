"""What the user asks of a conversion, parsed from `key=value` arguments. Must not know the contents of files or equations."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from pidscale.config import UserError
from pidscale.ops.grid import KINDS
from pidscale.paths import expanded, refuse_address, refuse_job_package

_BOOLEANS = {"true": True, "false": False}
_GROUPS = ("channels", "axes", "scale", "parameters")  # written as GROUP.NAME=value


@dataclass(frozen=True)
class ConversionRequest:
    """The arguments of a conversion, each written as key=value or GROUP.NAME=value.

    Attributes:
        source: A file, or several that are read as one: a folder, a pattern, or names separated by commas.
        out: The folder of the shard set.
        layout: The layout of the files. Default: detected.
        grid: The kind of the files' grid: node, cell, periodic or strip. Default: the equation's own.
        test: The test split: a share below 1, a number of samples, or the files that hold it.
        seed: The seed that chooses the test samples.
        start: The first time that is used.
        every: The stride in time.
        drop_end: Whether to omit the repeated end point of periodic axes.
        duplicates: What happens to copies of a sample: drop or refuse.
        bad: What happens to samples with missing values or values beyond float32: refuse or omit.
        samples_per_shard: The number of samples in a shard.
        force: Whether to accept data that contradict the grid, and numbers that look like missing values.
        channels: channels.NAME=ARRAY or ARRAY:i: the array of a channel or species, and the component of it.
        axes: axes.ARRAY=LETTERS: the dims of an array, of N T S Y X.
        scale: scale.NAME=number: the factor of a channel.
        parameters: parameters.NAME=ARRAY or ARRAY:i: the array of a parameter, and the column of it.
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
        self._check_paths()
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
                    f"axes.{name}={axes}: expected each dim once: N samples, T time, S species, Y and X space"
                )
        for name, factor in self.scale.items():
            if not math.isfinite(factor) or factor == 0:
                raise UserError(f"scale.{name}={factor}: expected a finite number other than 0")

    def _check_paths(self) -> None:
        for key in ("source", "out"):
            if not getattr(self, key).strip():
                raise UserError(f"{key}=: expected a {'file' if key == 'source' else 'folder'}")
        object.__setattr__(self, "out", expanded(self.out, "out"))
        refuse_address(self.out, "out", "a set is made in a folder; make it there, then upload the folder")
        refuse_job_package(self.out, "out")


def is_index(text: str) -> bool:
    """Return whether a text is a whole number, 0 or more, in ASCII digits."""
    return text.isascii() and text.isdecimal()


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into those of the conversion and those of the equation (pde=..., pde.params.NAME=...)."""
    pde = [word for word in words if word.split("=")[0] == "pde" or word.startswith("pde.")]
    return [word for word in words if word not in pde], pde


def parse_request(words: Sequence[str]) -> ConversionRequest:
    """Parse the arguments of a conversion.

    Args:
        words: Arguments as key=value or GROUP.NAME=value.

    Returns:
        The request.

    Raises:
        UserError: A key is unknown or missing, or a value has the wrong type.
    """
    kinds = {f.name: str(f.type) for f in fields(ConversionRequest)}
    values: dict[str, Any] = {name: {} for name in _GROUPS}
    for word in words:
        key, equals, value = word.partition("=")
        group, dot, name = key.partition(".")
        if not equals or (group in _GROUPS) != bool(dot and name) or group not in kinds:
            close = difflib.get_close_matches(group, [*kinds, "pde"], n=1)
            advice = f"did you mean {close[0]}?" if close and close[0] != group else f"keys: pde, {', '.join(kinds)}"
            form = f"{group}.NAME=value" if group in _GROUPS else "key=value"
            raise UserError(f"{word!r}: expected {form}; {advice}")
        if group in _GROUPS:
            values[group][name] = _number(key, value, float) if group == "scale" else value
        else:
            values[key] = _typed(key, value, kinds[key])
    for key in ("source", "out"):
        if key not in values:
            raise UserError(f"{key}=: missing; expected pidscale convert source=FILE out=FOLDER pde=NAME")
    return ConversionRequest(**values)


def _typed(key: str, value: str, kind: str) -> Any:
    if kind == "bool":
        if value not in _BOOLEANS:
            raise UserError(f"{key}={value}: expected true or false")
        return _BOOLEANS[value]
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
