"""Pieces that all pages are made of: tables, numbers, where figures come from, and a part of a file between two markers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.report import Row


def table(heads: list[str], lines: Iterable[list[str]]) -> str:
    """Return a table in Markdown."""
    rows = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return "\n".join([*rows, *(f"| {' | '.join(line)} |" for line in lines)])


def number(value: Any, digits: int = 3) -> str:
    """Return a number with so many significant digits, "-" for None, and words unchanged."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.{digits}g}"


def plain(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits, without an exponent where there are only tens or thousands."""
    return f"{float(f'{value:.{digits}g}'):g}"


def spread(middle: float, low: float, high: float, form: str) -> str:
    """Return a median with its range, "3.1 (2.9 to 3.4)", each number in this format."""
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def groups(rows: list[Row], key: str) -> dict[Any, list[Row]]:
    """Return the rows by their value of a key, in the order in which the values appear."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row)
    return found


def source(name: str) -> str:
    """Return the words that say which file the figures of a page come from."""
    return f"Source: benchmarks/results/{name}.json"


def between(text: str, begin: str, end: str, new: str) -> str:
    """Return a text with something new between the line that begins with `begin` and the marker `end`."""
    start = text.index("\n", text.index(begin)) + 1
    return f"{text[:start]}\n{new}\n\n{text[text.index(end) :]}"
