"""Settings from plain values: an unknown key, a wrong type or a wrong range is one line that names the key."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pidscale.app.compose import settings_from
from pidscale.config import DistillSettings, Settings, UserError, distinct, exact, from_plain, to_flat, to_plain
from pidscale.diffusion.noise import schedule_for
from pidscale.distill.objectives import OBJECTIVES
from pidscale.limits import check
from pidscale.pde import build_pde


def refused(plain: dict[str, Any]) -> str:
    with pytest.raises(UserError) as raised:
        made = from_plain(Settings, plain)
        check(made)
        made.distill.own  # noqa: B018  which a distillation asks for first of all
    text = str(raised.value)
    assert "\n" not in text
    return text


def nested(key: str, value: Any) -> Any:
    """A value under a dotted key."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def test_defaults_are_legal_and_survive_json() -> None:
    check(Settings())
    changed = from_plain(Settings, {"distill": {"weights": {"dual": 0.5}, "teacher": "runs/a"}, "run": {"seed": 4}})
    again = from_plain(Settings, json.loads(json.dumps(to_plain(changed))))
    assert again == changed and changed.distill.weights.dual == 0.5
    assert changed.distill.weights.l2 == Settings().distill.weights.l2
    assert changed.distill.teacher == "runs/a" and Settings().distill.teacher is None


def test_a_run_cannot_change_its_settings() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().run.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"teacher": {"stepz": 3}}, ["teacher.stepz", "did you mean 'steps'"]),
        (
            {"distill": {"objective": {"name": "pid", "levels": 99999999999}}},
            ["distill.objective.levels=99999999999", "from 2 to 100000"],
        ),
        (
            {"distill": {"objective": {"name": "pid", "power": 0.1}}},
            ["distill.objective.power: unknown setting", "known keys: distance, huber, levels, name"],
        ),
        ({"distill": {"objective": {"name": "gan"}}}, ["distill.objective.name='gan'", "piddm, pid, dm"]),
        ({"distill": {"objective": {"name": ["pid"]}}}, ["distill.objective.name=['pid']", "piddm, pid, dm"]),
        (
            {"distill": {"objective": {"huber": 0.1, "distance": "l1"}}},
            ["distill.objective.huber=0.1", "distill.objective.distance=l2"],
        ),
        ({"distill": {"scale_samples": 2**30}}, ["distill.scale_samples=1073741824", "1048576"]),
        ({"evaluate": {"calls": [2, 2]}}, ["evaluate.calls=[2, 2]", "each once"]),
        ({"evaluate": {"teacher_steps": [4, 4]}}, ["evaluate.teacher_steps=[4, 4]", "each once"]),
        ({"teachers": {}}, ["teachers", "did you mean 'teacher'"]),
        ({"distill": {"weights": {"h1": 1.0}}}, ["distill.weights.h1", "boundary, conservation, dual, initial, l2"]),
        ({"run": {"xyz": 1}}, ["run.xyz", "known keys: folder, name, resume, scratch, seed"]),
    ],
)
def test_an_unknown_key_is_named_with_what_is_known(plain: dict[str, Any], words: list[str]) -> None:
    text = refused(plain)
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("section", "key", "value", "kind"),
    [
        ("teacher", "steps", 2.5, "a whole number"),
        ("teacher", "steps", True, "a whole number"),
        ("teacher", "steps", None, "a whole number"),
        ("teacher", "lr", "fast", "a number"),
        ("teacher", "sigma_max", "80", "a number"),
        ("cluster", "use_gpu", 1, "true or false"),
        ("evaluate", "teacher_steps", [9, "18"], "a whole number"),
        ("evaluate", "teacher_steps", 9, "a list"),
        ("pde", "params", 3, "a section with keys"),
        ("run", "name", 7, "text"),
        ("distill", "weights", 0.1, "a section with keys"),
        ("distill", "objective", 3, "a section with keys"),
        ("distill", "objective.huber", "wide", "a number"),
    ],
)
def test_a_wrong_type_is_named(section: str, key: str, value: Any, kind: str) -> None:
    text = refused({section: nested(key, value)})
    assert text.startswith(f"{section}.{key}=") and text.endswith(f": expected {kind}"), text


