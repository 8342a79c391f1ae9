"""Pages: text is never taken for HTML, tables are sorted and copied in a real browser, and no other script runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from pidscale.page.html import Html, Spread, facts, note, number_text, page, prose, table, tag
from tests.browser import Page, browser, needs_browser

HOSTILE = """<script>document.title = "ran"</script><img src=x onerror='document.title = "ran"'>" onload="x"""
ROWS = [
    ["ten", 10, Spread(0.2, 0.1), "x"],
    ["two", 2, None, "<b>"],
    ["minus", -1.5, Spread(1e-7), None],
    ["endless", math.inf, math.nan, "a\tb\nc"],
]


def test_only_html_is_taken_for_html() -> None:
    made = tag("p", "a < b & c", Html("<br>"), None, title='say "x"')
    assert made == '<p title="say &quot;x&quot;">a &lt; b &amp; c<br></p>'
    assert tag("input", type="range", min=0, checked=True, hidden=False, data_value=1) == (
        '<input type="range" min="0" checked data-value="1">'
    )
    assert tag("p", f"{tag('b', 'x')}!") == "<p>&lt;b&gt;x&lt;/b&gt;!</p>"  # text again, as soon as it is formatted
    for made in (
        tag("p", HOSTILE, title=HOSTILE),
        note(HOSTILE),
        facts(HOSTILE, {HOSTILE: HOSTILE}),
        table([HOSTILE], [[HOSTILE]], HOSTILE),
    ):
        assert "<script" not in made and "<img" not in made and '" onload' not in made
    assert prose("the `a<b` of `c") == "the <code>a&lt;b</code> of `c"
    assert "\u202e" not in tag("p", "txt.\u202eexe")  # which would turn the order of the letters around


def test_numbers_for_a_reader() -> None:
    values = {0: "0", 1536.0: "1536", 0.00123456: "0.00123", 1234.56: "1235", 123456789.5: "1.23e+08"}
    assert {value: number_text(value) for value in values} == values


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest.fixture
def shown(screen: Page, tmp_path: Path) -> Page:
    body = [
        tag("h1", HOSTILE),
        note(HOSTILE),
        table(["name", "count", "share", HOSTILE], ROWS, "Rows", own=[1], wide=True),
    ]
    (tmp_path / "page.html").write_text(page(HOSTILE, *body))
    assert screen.open(tmp_path / "page.html")["wider"] <= 0 and not screen.errors
    return screen


def names(screen: Page) -> list[str]:
    found = screen.value("[...document.querySelector('tbody').rows].map(row => row.cells[0].textContent)")
    assert isinstance(found, list)
    return found


@needs_browser
@pytest.mark.parametrize(
    ("at", "up", "down"),
    [
        (0, "endless minus ten two", "two ten minus endless"),
        (1, "minus two ten endless", "endless ten two minus"),
        (2, "minus ten two endless", "ten minus two endless"),  # the last two have no value
    ],
)
def test_a_click_on_a_title_sorts_numbers_as_numbers_and_what_is_missing_last(
    at: int, up: str, down: str, shown: Page
) -> None:
    for direction, wanted in (("ascending", up), ("descending", down)):
        shown.click(f"document.querySelectorAll('th button')[{at}]")
        assert names(shown) == wanted.split()
        said = shown.value("[...document.querySelectorAll('th')].map(h => h.ariaSort)")
        assert said[at] == direction and said.count(None) == 3 and not shown.errors


@needs_browser
def test_titles_are_reached_and_pressed_by_the_keyboard(shown: Page) -> None:
    shown.value("document.querySelectorAll('th button')[1].focus()")
    shown.press("Enter", 13)
    assert names(shown) == ["minus", "two", "ten", "endless"]


@needs_browser
def test_a_table_is_copied_with_tabs_and_whole_numbers(shown: Page) -> None:
    shown.click("document.querySelector('.table > button')")
    lines = shown.clipboard().split("\n")
    assert lines[0].split("\t")[:3] == ["name", "count", "share"] and "<script>" in lines[0]
    assert [line.split("\t") for line in lines[1:]] == [
        ["ten", "10", "0.2", "x"],
        ["two", "2", "", "<b>"],
        ["minus", "-1.5", "1e-07", ""],
        ["endless", "Infinity", "", "a b c"],
    ]
    assert shown.value("document.querySelector('.table > button').textContent") == "Copied"


@needs_browser
def test_hostile_text_is_shown_and_not_run(shown: Page) -> None:
    assert (
        shown.value("document.title") == HOSTILE and shown.value("document.querySelector('h1').textContent") == HOSTILE
    )
    assert shown.value("document.images.length") == 0


@needs_browser
def test_a_script_that_gets_into_a_page_does_not_run(screen: Page, tmp_path: Path) -> None:
    """The policy of the page holds even where escaping would fail."""
    text = page("safe", Html(HOSTILE.replace("src=x", "src=http://192.0.2.1/x.png")))
    (tmp_path / "page.html").write_text(text)
    screen.open(tmp_path / "page.html")
    assert screen.value("document.title") == "safe"
    assert screen.errors and not [error for error in screen.errors if "asked the network" in error]
    assert all("Content Security Policy" in error for error in screen.errors), screen.errors
