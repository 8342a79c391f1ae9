"""Formulas of docstrings in HTML: Greek letters and operators as their signs, indices and powers in their places."""

from __future__ import annotations

import re

from pidscale.page.html import Html, joined, tag

_NAMES = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "pi",
    "rho",
]
_NAMES += ["sigma", "tau", "phi", "chi", "psi", "omega", "lap", "grad", "div"]
_SIGNS = dict(zip(_NAMES, [*"αβγδεζηθκλμνξπρστφχψωΔ∇", "∇·"], strict=True))
_PLAIN = [("<=", "≤"), (">=", "≥"), (" . ", " · "), ("-", "−")]
_WORDS = re.compile(r"\b(?:[a-z]{2,}|a)\b(?: (?:[a-z]{2,}|a)\b)+")  # two or more words in a row are no formula
_SENTENCE = re.compile(r"\b(?:on|for|at|where|with|in)\b")  # a word of what is no formula
_TOKEN = re.compile(r"(?<![A-Za-z])(?P<name>[A-Za-z]+)(?P<index>(?:_[A-Za-z0-9]+)?)|\^(?P<power>\([^()]*\)|−?\w+)")


def formula(line: str) -> Html:
    """Return a line of a formula as HTML.

    Args:
        line: The formula and, after three spaces or more, what else holds of it.

    Returns:
        A line of HTML.
    """
    first, *others = re.split(r" {3,}", line.strip())
    rest = [
        tag("small", typeset(part)) if _SENTENCE.search(part) else joined([" \u2003", typeset(part)]) for part in others
    ]
    return tag("div", typeset(first), *rest)


def typeset(text: str) -> Html:
    """Return text as HTML, in which all but words is set as a formula."""
    parts: list[object] = []
    end = 0
    for match in _WORDS.finditer(text):
        if not set(match[0].split()) & _SIGNS.keys():
            parts += [_signs(text[end : match.start()]), match[0]]
            end = match.end()
    return joined([*parts, _signs(text[end:])])


def _signs(text: str) -> Html:
    for plain, sign in _PLAIN:
        text = text.replace(plain, sign)
    parts: list[object] = []
    end = 0
    for match in _TOKEN.finditer(text):
        parts.append(text[end : match.start()])
        end = match.end()
        name, index, power = map(str, match.groups(""))
        if power:
            parts.append(tag("sup", _signs(power.strip("()"))))
            continue
        sign = _SIGNS.get(name, name)
        is_variable = len(sign) == 1 and sign not in "Δ∇"
        parts.append(tag("i", sign) if is_variable else sign)
        if index:
            parts.append(tag("sub", tag("i", index[1:])))
    return Html(re.sub(r"(Δ|∇) (?=<i>)", r"\1", joined([*parts, text[end:]])))
