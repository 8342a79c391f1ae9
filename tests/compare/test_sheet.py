"""The table of a comparison: means over seeds, when a training has paid, and the files."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from pidscale.compare.sheet import TITLES, break_even, means, page_text, write_tables
from pidscale.dataset.problem import Problem, open_problem
from pidscale.figures.compare import best_of, pareto_figure
from pidscale.pde.base import Samples
from tests.browser import browser, needs_browser
from tests.small import settings


def row(method: str, seed: int = 0, task: str = "sample", **values: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "nfe": 1,
        "residual_dual": 0.1,
        "swd_excess": 0.02,
        "ms_per_sample": 1.0,
        "solution_error": 0.1,
    }
    usual |= {"train_seconds": 100.0, "asked": {"method": method}, "trained": method.split("+")[0].removesuffix("-18")}
    return {"equation": "darcy", "seed": seed, "task": task, "row": method, "method": method} | usual | values


ROWS = [
    row("truth", nfe=0, train_seconds=0.0, solution_error=0.0),
    row("teacher-18", nfe=35, ms_per_sample=11.0, residual_dual=0.4),
    row("piddm", train_seconds=350.0, residual_dual=0.1),
    row("piddm", seed=1, train_seconds=450.0, residual_dual=0.3),
    row("piddm+solve", train_seconds=350.0, ms_per_sample=1.25),
    row("slow", train_seconds=200.0, ms_per_sample=12.0, residual_dual=None),
    row("direct", task="forward", nfe=0, error_pressure=0.02),
]


def test_means_and_deviations_over_seeds() -> None:
    found = {(one["task"], one["method"]): one for one in means(ROWS)}
    assert list(found)[:3] == [("sample", "truth"), ("sample", "teacher-18"), ("sample", "piddm")] and len(found) == 6
    piddm = found["sample", "piddm"]
    assert piddm["seeds"] == [0, 1] and piddm["residual_dual"] == pytest.approx(0.2)
    assert piddm["spread"]["residual_dual"] == pytest.approx(math.sqrt(0.02))
    assert found["sample", "truth"]["spread"] == {} and "residual_dual" not in found["sample", "slow"]


def test_a_training_has_paid_when_the_saved_time_makes_up_for_it() -> None:
    found = {
        one["method"]: one
        for one in break_even([one for one in means(ROWS) if one["task"] == "sample"], ["piddm", "slow"])
    }
    assert set(found) == {"piddm", "slow"}
    assert found["piddm"]["further_seconds"] == 300 and found["piddm"]["teacher"] == 30_000  # 10 ms saved each
    assert found["piddm"]["solver"] is None  # the solver takes 0.25 ms
    assert found["slow"]["teacher"] is None


def test_a_method_has_one_style_in_every_panel_and_in_the_legend() -> None:
    rows = [row("truth", train_seconds=0.0), row("exact", swd_excess=0.0), row("a"), row("b", solution_error=math.nan)]
    figure = pareto_figure(rows, {key: title.text for key, title in TITLES.items()})
    styles = [
        (line.get_label(), line.get_marker(), line.get_color())
        for axis in figure.axes
        for line in axis.lines
        if line.get_marker() != "None"
    ]
    assert len(styles) == 3 + 3 + 2 and len(set(styles)) == 4 and len({style[1:] for style in styles}) == 4
    assert [text.get_text() for text in figure.legends[0].texts] == ["truth", "exact", "a", "b"]


def test_the_points_that_nothing_beats() -> None:
    assert best_of([(3.0, 1.0), (1.0, 2.0), (2.0, 3.0), (2.0, 2.0), (1.0, 2.0)]) == [(1.0, 2.0), (3.0, 1.0)]


@pytest.fixture(scope="module")
def problem(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Problem:
    s = settings(small_shards, tmp_path_factory.mktemp("sheet"))
    return open_problem(s.pde, s.data)


META = {
    "versions": {"torch": "2"},
    "machine": "2 cores of <X>",
    "compare": {
        "seeds": [0, 1],
        "rows": {"piddm": {"method": "one_call"}, "<script>": {"<script>": 1}},
        "students": {"piddm": [], "slow": []},
    },
}
FAILED = [{"equation": "darcy", "seed": 0, "row": "pcfm", "task": "inverse", "failed": "no <memory>"}]


def page(folder: Path, problem: Problem) -> str:
    truth = problem.samples("test", 4)
    shown = {"truth": truth, "piddm": Samples(truth.fields * 1.1, truth.params)}
    text = page_text(ROWS, FAILED, META, {"darcy": (problem.pde, problem.grid)}, {"darcy": shown})
    (folder / "index.html").write_text(text)
    return (folder / "index.html").read_text()


def test_tables_hold_every_seed(tmp_path: Path) -> None:
    write_tables(tmp_path, ROWS, FAILED, META)
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found == {"rows": ROWS, "failed": FAILED, "meta": META}
    lines = list(csv.DictReader((tmp_path / "compare.csv").open()))
    assert [line["method"] for line in lines] == [one["method"] for one in ROWS] and "asked" not in lines[0]
    assert (
        lines[3]["residual_dual"] == "0.3" and lines[5]["residual_dual"] == "" and lines[6]["error_pressure"] == "0.02"
    )


def test_the_page_holds_all_and_loads_nothing(tmp_path: Path, problem: Problem) -> None:
    text = page(tmp_path, problem)
    assert not re.search(r"""(src|href|srcset)=["'](?!data:)""", text) and "http:" not in text and "https:" not in text
    assert text.count("<h2>darcy, 16 x 16: ") == 2 and "no &lt;memory&gt;" in text and "2 cores of &lt;X&gt;" in text
    assert '<td class="number" data-value="0.2">0.2 <small>± 0.1</small></td>' in text
    assert text.count('src="data:image/png;base64,') == 2  # pairs of measures, and fields
    assert text.count('srcset="data:image/png;base64,') == 2  # the same for dark screens
    assert "&lt;script&gt;" in text and text.count("<script") == 1


@needs_browser
def test_a_browser_draws_the_page_on_any_screen_sorts_it_and_copies_it(tmp_path: Path, problem: Problem) -> None:
    page(tmp_path, problem)
    names = "[...document.querySelector('tbody').rows].map(row => row.cells[0].textContent).join()"
    head = "[...document.querySelectorAll('th button')].find(b => b.textContent === 'training s')"
    with browser(tmp_path) as screen:
        for width, dark in ((1280, False), (500, True)):
            found = screen.open(tmp_path / "index.html", width, dark)
            assert found["missing"] == [] and found["images"] == 2 and found["silent"] == 0 and found["wider"] <= 0
            assert found["dark"] == dark and not screen.errors
        screen.click(head)
        assert screen.value(names) == "truth,teacher-18,slow,piddm+solve,piddm"
        screen.click(head)
        assert screen.value(names) == "piddm,piddm+solve,slow,teacher-18,truth"
        screen.click("document.querySelector('.table > button')")
        lines = [line.split("\t") for line in screen.clipboard().split("\n")]
        assert lines[0][:3] == ["method", "calls", "residual dual"] and [line[0] for line in lines[1:3]] == [
            "piddm",
            "piddm+solve",
        ]
        assert [line[2] for line in lines[1:4]] == ["0.2", "0.1", ""]
        assert not screen.errors
