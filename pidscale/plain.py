"""Values as JSON that every reader takes: its numbers are finite. Knows no files and no settings.

Python writes NaN and Infinity where other readers of JSON stop, so whoever writes a file asks here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any


def finite(value: Any) -> Any:
    """The same value with null in place of every number that is not finite."""
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def not_finite(value: Any, name: str = "") -> Iterator[str]:
    """Names of the numbers in a value that are not finite, such as `metrics.residual_l2` or `scales.0`."""
    if isinstance(value, float) and not math.isfinite(value):
        yield name
    parts = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    )
    for key, one in parts:
        yield from not_finite(one, f"{name}.{key}" if name else str(key))


def printable(text: str) -> str:
    """Text of a file as a terminal may show it: "?" for each character that is not printable, blanks apart."""
    return "".join(one if one.isprintable() or one.isspace() else "?" for one in text)


def json_text(value: Any, **layout: Any) -> str:
    """JSON with null for what is not finite. layout: arguments of json.dumps."""
    return json.dumps(finite(value), allow_nan=False, **layout)


def size_text(count: float) -> str:
    """Bytes for a reader: 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
