"""Sets of data that are not the teacher's, or have no test split: units are the teacher's, pictures take what there is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pidscale.config import UserError
from pidscale.dataset.problem import open_problem
from pidscale.diffusion.normaliser import Normaliser
from pidscale.distill.loop import open_batches
from pidscale.distill.scales import measure_scales
from pidscale.generator.load import load_student, load_teacher
from pidscale.make.make import make_shard_set
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.pde import build_pde
from tests import small
from tests.distill.test_loop import live
from tests.distill.test_rollout import write_teacher
from tests.ranks import spawn


def test_scales_are_taken_in_the_units_of_the_teacher(small_shards, tmp_path):
    settings = small.settings(small_shards, tmp_path)
    problem = open_problem(settings.pde, settings.data)
    teacher, window = load_teacher(write_teacher(tmp_path / "teacher", settings)), Window(problem.grid)
    batches = open_batches(settings, teacher, window, Mesh())
    own = measure_scales(settings, problem, batches, window, Mesh())
    wider = Normaliser(problem.normaliser.mean, tuple(3 * one for one in problem.normaliser.std))
    other = measure_scales(settings, replace(problem, normaliser=wider), batches, window, Mesh())
    assert other == own


def _phases(rank, world, shards, folder):
    mesh = Mesh(rank, world)
    own = {"steps": 4, "checkpoint_every": 2, "evaluate_every": 2}
    teacher = small.settings(shards, folder, teacher=own)
    found = [live("teacher", teacher, folder / "run", mesh)]
    return [*found, live("distill", small.settings(shards, folder, distill={"steps": 4}), folder / "run", mesh)]


def test_a_set_of_nothing_but_training_fields_trains_and_distils(tmp_path):
    pde = build_pde("darcy")
    make_shard_set(pde, tmp_path / "set", {"train": 32}, grid=pde.grid(small.POINTS), seed=3, parallel=False)
    settings = small.settings(tmp_path / "set", tmp_path)
    problem = open_problem(settings.pde, settings.data)
    assert torch.equal(problem.held_out(4).fields, problem.samples("train", 4).fields)
    (found,) = spawn(_phases, 1, tmp_path / "set", tmp_path, timeout=300)
    assert [one["seen"][-1] for one in found] == [(4, 4)] * 2
    student = load_student(tmp_path / "run" / "student")
    assert student.sample(2)["pressure"].isfinite().all()
    assert student.card.metrics.further["loss"] == pytest.approx(found[1]["ended"]["student"]["loss"])


def test_held_out_fields_are_those_of_the_test_split(small_shards, tmp_path):
    settings = small.settings(small_shards, tmp_path)
    problem = open_problem(settings.pde, settings.data)
    assert torch.equal(problem.held_out(4).fields, problem.samples("test", 4).fields)
    assert not torch.equal(problem.held_out(4).fields, problem.samples("train", 4).fields)


def test_held_out_fields_need_no_other_shard_than_theirs(tmp_path):
    """A training reads them while its other ranks wait, and a set may have 100,000 shards."""
    pde = build_pde("darcy")
    sizes = {"train": 16, "test": 16}
    make_shard_set(pde, tmp_path, sizes, grid=pde.grid(small.POINTS), seed=3, samples_per_shard=8, parallel=False)
    settings = small.settings(tmp_path, tmp_path)
    problem = open_problem(settings.pde, settings.data)
    before = problem.held_out(4).fields
    sorted(tmp_path.glob("test-*.tar"))[-1].unlink()
    assert torch.equal(problem.held_out(4).fields, before)
    with pytest.raises(UserError, match="test-"):
        problem.samples("test", 4)
