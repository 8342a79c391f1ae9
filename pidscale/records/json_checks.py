"""JSON of a shard set: its one spelling, and checks of keys and values with messages in one line.

Must not know what the values mean, nor equations, ranks or torch.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any, NoReturn

from pidscale.config import UserError
from pidscale.plain import nested_too_deeply, shown


def canonical(value: object) -> bytes:
    """Return the canonical JSON of a value (sorted keys, no spaces), which is hashed and compared."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is not a finite number")
    return value


def parsed(data: bytes, where: str) -> Any:
    """Parse JSON that holds only finite numbers.

    Args:
        data: The bytes.
        where: The file, for the message.

    Returns:
        The value.

    Raises:
        UserError: The bytes are not JSON, a number is not finite, or the values are nested too deeply.
    """
    try:
        value = json.loads(data, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}); restore the file or make the set again") from None
    if nested_too_deeply(value):
        raise UserError(f"{where}: nested too deeply; restore the file or make the set again")
    return value


def read_json(path: Path) -> Any:
    """Read and parse a JSON file; a file that is not JSON raises a UserError."""
    return parsed(path.read_bytes(), str(path))


def checked_object(where: str, data: object, **kinds: type) -> dict[str, Any]:
    """Return parsed JSON if it is an object with exactly the expected keys and kinds of values.

    Args:
        where: The file and the place in it, for the message.
        data: The parsed JSON.
        **kinds: The kind of value of each key.

    Returns:
        The object.

    Raises:
        UserError: It is not an object, a key is missing or unknown, or a value is of another kind.
    """
    if not isinstance(data, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(data).__name__}; make the set again")
    for key in kinds:
        if key not in data:
            raise UserError(f"{where}: key '{key}' is missing; restore the file or make the set again")
    for key, value in data.items():
        if key not in kinds:
            raise UserError(f"{where}: unknown key {shown(key)}; expected only {', '.join(sorted(kinds))}")
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            raise UserError(f"{where}: key '{key}' must be {kinds[key].__name__}, found {type(value).__name__}")
        if isinstance(value, str) and not value.isprintable():  # messages of one line show these strings
            refuse_value(where, key, f"printable characters only (found {shown(value)})")
    return data


def refuse_value(where: str, key: str, expected: str) -> NoReturn:
    """Raise the UserError that a key has another value than expected."""
    raise UserError(f"{where}: key '{key}' must be {expected}; restore the file or make the set again")


def is_number(value: object, kind: type | tuple[type, ...] = (int, float)) -> bool:
    """Return whether a parsed value is a number, not a truth value, in the range of a float, which integers may exceed."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return isinstance(value, kind) and abs(value) <= sys.float_info.max


def are_numbers(values: list[Any], count: int, kind: type | tuple[type, ...] = (int, float)) -> bool:
    """Return whether a parsed list holds exactly `count` values, all of them numbers."""
    return len(values) == count and all(is_number(value, kind) for value in values)
