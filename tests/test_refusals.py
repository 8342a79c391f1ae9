"""Mistakes in settings and files through the command: one line, exit status 2, before any worker starts, nothing written."""

from __future__ import annotations

import shutil
import time

import pytest

from pidscale.app.compose import settings_from
from pidscale.app.main import main
from tests import small
from tests.distill.test_rollout import write_teacher
from tests.scripts import contents, tiny


@pytest.fixture
def refused(capsys):
    """Run a subcommand here: its one line of error; whatever it wrote is a failure."""

    def run(command, arguments, folder):
        before = contents(folder)
        status = main([command, *arguments])
        said = capsys.readouterr()
        assert status == 2
        assert said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
        assert "Traceback" not in said.out + said.err
        assert contents(folder) == before
        return said.err

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory, small_shards):
    """Shards, a teacher of another grid and one of another kind, and a run that has begun."""
    from pidscale.dataset.problem import open_problem
    from pidscale.paths import absolute
    from pidscale.run import phases

    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(small_shards, folder / "shards")
    other = small.make_shards(folder / "shards20", points=20)
    write_teacher(folder / "teacher20", small.settings(other, folder, pde={"points": 20}))
    write_teacher(folder / "runs" / "taught" / "teacher", small.settings(small_shards, folder))
    write_teacher(folder / "runs" / "taught" / "student", small.settings(small_shards, folder), kind="student")
    write_teacher(folder / "student16", small.settings(small_shards, folder), kind="student")
    settings = absolute(settings_from(tiny(folder, "begun")))
    problem = open_problem(settings.pde, settings.data)
    phases.begin("teacher", settings, {"data.path (its data_hash)": problem.manifest.data_hash})
    kept = folder / "runs" / "begun" / "checkpoints" / "teacher" / "step_00000010"
    kept.mkdir(parents=True)
    (kept / "manifest.json").write_text("{}")  # settings of a phase that made nothing may change
    return folder


