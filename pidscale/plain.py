"""Plain values as text: JSON that every reader accepts, printable strings, sizes. Knows no files and no settings.

Python writes NaN and Infinity into JSON, which other readers refuse; all files are written with `json_text` instead.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_LONGEST = 160  # characters of a value in a message
_DEEPEST = 64  # levels of lists and mappings in a file; the package itself writes fewer than ten

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80


def shown(value: object) -> str:
    """Return a value as messages show it: in one short line, by its type where it has no such line."""
    text = _repr.repr(value)
    return text if len(text) <= _LONGEST and text.isprintable() else f"a {type(value).__name__}"


def finite(value: Any) -> Any:
    """Return a value of mappings, lists and numbers with None in place of every number that is not finite."""
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def not_finite(value: Any, name: str = "") -> Iterator[str]:
    """Yield the names of the numbers in a value that are not finite, such as `metrics.residual_l2` or `scales.0`.

    Args:
        value: Mappings, lists and numbers, nested.
        name: Name of the value itself, the first part of what is yielded.

    Yields:
        Names, with a dot between keys and indices.
    """
    if isinstance(value, float) and not math.isfinite(value):
        yield name
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, (list, tuple)):
        parts = enumerate(value)
    for key, part in parts:
        yield from not_finite(part, f"{name}.{key}" if name else str(key))


def nested_too_deeply(value: Any) -> bool:
    """Return whether lists and mappings are nested deeper than in any file of this package.

    Python's own limit, which raises a RecursionError, depends on the caller, and libraries raise it.
    """
    groups = [value] if isinstance(value, (Mapping, list, tuple)) else []
    for _ in range(_DEEPEST):
        within = (group.values() if isinstance(group, Mapping) else group for group in groups)
        groups = [part for parts in within for part in parts if isinstance(part, (Mapping, list, tuple))]
    return bool(groups)


def printable(text: str) -> str:
    """Return text of a file for a terminal, with "?" for each character that is neither printable nor white space."""
    return "".join(char if char.isprintable() or char.isspace() else "?" for char in text)


def json_text(value: Any, **layout: Any) -> str:
    """Return JSON with null for numbers that are not finite; `layout` goes to json.dumps."""
    return json.dumps(finite(value), allow_nan=False, **layout)


def size_text(count: float, digits: int = 1) -> str:
    """Return a number of bytes for a reader, such as 1.5 MiB, with `digits` after the point."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.{digits}f} {unit}"
        count /= 1024
    return f"{count:.{digits}f} TiB"


def size_texts(first: float, second: float) -> tuple[str, str]:
    """Return two numbers of bytes for a reader, with as many digits as make different ones look different."""
    for digits in range(1, 13):
        texts = size_text(first, digits), size_text(second, digits)
        if texts[0] != texts[1]:
            return texts
    return size_text(first), size_text(second)
