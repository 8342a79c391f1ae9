"""The parts of an HTML page, with the style and the script that all pages share.

Text is escaped wherever it is put into an element, and only `Html` is taken for HTML. Beyond that, a page runs no script but
that of look.py, whose checksum it names, and loads nothing: names in cards and settings may come from untrusted files. Tables
are sorted by a click on a title, and copied as text with tabs between the cells. Knows no fields and no files.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pidscale.page.look import SCRIPT, STYLE
from pidscale.plain import json_text, printable

_VOID = ("br", "img", "input", "meta", "source")


class Html(str):
    """Text that is HTML, and is put into an element unchanged."""

    __slots__ = ()


@dataclass(frozen=True)
class Spread:
    """A number of a table with its standard deviation.

    Attributes:
        value: The number.
        deviation: Its standard deviation; None if it has none.
    """

    value: float
    deviation: float | None = None


@dataclass(frozen=True)
class Title:
    """The title of a column.

    Attributes:
        text: The title.
        meaning: What the column holds, shown where the pointer rests on the title.
    """

    text: str
    meaning: str = ""


@dataclass(frozen=True)
class Frame:
    """What a gallery shows at one place of its slider.

    Attributes:
        caption: The line beside the slider.
        pictures: Address (a data URI) and description of each picture.
    """

    caption: str
    pictures: tuple[tuple[str, str], ...]


def escaped(value: object) -> Html:
    """Return a value as HTML: `Html` unchanged, nothing for None, and any other value as text."""
    if isinstance(value, Html):
        return value
    return Html("" if value is None else html.escape(printable(str(value))))


def joined(parts: Iterable[object]) -> Html:
    """Return parts one after another, each as `escaped` returns it."""
    return Html("".join(map(escaped, parts)))


def tag(name: str, /, *inside: object, **attributes: object) -> Html:
    """Return an element.

    Args:
        name: Name of the element.
        *inside: What is in it; all but `Html` is escaped.
        **attributes: Its attributes: `class_` is class, `data_value` is data-value; those that are None or False are omitted.

    Returns:
        The element.
    """
    start = [name]
    for key, value in attributes.items():
        if value is not None and value is not False:
            own = key.rstrip("_").replace("_", "-")
            start.append(own if value is True else f'{own}="{escaped(str(value))}"')
    opened = f"<{' '.join(start)}>"
    return Html(opened if name in _VOID else f"{opened}{joined(inside)}</{name}>")


def page(title: str, *parts: object) -> str:
    """Return a whole page.

    Args:
        title: Title of the window.
        *parts: The body of the page; all but `Html` is escaped.

    Returns:
        The page. A policy in its head forbids scripts but those of look.py, and whatever is not in the page.
    """
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (SCRIPT, STYLE)]
    policy = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
    policy += f"script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'"
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(STYLE)),
    ]
    body = tag("body", tag("main", *parts), tag("script", Html(SCRIPT)))
    return f"<!doctype html>\n{tag('html', tag('head', *head), body, lang='en')}\n"


def prose(text: str) -> Html:
    """Return text as HTML, with what is between backticks set as code."""
    parts = re.split(r"`([^`]+)`", text)
    return joined(tag("code", part) if number % 2 else part for number, part in enumerate(parts))


def note(text: str) -> Html:
    """Return a paragraph of explanation, with what is between backticks set as code."""
    return tag("p", prose(text), class_="note")


def lines_to_copy(text: str) -> Html:
    """Return lines of code with a button that copies them."""
    return tag("div", tag("pre", tag("code", text), tabindex=0), class_="copied code")


def number_text(value: float) -> str:
    """Return a number for a reader: whole numbers in full, others with three digits."""
    if isinstance(value, int) or (abs(value) < 1e6 and value == int(value)):
        return str(int(value))
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"


def table(
    titles: Sequence[str | Title],
    rows: Iterable[Sequence[Any]],
    name: str,
    own: Collection[int] = (),
    wide: bool = False,
) -> Html:
    """Return a table that is sorted by a click on a title and copied by a button, and scrolls where a screen is narrow.

    Args:
        titles: Titles of the columns.
        rows: Cells: numbers, `Spread`, text, `Html`, or None where there is no value.
        name: What stands above the table.
        own: Numbers of the rows that stand out.
        wide: Whether there are many columns, so that the first one stays in sight and no line is broken.

    Returns:
        The table.
    """
    listed = [list(row) for row in rows]
    heads = [title if isinstance(title, Title) else Title(title) for title in titles]
    numeric = [_is_numeric([row[i] for row in listed]) for i in range(len(heads))]
    top = [
        tag("th", head.text, title=head.meaning or None, scope="col", class_="number" if right else None)
        for head, right in zip(heads, numeric, strict=True)
    ]
    lines = [
        tag("tr", *map(_cell, row, numeric), class_="own" if number in own else None)
        for number, row in enumerate(listed)
    ]
    whole = tag("table", tag("thead", tag("tr", *top)), tag("tbody", *lines), class_="wide" if wide else None)
    scrolled = tag("div", whole, class_="scroll", tabindex=0, role="region", aria_label=name)
    return tag("div", tag("p", name), scrolled, class_="copied table")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Spread)) and not isinstance(value, bool)


def _is_numeric(column: Sequence[Any]) -> bool:
    """Return whether a column has numbers, and nothing else that is known."""
    known = [value for value in column if value is not None]
    return bool(known) and all(map(_is_number, known))


def _cell(value: Any, right: bool) -> Html:
    """Return a cell. `data-value` is what is sorted and copied where it is not the text of the cell."""
    side = "number" if right else None
    if value is None:
        return tag("td", "-", class_=side, data_value="")
    if not _is_number(value):
        return tag("td", value)
    found = value if isinstance(value, Spread) else Spread(value)
    if math.isnan(found.value):
        return tag("td", "nan", class_=side, data_value="")
    if math.isinf(found.value):
        return tag("td", found.value, class_=side, data_value=f"{'-' if found.value < 0 else ''}Infinity")
    deviation = found.deviation or 0.0
    small = [" ", tag("small", f"± {deviation:.0f}" if deviation >= 1 else f"± {deviation:.1g}")] if deviation else []
    return tag("td", number_text(found.value), *small, class_=side, data_value=repr(found.value))


def pair(*parts: object) -> Html:
    """Return parts beside each other where the screen is wide enough."""
    return tag("div", *parts, class_="pair")


def facts(title: str, known: Mapping[str, Any]) -> Html:
    """Return a table of two columns, of those facts that are known.

    Args:
        title: What stands above the table.
        known: Facts by name; None and empty ones are omitted.

    Returns:
        The table; nothing if there are no facts.
    """
    texts = {name: number_text(value) if isinstance(value, float) else value for name, value in known.items()}
    rows = [[tag("b", name), escaped(text)] for name, text in texts.items() if text is not None and text != ""]
    return table(["about", "value"], rows, title) if rows else Html("")


def gallery(label: str, frames: Sequence[Frame], tiles: Sequence[tuple[object, object]], name: str) -> Html:
    """Return pictures that a slider, moved by hand or by the arrow keys, exchanges for others.

    Args:
        label: What the slider chooses.
        frames: What is shown at each of its places.
        tiles: What stands above and below each picture.
        name: Name of the gallery in the page.

    Returns:
        The gallery, which shows the first frame where scripts do not run.
    """
    slider = tag("input", type="range", id=name, min=0, max=len(frames) - 1, step=1, value=0)
    control = tag(
        "div", tag("label", label, for_=name), slider, tag("output", frames[0].caption, for_=name), class_="control"
    )
    figures = [
        tag("figure", tag("figcaption", above), tag("img", class_="tile", src=source, alt=alt), below)
        for (above, below), (source, alt) in zip(tiles, frames[0].pictures, strict=True)
    ]
    plain = [{"caption": printable(frame.caption), "pictures": frame.pictures} for frame in frames]
    data = tag("script", Html(json_text(plain).replace("<", "\\u003c")), type="application/json")
    size = "many" if len(tiles) > 4 else f"of{len(tiles)}"
    return tag("div", control, tag("div", *figures, class_=f"tiles {size}"), data, class_="gallery")
