"""The pages of README and docs show the committed figures, and those figures pass the laws.

These are checks of data, not of code: where only they fail, a benchmark is due or a page has to be rebuilt.
"""

from __future__ import annotations

import re

import pytest

from pidscale.pde import PDES
from tests.commands import ROOT, committed, run_module

pytestmark = pytest.mark.results
ELLIPTIC = ("darcy", "helmholtz", "poisson")
SWEPT = ("burgers", "navier_stokes", "reaction_diffusion", "stokes")  # two steps bring the error to a tenth


def _table(page: str, head: str) -> list[list[str]]:
    """The cells of all tables of a page whose first column is headed so."""
    found: list[list[str]] = []
    inside = False
    for line in (ROOT / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        inside = line.startswith("|") and (inside or cells[0] == head)
        if inside and cells[0] != head and not cells[0].startswith("---"):
            found.append(cells)
    return found


def test_pages_are_what_their_command_writes() -> None:
    """python -m benchmarks.pages"""
    run_module("pages", "--check")


def test_every_equation_has_a_page_and_a_picture() -> None:
    folder = ROOT / "docs/equations"
    for name in PDES:
        assert f"({name}.md)" in (folder / "README.md").read_text()
        assert (folder / f"{name}.md").exists()
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_reader_is_as_fast_as_its_goals() -> None:
    for ratios in committed("loader")["ratios"].values():
        for one in ratios.values():
            assert one["goal"] is None or one["ratio"] >= one["goal"]


def test_waiting_for_endpoints_is_as_it_was_measured() -> None:
    """A background thread with eight uses hides the teacher's eight calls, and larger calls pay."""
    result = committed("rollout")
    (thread,) = (row for row in result["rows"] if (row["source"], row["calls"], row["reuse"]) == ("thread", 8, 8))
    assert thread["wait_high"] < 0.1
    assert max(row["ratio"] for row in result["endpoints"]) > 1.5


def test_what_the_page_of_methods_claims_holds_for_every_seed() -> None:
    claims = _table("docs/methods.md", "claim")
    assert len(claims) >= 4 * len({row["pde"] for row in committed("methods")["rows"]})
    for claim, seeds in claims:
        holds, of = re.findall(r"\d+", seeds)
        assert holds == of, claim


def test_a_student_beats_the_mean_field_and_reconstructs_better_than_direct_search() -> None:
    verdicts = [line[:3] for line in _table("docs/tasks_measured.md", "task") if len(line) == 7]
    assert len(verdicts) == 5 * len({row["pde"] for row in committed("tasks")["rows"]})
    for task, mean_field, direct in verdicts:
        assert mean_field == "yes", task
        assert direct == "yes" or task != "reconstruct"


def test_answers_that_are_searched_through_a_head_are_as_near_and_obey_the_equation() -> None:
    """Means over seeds. docs/head.md says that five errors are larger: four by at most 0.5 %, one by 5 %."""
    rows = committed("tasks")["rows"]
    values: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        for key, value in row.items():
            if key.startswith(("error_", "residual_l2", "residual_dual", "misclassified")):
                values.setdefault((row["pde"], row["task"], key, row["method"]), []).append(value)
    plain = {key[:3]: sum(found) for key, found in values.items() if key[3] == "student"}
    headed = {key[:3]: sum(found) for key, found in values.items() if key[3] == "student+head-4"}
    assert plain.keys() == headed.keys() and len({row["seed"] for row in rows}) == 3
    for key, before in plain.items():
        most = 1.05 if key == ("darcy", "inverse", "misclassified") else 1.005
        assert headed[key] <= before * (1 / 12 if key[2].startswith("residual") else most), key
    errors = [key for key in plain if not key[2].startswith("residual")]
    assert sum(headed[key] > plain[key] for key in errors) == 5


def test_steps_behind_a_network_correct_it_as_far_as_the_page_of_heads_claims() -> None:
    rows = {(row["pde"], row["network"], row["steps"]): row for row in committed("head")["rows"]}
    assert {pde for pde, _, _ in rows} == set(PDES)
    assert all(row["worse"] == 0 for row in rows.values())
    for pde in PDES:
        if pde not in SWEPT:
            assert rows[pde, "student", 4]["residual_dual"] <= 0.005, pde
            continue
        for network in ("student", "student-lambda0"):
            before, after = (rows[pde, network, steps]["solution_error"] for steps in (0, 2))
            assert after <= 0.1 * before, (pde, network)


def test_what_the_page_of_the_method_says_in_words_holds_in_its_figures() -> None:
    result = committed("method")
    worst = {pde: max(row["dual"] for row in result["mean"] if row["pde"] == pde) for pde in ("darcy", "poisson")}
    assert worst["darcy"] > 0.1 and worst["poisson"] < 1e-12
    reached = {(row["network"], row["calls"]): row["dual"] for row in result["calls"]}
    most = max(calls for network, calls in reached if network == "teacher")
    assert reached["teacher", most] > 0.8 * reached["teacher", 35]  # more calls do not help
    assert reached["student", 1] < 0.5 * min(reached["teacher", most], reached["student-lambda0", 1])
    assert all(row["same_noise"] < 0.5 * row["other_noise"] for row in result["pairs"])
    norms = {(row["wrong"], row["points"]): row for row in result["norms"]}
    for points in (32, 64):
        assert norms["noise", 2 * points]["l2"] / norms["noise", points]["l2"] == pytest.approx(4, abs=0.3)
        assert norms["noise", 2 * points]["dual"] / norms["noise", points]["dual"] == pytest.approx(2, abs=0.2)
        assert norms["smooth", 2 * points]["dual"] / norms["smooth", points]["dual"] == pytest.approx(1, abs=0.1)
        assert norms["noise", points]["l2"] > norms["smooth", points]["l2"]
        assert norms["noise", points]["dual"] < norms["smooth", points]["dual"]


def test_pictures_of_the_docs_are_small() -> None:
    pictures = [*(ROOT / "docs").glob("*.png"), *(ROOT / "docs" / "equations").glob("*.png")]
    assert not [picture.name for picture in pictures if picture.stat().st_size > 200 * 1024] and len(pictures) > 12


def test_the_measured_floors_and_orders_pass() -> None:
    rows = {row["pde"]: row for row in committed("residuals")["rows"]}
    assert set(rows) == set(PDES)
    for name, row in rows.items():
        share = 0.01 if name in ELLIPTIC else 0.1
        for norm in ("", "_dual"):
            assert row[f"floor32{norm}"] <= share * min(row[f"trivial{norm}"], row[f"shuffled{norm}"]), name
            assert row[f"wrong_parameter{norm}"] > 3 * row[f"floor32{norm}"], name
            if row["expected_order"] == "exact":
                assert row[f"order{norm}"] is None and row["floor64"] < 1e-12
            else:
                assert row[f"order{norm}"] == pytest.approx(row["expected_order"], abs=0.3)
