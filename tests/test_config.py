"""Settings from plain values: an unknown key, a wrong type or a wrong range is one line that names the key."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from pidscale.config import DistillSettings, Settings, UserError, exact, from_plain, to_plain
from pidscale.diffusion.noise import schedule_for
from pidscale.limits import check
from pidscale.pde import build_pde


def refused(plain: dict[str, Any]) -> str:
    with pytest.raises(UserError) as raised:
        check(from_plain(Settings, plain))
    text = str(raised.value)
    assert "\n" not in text
    return text


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
        ({"distill": {"levels": 99999999999}}, ["distill.levels=99999999999", "100000"]),
        ({"distill": {"scale_samples": 2**30}}, ["distill.scale_samples=1073741824", "1048576"]),
        ({"evaluate": {"calls": [2, 2]}}, ["evaluate.calls=[2, 2]", "each once"]),
        ({"evaluate": {"teacher_steps": [4, 4]}}, ["evaluate.teacher_steps=[4, 4]", "each once"]),
        ({"teachers": {}}, ["teachers", "did you mean 'teacher'"]),
        ({"distill": {"weights": {"h1": 1.0}}}, ["distill.weights.h1", "boundary, conservation, dual, initial, l2"]),
        ({"run": {"xyz": 1}}, ["run.xyz", "known keys: folder, name, resume, seed"]),
    ],
)
def test_an_unknown_key_is_named_with_what_is_known(plain: dict[str, Any], words: list[str]) -> None:
    text = refused(plain)
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("section", "key", "value", "kind"),
    [
        ("teacher", "steps", 2.5, "int"),
        ("teacher", "steps", True, "int"),
        ("teacher", "steps", None, "int"),
        ("teacher", "lr", "fast", "float"),
        ("teacher", "sigma_max", "80", "float"),
        ("cluster", "use_gpu", 1, "bool"),
        ("evaluate", "teacher_steps", [9, "18"], "int"),
        ("evaluate", "teacher_steps", 9, "list"),
        ("pde", "params", 3, "dict"),
        ("run", "name", 7, "str"),
        ("distill", "weights", 0.1, "section"),
    ],
)
def test_a_wrong_type_is_named(section: str, key: str, value: Any, kind: str) -> None:
    text = refused({section: {key: value}})
    assert text.startswith(f"{section}.{key}=") and kind in text, text


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
        ("cluster", "zero_stage", 4),
        ("distill", "solver", "rk4"),
        ("distill", "norm", "h2"),
        ("distill", "gradient_to", "input"),
        ("model", "precision", "fp16"),
        ("run", "resume", "maybe"),
        ("pde", "points", 0),
        ("pde", "points", 3),
        ("data", "seed", -1),
        ("data", "prefetch", 65),
        ("run", "seed", -1),
        ("distill", "ring", 10**9),
        ("distill", "solver_steps", 10**9),
        ("distill", "weights.dual", -0.1),
        ("distill", "weights.l2", float("nan")),
        ("distill", "physics_weight", -0.1),
        ("distill", "physics_weight", 10**400),
        ("distill", "physics_weight", 1e7),
        ("distill", "weights.l2", 1e300),
    ],
)
def test_a_value_out_of_range_is_named(section: str, key: str, value: Any) -> None:
    plain: Any = value
    for name in reversed(key.split(".")):
        plain = {name: plain}
    text = refused({section: plain})
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
    assert "distill.chunk=16" in refused({"distill": base, "cluster": {"workers": 3}})
    assert "distill.scale_samples=40" in refused({"distill": base | {"scale_samples": 40}})


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "..", "/tmp/x"])
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
        ("distill", "huber", float("nan")),
        ("teacher", "sigma_max", float("nan")),
        ("teacher", "sigma_max", -200.0),
        ("teacher", "p_std", -1.0),
        ("teacher", "p_mean", float("inf")),
        ("evaluate", "samples", 1),
        ("cluster", "max_failures", -5),
        ("distill", "power", float("inf")),
        ("pde", "points", 1000000),
        ("run", "name", "two\nlines"),
        ("run", "name", "x" * 300),
        ("run", "folder", ""),
        ("data", "path", " "),
    ],
)
def test_a_value_that_would_fail_late_is_refused_at_once(section: str, key: str, value: Any) -> None:
    assert f"{section}.{key}" in refused({section: {key: value}})


def test_a_chunk_that_does_not_fit_comes_with_one_that_does() -> None:
    text = refused({"distill": {"chunk": 16, "global_batch": 32, "scale_samples": 32}, "cluster": {"workers": 8}})
    assert "distill.chunk=4" in text


def test_a_number_that_is_refused_never_reads_like_its_bound() -> None:
    assert [exact(number) for number in (1, 1.0, 0.0005, 1e6, -2.5)] == ["1", "1", "0.0005", "1e+06", "-2.5"]
    assert (
        exact(1000000.5) == "1000000.5" and exact(float("nan")) == "nan" and exact(np.float64(1e6 + 1)) == "1000001.0"
    )
    with pytest.raises(UserError, match=r"pde.params.viscosity=1.0000001: expected 0.001 to 1$"):
        build_pde("burgers", {"viscosity": 1.0000001})
    with pytest.raises(ValueError, match=r"keeps 98.99999 % of the strongest mode .* at least 99% is needed"):
        schedule_for("edm", 100.0, 32, sigma_max=100 * 0.9899999 / (1 - 0.9899999**2) ** 0.5)
