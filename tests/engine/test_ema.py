"""The average of weights divided over ranks equals that of full weights, at every stage and for sizes that do not divide."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from torch import nn

from pidscale.config import UserError
from pidscale.engine.ema import Ema, weights
from pidscale.engine.zero import Zero, ZeroSettings
from pidscale.parallel.mesh import Mesh
from tests.ranks import spawn
from tests.sealed import reader_of

STAGES = (0, 1, 2, 3)
SHARE, STEPS = 0.3, 6
SHAPES = {"one": (1,), "seven": (7,), "matrix": (3, 5), "kernel": (2, 3, 3, 3), "even": (4, 6)}


class Odd(nn.Module):
    """Parameters whose sizes are not all divisible by any number of ranks."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.values = nn.ParameterDict({n: nn.Parameter(torch.randn(shape)) for n, shape in SHAPES.items()})

    def forward(self, target):
        return sum((p - target).square().sum() for p in self.values.values())


def _gathered(zero):
    """The full weights, as DeepSpeed gathers them."""
    import deepspeed

    parameters = list(zero.module.parameters())
    stage3 = zero.settings.stage == 3
    with deepspeed.zero.GatheredParameters(parameters) if stage3 else contextlib.nullcontext():
        return {n: p.detach().float().clone() for n, p in zero.module.named_parameters()}


def _update(zero, step):
    zero.backward(zero(torch.tensor(float(step - 2))) / zero.mesh.world)
    assert zero.step(0.1)[1]


def _average(rank, world, stages, given, folder):
    """Averages over some steps, then an average of another world size, restored and updated once."""
    mesh = Mesh(rank, world)
    found = {}
    for stage in stages:
        zero = Zero(Odd(), ZeroSettings(stage, 1, 1, 0.0, {}), mesh)
        ema = Ema(zero.module, stage, mesh, SHARE)
        seen = [_gathered(zero)]
        averages = [ema.full_weights()]
        for step in range(STEPS):
            _update(zero, step)
            ema.update(step)
            seen.append(_gathered(zero))
            averages.append(ema.full_weights())
        one = {"seen": seen, "averages": averages, "weights": weights(zero.module, stage, mesh)}
        one["bytes"] = sum(piece.numel() for piece in ema.pieces.values())
        one["slices"] = ema.slices()
        if given is not None:
            ema.restore(reader_of(folder / str(rank), given))
            one["restored"] = ema.full_weights()
            ema.update(STEPS)
            one["updated"] = ema.full_weights()
        found[stage] = one
        zero.close()
    return found


def _plain(seen):
    """The same average of full weights; its half-life is a share of the steps so far."""
    average = {n: w.double() for n, w in seen[0].items()}
    averages = [dict(seen[0])]
    for step, now in enumerate(seen[1:]):
        kept = 2.0 ** (-1.0 / (SHARE * (step + 1)))
        average = {n: kept * average[n] + (1 - kept) * now[n].double() for n in now}
        averages.append({n: a.float() for n, a in average.items()})
    return averages


def _check(found, world):
    for rank in found:
        for stage, one in rank.items():
            for average, expected in zip(one["averages"], _plain(one["seen"]), strict=True):
                assert {n.removeprefix("values."): tuple(a.shape) for n, a in average.items()} == SHAPES
                for name in average:
                    torch.testing.assert_close(average[name], expected[name], rtol=1e-5, atol=1e-6)
            for name, weight in one["weights"].items():
                assert torch.equal(weight, one["seen"][-1][name]), (stage, name)
            changed = [n for n in one["weights"] if not torch.equal(one["weights"][n], one["averages"][-1][n])]
            assert len(changed) == len(SHAPES)
            total = sum(torch.Size(shape).numel() for shape in SHAPES.values())
            assert one["bytes"] <= total / world + len(SHAPES)


def test_a_divided_average_equals_the_full_one_and_moves_between_world_sizes(tmp_path):
    two = spawn(_average, 2, STAGES, None, tmp_path)
    _check(two, 2)
    for stage in STAGES:
        found = {}
        for part in [part for rank in two for part in rank[stage]["slices"]]:
            flat = found.setdefault(part.name, torch.full((math.prod(part.shape),), math.nan))
            assert flat[part.offset : part.offset + part.held.numel()].isnan().all()  # no value twice
            flat[part.offset : part.offset + part.held.numel()] = part.held
        average = two[0][stage]["averages"][-1]
        assert all(torch.equal(found[n].reshape(average[n].shape), average[n]) for n in average), stage
    given = two[0][1]["averages"][-1]
    three = spawn(_average, 3, (1, 3), given, tmp_path)
    _check(three, 3)
    kept = 2.0 ** (-1.0 / (SHARE * (STEPS + 1)))
    for rank in three:
        for stage, one in rank.items():
            for name in given:
                assert torch.equal(one["restored"][name], given[name]), (stage, name)
                blend = kept * given[name] + (1 - kept) * one["seen"][-1][name]
                torch.testing.assert_close(one["updated"][name], blend, rtol=1e-5, atol=1e-6)


def test_one_process_needs_no_deepspeed(tmp_path):
    module = Odd()
    ema = Ema(module, 0, Mesh(), SHARE)
    seen = [{n: p.detach().clone() for n, p in module.named_parameters()}]
    for step in range(3):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(step + 1.0)
        ema.update(step)
        seen.append({n: p.detach().clone() for n, p in module.named_parameters()})
    for name, average in ema.full_weights().items():
        torch.testing.assert_close(average, _plain(seen)[-1][name], rtol=1e-5, atol=1e-6)
    other = Ema(Odd(), 0, Mesh(), SHARE)
    other.copy_from(ema)
    assert all(torch.equal(other.pieces[n], piece) for n, piece in ema.pieces.items())
    with pytest.raises(UserError, match="seven"):
        ema.restore(reader_of(tmp_path, {n: a for n, a in ema.full_weights().items() if "seven" not in n}))
