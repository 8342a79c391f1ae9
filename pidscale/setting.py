"""Declaration of a single setting with its default and bounds, and conversion of settings from and to plain values.

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
    """Format a float with the fewest digits that round-trip, so that a refused value never looks like its bound."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))


def distinct(*numbers: float, digits: int = 4) -> list[str]:
    """Format floats with `digits` significant digits, or with as many more as make numbers that differ look different."""
    different = len({float(number) for number in numbers})
    for precision in range(digits, 17):
        texts = [f"{number:.{precision}g}" for number in numbers]
        if len(set(texts)) == different:
            return texts
    return [repr(float(number)) for number in numbers]


@dataclass(frozen=True)
class Bounds:
    """Bounds on the value of a setting, or on each item if the value is a list.

    Attributes:
        at_least: Inclusive lower bound.
        above: Exclusive lower bound.
        at_most: Inclusive upper bound.
        below: Exclusive upper bound.
        choices: Allowed values; empty: any value.
        some: Whether a list must have at least one item.
        distinct: Whether the items of a list must differ.
        why: Reason for the bounds, appended to the error message.
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
            name: Dotted name of the setting.
            value: Value of the right type; None is always accepted.

        Raises:
            UserError: When the value is outside the bounds.
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
        """Return the description of the expected value for an error message."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        if isinstance(value, list):
            many = "one or more" if self.some else "a list of"
            bounded = (self.at_least, self.above, self.at_most, self.below) != (None,) * 4
            return (
                f"{many} {self._range('whole numbers' if bounded else 'names')}{', each once' if self.distinct else ''}"
            )
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
    """Declare a field of a settings dataclass, with a default and with bounds that `from_plain` and `check_values` check.

    All bounds are optional; numbers must always be finite. Example::

        steps: int = setting(1000, at_least=1, at_most=10**7)

    Args:
        default: Default value; a list is copied for each instance.
        at_least: See `Bounds`.
        above: See `Bounds`.
        at_most: See `Bounds`.
        below: See `Bounds`.
        choices: See `Bounds`.
        some: See `Bounds`.
        distinct: See `Bounds`.
        why: See `Bounds`.

    Returns:
        The dataclass field, typed as its default.
    """
    bounds = Bounds(at_least, above, at_most, below, tuple(choices), some, distinct, why)
    return typing.cast(T, _field(default, {"bounds": bounds}))


def with_default(section: type, name: str, default: T) -> T:
    """Redeclare an inherited field with another default and the same bounds.

    Args:
        section: Base dataclass that declares the field.
        name: Name of the field.
        default: Default value in the subclass.

    Returns:
        The dataclass field, typed as its default.
    """
    inherited = section.__dataclass_fields__[name]  # type: ignore[attr-defined]
    return typing.cast(T, _field(default, inherited.metadata))


def _field(default: Any, metadata: Mapping[str, Any]) -> Any:
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check_values(section: Any, where: str = "") -> None:
    """Check every value of a settings dataclass and of its nested sections against its bounds; see `Bounds.check`.

    Args:
        section: Instance of a settings dataclass.
        where: Dotted name of the section; empty for the root.
    """
    for name, value, field in _fields(section, where):
        if "bounds" in field.metadata:
            field.metadata["bounds"].check(name, value)


def _fields(section: Any, where: str) -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """Yield dotted name, value and field of every setting in a dataclass and in its nested sections."""
    for field in dataclasses.fields(section):
        name = f"{where}.{field.name}".lstrip(".")
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value, name)
        else:
            yield name, value, field


def from_plain(kind: type[T], plain: Mapping[str, Any], where: str = "") -> T:
    """Build a settings dataclass from plain values.

    If the class has a classmethod `renewed`, the values are first passed through it.

    Args:
        kind: The dataclass to build.
        plain: Values by name, with a mapping for each nested section; missing values take their defaults.
        where: Dotted name of the section, for error messages.

    Returns:
        An instance of the dataclass.

    Raises:
        UserError: When a key is unknown, or a value has the wrong type or is outside its bounds.
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


_TYPES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a section with keys",
}


def _value(hint: Any, value: Any, name: str) -> Any:
    """Return a value converted to its declared type. Raises UserError if the value has another type."""
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
        shown = "null" if value is None else repr(value)
        raise UserError(f"{name}={shown}: expected {_TYPES.get(origin, origin.__name__)}")
    return dict(value) if origin is dict else value


def to_plain(settings: Any) -> dict[str, Any]:
    """Return settings as plain JSON values."""
    return dataclasses.asdict(settings)


def to_flat(settings: Any) -> dict[str, Any]:
    """Return settings as a flat dictionary with dotted names such as `distill.weights.l2`; plain dicts are not flattened."""
    return {name: value for name, value, _ in _fields(settings, "")}
