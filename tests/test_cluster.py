"""Whole runs through the scripts, on a real Ray: from shards to a report, killed on the way, fields shared by workers."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pidscale import seeds
from pidscale.engine.spread import spread, window_for
from pidscale.generator.load import load_student
from pidscale.parallel.mesh import Mesh
from tests.scripts import LAUNCH, contents, family, finish, interrupt, start, tiny
from tests.twins import spawn


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(place):
    """A run without a break: what each script said."""
    said = {}
    for script in ("make_shards", "train_teacher", "distill", "evaluate"):
        log = place / f"{script}.log"
        said[script] = finish(start(script, tiny(place, "whole"), log), log)
    return said


def weights(run, name):
    return load_file(run / name / "weights.safetensors")


def launch(script, arguments, monkeypatch):
    """Run a script in this process, on this session's Ray where it needs one."""
    monkeypatch.syspath_prepend(str(LAUNCH))
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(str(LAUNCH / f"{script}.py"), run_name="__main__")


def board(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


TEACHER_SCALARS = ["loss/denoising", "residual/l2", "residual/dual", "residual/boundary", "residual/floor_l2"]
STUDENT_SCALARS = [
    f"{student}/{name}"
    for student in ("student", "student-lambda0")
    for name in ("loss_loss", "loss_match", "gradient_norm")
] + ["student/residual_l2", "student/residual_dual", "student/residual_boundary", "buffer/fresh_fraction"]
STUDENT_SCALARS += ["endpoints/per_second", "endpoints/work_share"]
TRAIN_SCALARS = [
    "train/lr",
    "train/fields_per_second",
    "time/step",
    "time/wait_share",
    "time/data",
    "time/wait",
    "time/optimiser",
]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_from_shards_to_a_report(whole, place):
    run = place / "runs" / "whole"
    for script, (said, errors) in whole.items():
        assert "Traceback" not in said + errors, script
    assert "residual of the stored truth: l2" in whole["make_shards"][0]
    assert "this run uses stage 1" in whole["train_teacher"][0] and "40/40" in whole["train_teacher"][0]
    assert f"distill: {run / 'student'}" in whole["distill"][0] and "30/30" in whole["distill"][0]
    assert json.loads((place / "shards" / "manifest.json").read_text())["equation"] == "darcy"
    for name in ("teacher", "student", "student-lambda0"):
        found = weights(run, name)
        assert found and all(torch.isfinite(tensor).all() for tensor in found.values())
    for phase in ("teacher", "distill"):
        record = json.loads((run / f"{phase}.json").read_text())
        assert record["finished"] and record["signature"]["run.seed"] == 0
    assert json.loads((run / "config.json").read_text())["teacher"]["steps"] == 40
    assert json.loads((run / "versions.json").read_text())["torch"] == torch.__version__
    assert (run / "report" / "index.html").stat().st_size > 10_000
    measured = json.loads((run / "report" / "metrics.json").read_text())
    assert "student" in json.dumps(measured) and "report: " in whole["evaluate"][0]


@pytest.mark.slow
def test_tensorboard_finds_curves_and_pictures(whole, place):
    run = place / "runs" / "whole"
    for phase, own, steps in (("teacher", TEACHER_SCALARS, 40), ("distill", STUDENT_SCALARS, 30)):
        events = board(run / "tb" / phase)
        tags = events.Tags()
        shared = (
            [*TRAIN_SCALARS, "train/gradient_norm", "time/network"]
            if phase == "teacher"
            else [*TRAIN_SCALARS, "time/student"]
        )
        missing = set(own + shared) - set(tags["scalars"])
        assert not missing, (phase, sorted(tags["scalars"]))
        assert tags["images"] == ["fields"] and len(events.Images("fields")) >= 2
        assert events.Images("fields")[-1].encoded_image_string.startswith(b"\x89PNG")
        loss = events.Scalars("loss/denoising" if phase == "teacher" else "student/loss_loss")
        assert [point.step for point in loss] == list(range(1, steps + 1))
        assert all(point.value > 0 for point in loss)
        rate = events.Scalars("train/lr")
        assert rate[0].value > rate[-1].value > 0 or rate[0].value < max(point.value for point in rate)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_and_started_again_it_ends_with_the_same_bits(whole, place, monkeypatch, capsys):
    """Both are asked to stop, by Ctrl-C and by SIGTERM, then killed. The same command goes on each time."""
    arguments, run = tiny(place, "broken"), place / "runs" / "broken"
    checkpoints = run / "checkpoints"
    log = place / "broken.log"
    said, errors = interrupt("train_teacher", arguments, log, checkpoints / "teacher" / "step_00000010", signal.SIGINT)
    assert "stopping with a checkpoint" in said and "stopped at step" in said and errors.count("\n") == 1
    assert errors.startswith("error: ") and "goes on from its last checkpoint" in errors
    interrupt("train_teacher", arguments, log, checkpoints / "teacher" / "step_00000030", signal.SIGKILL)
    assert not (run / "teacher").exists() and not json.loads((run / "teacher.json").read_text())["finished"]
    said, _ = finish(start("train_teacher", arguments, log), log)
    assert "40/40" in said and " 10/40" not in said

    said, _ = interrupt("distill", arguments, log, checkpoints / "distill" / "step_00000010", signal.SIGTERM)
    assert "stopped at step" in said
    interrupt("distill", arguments, log, checkpoints / "distill" / "step_00000020", signal.SIGKILL)
    assert not (run / "student").exists()
    said, _ = finish(start("distill", arguments, log), log)
    assert "30/30" in said

    for name in ("teacher", "student", "student-lambda0"):
        first, second = weights(place / "runs" / "whole", name), weights(run, name)
        assert first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first), name
    for phase, tag, steps in (("teacher", "loss/denoising", 40), ("distill", "student/loss_loss", 30)):
        found, before = (board(place / "runs" / name / "tb" / phase).Scalars(tag) for name in ("broken", "whole"))
        assert [point.step for point in found] == list(range(1, steps + 1)), phase  # no gap and nothing twice
        assert [point.value for point in found] == [point.value for point in before], phase

    before = contents(run)
    for script in ("train_teacher", "distill"):
        launch(script, arguments, monkeypatch)
        assert "finished already" in capsys.readouterr().out
    assert contents(run) == before


