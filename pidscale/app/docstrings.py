"""What the attributes of a dataclass mean, in the words of its docstring."""

from __future__ import annotations

import inspect
import re

_SEE = "See `"  # begins the entry of an attribute that a base class describes
_ENTRY = re.compile(r"^    (\w+): (.*)$")


def attribute_meanings(kind: type) -> dict[str, str]:
    """Return the entries of the sections `Attributes` of a class and of its bases, by name; none without docstrings."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        found |= {name: text for name, text in _entries(base).items() if not text.startswith(_SEE)}
    return found


def _entries(kind: type) -> dict[str, str]:
    """Return the entries of one class."""
    _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if entry := _ENTRY.match(line):
            name = entry[1]
            found[name] = entry[2]
        elif name and line.startswith("     "):
            found[name] += f" {line.strip()}"
        else:
            break
    return found
