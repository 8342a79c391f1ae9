"""One setting: its default with the bounds of its values beside it, and how settings are read from plain values.

Must not know any setting by name: config.py and the objectives declare them.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


class UserError(Exception):
    """A user's mistake: one clear line that names the file or key, what was expected and what to do."""


def exact(number: float) -> str:
    """Return a number in as few digits as tell it from any other: what is refused never reads like its own bound."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))


@dataclass(frozen=True)
class Bounds:
    """What the value of a setting may be; of a list, each of its items.

    Attributes:
        at_least: The smallest number allowed.
        above: The number that a value has to exceed.
        at_most: The largest number allowed.
        below: The number that a value may not reach.
        choices: All values allowed; empty: any.
        some: Whether a list has to hold an item.
        distinct: Whether the items of a list have to differ.
        why: What a reader of the error should know besides.
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] = ()
    some: bool = False
    distinct: bool = False
    why: str = ""

    def check(self, name: str, value: Any) -> None:
        """Check a value.

        Args:
            name: The dotted name of the setting.
            value: Its value, of the right type; None passes.

        Raises:
            UserError: The value is outside the bounds.
        """
        items = value if isinstance(value, list) else [value]
        wrong = not all(self._allows(item) for item in items)
        if not wrong and isinstance(value, list):
            wrong = (self.some and not value) or (self.distinct and len(set(value)) < len(value))
        if wrong:
            why = f"; {self.why}" if self.why else ""
            raise UserError(f"{name}={value!r}: expected {self._expected(value)}{why}")

    def _allows(self, value: Any) -> bool:
        if value is None:
            return True
        if self.choices:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return True
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def _expected(self, value: Any) -> str:
        """What an error says was expected in place of a value."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        if isinstance(value, list):
            many = "one or more" if self.some else "any number of"
            return f"{many} {self._range('whole numbers')}{', each once' if self.distinct else ''}"
        return self._range("a whole number" if isinstance(value, int) else "a finite number")

    def _range(self, what: str) -> str:
        low, high = self.at_least, self.at_most
        if low is not None and high is not None:
            return f"{what} from {_digits(low)} to {_digits(high)}"
        parts = [
            f"of {_digits(low)} or more" if low is not None else "",
            f"above {_digits(self.above)}" if self.above is not None else "",
            f"of {_digits(high)} or less" if high is not None else "",
            f"below {_digits(self.below)}" if self.below is not None else "",
        ]
        return " ".join([what, " and ".join(part for part in parts if part)]).rstrip()


def _digits(number: float) -> str:
    return str(number) if isinstance(number, int) else exact(number)


def setting(
    default: T,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: Collection[Any] = (),
    some: bool = False,
    distinct: bool = False,
    why: str = "",
) -> T:
    """Declare a field of a settings dataclass: its default, and the bounds that `from_plain` and `check_values` hold it to.

    A bound is only stated for what has one; numbers are always finite. For example::

        steps: int = setting(1000, at_least=1, at_most=10**7)

    Args:
        default: The default; a list is copied for each instance.
        at_least: See `Bounds`, as for all that follow.
        above: See `Bounds`.
        at_most: See `Bounds`.
        below: See `Bounds`.
        choices: See `Bounds`.
        some: See `Bounds`.
        distinct: See `Bounds`.
        why: See `Bounds`.

    Returns:
        The field, typed as its default.
    """
    bounds = Bounds(at_least, above, at_most, below, tuple(choices), some, distinct, why)
    return typing.cast(T, _field(default, {"bounds": bounds}))


def with_default(section: type, name: str, default: T) -> T:
    """Declare an inherited field again: another default, the same bounds.

    Args:
        section: The dataclass that it is inherited from.
        name: The name of the field.
        default: The default of the subclass.

    Returns:
        The field, typed as its default.
    """
    inherited = section.__dataclass_fields__[name]  # type: ignore[attr-defined]
    return typing.cast(T, _field(default, inherited.metadata))


def _field(default: Any, metadata: Mapping[str, Any]) -> Any:
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check_values(section: Any, where: str = "") -> None:
    """Hold every value of a settings dataclass, and of the sections in it, to the bounds of its field: see `Bounds.check`.

    Args:
        section: An instance of a settings dataclass.
        where: Its dotted name; empty for all settings.
    """
    for name, value, field in _fields(section, where):
        if "bounds" in field.metadata:
            field.metadata["bounds"].check(name, value)


def _fields(section: Any, where: str) -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """Dotted name, value and field of every setting in a dataclass, those of its sections included."""
    for field in dataclasses.fields(section):
        name = f"{where}.{field.name}".lstrip(".")
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value, name)
        else:
            yield name, value, field


def from_plain(kind: type[T], plain: Mapping[str, Any], where: str = "") -> T:
    """Build a settings dataclass from plain values.

    Of a class with a classmethod `renewed`, the values are what that returns of those given.

    Args:
        kind: The dataclass.
        plain: Its values by name, a mapping for each section; what is absent has its default.
        where: Its dotted name, for messages.

    Returns:
        The instance.

    Raises:
        UserError: A key is unknown, or a value is of the wrong type or outside its bounds.
    """
    renewed = getattr(kind, "renewed", None)
    if renewed is not None:
        plain = renewed(plain)
    hints = typing.get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    values = {}
    for key, value in plain.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(sorted(known))}"
            raise UserError(f"{name}: unknown setting; {advice}")
        values[key] = _value(hints[key], value, name)
    made = kind(**values)
    check_values(made, where)
    return made


def _value(hint: Any, value: Any, name: str) -> Any:
    """A value as its type has it. Raises UserError for another type."""
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UserError(f"{name}={value!r}: expected a section with keys")
        return from_plain(typing.cast(type, hint), value, name)
    if isinstance(hint, types.UnionType):
        return None if value is None else _value(typing.get_args(hint)[0], value, name)
    origin = typing.get_origin(hint) or hint
    if origin is list and isinstance(value, list):
        return [_value(typing.get_args(hint)[0], item, name) for item in value]
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**1023 else math.inf
    if not isinstance(value, origin) or (isinstance(value, bool) and origin is not bool):
        raise UserError(f"{name}={value!r}: expected {origin.__name__}, got {type(value).__name__}")
    return dict(value) if origin is dict else value


def to_plain(settings: Any) -> dict[str, Any]:
    """Return settings as plain JSON values."""
    return dataclasses.asdict(settings)


def to_flat(settings: Any) -> dict[str, Any]:
    """Return settings as one dictionary of dotted names, `distill.weights.l2` among them; free mappings stay whole."""
    return {name: value for name, value, _ in _fields(settings, "")}