def test_whole_numbers_serve_where_fractions_are_wanted() -> None:
    made = from_plain(Settings, {"teacher": {"lr": 1, "sigma_max": 90}})
    assert made.teacher.lr == 1.0 and isinstance(made.teacher.lr, float)
    assert isinstance(made.teacher.sigma_max, float)
    assert from_plain(Settings, {"teacher": {"sigma_max": None}}).teacher.sigma_max is None


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("teacher", "steps", 0),
        ("teacher", "lr", -1e-3),
        ("teacher", "lr", float("nan")),
        ("distill", "lr", float("inf")),
        ("distill", "reuse", 0),
        ("distill", "micro_batch", -1),
        ("data", "samples_per_shard", 0),
        ("evaluate", "samples", 0),
        ("evaluate", "teacher_steps", []),
        ("evaluate", "teacher_steps", [9, 0]),
        ("cluster", "workers", 0),
        ("cluster", "timeout", 10**17),
        ("cluster", "zero_stage", 4),
        ("distill", "solver", "rk4"),
        ("distill", "norm", "h2"),
        ("distill", "gradient_to", "input"),
        ("distill", "combine", "product"),
        ("distill", "goal", 0),
        ("model", "precision", "fp16"),
        ("run", "resume", "maybe"),
        ("pde", "points", 0),
        ("pde", "points", 3),
        ("data", "seed", -1),
        ("data", "prefetch", 65),
        ("run", "seed", -1),
        ("distill", "buffer_rows", 10**9),
        ("distill", "objective.huber", -0.1),
        ("distill", "objective.distance", "l3"),
        ("distill", "solver_steps", 10**9),
        ("distill", "weights.dual", -0.1),
        ("distill", "weights.l2", float("nan")),
        ("distill", "physics_weight", -0.1),
        ("distill", "physics_weight", 10**400),
        ("distill", "physics_weight", 1e7),
        ("distill", "head", -1),
        ("distill", "head", 65),
        ("distill", "weights.l2", 1e300),
    ],
)
def test_a_value_out_of_range_is_named(section: str, key: str, value: Any) -> None:
    text = refused({section: nested(key, value)})
    assert text.startswith(f"{section}.{key}="), text


@pytest.mark.parametrize("key", ["clip", "warmup"])
@pytest.mark.parametrize("section", ["teacher", "distill"])
def test_clip_and_warmup_may_be_off_and_not_less(section: str, key: str) -> None:
    check(from_plain(Settings, {section: {key: 0}}))
    assert f"{section}.{key}" in refused({section: {key: -1}})


@pytest.mark.parametrize("section", ["teacher", "distill"])
def test_every_worker_needs_a_sample(section: str) -> None:
    text = refused({section: {"global_batch": 3}, "cluster": {"workers": 4}})
    assert f"{section}.global_batch=3" in text and "cluster.workers=4" in text


def test_endpoints_come_in_whole_chunks() -> None:
    base = {"global_batch": 32, "chunk": 16, "scale_samples": 64}
    check(from_plain(Settings, {"distill": base}))
    text = refused({"distill": base | {"chunk": 12}})
    assert "distill.chunk=12" in text and "32 / 2" in text
    assert "set distill.chunk=2" in refused({"distill": base, "cluster": {"workers": 5}})
    assert "distill.scale_samples=40" in refused({"distill": base | {"scale_samples": 40}})


def test_gradients_without_conflict_need_whole_weights() -> None:
    own = {"distill": {"combine": "conflict_free"}}
    check(from_plain(Settings, own | {"cluster": {"zero_stage": 2}}))
    text = refused(own | {"cluster": {"zero_stage": 3}})
    assert text.startswith("distill.combine=conflict_free") and "cluster.zero_stage to 2" in text


@pytest.mark.parametrize("name", ["", " ", "a/b", ".hidden", "..", "/tmp/x", 100 * "日"])
def test_a_run_name_is_one_folder(name: str) -> None:
    assert refused({"run": {"name": name}}).startswith(f"run.name={name!r}")