def _named(title):
    """Numbers of the processes of this session's Ray whose title begins so."""
    found = []
    for number in family(os.getpid()):
        with suppress(OSError):
            if Path(f"/proc/{number}/cmdline").read_text().startswith(title):
                found.append(number)
    return found


@contextmanager
def _killing(title, count, due):
    """As soon as a path is there, kill one of so many processes of a title; the number of that one, in a list."""
    killed, over = [], threading.Event()

    def look():
        while not killed and not over.is_set():
            found = _named(title) if due.exists() else []
            if len(found) == count:
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])
            time.sleep(0.01)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_worker_that_is_killed_is_told_and_its_run_goes_on_by_itself(ray_cluster, whole, place, monkeypatch, capsys):
    """One of two workers is killed after a checkpoint: the teacher is that of the run without the loss."""
    run = place / "runs" / "hurt"
    due = run / "checkpoints" / "teacher" / "step_00000010" / "manifest.json"
    with _killing("ray::RayTrainWorker", 2, due) as killed:
        launch("train_teacher", tiny(place, "hurt", "cluster.max_failures=1"), monkeypatch)
    said = capsys.readouterr()
    died = r"worker [01] on host \S+: lost \(its process died; (\S+)\)"
    seen = r"worker [01] on host \S+: lost its connection to worker [01] on host \S+ \(.*; traceback: (\S+)\)"
    after = "; failure 1 of cluster.max_failures=1; goes on from step [123]0\n"
    found = re.search(rf"teacher: (?:{died}|{seen}){after}", said.out)
    assert killed and found and "Traceback" not in said.out + said.err, said.out
    assert re.search("ActorDiedError|Traceback", Path(found[1] or found[2]).read_text())
    first, second = weights(place / "runs" / "whole", "teacher"), weights(run, "teacher")
    assert all(torch.equal(first[n], second[n]) for n in first)


