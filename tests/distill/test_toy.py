"""An objective of one's own, from a folder of its own: it trains, stops and is split as those of the package are.

The example of docs/own_objective.md, and one with two rounds. Nothing of the package is changed but one line in the dict.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, replace

import pytest
import torch

from pidscale.config import Settings, UserError, from_plain
from pidscale.dataset.problem import open_problem
from pidscale.diffusion.denoiser import ConditionalDenoiser, conditioned
from pidscale.diffusion.solvers import one_step
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives import OBJECTIVES
from pidscale.distill.objectives.base import Learned, Objective, Round, mismatch
from pidscale.distill.objectives.piddm import PiddmSettings
from pidscale.engine.slices import Reader, file_name
from pidscale.generator.load import load_student
from pidscale.meter import StepTimer
from pidscale.parallel.mesh import Mesh
from pidscale.parallel.spawn import spawn
from pidscale.run.memory import memory_plan
from pidscale.run.preflight import check_model, model_description, plan_lines
from tests import small
from tests.distill.test_loop import live, weights_of
from tests.distill.test_rollout import write_teacher
from tests.engine.test_split_steps import CASES, near, plain_student, sets, split_student  # noqa: F401  a fixture
from tests.scripts import ROOT

EXAMPLES = str(ROOT / "docs" / "examples")
NAME = "mean_teacher"


@dataclass(frozen=True)
class TwiceSettings(PiddmSettings):
    """Those of a toy with two rounds."""

    name: str = "twice"


@dataclass(frozen=True)
class Twice(Objective[TwiceSettings]):
    """The student makes what its teacher's one call makes: in the second round, what it was itself when the round began."""

    settings_class = TwiceSettings

    @classmethod
    def rounds(cls, own: TwiceSettings) -> tuple[Round, ...]:
        """Two of them."""
        return (Round(), Round(0.5))

    def losses(self, network: ConditionalDenoiser, batch: Batch, timer: StepTimer) -> Learned:
        """The distance of two calls."""
        x = self.sample(network, batch.eps_BCYX, batch.condition_BP)
        with torch.no_grad():
            teacher = conditioned(self.teacher.denoiser, batch.condition_BP)
            wanted = one_step(teacher, batch.eps_BCYX, self.teacher.noise.sigma_max)
        loss = mismatch(x, 0.5 * wanted, points=self.points)
        return self.penalised(loss, {"call": loss}, x, batch)


def register() -> None:
    """What a user writes into the dict; here, for this process alone."""
    if EXAMPLES not in sys.path:
        sys.path.insert(0, EXAMPLES)
    OBJECTIVES[NAME] = importlib.import_module(NAME).MeanTeacher
    OBJECTIVES["twice"] = Twice


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in (NAME, "twice"):
        monkeypatch.setitem(OBJECTIVES, name, None)
    register()


def settings(shards, folder, name, world=1, stage=1, **own):
    """A distillation of seconds by a toy."""
    distill = {"objective": {"name": name} | own, "teacher": str(folder / "teacher"), "checkpoint_every": 100}
    distill |= {"physics_from": 0.25, "steps": 8}
    return small.settings(shards, folder, distill=distill, cluster={"workers": world, "zero_stage": stage})


def _lives(rank, world, shards, folder):
    register()
    mesh, found = Mesh(rank, world), {}
    for name in (NAME, "twice"):
        chosen = settings(shards, folder, name, world)
        found[name, "whole"] = live("distill", chosen, folder / f"{name}{world}", mesh)
        for attempt, stop in (("stopped", 6), ("again", None)):
            found[name, attempt] = live("distill", chosen, folder / f"{name}{world}-broken", mesh, stop_at=stop)
    once = settings(shards, folder, "twice", world)
    Twice.rounds = Objective.rounds
    found["once", "whole"] = live("distill", once, folder / f"once{world}", mesh)
    return found