CASES = {
    "no shards": ("train", ["data.path={0}/nowhere"], ["nowhere", "data.path"]),
    "shards of another grid": ("train", ["data.path={0}/shards20"], ["shards20", "grid"]),
    "another variant": ("train", ["pde.params.variant=log_normal"], ["pde.params.variant", "two_phase"]),
    "unknown parameter": ("train", ["pde.params.kappa=3"], ["pde.params.kappa"]),
    "unknown equation": ("train", ["pde.name=maxwell"], ["maxwell", "darcy", "stokes"]),
    "unknown change": ("train", ["model.change.wdith=8"], ["model.change.wdith", "width"]),
    "odd number of points": (
        "train",
        ["model.change.multipliers=[1,2,2,2,2,2]"],
        ["16 x 16 points", "multiples of 32"],
    ),
    "DeepSpeed's own stage": (
        "train",
        ["cluster.deepspeed.zero_optimization.stage=2"],
        ["cluster.deepspeed.zero_optimization.stage", "cluster.zero_stage"],
    ),
    "nothing to resume": ("train", ["run.resume=must", "run.name=fresh"], ["run.resume=must", "run.name"]),
    "never resume": ("train", ["run.resume=never"], ["run.resume=never", "run.name=begun"]),
    "another rate": ("train", ["teacher.lr=0.5"], ["teacher.lr was 0.002 and is 0.5", "run.name"]),
    "another seed": ("train", ["run.seed=3"], ["run.seed was 0 and is 3"]),
    "another network": ("train", ["model.change.width=16"], ["model.change was"]),
    "no teacher": ("distill", [], ["runs/begun/teacher", "`pidscale train`", "distill.teacher"]),
    "teacher of another grid": ("distill", ["distill.teacher={0}/teacher20"], ["teacher20", "grid", "distill.teacher"]),
    "a student as teacher": ("distill", ["distill.teacher={0}/student16"], ["student16", "distill.teacher"]),
    "endpoints that are nowhere": (
        "distill",
        ["run.name=taught", "distill.source=shards", "distill.endpoints={0}/nowhere"],
        ["nowhere"],
    ),
    "shards without a name": ("distill", ["run.name=taught", "distill.source=shards"], ["distill.endpoints=null"]),
    "shards that are no endpoints": (
        "distill",
        ["run.name=taught", "distill.source=shards", "distill.endpoints={0}/shards"],
        ["holds no endpoints of a teacher", "`pidscale make-endpoints`"],
    ),
    "actors of shared fields": (
        "distill",
        ["distill.source=actors", "cluster.space=2"],
        ["distill.source=actors", "cluster.space=2", "inline"],
    ),
    "endpoints that nobody wants": (
        "distill",
        ["distill.objective.name=pid", "distill.source=thread"],
        ["distill.source=thread"],
    ),
    "powers of no endpoints": (
        "distill",
        ["distill.objective.name=pid", "distill.objective.power=0.1"],
        ["distill.objective.power", "known keys: distance, huber, levels, name"],
    ),
    "a first interval of a steady equation": (
        "distill",
        ["run.name=taught", "distill.weights.initial=0.1"],
        ["distill.weights.initial", "darcy is steady", "set it to 0"],
    ),
    "another objective": (
        "distill",
        ["distill.objective.name=gan"],
        ["distill.objective.name='gan'", "piddm, pid, dm"],
    ),
    "levels of another kind of noise": (
        "train",
        ["teacher.noise=flow", "teacher.p_mean=0.1"],
        ["teacher.p_mean", "teacher.noise=edm"],
    ),
    "endpoints in a place that is taken": (
        "make-endpoints",
        ["run.name=taught", "distill.endpoints={0}/shards"],
        ["another request", "distill.endpoints"],
    ),
    "nothing to evaluate": ("evaluate", [], ["runs/begun/teacher"]),
    "too many samples": (
        "evaluate",
        ["evaluate.samples=64", "run.name=taught"],
        ["evaluate.samples=64", "data.test=128"],
    ),
    "too few for all workers": (
        "train",
        ["teacher.evaluate_samples=1"],
        ["teacher.evaluate_samples=1", "cluster.workers=2"],
    ),
    "space that does not divide": ("train", ["cluster.space=3"], ["cluster.space=3", "cluster.workers=2"]),
    "rows too few to share": (
        "train",
        ["cluster.workers=16", "cluster.space=16"],
        ["cluster.space=16", "16 rows in units of 2", "at most cluster.space=8"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_line_before_anything_starts(made, refused, case, monkeypatch):
    monkeypatch.setattr("ray.init", lambda *args, **kwargs: pytest.fail("a Ray is started for a mistake"))
    command, more, words = CASES[case]
    line = refused(command, tiny(made, "begun", *(argument.format(made) for argument in more)), made)
    assert all(word in line for word in words), line


@pytest.mark.slow
def test_what_only_a_cluster_can_tell_is_one_line_too(ray_cluster, made, refused, tmp_path):
    shutil.copytree(made / "shards", tmp_path / "shards")
    many = ["cluster.workers=64", "teacher.global_batch=64", "teacher.evaluate_samples=64", "distill.global_batch=64"]
    many += ["distill.chunk=1", "distill.scale_samples=64"]
    began = time.monotonic()
    line = refused("train", tiny(tmp_path, "many", *many), tmp_path / "shards")
    assert "cluster.workers=64: 64 x 1 CPU" in line and "of 4 CPUs free" in line
    assert not (tmp_path / "runs" / "many").exists()
    assert time.monotonic() - began < 10

    taught = [f"distill.teacher={made}/runs/taught/teacher", f"distill.endpoints={tmp_path}/endpoints"]
    line = refused("make-endpoints", tiny(tmp_path, "none", "cluster.cpus_per_worker=64", *taught), tmp_path)
    assert all(word in line for word in ("tasks=1: 1 x 64 CPUs", "of 4 CPUs", "cluster.cpus_per_worker")), line

    line = refused("make-shards", tiny(tmp_path, "run", "data.train=32"), tmp_path)
    assert "request.json" in line and "samples" in line and "data.path" in line

    line = refused("train", tiny(tmp_path, "weak", "teacher.sigma_max=1.0"), tmp_path / "shards")
    assert "teacher.sigma_max=1" in line and "strongest mode" in line

    line = refused(
        "make-shards",
        tiny(tmp_path, "huge", f"data.path={tmp_path}/huge", "pde.params.source=1e300"),
        tmp_path / "shards",
    )
    assert "pde.params" in line and "float32" in line

    tar = next((tmp_path / "shards").glob("train-*.tar"))
    data = bytearray(tar.read_bytes())
    for place in range(0, len(data), 64):  # one of them is in a field
        data[place] ^= 1
    tar.write_bytes(bytes(data))
    line = refused("train", tiny(tmp_path, "flipped", "cluster.max_failures=3"), tmp_path / "shards")
    assert tar.name in line and "failure" not in line  # a mistake is not tried again
    assert len(list((tmp_path / "runs/flipped/ray").glob("teacher-*"))) == 1
