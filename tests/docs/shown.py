"""Compares what a command prints with what a page shows of it.

`...` on a line of its own stands for any lines, within a line for any text. Blanks count as one. Whole numbers must be the
same, others agree to 1 % or to their last digit; numbers of seconds, rates and memory may be any, and so may all numbers of a
command that was run otherwise than the page has it.
"""

from __future__ import annotations

import re

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])(?!\.\d)", re.IGNORECASE)
MEASURED = re.compile(r"\s*(?:s|ms|min|h|seconds|minutes|hours|[KMG]i?B|samples/s|steps/s|/s)\b|/s\b")


def difference(shown: str, printed: str, *, free: bool = False) -> str | None:
    """Return why an output is not the one that a page shows, or None.

    Args:
        shown: What the page shows.
        printed: What was printed.
        free: Whether all numbers may be any.
    """
    wanted = [line for line in map(_plain, shown.split("\n")) if line]
    lines = [line for line in map(_plain, printed.split("\n")) if line]
    at = 0
    gap = False
    for want in wanted:
        if want == "...":
            gap = True
            continue
        place = next((n for n in range(at, len(lines)) if _alike(want, lines[n], free)), None)
        if place is None or (place > at and not gap):
            there = lines[at] if at < len(lines) else "nothing"
            return f"the page shows  {want}\n    it prints       {there}"
        at = place + 1
        gap = False
    return None if gap or at == len(lines) else f"it prints more    {lines[at]}"


def _plain(line: str) -> str:
    """Return a line as a terminal leaves it, with one blank between words."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line.rsplit("\r", 1)[-1]).split())


def _alike(want: str, line: str, free: bool) -> bool:
    """Whether a line of the page and a printed one agree."""
    pattern = ""
    checked: list[tuple[str, bool]] = []
    at = 0
    for number in NUMBER.finditer(want):
        pattern += _text(want[at : number.start()]) + r"([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)"
        checked.append((number[0], free or MEASURED.match(want, number.end()) is not None))
        at = number.end()
    found = re.fullmatch(pattern + _text(want[at:]), line)
    return found is not None and all(
        any_ or _near(shown, printed) for (shown, any_), printed in zip(checked, found.groups(), strict=True)
    )


def _text(words: str) -> str:
    return ".*".join(map(re.escape, words.split("...")))


def _near(shown: str, printed: str) -> bool:
    """Whether two numbers agree as far as the page states them."""
    if re.fullmatch(r"[-+]?\d+", shown):
        return re.fullmatch(r"[-+]?\d+", printed) is not None and int(shown) == int(printed)
    mantissa, _, exponent = shown.lower().partition("e")
    digit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(float(shown) - float(printed)) <= max(0.01 * abs(float(shown)), 1.01 * digit)
