"""Complete runs of the scripts on Ray: from shards to a report, with killed processes, with fields shared by workers."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pidscale import seeds
from pidscale.app.main import main
from pidscale.engine import checkpoint
from pidscale.engine.spread import spread, window_for
from pidscale.generator.load import load_student
from pidscale.inspect.runs import describe_runs
from pidscale.parallel.mesh import Mesh
from tests.ranks import spawn
from tests.scripts import contents, family, finish, interrupt, start, tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def reference(place):
    """A run without interruptions: the output of each script."""
    outputs = {}
    for script in ("make_shards", "train_teacher", "distill", "evaluate"):
        log = place / f"{script}.log"
        outputs[script] = finish(start(script, tiny(place, "reference"), log), log)
    return outputs


def weights(run, name):
    return load_file(run / name / "weights.safetensors")


def launch(command, arguments):
    """Run a subcommand in this process, on this session's Ray where it needs one."""
    assert main([command, *arguments]) == 0


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
def test_from_shards_to_a_report(reference, place):
    run = place / "runs" / "reference"
    for script, (said, errors) in reference.items():
        assert "Traceback" not in said + errors, script
    assert "residual of the stored truth: l2" in reference["make_shards"][0]
    assert "this run uses stage 1" in reference["train_teacher"][0] and "40/40" in reference["train_teacher"][0]
    assert f"distill: {run / 'student'}" in reference["distill"][0] and "30/30" in reference["distill"][0]
    assert json.loads((place / "shards" / "manifest.json").read_text())["equation"] == "darcy"
    for name in ("teacher", "student", "student-lambda0"):
        found = weights(run, name)
        assert found and all(torch.isfinite(tensor).all() for tensor in found.values())
    for phase in ("teacher", "distill"):
        record = json.loads((run / f"{phase}.json").read_text())
        assert record["finished"] and record["signature"]["run.seed"] == 0
    assert json.loads((run / "config.json").read_text())["teacher"]["steps"] == 40
    assert json.loads((run / "versions.json").read_text())["torch"] == version("torch")
    assert (run / "report" / "index.html").stat().st_size > 10_000
    measured = json.loads((run / "report" / "metrics.json").read_text())
    assert "student" in json.dumps(measured) and "report: " in reference["evaluate"][0]
    head, row, *_ = listed = describe_runs(place / "runs")
    assert head.split()[:4] == ["run", "equation", "teacher", "student"]
    (student,) = (one for one in measured["rows"] if one["method"] == "student")
    assert row.split()[:7] == ["reference", "darcy", "16", "40", "steps", "30", "steps"]
    assert f"{student['solution_error']:.3g}" in row.split()
    assert f"report: {run / 'report' / 'index.html'}" in listed


@pytest.mark.slow
def test_tensorboard_shows_curves_and_pictures(reference, place):
    run = place / "runs" / "reference"
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
def test_a_stopped_or_killed_run_resumes_and_ends_with_the_same_bits(ray_cluster, reference, place, capsys):
    """The teacher is asked to stop by Ctrl-C, the distillation is killed; the same command resumes each time."""
    arguments = tiny(place, "broken")
    run = place / "runs" / "broken"
    checkpoints = run / "checkpoints"
    log = place / "broken.log"
    said, errors = interrupt("train_teacher", arguments, log, checkpoints / "teacher" / "step_00000010", signal.SIGINT)
    assert "stopping with a checkpoint" in said and "stopped at step" in said and errors.count("\n") == 1
    assert errors.startswith("error: ") and "goes on from its last checkpoint" in errors
    assert not (run / "teacher").exists() and not json.loads((run / "teacher.json").read_text())["finished"]
    (row,) = (line for line in describe_runs(place / "runs") if line.startswith("broken "))
    last = checkpoint.newest_step(checkpoints / "teacher")  # that of the stop, wherever it was
    assert last is not None and 10 <= last < 40
    assert row.split()[3:7] == ["checkpoint", str(last), "of", "40"]
    launch("train", arguments)
    said = capsys.readouterr().out
    assert "40/40" in said and " 10/40" not in said

    interrupt("distill", arguments, log, checkpoints / "distill" / "step_00000020", signal.SIGKILL)
    assert not (run / "student").exists()
    launch("distill", arguments)
    said = capsys.readouterr().out
    assert "30/30" in said and " 10/30" not in said

    for name in ("teacher", "student", "student-lambda0"):
        first, second = weights(place / "runs" / "reference", name), weights(run, name)
        assert first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first), name
    for phase, tag, steps in (("teacher", "loss/denoising", 40), ("distill", "student/loss_loss", 30)):
        found, before = (board(place / "runs" / name / "tb" / phase).Scalars(tag) for name in ("broken", "reference"))
        assert [point.step for point in found] == list(range(1, steps + 1)), phase  # no gap and no repetition
        assert [point.value for point in found] == [point.value for point in before], phase

    before = contents(run)
    for command in ("train", "distill"):
        launch(command, arguments)
        assert "finished already" in capsys.readouterr().out
    assert contents(run) == before


def _named(title):
    """The process numbers of this session's Ray whose title begins with these words."""
    found = []
    for number in family(os.getpid()):
        with suppress(OSError):
            if Path(f"/proc/{number}/cmdline").read_text().startswith(title):
                found.append(number)
    return found


