"""What `--help` says of settings: groups with their choices, and every setting with its value and what it means.

The meanings are those of the docstrings in config.py.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import textwrap
import typing
from pathlib import Path
from typing import Any

from pidscale.app.compose import COMPARE, composed, groups, settings_from
from pidscale.app.docstrings import attribute_meanings
from pidscale.compare.settings import CompareSettings
from pidscale.config import Settings, from_plain, to_flat

COLUMN = 40
"""Column in which meanings begin."""

_WIDTHS = (80, 120)
_LONGEST = 120


def help_text(config: str, config_dir: Path | None = None) -> str:
    """Return a list of all groups with their choices, and of all settings with their default values and meanings.

    Args:
        config: File of configs/ with the default choices.
        config_dir: Folder of the user with further groups. Raises UserError if it is not a folder.

    Returns:
        Text of about two hundred lines, as wide as the terminal within bounds.
    """
    values = to_flat(settings_from([], config, config_dir=config_dir))
    means = meanings(Settings)
    if config == COMPARE:
        compare = from_plain(CompareSettings, composed([], config, config_dir)[COMPARE], COMPARE)
        values |= {f"{COMPARE}.{key}": value for key, value in to_flat(compare).items()}
        means |= meanings(CompareSettings, COMPARE)
    lines = ["group=choice takes a file of that group, section.key=value sets one value:", ""]
    lines += [f"  {group}={{{','.join(choices)}}}" for group, choices in groups(config_dir, config).items()]
    section = ""
    for name, value in values.items():
        if section != name.partition(".")[0]:
            section = name.partition(".")[0]
            lines.append("")
        lines += _entry(f"  {name}={_shown(value)}", means.get(name, ""))
    return "\n".join(lines)


def _shown(value: Any) -> str:
    """Return a value as it is typed; of a large section its names."""
    typed = json.dumps(value)
    if not isinstance(value, dict) or len(typed) <= _LONGEST:
        return typed
    names = textwrap.wrap(f"{{{', '.join(value)}}}", _WIDTHS[0] - 4, subsequent_indent=" " * 4, break_on_hyphens=False)
    return "\n".join(names)


def _entry(setting: str, meaning: str) -> list[str]:
    """Return a setting and its meaning in columns; a long setting has a line of its own."""
    low, high = _WIDTHS
    width = max(low, min(high, shutil.get_terminal_size().columns))
    wrapped = textwrap.wrap(meaning, width - COLUMN) or [""]
    if len(setting) >= COLUMN:
        return [setting, *(" " * COLUMN + line for line in wrapped if line)]
    return [f"{setting:{COLUMN}}{wrapped[0]}".rstrip(), *(" " * COLUMN + line for line in wrapped[1:])]


def meanings(kind: type, where: str = "") -> dict[str, str]:
    """Return what each setting of a dataclass means, nested sections included, by dotted name.

    Args:
        kind: A dataclass of settings, whose docstring lists its attributes.
        where: Dotted name of the section; empty for the root.

    Returns:
        The meanings. Those of a base class count for fields that it declares. Empty without docstrings (`python -OO`).
    """
    hints = typing.get_type_hints(kind)
    said = attribute_meanings(kind)
    found: dict[str, str] = {}
    for field in dataclasses.fields(kind):
        name = f"{where}.{field.name}".lstrip(".")
        if dataclasses.is_dataclass(hints[field.name]):
            found |= meanings(hints[field.name], name)
        elif field.name in said:
            found[name] = said[field.name]
    return found
