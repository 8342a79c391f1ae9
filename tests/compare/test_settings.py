"""Settings of a comparison: what is trained for which rows, and what is refused in one line before anything starts."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from pidscale.app.compose import comparison_from, help_text
from pidscale.compare.cells import method_of
from pidscale.compare.settings import CompareSettings
from pidscale.config import UserError
from pidscale.methods import METHODS
from pidscale.methods.eci import Eci


def test_every_plan_names_methods_that_exist_with_settings_that_they_have() -> None:
    for plan in ("quick", "papers"):
        compare = comparison_from([f"compare={plan}"]).compare
        asked = {type(method_of(name, row)) for name, row in compare.rows.items()}
        assert asked == set(METHODS.values()), plan
        networks = {row.get("network", "teacher").split("-")[0] for row in compare.rows.values()}
        assert networks == set(compare.networks)


def test_only_networks_of_measured_rows_are_trained_and_their_teacher_first() -> None:
    found = comparison_from(["compare.only=[piddm-lambda0,eci]", "compare.equations=[poisson,burgers]"])
    assert found.compare.needed == ["teacher", "flow", "piddm"]
    assert list(found.runs) == [(name, network) for name in ("poisson", "burgers") for network in found.compare.needed]


def test_words_apply_to_all_runs_and_come_after_those_of_the_plan() -> None:
    words = ["compare=papers", "teacher.steps=7", "distill.physics_weight=3", "compare.only=[pid,flow-18,piddm]"]
    runs = comparison_from(words).runs
    assert {one.teacher.steps for one in runs.values()} == {7}
    assert runs["darcy", "flow"].teacher.noise == "flow" and runs["darcy", "teacher"].teacher.noise == "edm"
    assert runs["darcy", "pid"].distill.objective["name"] == "pid" and runs["darcy", "pid"].distill.physics_weight == 3
    assert runs["burgers", "piddm"].pde.params["viscosity"] == 0.02 and runs["darcy", "piddm"].pde.params != {}
    assert runs["darcy", "piddm"].distill.objective["huber"] == 0.1  # what the objective needs for the equation


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["pde=heat"], "pde=heat: each run of a comparison has its own; name it in compare.equations"),
        (["data.path=x"], "data.path=x: each run of a comparison has its own; run.folder and run.name"),
        (["run.seed=3"], "run.seed=3: each run of a comparison has its own; name seeds in compare.seeds"),
        (["compare=quik"], "compare=quik: no such choice; did you mean 'quick'?"),
        (["compare.equations=[darci]"], "pde=darci: no such choice; did you mean 'darcy'?"),
        (["compare.equations=[]"], r"compare.equations=\[\]: expected one or more"),
        (["compare.tasks=[guess]"], "compare.tasks=.*: expected one of sample, forward, inverse, reconstruct, noisy"),
        (["compare.only=[edi]"], "compare.only: no row 'edi'; rows: truth, "),
        (["compare.seed=1"], "compare.seed: unknown setting; did you mean 'seeds'?"),
        (
            ["compare.rows.x={method: eci, network: x}"],
            "compare.rows.x.network=x: no such network; networks: teacher, ",
        ),
        (
            ["compare.rows.x={method: eci, network: flow-lambda0}"],
            "compare.rows.x.network=flow-lambda0: no such network",
        ),
        (["compare.rows.x={steps: 3}"], "compare.rows.x=.*: expected a section with a method"),
        (["compare.rows.x={method: eci, samples: few}"], "compare.rows.x.samples='few': expected a whole number"),
        (["compare.rows.x={method: eci, samples: 1}"], "compare.rows.x.samples=1: expected 2 or more"),
        (["compare.students.x=distill"], r"compare.students.x='distill': expected a list of words"),
        (["compare.teachers={flow: []}", "~compare.teachers.teacher"], "removes a setting"),
    ],
)
def test_mistakes(words: list[str], line: str) -> None:
    with pytest.raises(UserError, match=line) as error:
        comparison_from(words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"method": "ecy"}, "compare.rows.mine.method=ecy: no such method; methods: one_call, "),
        ({"method": "eci", "step": 3}, "compare.rows.mine.step: unknown setting; did you mean 'steps'?"),
        ({"method": "eci", "steps": "many"}, "compare.rows.mine.steps='many': expected a whole number"),
        ({"method": "eci", "steps": 0}, "compare.rows.mine.steps=0: expected 1 or more"),
    ],
)
def test_mistakes_in_the_settings_of_a_method(row: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        method_of("mine", row)


def test_a_row_is_a_method_with_its_settings() -> None:
    assert method_of("eci", {"method": "eci", "steps": 7, "network": "flow", "samples": 64}) == Eci(steps=7)


def test_students_need_a_teacher() -> None:
    with pytest.raises(UserError, match=r"compare.teachers: no 'teacher'"):
        CompareSettings(teachers={"flow": []})


def test_the_help_lists_plans_and_settings() -> None:
    text = help_text("compare")
    assert "compare={papers,quick}" in text and 'compare.equations=["darcy"]' in text and "teacher.steps=" in text


def test_a_mistake_is_an_error_before_torch_is_imported() -> None:
    code = "import sys; from pidscale.app.main import main; "
    code += "print(main(['compare', 'compare.only=[q]']), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stderr.startswith("error: compare.only: no row 'q'") and done.stdout.split() == ["2", "False"]