@contextmanager
def _hurting(title, count, due, how=signal.SIGKILL):
    """Send a signal to one of `count` processes of a title as soon as the path `due` exists; yield a list with its number."""
    killed = []
    over = threading.Event()

    def look():
        while not killed and not over.is_set():
            found = _named(title) if due.exists() else []
            if len(found) == count:
                os.kill(found[0], how)
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
def test_a_hung_and_a_killed_worker_are_reported_and_their_run_goes_on(ray_cluster, reference, place, capsys):
    """One of two workers hangs after a checkpoint, one is killed after another; the teacher is that of the unbroken run."""
    run = place / "runs" / "hurt"
    first, second = (run / "checkpoints" / "teacher" / f"step_{step:08d}" / "manifest.json" for step in (10, 20))
    more = ["cluster.max_failures=2", "cluster.timeout=30"]
    title = "ray::RayTrainWorker"
    with _hurting(title, 2, first, signal.SIGSTOP) as hung, _hurting(title, 2, second) as killed:
        launch("train", tiny(place, "hurt", *more))
    said = capsys.readouterr()
    died = r"worker [01] on host \S+: lost \(its process died; (\S+)\)"
    seen = r"worker [01] on host \S+: lost its connection to worker [01] on host \S+ \(.*; traceback: (\S+)\)"
    lost = [
        (found[1] or found[2], found[3])
        for found in re.finditer(rf"teacher: (?:{died}|{seen}); failure (\d)", said.out)
    ]
    assert hung and killed and [number for _, number in lost] == ["1", "2"], said.out
    assert "Traceback" not in said.out + said.err and "goes on from step 10\n" in said.out
    for path, _ in lost:
        assert re.search("ActorDiedError|Traceback", Path(path).read_text())
    whole, hurt = weights(place / "runs" / "reference", "teacher"), weights(run, "teacher")
    assert all(torch.equal(whole[n], hurt[n]) for n in whole)


# ---- teachers on their own resources


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_teacher_actor_changes_no_bit(ray_cluster, reference, place, capsys):
    """Two actors serve two workers, and one is killed; the students equal those whose endpoints are made in the step."""
    run = place / "runs" / "served"
    teacher = f"distill.teacher={place / 'runs' / 'reference' / 'teacher'}"
    with _hurting("ray::TeacherActor", 2, run / "checkpoints" / "distill") as killed:
        launch("distill", tiny(place, "served", teacher, "distill.source=actors", "distill.actors=2"))
    said = capsys.readouterr()
    assert killed and re.search(r"warning: teacher actor [01] was lost and started again", said.out), said.out
    assert "endpoints of K=" in said.out and "Traceback" not in said.out + said.err
    for name in ("student", "student-lambda0"):
        first, second = weights(place / "runs" / "reference", name), weights(run, name)
        assert all(torch.equal(first[n], second[n]) for n in first), name


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_endpoints_are_made_beforehand_by_tasks(ray_cluster, reference, place, capsys):
    run = place / "runs" / "read"
    teacher = f"distill.teacher={place / 'runs' / 'reference' / 'teacher'}"
    arguments = tiny(place, "read", teacher, f"distill.endpoints={place / 'endpoints'}", "distill.source=shards")
    launch("make-endpoints", arguments)
    assert "use distill.source=shards" in capsys.readouterr().out
    launch("distill", arguments)
    assert "read from" in capsys.readouterr().out
    first, second = weights(place / "runs" / "reference", "student"), weights(run, "student")
    assert all(torch.equal(first[n], second[n]) for n in first)


# ---- fields that workers share


def _sampled_on_tiles(rank, world, folder):
    """Samples of a published student, made by ranks that share each field."""
    mesh = Mesh.over(rank, world, torch.device("cpu"), world)
    student = load_student(folder)
    window = window_for(student.card.architecture, student.grid, mesh.space)
    split = replace(student, denoiser=spread(student.denoiser, window))
    eps = seeds.normal(5, "sample", range(6), (2, *student.grid.shape), window.rows)
    return split.normaliser.decode(split.generate(eps, torch.zeros(6, 0)))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_whose_workers_share_each_field(ray_cluster, reference, place, capsys):
    """Two workers with half of each field train teacher and student; the student can be used like that of any other run."""
    for command in ("train", "distill"):
        launch(command, tiny(place, "shared", "cluster.space=2"))
    said = capsys.readouterr().out
    assert "memory on each worker" in said and "on 8 x 16 points" in said
    run = place / "runs" / "shared"
    for phase, loss in (("teacher", "loss/denoising"), ("distill", "student/loss_loss")):
        split, plain = board(run / "tb" / phase), board(place / "runs" / "reference" / "tb" / phase)
        assert len(split.Images("fields")) >= 2
        for own, other in zip(split.Scalars(loss)[:5], plain.Scalars(loss)[:5], strict=True):
            assert own.step == other.step and own.value == pytest.approx(other.value, rel=1e-3), (phase, own.step)
    student = load_student(run / "student")
    alone = student.join(student.sample(6, seed=5, head=0))
    tiles = torch.cat(spawn(_sampled_on_tiles, 2, run / "student"), dim=2)
    assert (tiles - alone).norm() <= 1e-5 * alone.norm()
