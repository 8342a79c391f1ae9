"""Settings of a comparison: what is trained for which rows, and what is refused in one line before anything starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pidscale.app import comparison
from pidscale.app.compose import comparison_from
from pidscale.app.settings_help import help_text
from pidscale.compare.cells import method_of
from pidscale.compare.settings import CompareSettings
from pidscale.config import UserError
from pidscale.methods import METHODS
from pidscale.methods.eci import Eci


@pytest.mark.parametrize("name", ["quick", "papers"])
def test_every_plan_names_methods_that_exist_with_settings_that_they_have(name: str) -> None:
    found = plan(f"compare={name}", "compare.equations=[darcy]")
    compare = found.comparison.compare
    assert {type(method_of(row, settings)) for row, settings in compare.rows.items()} == set(METHODS.values())
    assert {network for _, _, network in found.runs} == set(compare.networks) and len(found.cells) > 50


def plan(*words: str) -> comparison._Plan:
    return comparison._Plan(comparison_from(list(words)), Path("somewhere"))


def test_only_networks_that_a_cell_asks_are_trained_and_their_teacher_first() -> None:
    found = plan("compare.only=[piddm-lambda0,eci]", "compare.equations=[poisson,burgers]", "compare.seeds=[3,4]")
    networks = ["teacher", "flow", "piddm"]
    assert found.runs == [(e, s, name) for s in (3, 4) for e in ("poisson", "burgers") for name in networks]
    assert {network for _, _, network in plan("compare.tasks=[inverse]").runs} == {"teacher", "flow", "piddm"}
    assert plan("compare.tasks=[sample]", "compare.only=[search]").cells == []


def test_a_run_has_its_own_place_and_the_teacher_of_its_seed() -> None:
    found = plan("compare.only=[pid-lambda0]", "compare.seeds=[3]")
    student = found.settings("darcy", 3, "pid")
    assert (student.run.name, student.run.seed, student.run.folder) == ("darcy-3-pid", 3, "somewhere")
    assert (
        student.distill.teacher == "somewhere/darcy-3-teacher/teacher" and student.data.path == "somewhere/shards/darcy"
    )
    assert found.cells[0].generator == Path("somewhere/darcy-3-pid/student-lambda0").absolute()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["compare.rows.x={method: eci, network: teacher}"],
            "compare.rows.x.network=teacher: eci takes teacher:flow, not",
        ),
        (
            ["compare.rows.x={method: eci, network: piddm}"],
            "compare.rows.x.network=piddm: eci takes teacher:flow, not student",
        ),
        (["compare.rows.x={method: one_call, network: dm-lambda0}"], "dm is trained without a control"),
        (
            ["compare.rows.x={method: one_call, netwrok: piddm}"],
            "compare.rows.x.netwrok: no setting of one_call or of a row",
        ),
    ],
)
def test_rows_that_could_not_be_measured_are_an_error_before_anything_is_made(words: list[str], line: str) -> None:
    with pytest.raises(UserError, match=line):
        plan(*words, "compare.only=[x]")


def test_words_apply_to_all_runs_and_come_after_those_of_the_plan() -> None:
    words = ["compare=papers", "teacher.steps=7", "distill.physics_weight=3", "teacher=large"]
    words += ["compare.equations=[darcy,burgers]", "compare.only=[pid,flow-18,piddm,pidm-18]"]
    runs = comparison_from(words).runs
    assert runs["darcy", "pidm"].teacher.own.name == "pidm" and runs["darcy", "flow"].teacher.warmup == 1000
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
        (["distill=pid"], "distill=pid: each run of a comparison has its own; compare.students says what is trained"),
        (["pde.name=heat"], "pde.name=heat: each run of a comparison has its own"),
        (
            ["compare.change.darci=['pde.points=8']"],
            "compare.change.darci: no such equation; did you mean 'darcy'?",
        ),
        (["compare.change.darcy=['run.seed=7']"], "compare.change.darcy: run.seed=7 would set what all runs share"),
        (["compare.change.darcy=['pde=poisson']"], "compare.change.darcy: pde=poisson would set what all runs share"),
        (
            ["compare.teachers.t2=['evaluate.seed=3']"],
            "compare.teachers.t2: evaluate.seed=3 would set what all runs share",
        ),
        (
            ["compare.students.pid=['distill=pid','distill.stepz=3']"],
            "compare.students.pid: distill.stepz: unknown setting; did you mean 'steps'?",
        ),
        (
            ["compare.students.mine=[distill=pid,distill.steps=3]"],
            r"words of a list need quotes; write \"compare.students.mine=\['distill=pid','distill.steps=3'\]\"",
        ),
        (["compare.students.flow=['distill=pid']"], "compare.students.flow: a teacher has this name too"),
        (["compare.rows.x={method: [a]}"], "compare.rows.x=.*: expected a section with a method"),
        (
            ["compare.rows.x={method: truth, head: 100}"],
            "compare.rows.x.head=100: expected a whole number from 0 to 64",
        ),
        (["compare.rows.x={method: truth, smooth: -3}"], "compare.rows.x.smooth=-3: expected a whole number from 0"),
        (["compare.equations=[darci]"], "pde=darci: no such choice; did you mean 'darcy'?"),
        (["compare.equations=[]"], r"compare.equations=\[\]: expected one or more names"),
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
        (["compare.rows.x={method: eci, samples: 1}"], "compare.rows.x.samples=1: expected a whole number from 2"),
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
        ({"method": "eci", "step": 3}, "compare.rows.mine.step: no setting of eci or of a row; known keys: steps, mix"),
        ({"method": "eci", "steps": "many"}, "compare.rows.mine.steps='many': expected a whole number"),
        ({"method": "eci", "steps": 0}, "compare.rows.mine.steps=0: expected 1 or more"),
    ],
)
def test_mistakes_in_the_settings_of_a_method(row: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        method_of("mine", row)


def test_a_row_is_a_method_with_its_settings() -> None:
    assert method_of("eci", {"method": "eci", "steps": 7, "network": "flow", "samples": 64}) == Eci(steps=7)


@pytest.mark.parametrize("section", ["rows", "teachers", "students"])
def test_names_are_parts_of_the_names_of_files(section: str) -> None:
    value = {"method": "truth"} if section == "rows" else []
    with pytest.raises(UserError, match=f"compare.{section}: 'a/b' is no name; expected letters"):
        CompareSettings(**{section: {"teacher": [], "a/b": value} if section == "teachers" else {"a/b": value}})


def test_students_need_a_teacher() -> None:
    with pytest.raises(UserError, match=r"compare.teachers: no 'teacher'"):
        CompareSettings(teachers={"flow": []})


def test_the_help_lists_plans_and_settings() -> None:
    text = help_text("compare")
    assert (
        "compare={fine,papers,quick,variants}" in text
        and 'compare.equations=["darcy"]' in text
        and "teacher.steps=" in text
    )


def test_a_mistake_is_an_error_before_torch_is_imported() -> None:
    code = "import sys; from pidscale.app.main import main; "
    code += "print(main(['compare', 'compare.only=[q]']), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stderr.startswith("error: compare.only: no row 'q'") and done.stdout.split() == ["2", "False"]