def test_a_section_alone_can_be_built() -> None:
    assert from_plain(DistillSettings, {"steps": 5}).steps == 5
    with pytest.raises(UserError, match=r"^distill\.stepz: "):
        from_plain(DistillSettings, {"stepz": 5}, "distill")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("teacher", "clip", float("nan")),
        ("distill", "clip", float("inf")),
        ("distill", "objective.huber", float("nan")),
        ("teacher", "sigma_max", float("nan")),
        ("teacher", "sigma_max", -200.0),
        ("teacher", "p_std", -1.0),
        ("teacher", "p_mean", float("inf")),
        ("evaluate", "samples", 1),
        ("cluster", "max_failures", -5),
        ("distill", "objective.power", float("inf")),
        ("pde", "points", 1000000),
        ("run", "name", "two\nlines"),
        ("run", "name", "x" * 300),
        ("run", "folder", ""),
        ("data", "path", " "),
    ],
)
def test_a_value_that_would_fail_late_is_refused_at_once(section: str, key: str, value: Any) -> None:
    assert f"{section}.{key}" in refused({section: nested(key, value)})


def test_a_chunk_that_does_not_fit_comes_with_one_that_does() -> None:
    text = refused({"distill": {"chunk": 16, "global_batch": 32, "scale_samples": 32}, "cluster": {"workers": 8}})
    assert "distill.chunk=4" in text


def test_a_number_that_is_refused_never_reads_like_its_bound() -> None:
    assert [exact(number) for number in (1, 1.0, 0.0005, 1e6, -2.5)] == ["1", "1", "0.0005", "1e+06", "-2.5"]
    assert (
        exact(1000000.5) == "1000000.5" and exact(float("nan")) == "nan" and exact(np.float64(1e6 + 1)) == "1000001.0"
    )
    assert distinct(0.1, 0.3, digits=3) == ["0.1", "0.3"] and distinct(1.00001, 1.0) == ["1.00001", "1"]
    assert distinct(0.1, np.nextafter(0.1, 1)) == ["0.1", "0.10000000000000002"] and distinct(2, 2.0) == ["2", "2"]
    with pytest.raises(UserError, match=r"pde.params.viscosity=1.0000001: expected 0.001 to 1$"):
        build_pde("burgers", {"viscosity": 1.0000001})
    with pytest.raises(ValueError, match=r"keeps 98.99999 % of the strongest mode .* at least 99% is needed"):
        schedule_for("edm", 100.0, 32, sigma_max=100 * 0.9899999 / (1 - 0.9899999**2) ** 0.5)


OLD = [  # of the section distill: what earlier versions took, the same of today, and the old and new names of one line each
    ({"objective": "pid"}, {"objective": {"name": "pid"}}, [("objective", "objective.name")]),
    (
        {"objective": "pid", "levels": 20, "huber": 0.2, "distance": "l2", "match": 4.0, "power": 0.0},
        {"objective": {"name": "pid", "levels": 20, "huber": 0.2}},
        [(key, f"objective.{key}") for key in ("distance", "huber", "levels")] + [("objective", "objective.name")],
    ),
    (
        {"objective": {"name": "piddm", "huber": 0.1}, "huber": 0.3},
        {"objective": {"name": "piddm", "huber": 0.3}},
        [("huber", "objective.huber")],
    ),
    ({"power": 0.5}, {"objective": {"power": 0.5}}, [("power", "objective.power")]),
    ({"objective": "dm", "match": 0.0}, {"objective": {"name": "dm", "match": 0.0}}, None),
    ({"ring": 7, "buffer_rows": 3}, {"buffer_rows": 7}, [("ring", "buffer_rows")]),
    ({"twin": False}, {"control": False}, [("twin", "control")]),
    ({"source": "ring"}, {"source": "thread"}, [("source=ring", "distill.source=thread")]),
]


