"""The teacher's loop: what a step sees, and what it does with a damaged checkpoint.

That stopping and resuming gives the same bits is tested beside the distillation, which needs a teacher anyway.
"""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file

from pidscale.config import UserError
from pidscale.dataset.problem import open_problem, read_params
from pidscale.diffusion.noise import EdmNoise
from pidscale.engine.schedule import micro_plan
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.records.read import ShardSet
from pidscale.run.reporting import Reporter
from pidscale.teacher import loop, training
from tests import small
from tests.ranks import spawn


@pytest.mark.parametrize("batch", [4, 7])
def test_any_number_of_ranks_sees_the_same_noise_and_levels(small_shards, tmp_path, batch):
    settings = small.settings(small_shards, tmp_path, teacher={"global_batch": batch})
    problem = open_problem(settings.pde, settings.data)

    def drawn(mesh, step):
        plan = micro_plan(batch, 2, mesh)
        goal = settings.teacher.needs(settings.teacher, problem, EdmNoise(), Window(problem.grid))
        teacher = training.Teacher(settings, problem, EdmNoise(), None, None, goal, plan, mesh)  # draws need no engine
        return teacher.draw(step)

    for step in (0, 1, 10**9):
        whole_eps, whole_sigma = drawn(Mesh(), step)
        assert whole_eps.shape == (batch, *problem.shape) and whole_sigma.shape == (batch,) and (whole_sigma > 0).all()
        for world in (2, 3, 4):
            parts = [drawn(Mesh(rank, world), step) for rank in range(world)]
            assert torch.equal(torch.cat([eps for eps, _ in parts]), whole_eps)
            assert torch.equal(torch.cat([sigma for _, sigma in parts]), whole_sigma)
    assert not torch.equal(drawn(Mesh(), 0)[0], drawn(Mesh(), 1)[0])
    assert not torch.equal(drawn(Mesh(), 0)[1], drawn(Mesh(), 1)[1])


def test_a_schedule_that_would_lose_the_strongest_mode_is_refused(small_shards, tmp_path):
    settings = small.settings(small_shards, tmp_path, teacher={"sigma_max": 1.0})
    problem = open_problem(settings.pde, settings.data)
    with pytest.raises(ValueError, match=r"teacher\.sigma_max=1 keeps"):
        training.noise_for(settings, problem, ShardSet(small_shards, "train"), Mesh())


def _lives(rank, world, shards, folder):
    """A run that fails at its very end and publishes on the second attempt; the same from a damaged checkpoint on."""
    mesh, said = Mesh(rank, world), {"whole": [], "damaged": []}
    own = {"steps": 8, "checkpoint_every": 3, "keep": 5, "log_every": 4}
    settings = small.settings(shards, folder, teacher=own)
    publish, gradients = loop._publish, training.Teacher.gradients
    loop._publish = None
    with pytest.raises(TypeError):
        loop.train(settings, folder / "whole", mesh, Reporter(say=said["whole"].append))
    loop._publish = publish
    training.Teacher.gradients = None  # no step is taken again
    loop.train(settings, folder / "whole", mesh, Reporter(say=said["whole"].append))
    training.Teacher.gradients = gradients
    shutil.copytree(folder / "whole" / "checkpoints", folder / "damaged" / "checkpoints")
    shutil.rmtree(folder / "damaged" / "checkpoints" / "teacher" / "step_00000008")
    part = folder / "damaged" / "checkpoints" / "teacher" / "step_00000006" / "rank-00000.safetensors"
    part.write_bytes(part.read_bytes()[:-100])
    loop.train(settings, folder / "damaged", mesh, Reporter(say=said["damaged"].append))
    return said


def test_a_failure_at_the_end_costs_no_step_and_damaged_checkpoints_are_passed_over(small_shards, tmp_path):
    (said,) = spawn(_lives, 1, small_shards, tmp_path, timeout=200)
    assert said["whole"] == [f"{tmp_path}/whole/checkpoints/teacher: goes on from step 8"]
    warning, resumed = said["damaged"]
    assert "step_00000006" in warning and "this checkpoint is not used" in warning
    assert resumed == f"{tmp_path}/damaged/checkpoints/teacher: goes on from step 3"
    first, second = (load_file(tmp_path / run / "teacher" / "weights.safetensors") for run in ("whole", "damaged"))
    assert first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)
    assert sorted(p.name for p in (tmp_path / "damaged" / "checkpoints" / "teacher").iterdir()) == [
        "step_00000003",
        "step_00000006",
        "step_00000008",
    ]


def test_a_parameter_outside_its_range_is_named_with_its_sample(heat_shards, tmp_path):
    settings = small.settings(heat_shards, tmp_path)
    problem, shards = open_problem(settings.pde, settings.data), ShardSet(heat_shards, "train")
    assert read_params(shards, problem, [3, 4]).shape == (2, 1)
    shards.meta(4)["params"]["diffusivity"] = 3.0
    with pytest.raises(UserError, match=r"sample 4 has diffusivity=3, the settings say 0\.0005 to 0\.005"):
        read_params(shards, problem, [3, 4])