# ---- teachers on resources of their own


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_teacher_actor_that_is_killed_costs_nothing_but_time(ray_cluster, whole, place, monkeypatch, capsys):
    """Two actors serve two workers; one is killed on the way: the students are those of endpoints made in the step."""
    run, teacher = place / "runs" / "served", f"distill.teacher={place / 'runs' / 'whole' / 'teacher'}"
    with _killing("ray::TeacherActor", 2, run / "checkpoints" / "distill") as killed:
        launch("distill", tiny(place, "served", teacher, "distill.source=actors", "distill.actors=2"), monkeypatch)
    said = capsys.readouterr()
    assert killed and re.search(r"warning: teacher actor [01] was lost and started again", said.out), said.out
    assert "endpoints of K=" in said.out and "Traceback" not in said.out + said.err
    for name in ("student", "student-lambda0"):
        first, second = weights(place / "runs" / "whole", name), weights(run, name)
        assert all(torch.equal(first[n], second[n]) for n in first), name


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_endpoints_are_made_beforehand_by_tasks(ray_cluster, whole, place, monkeypatch, capsys):
    run = place / "runs" / "read"
    teacher = f"distill.teacher={place / 'runs' / 'whole' / 'teacher'}"
    arguments = tiny(place, "read", teacher, f"distill.endpoints={place / 'endpoints'}", "distill.source=shards")
    launch("make_endpoints", arguments, monkeypatch)
    assert "use distill.source=shards" in capsys.readouterr().out
    launch("distill", arguments, monkeypatch)
    assert "read from" in capsys.readouterr().out
    first, second = weights(place / "runs" / "whole", "student"), weights(run, "student")
    assert all(torch.equal(first[n], second[n]) for n in first)


# ---- fields that workers share


def _sampled_on_tiles(rank, world, folder):
    """Samples of a consolidated student by ranks that share each field."""
    mesh, student = Mesh.over(rank, world, torch.device("cpu"), world), load_student(folder)
    window = window_for(student.card["architecture"], student.grid, mesh.space)
    split = replace(student, denoiser=spread(student.denoiser, window))
    eps = seeds.normal(5, "sample", range(6), (2, *student.grid.shape), window.rows)
    return split.normaliser.decode(split.generate(eps, torch.zeros(6, 0)))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_whose_workers_share_each_field(ray_cluster, whole, place, monkeypatch, capsys):
    """Teacher and student of two workers with half of each field each; the student is that of any other run."""
    for script in ("train_teacher", "distill"):
        launch(script, tiny(place, "shared", "cluster.space=2"), monkeypatch)
    said = capsys.readouterr().out
    assert "memory on each worker" in said and "on 8 x 16 points" in said
    run = place / "runs" / "shared"
    for phase, loss in (("teacher", "loss/denoising"), ("distill", "student/loss_loss")):
        ours, theirs = board(run / "tb" / phase), board(place / "runs" / "whole" / "tb" / phase)
        assert len(ours.Images("fields")) >= 2
        for own, other in zip(ours.Scalars(loss)[:5], theirs.Scalars(loss)[:5], strict=True):
            assert own.step == other.step and own.value == pytest.approx(other.value, rel=1e-3), (phase, own.step)
    student = load_student(run / "student")
    alone = student.join(student.sample(6, seed=5))
    tiles = torch.cat(spawn(_sampled_on_tiles, 2, run / "student"), dim=2)
    assert (tiles - alone).norm() <= 1e-5 * alone.norm()