@pytest.mark.parametrize(("old", "new", "names"), OLD)
def test_names_of_earlier_versions_are_read_and_named(
    old: dict[str, Any], new: dict[str, Any], names: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found, wanted = (from_plain(Settings, {"distill": section}) for section in (old, new))
    lines = capsys.readouterr().out.splitlines()
    assert replace(found, distill=found.distill.complete) == replace(wanted, distill=wanted.distill.complete)
    if names is not None:
        assert len(lines) == len(names)
        for before, after in names:
            assert any(f"distill.{before} is now " in line and after in line for line in lines), (before, lines)


def test_a_setting_that_the_objective_never_had_is_refused_by_either_name() -> None:
    for own in ({"objective": "pid", "power": 0.1}, {"objective": {"name": "pid", "power": 0.1}}):
        assert refused({"distill": own}).startswith("distill.objective.power: unknown setting")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_is_read_by_the_class_that_it_names(name: str) -> None:
    kind = OBJECTIVES[name].settings_class
    made = from_plain(Settings, {"distill": {"objective": {"name": name}}}).distill
    assert made.own == kind() and type(made.own) is kind and made.own.name == name
    assert made.complete.objective == to_plain(kind()) and made.complete.own == made.own
    again = from_plain(Settings, json.loads(json.dumps(to_plain(Settings(distill=made.complete)))))
    assert again.distill == made.complete


def test_settings_are_read_and_checked_without_torch() -> None:
    code = """
import sys
sys.modules["torch"] = None
from pidscale.config import Settings, from_plain, to_flat
from pidscale.limits import check
settings = from_plain(Settings, {"distill": {"objective": {"name": "pid", "levels": 20}}})
check(settings)
print(to_flat(settings)["distill.objective"])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert found.stdout == "{'name': 'pid', 'levels': 20}\n", found.stderr


# ---- the command line


def test_the_default_command_line_is_the_defaults_but_for_what_its_groups_name() -> None:
    named = {
        "pde.params": {"variant": "two_phase"},
        "distill.weights.l2": 0.0006,
        "distill.weights.dual": 0.0108,
        "distill.weights.boundary": 0.00075,
        "distill.constraints": ["two_phase"],
        "distill.head": 4,
        "distill.objective": {"name": "piddm", "huber": 0.1},
    }
    assert to_flat(settings_from([])) == to_flat(Settings()) | named
    demo = {"run.name": "demo", "distill.steps": 1800}
    assert to_flat(settings_from([], "demo")) == to_flat(Settings()) | named | demo


EVERY = {"solver": "dpm2m", "solver_steps": 24, "buffer_rows": 32, "reuse": 34, "chunk": 16, "clip": 1.0, "warmup": 50}
EVERY |= {"global_batch": 32, "micro_batch": 16, "scale_samples": 128, "gradient_to": "shape", "norm": "both"}
CHOICES: dict[str, dict[str, Any]] = {
    "piddm": EVERY | {"steps": 1100, "lr": 2e-3, "physics_from": 0.33, "physics_weight": 1.0},
    "pid": EVERY
    | {"steps": 1600, "lr": 1e-3, "physics_from": 0.5, "physics_weight": 0.1}
    | {"solver": "heun", "solver_steps": 18, "buffer_rows": 24, "reuse": 24},
    "dm": EVERY | {"steps": 1100, "lr": 1e-3, "physics_from": 0.33, "physics_weight": 2.0},
    "piddm_large": EVERY
    | {"steps": 20000, "lr": 1e-3, "physics_from": 0.5, "physics_weight": 1.0, "global_batch": 512, "micro_batch": 64}
    | {"chunk": 32, "warmup": 500, "solver": "heun", "solver_steps": 18, "buffer_rows": 64, "reuse": 16}
    | {"gradient_to": "all", "scale_samples": 512},
}
OBJECTIVE_OF: dict[str, dict[str, Any]] = {
    "piddm": {"name": "piddm", "power": 0.03},
    "pid": {"name": "pid", "levels": 250},
    "dm": {"name": "dm", "match": 4.0, "call_levels": []},
    "piddm_large": {"name": "piddm", "power": 0.0},
}


@pytest.mark.parametrize("pde", ["darcy", "darcy_lognormal", "poisson"])
@pytest.mark.parametrize("choice", CHOICES)
def test_an_equation_and_an_objective_have_values_that_go_together(choice: str, pde: str) -> None:
    made = to_plain(settings_from([f"pde={pde}", f"distill={choice}"]).distill.complete)
    assert {key: made[key] for key in CHOICES[choice]} == CHOICES[choice]
    jumps = pde == "darcy" and choice.startswith("piddm")
    assert made["objective"] == OBJECTIVE_OF[choice] | {"huber": 0.1 if jumps else 0.0, "distance": "l2"}
    dual = {"darcy": 0.0108, "darcy_lognormal": 0.0108, "poisson": 0.02}
    assert made["weights"]["dual"] == dual[pde]
