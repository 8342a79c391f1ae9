"""An FNO of odd width at every ZeRO stage: its weights may begin at any offset of DeepSpeed's packed buffer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pidscale.dataset.problem import open_problem
from pidscale.meter import StepTimer
from pidscale.models.fno import as_complex
from pidscale.parallel.mesh import Mesh
from pidscale.records.feed import Feed
from pidscale.records.read import ShardSet
from pidscale.teacher import training
from tests import small
from tests.ranks import spawn

ODD = {"width": 7, "modes": 3, "layers": 2, "embedding": 15}


def odd_settings(shards, folder, cluster):
    """Settings of a network of odd width; small.settings takes the name of a network, not its values."""
    plain = small.settings(shards, folder, "fno", cluster=cluster)
    return replace(plain, model=replace(plain.model, change=ODD))


def _losses(rank, world, shards, folder, stages):
    """Losses and norms of some steps, by ZeRO stage and number of ranks that share each field."""
    found = {}
    for stage, space in stages:
        settings = odd_settings(shards, folder, {"zero_stage": stage, "workers": world, "space": space})
        mesh = Mesh.over(rank, world, torch.device("cpu"), space)
        problem = open_problem(settings.pde, settings.data)
        shard_set = ShardSet(shards, "train")
        teacher = training.build(settings, problem, training.noise_for(settings, problem, shard_set, mesh), mesh)
        rows = teacher.window.rows
        feed = Feed(shard_set, 0, settings.teacher.global_batch, mesh.data_rank, mesh.data, 1, 0, rows)
        found[stage, space] = []
        for step in range(3):
            x = problem.normaliser.encode(feed.batch(step).fields_BCYX)
            loss = teacher.gradients(step, x, torch.zeros(len(x), 0), StepTimer())
            norm, applied = teacher.zero.step(1e-2)
            assert applied
            found[stage, space] += [float(mesh.sum(loss)), norm]
        feed.close()
        teacher.zero.close()
    return found


def test_an_odd_width_trains_equally_at_every_stage(small_shards, tmp_path):
    stages = ((0, 1), (1, 1), (2, 1), (3, 1), (1, 2))
    first, second = spawn(_losses, 2, small_shards, tmp_path, stages, timeout=300)
    assert first == second
    for key in stages:
        assert first[key] == pytest.approx(first[0, 1], rel=1e-4), key


@pytest.mark.parametrize("offset", [0, 1, 2, 3])
def test_pairs_become_complex_numbers_at_any_offset(offset):
    buffer = torch.arange(20.0).requires_grad_()
    pairs = buffer[offset : offset + 12].reshape(2, 3, 2)
    made = as_complex(pairs)
    assert torch.equal(torch.view_as_real(made), pairs)
    assert (made.data_ptr() == pairs.data_ptr()) == (offset % 2 == 0)  # a copy only if one is needed
    (gradient,) = torch.autograd.grad(made.abs().square().sum(), buffer)
    torch.testing.assert_close(gradient[offset : offset + 12], 2 * buffer.detach()[offset : offset + 12])
