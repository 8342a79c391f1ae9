"""The pages of the equations say what their command would write today, and the figures in them pass the laws."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import closed_form, loader_page, memory_page, methods_page, rollout_page, space_page, tasks, zoo
from benchmarks.pages import contents, page
from benchmarks.residuals import WRONG
from pidscale.pde import PDES
from tests.scripts import ROOT

PAGES = ROOT / "docs" / "equations"
ROWS = {row["pde"]: row for row in json.loads((ROOT / "benchmarks/results/residuals.json").read_text())["rows"]}
ELLIPTIC = ("darcy", "helmholtz", "poisson")


@pytest.mark.parametrize("name", sorted(PDES))
def test_a_page_is_what_its_command_writes(name: str) -> None:
    """python -m benchmarks.pages, after python -m benchmarks.residuals where a scheme has changed."""
    assert (PAGES / f"{name}.md").read_text() == page(name, ROWS[name])
    assert (PAGES / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert f"({name}.md)" in (PAGES / "README.md").read_text()


def test_the_list_of_equations_is_what_its_command_writes() -> None:
    assert (PAGES / "README.md").read_text() == contents()


def test_the_page_of_the_zoo_is_what_its_command_writes() -> None:
    result = json.loads((ROOT / "benchmarks/results/zoo.json").read_text())
    assert (ROOT / "docs/zoo.md").read_text() == zoo.page(result)


def test_the_page_of_the_loader_is_what_its_command_writes() -> None:
    result = json.loads((ROOT / "benchmarks/results/loader.json").read_text())
    assert (ROOT / "docs/loader.md").read_text() == loader_page.page(result)
    for ratios in result["ratios"].values():
        for one in ratios.values():
            assert one["goal"] is None or one["ratio"] >= one["goal"]


@pytest.mark.parametrize(
    ("name", "page", "write"),
    [
        ("rollout", "rollout", rollout_page.page),
        ("closed_form", "closed_form", closed_form.page),
        ("memory", "split_memory", memory_page.page),
        ("methods", "methods", methods_page.page),
        ("tasks", "tasks_measured", tasks.page),
        ("space", "split_measured", space_page.page),
    ],
)
def test_a_page_of_figures_is_what_its_command_writes(
    name: str, page: str, write: Callable[[dict[str, Any]], str]
) -> None:
    result = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
    assert (ROOT / f"docs/{page}.md").read_text() == write(result)


def test_waiting_for_endpoints_is_as_it_was_measured() -> None:
    """A ring with eight uses hides the teacher's eight calls, and larger calls pay."""
    result = json.loads((ROOT / "benchmarks/results/rollout.json").read_text())
    (ring,) = (row for row in result["rows"] if (row["source"], row["calls"], row["reuse"]) == ("ring", 8, 8))
    assert ring["wait_high"] < 0.1 and max(row["ratio"] for row in result["endpoints"]) > 1.5


def test_what_the_page_of_methods_claims_holds_for_every_seed() -> None:
    rows = json.loads((ROOT / "benchmarks/results/methods.json").read_text())["rows"]
    for pde in {row["pde"] for row in rows}:
        for claim, (holds, seeds) in methods_page.agreed([row for row in rows if row["pde"] == pde]).items():
            assert holds == seeds, (pde, claim)


def test_a_student_beats_the_mean_field_and_reconstructs_better_than_direct_search() -> None:
    rows = json.loads((ROOT / "benchmarks/results/tasks.json").read_text())["rows"]
    for pde in {row["pde"] for row in rows}:
        own = [row for row in rows if row["pde"] == pde]
        assert all(wins for wins, _ in tasks.better(own, "mean field").values()), pde
        assert tasks.better(own, "direct")["reconstruct"][0], pde


def test_the_measured_floors_and_orders_pass() -> None:
    assert set(ROWS) == set(PDES) >= set(WRONG)
    for name, row in ROWS.items():
        share = 0.01 if name in ELLIPTIC else 0.1
        for norm in ("", "_dual"):
            assert row[f"floor32{norm}"] <= share * min(row[f"trivial{norm}"], row[f"shuffled{norm}"]), name
            assert row[f"wrong_parameter{norm}"] > 3 * row[f"floor32{norm}"], name
            if row["expected_order"] == "exact":
                assert row[f"order{norm}"] is None and row["floor64"] < 1e-12
            else:
                assert row[f"order{norm}"] == pytest.approx(row["expected_order"], abs=0.3)
