"""Both loops on two ranks, from shards to students: stopped anywhere, resumed to the same bits, contract of the loss held.

Teacher and distillation share their ranks: starting them is what takes the time.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pidscale import seeds
from pidscale.config import LambdaSettings, UserError
from pidscale.dataset.problem import open_problem
from pidscale.distill import loop as distill_loop
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.endpoints.rollout import Rollout
from pidscale.distill.objectives.physics import Physics
from pidscale.distill.objectives.piddm import Piddm
from pidscale.distill.students import Student, build_student
from pidscale.engine.schedule import micro_plan
from pidscale.generator.load import load_generator, load_student, load_teacher
from pidscale.meter import StepTimer
from pidscale.models import build_denoiser
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.pde.parameters import condition
from pidscale.pde.residuals import residual_shares
from pidscale.records.check import load_manifest
from pidscale.run.reporting import Reporter, Request, Stopped
from pidscale.teacher import loop as teacher_loop
from tests import small
from tests.distill.test_rollout import write_teacher
from tests.ranks import spawn

LOOPS = {"teacher": teacher_loop.train, "distill": distill_loop.train}
WEIGHTS = {"l2": 0.01, "dual": 0.1, "boundary": 0.01}
SCALES = {"l2": 30.0, "dual": 0.4, "boundary": 2.0, "conservation": 3.0, "initial": 20.0}
IN_TIME = {"conservation": 0.05, "initial": 0.02}  # weights beside those, of an equation in time


class Watcher:
    """Follows a loop's progress, and asks it to stop once it has come to a step."""

    def __init__(self, stop_at=None):
        self.seen, self.said = [], []

        def asked():
            return (
                Request.STOP if stop_at is not None and self.seen and self.seen[-1][0] >= stop_at else Request.NOTHING
            )

        self.reporter = Reporter(lambda done, total, note: self.seen.append((done, total)), self.said.append, asked)


def live(phase, settings, folder, mesh, stop_at=None):
    """One attempt of a phase: what it came to, and the steps that it was heard of."""
    folder.mkdir(parents=True, exist_ok=True)
    mesh.barrier()
    watcher = Watcher(stop_at)
    try:
        ended = LOOPS[phase](settings, folder, mesh, watcher.reporter)
    except Stopped as stopped:
        ended = str(stopped)
    return {"ended": ended, "seen": watcher.seen, "said": watcher.said}


def _phases(rank, world, shards, folder, stage, phases):
    """Each phase once without a break and once with one; the second distillation has a teacher of its own."""
    mesh, found = Mesh(rank, world), {}
    own = {"teacher": {"steps": 10, "checkpoint_every": 100}, "distill": {"checkpoint_every": 100}}
    settings = small.settings(shards, folder, **own, cluster={"zero_stage": stage})
    for phase in phases:
        found[phase, "whole"] = live(phase, settings, folder / "whole", mesh)
        found[phase, "stopped"] = live(phase, settings, folder / "broken", mesh, stop_at=6)
        found[phase, "again"] = live(phase, settings, folder / "broken", mesh)
    return found


def weights_of(folder):
    return load_file(folder / "weights.safetensors")


STEPS = {"teacher": 10, "distill": 12}


def _check_lives(ranks, folder, phases):
    """Stopped where it was asked to, gone on from there, and every rank of one mind."""
    broken = folder / "broken"
    for rank, found in enumerate(ranks):
        for phase in phases:
            total = STEPS[phase]
            assert isinstance(found[phase, "whole"]["ended"], dict)
            assert found[phase, "whole"]["seen"][-1] == (total, total)
            assert f"stopped at step 6 of {total}" in found[phase, "stopped"]["ended"]
            assert str(broken / "checkpoints" / phase) in found[phase, "stopped"]["ended"]
            assert isinstance(found[phase, "again"]["ended"], dict)
            twice = [total] * (phase == "teacher")  # the last step again, with the residual of the finished teacher
            assert [done for done, _ in found[phase, "again"]["seen"]] == [*range(8, total + 1, 2), *twice]
            said = [found[phase, attempt]["said"] for attempt in ("whole", "stopped", "again")]
            lines = phase == "distill" and rank == 0  # one, of a run that begins
            assert [len(attempt) for attempt in said[:2]] == [lines, lines]
            assert all("endpoints of 3 solver steps lie " in line for lines in said[:2] for line in lines)
            assert said[2] == [f"{broken}/checkpoints/{phase}: goes on from step 6"] * (rank == 0)
        for key in ("residual_l2", "residual_dual", "residual_boundary"):
            assert found["teacher", "again"]["ended"][key] == found["teacher", "whole"]["ended"][key] > 0