@pytest.mark.parametrize("world", [1, 2])
def test_a_toy_trains_stops_and_goes_on_to_the_same_bits(small_shards, tmp_path, world):
    write_teacher(tmp_path / "teacher", small.settings(small_shards, tmp_path))
    for found in spawn(_lives, world, small_shards, tmp_path, timeout=300):
        for name, parts in ((NAME, {"match", "change"}), ("twice", {"call"})):
            whole, stopped, again = (found[name, attempt]["ended"] for attempt in ("whole", "stopped", "again"))
            assert set(whole["student-lambda0"]) == {"loss"} | parts
            assert set(whole["student"]) == {"loss", "l2", "dual", "boundary"} | parts
            assert "stopped at step 6" in stopped and again == whole
    for name in (NAME, "twice"):
        for which in ("student", "student-lambda0"):
            first, second = (weights_of(tmp_path / f"{name}{world}{end}" / which) for end in ("", "-broken"))
            assert all(torch.equal(first[n], second[n]) for n in first), (name, which)
    student = load_student(tmp_path / f"{NAME}{world}" / "student")
    assert student.card.provenance.objective == NAME and student.card.provenance.further["pull"] == 0.1
    assert torch.isfinite(student.sample(2)["pressure"]).all()
    twice, once = (weights_of(tmp_path / f"{name}{world}" / "student-lambda0") for name in ("twice", "once"))
    assert any(not torch.equal(twice[n], once[n]) for n in twice)  # the second round has another teacher


def _partners(rank, world, shards, folder):
    register()
    for stage in (1, 3):
        chosen = settings(shards, folder, NAME, world, stage, rate=0.9)
        live("distill", chosen, folder / f"stage{stage}", Mesh(rank, world), stop_at=6)


def test_the_average_beside_a_student_follows_it_at_every_stage_of_zero(small_shards, tmp_path):
    write_teacher(tmp_path / "teacher", small.settings(small_shards, tmp_path))
    spawn(_partners, 2, small_shards, tmp_path, timeout=300)
    began = weights_of(tmp_path / "teacher")
    past = {}
    for stage in (1, 3):
        folder = tmp_path / f"stage{stage}" / "checkpoints" / "distill" / "step_00000006"
        reader = Reader.of(folder, [file_name(rank) for rank in range(2)]).below("student")
        past[stage] = reader.below("partners/past").wholes()
        ema = reader.below("average").wholes()
        assert past[stage].keys() == began.keys()
        steps, behind = (
            torch.cat([(found[name] - began[name]).flatten() for name in began]).norm() for found in (ema, past[stage])
        )
        assert 0.05 * steps < behind < 0.7 * steps  # of rate 0.9, after six steps
    apart = torch.cat([(past[1][name] - past[3][name]).flatten() for name in began]).norm()
    assert apart < 1e-3 * behind


def _split(rank, world, folder):
    register()
    mesh = Mesh.over(rank, world, torch.device("cpu"), world)
    found = {
        (kind, name): split_student(folder, kind, torch.float64, mesh, objective=name)
        for kind in CASES
        for name in (NAME, "twice")
    }
    return found if rank == 0 else None


def test_a_toy_on_split_fields_is_the_toy_on_whole_ones(sets):  # noqa: F811
    found = spawn(_split, 2, sets, timeout=300)[0]
    for (kind, name), result in found.items():
        near(f"{name} {kind}", result, plain_student(sets, kind, torch.float64, name), 1e-12)


def test_its_settings_are_read_and_held_to_their_bounds():
    made = from_plain(Settings, {"distill": {"objective": {"name": NAME, "pull": 3}}})
    assert made.distill.own.pull == 3.0 and made.distill.takes_endpoints
    for own, words in (
        ({"pull": -1}, ["distill.objective.pull=-1.0", "0 or more"]),
        ({"rate": 1.0}, ["distill.objective.rate=1.0", "below 1"]),
        ({"levels": 4}, ["distill.objective.levels: unknown setting", "name, pull, rate"]),
    ):
        with pytest.raises(UserError) as raised:
            from_plain(Settings, {"distill": {"objective": {"name": NAME} | own}}).distill.complete  # noqa: B018
        assert all(word in str(raised.value) for word in words), raised.value


def test_its_networks_are_in_the_plan_of_the_memory(small_shards, tmp_path):
    chosen = settings(small_shards, tmp_path, NAME)
    problem = open_problem(chosen.pde, chosen.data)
    description = model_description(chosen, problem.shape[0])
    parameters = check_model(chosen, description, problem.grid.shape)
    plan = memory_plan(chosen, description, problem.grid.shape, "distill", parameters)
    assert (plan.networks, plan.averaged) == (2, 2 * 4 * parameters) and "averaged networks" in plan_lines(plan)
    alone = replace(chosen, distill=replace(chosen.distill, control=False))
    assert memory_plan(alone, description, problem.grid.shape, "distill", parameters).averaged == 4 * parameters
    later = settings(small_shards, tmp_path, "twice")  # the teacher of a later round is each student's own
    assert memory_plan(later, description, problem.grid.shape, "distill", parameters).averaged == 2 * 4 * parameters
