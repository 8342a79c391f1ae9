"""What an equation says, in the words of the file that defines it. Knows no equation, no files and no ranks.

Such a docstring has a title; then, indented, the equation itself; then, indented, its symbols; then the rest (darcy.py).
"""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass

from pidscale.pde.base import Pde

_KNOWS = re.compile(r"\s*Knows no files, no models and no ranks\.\s*$")  # which concerns the code alone


@dataclass(frozen=True)
class Words:
    """What an equation says.

    Attributes:
        title: One sentence; the name of the equation where its file has no docstring.
        formula: Its lines, each a formula and, after three spaces or more, what else holds of it.
        symbols: Pairs of a symbol and its meaning.
        rest: Further paragraphs.
    """

    title: str
    formula: tuple[str, ...] = ()
    symbols: tuple[tuple[str, str], ...] = ()
    rest: tuple[str, ...] = ()


def docstring(pde: Pde) -> tuple[str, str]:
    """Return the title and the rest of the docstring of the file that defines an equation; of its name without one."""
    text = inspect.getdoc(sys.modules[type(pde).__module__]) or pde.name
    title, _, rest = text.partition("\n")
    return title, _KNOWS.sub("", rest.strip("\n"))


def words(pde: Pde) -> Words:
    """Return what an equation says."""
    title, rest = docstring(pde)
    blocks = re.split(r"\n[ ]*\n", rest) if rest else []
    count = next((i for i, block in enumerate(blocks) if not block.startswith("  ")), len(blocks))
    indented = [[line.strip() for line in block.splitlines()] for block in blocks[:count]]
    formula = tuple(indented[0]) if indented else ()
    pairs = [re.split(r"\s{2,}", line, maxsplit=1) for block in indented[1:] for line in block]
    symbols = tuple((pair[0], pair[1]) for pair in pairs if len(pair) == 2)
    return Words(title, formula, symbols, tuple(blocks[count:]))