def _check_same(folder, names):
    """The same bits and the same cards, the clock apart."""
    whole, broken = folder / "whole", folder / "broken"
    for name in names:
        first, second = weights_of(whole / name), weights_of(broken / name)
        assert first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first), name
        assert all(torch.isfinite(w).all() for w in first.values())
        cards = [json.loads((run / name / "card.json").read_text()) for run in (whole, broken)]
        assert all(0 <= card["metrics"].pop("wait_share") < 1 for card in cards)
        seconds = [card["metrics"].pop("train_seconds") for card in cards]
        assert len({card.pop("sha256") for card in cards}) == 2  # they cover the seconds too
        assert cards[0] == cards[1] and all(s > 0 for s in seconds)
        made = load_generator(whole / name)
        assert torch.isfinite(made.sample(2)["pressure"]).all()


def _check_same_pictures(folder, phase, total):
    """A picture every tenth of the run, in each attempt the same to the bit, none twice and none left out."""
    boards = [EventAccumulator(str(folder / run / "tb" / phase), {"images": 0}) for run in ("whole", "broken")]
    for events in boards:
        events.Reload()
    whole, broken = ([(one.step, one.encoded_image_string) for one in events.Images("fields")] for events in boards)
    assert whole == broken and len({image for _, image in whole}) == 10
    assert [step for step, _ in whole] == sorted({-(-total * tenth // 10) for tenth in range(1, 11)})


def test_teacher_and_students_stopped_and_resumed_have_the_same_bits(small_shards, tmp_path):
    ranks = spawn(_phases, 2, small_shards, tmp_path, 1, ("teacher", "distill"), timeout=300)
    _check_lives(ranks, tmp_path, ("teacher", "distill"))
    for phase, total in STEPS.items():
        _check_same_pictures(tmp_path, phase, total)
    for found in ranks:
        assert found["distill", "again"]["ended"] == found["distill", "whole"]["ended"]
        assert set(found["distill", "whole"]["ended"]) == {"student", "student-lambda0"}
    _check_same(tmp_path, ("teacher", "student", "student-lambda0"))
    whole = tmp_path / "whole"
    first, second = weights_of(whole / "student"), weights_of(whole / "student-lambda0")
    assert any(not torch.equal(first[n], second[n]) for n in first)  # the physics did something
    assert any(not torch.equal(first[n], weights_of(whole / "teacher")[n]) for n in first)
    provenance = load_student(whole / "student").card.provenance
    assert provenance.teacher == load_teacher(whole / "teacher").card.weights_sha256
    assert provenance.residual_floor == load_manifest(small_shards).truth_residual["train"]["l2"] > 0
    assert provenance.further["weights"] == asdict(LambdaSettings()) and all(s > 0 for s in provenance.scales.values())


def test_so_does_a_teacher_whose_weights_are_split(small_shards, tmp_path):
    _check_lives(spawn(_phases, 2, small_shards, tmp_path, 3, ("teacher",), timeout=300), tmp_path, ("teacher",))
    _check_same(tmp_path, ("teacher",))


# ---- the contract of the loss in a student of the distillation, against a plain process


def _student_settings(shards, folder, stage):
    own = {"teacher": str(folder / "teacher"), "global_batch": 7, "clip": 0.0}
    return small.settings(
        shards, folder, distill=own | {"chunk": 1, "scale_samples": 7}, cluster={"zero_stage": stage, "workers": 1}
    )


def _weighed(problem):
    return WEIGHTS | (IN_TIME if problem.pde.name == "heat" else {})


def _physics(problem, teacher):
    return Physics(problem.pde, Window(problem.grid), teacher.normaliser, _weighed(problem), SCALES, "solution")


def _student_gradients(rank, world, shards, folder):
    mesh, found = Mesh(rank, world), {}
    for stage in (0, 1, 2, 3):
        settings = _student_settings(shards, folder, stage)
        problem, teacher = open_problem(settings.pde, settings.data), load_teacher(folder / "teacher")
        plan, mine = micro_plan(7, 2, mesh), mesh.slice(7)
        rollout = Rollout(teacher, "heun", 3, 1, 0)
        endpoints = rollout.endpoints(torch.arange(mine.start, mine.stop))
        for name, terms in {"student": _physics(problem, teacher), "control": None}.items():
            objective = Piddm(settings.distill, teacher, Window(problem.grid), terms)
            student = build_student(name, settings, objective, plan, mesh)
            eps = rollout.eps(endpoints.counters)
            own = condition(problem.pde, endpoints.params_BP)
            batch = Batch(0, endpoints.counters, eps, endpoints.params_BP, own, endpoints.fields_BCYX)
            student.gradients(batch, StepTimer())
            gradients = student.zero.gradients()
            norm, applied = student.update(1e-3, 0)[name]
            found[stage, name] = {"gradients": gradients, "norm": norm, "means": student.take_means()}
            assert applied and student.sums == {}
            student.zero.close()
    return found


def _plain_gradients(shards, folder, physical):
    """Loss and gradients of the whole batch of 7, written from the objective's equation."""
    settings = _student_settings(shards, folder, 1)
    problem, teacher = open_problem(settings.pde, settings.data), load_teacher(folder / "teacher")
    model = build_denoiser(teacher.card.architecture, teacher.noise.sigma_data)
    model.load_state_dict(teacher.denoiser.state_dict())
    eps = seeds.normal(0, "distill/endpoint", range(7), problem.shape)
    x0 = Rollout(teacher, "heun", 3, 7, 0).endpoints(torch.arange(7)).fields_BCYX
    sigma = teacher.noise.sigma_max
    low, high = problem.pde.varying.get("diffusivity", (0.0, 0.0))
    params = low + (high - low) * seeds.uniform(0, "distill/endpoint/params", range(7), len(problem.pde.varying))
    x = model(eps * sigma, torch.full((7,), sigma), ((2 * params - low - high) / (high - low or 1)).float())
    match = ((x - x0) ** 2).mean(dim=(1, 2, 3))
    held = torch.cat([x[:, :1].detach(), x[:, 1:]], dim=1)  # the first channel is an input
    weights, more = _weighed(problem), tuple(IN_TIME) if problem.pde.name == "heat" else ()
    squares = residual_shares(problem.pde, Window(problem.grid), teacher.normaliser.decode(held), params, more)
    loss = match + sum(weights[k] / SCALES[k] * squares[k] for k in weights) if physical else match
    loss.mean().backward()
    parts = {"loss": loss.mean().item(), "match": match.mean().item()}
    parts |= {k: math.sqrt(v.mean().item()) for k, v in squares.items()} if physical else {}
    return {n: p.grad for n, p in model.named_parameters()}, parts


def _size(tensors):
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors))


@pytest.mark.parametrize("shards", ["small_shards", "heat_shards"])
def test_a_student_holds_the_contract_of_the_loss(shards, tmp_path, request):
    shards = request.getfixturevalue(shards)
    write_teacher(tmp_path / "teacher", small.settings(shards, tmp_path))
    ranks = spawn(_student_gradients, 2, shards, tmp_path, timeout=300)
    for name, physical in (("student", True), ("control", False)):
        theirs, parts = _plain_gradients(shards, tmp_path, physical)
        for found in ranks:
            for stage in (0, 1, 2, 3):
                one = found[stage, name]
                distance = _size([one["gradients"][n] - theirs[n] for n in theirs]) / _size(theirs.values())
                assert distance < 1e-5, (name, stage, distance)
                assert one["norm"] == pytest.approx(_size(theirs.values()), rel=1e-5), (name, stage)
                assert one["means"] == pytest.approx(parts, rel=1e-5), (name, stage)
    student, control = (_plain_gradients(shards, tmp_path, physical)[0] for physical in (True, False))
    assert _size([student[n] - control[n] for n in control]) > 1e-2 * _size(
        control.values()
    )  # the physics is not lost in it


# ---- physics that begins late: student and control are one network until then


def _late(rank, world, shards, folder):
    """A distillation whose physics begins at step 5, stopped before and after; and one whose physics begins at once."""
    mesh = Mesh(rank, world)
    own = {"checkpoint_every": 100, "teacher": str(folder / "teacher")}
    early = small.settings(shards, folder, distill=own)
    late = small.settings(shards, folder, distill=own | {"physics_from": 0.42})
    found = [live("distill", early, folder / "early", mesh)]
    found += [live("distill", late, folder / "late", mesh, stop_at=stop) for stop in (4, 8, None)]
    return found


def test_the_control_of_late_physics_is_the_run_without_any(small_shards, tmp_path):
    write_teacher(tmp_path / "teacher", small.settings(small_shards, tmp_path))
    for early, first, second, third in spawn(_late, 2, small_shards, tmp_path, timeout=300):
        assert isinstance(early["ended"], dict) and isinstance(third["ended"], dict)
        assert "stopped at step 4" in first["ended"] and "stopped at step 8" in second["ended"]
    controls = [weights_of(tmp_path / run / "student-lambda0") for run in ("early", "late")]
    assert all(torch.equal(controls[0][n], controls[1][n]) for n in controls[0])
    students = [weights_of(tmp_path / run / "student") for run in ("early", "late")]
    assert any(not torch.equal(students[0][n], students[1][n]) for n in students[0])
    assert any(not torch.equal(students[1][n], controls[1][n]) for n in controls[1])


# ---- weights that follow the residual


def _following(rank, world, shards, folder):
    """A distillation with such weights, without a break and with one behind the step where physics begins."""
    mesh = Mesh(rank, world)
    own = {"checkpoint_every": 100, "teacher": str(folder / "teacher"), "physics_from": 0.42, "control": False}
    fixed = small.settings(shards, folder, distill=own)
    follows = small.settings(shards, folder, distill=own | {"combine": "lagrangian", "goal": 0.01})
    found = [live("distill", fixed, folder / "fixed", mesh), live("distill", follows, folder / "whole", mesh)]
    return found + [live("distill", follows, folder / "broken", mesh, stop_at=stop) for stop in (8, None)]


def test_weights_that_follow_the_residual_go_on_where_they_were(small_shards, tmp_path):
    write_teacher(tmp_path / "teacher", small.settings(small_shards, tmp_path))
    for *_, stopped, again in spawn(_following, 2, small_shards, tmp_path, timeout=300):
        assert "stopped at step 8" in stopped["ended"] and isinstance(again["ended"], dict)
    _check_same(tmp_path, ("student",))
    fixed, follows = (weights_of(tmp_path / run / "student") for run in ("fixed", "whole"))
    assert any(not torch.equal(fixed[n], follows[n]) for n in fixed)


# ---- hard constraints


def _constrained(rank, world, shards, folder, head, trains):
    own = {"constraints": ["zero_edge", "two_phase"], "head": head, "head_in_training": trains}
    settings = small.settings(shards, folder, distill={"teacher": str(folder / "teacher")} | own)
    run = folder / "run"
    publish = distill_loop.publish_student
    distill_loop.publish_student = None  # a failure at the very end
    with pytest.raises(TypeError):
        live("distill", settings, run, Mesh(rank, world))
    distill_loop.publish_student = publish
    Student.gradients = None  # no step is taken again
    return live("distill", settings, run, Mesh(rank, world))


@pytest.mark.parametrize(("head", "trains"), [(0, False), (3, True), (3, False)])
def test_a_constrained_student_obeys_exactly_and_says_so_in_its_card(small_shards, tmp_path, head, trains):
    write_teacher(tmp_path / "teacher", small.settings(small_shards, tmp_path))
    (found,) = spawn(_constrained, 1, small_shards, tmp_path, head, trains, timeout=300)
    assert found["seen"] == [] and set(found["ended"]) == {
        "student",
        "student-lambda0",
    }  # from the last step's checkpoint
    assert found["ended"]["student"]["boundary"] < 1e-6  # training saw the constrained sample too
    for name in ("student", "student-lambda0"):
        student = load_student(tmp_path / "run" / name)
        assert student.card.constraints == ("zero_edge", "two_phase") and student.head == student.card.head == head
        fields = student.sample(3)
        assert student.residual(fields)["boundary"].max() == 0 and fields["permeability"][:, 0].abs().min() > 0
        trained = {name: found["ended"]["student"][name] for name in ("l2", "dual")}
        assert (trained["dual"] < 0.1) == trains, trained  # the loss sees the finished sample
        bare = student.sample(3, head=0)["permeability"]
        assert (set(fields["permeability"].unique().tolist()) <= {3.0, 12.0}) == (head > 0)
        assert torch.equal(bare > 7.5, fields["permeability"] > 7.5) and len(bare.unique()) > 2
    wrong = small.settings(
        small_shards, tmp_path, distill={"constraints": ["zero_mean"], "teacher": str(tmp_path / "teacher")}
    )
    with pytest.raises(UserError, match=r"distill\.constraints: darcy has no 'zero_mean'"):
        live("distill", wrong, tmp_path / "other", Mesh())
