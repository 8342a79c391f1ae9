"""Gradients, clipping and steps under ZeRO equal those of plain PyTorch on the whole batch, at every stage and world size.

Adam hides a wrong constant factor, so gradients are compared before clipping, moments after it, and both again after some
steps. The reference below is one process, written from the equations and not with the loop's own functions.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pidscale import seeds
from pidscale.dataset.problem import open_problem
from pidscale.engine.ema import weights
from pidscale.engine.schedule import learning_rate
from pidscale.engine.zero import Zero, ZeroSettings
from pidscale.meter import StepTimer
from pidscale.models import build_denoiser
from pidscale.parallel.mesh import Mesh
from pidscale.pde.parameters import condition
from pidscale.records.feed import Feed
from pidscale.records.read import ShardSet
from pidscale.teacher import training
from tests import small
from tests.ranks import spawn

STAGES = (0, 1, 2, 3)
STEPS = 20
COMPARED = (0, 6)  # at step 0 only the last layer has a gradient, since it starts at zero
CLIP = 0.5  # some of the steps are clipped, some are not


class Case:
    """The same problem in every process: global batches of 7 or 8 samples, in micro-batches of 2."""

    def __init__(self, shards, model, stage=0, batch=7, clip=CLIP):
        values = {"steps": STEPS, "global_batch": batch, "micro_batch": 2, "clip": clip}
        self.settings = small.settings(shards, shards.parent, model, teacher=values, cluster={"zero_stage": stage})
        self.problem = open_problem(self.settings.pde, self.settings.data)
        self.shards = ShardSet(shards, "train")
        self.noise = training.noise_for(self.settings, self.problem, self.shards, Mesh())

    def feed(self, mesh):
        t = self.settings.teacher
        return Feed(self.shards, self.settings.run.seed, t.global_batch, mesh.rank, mesh.world, 1, 0)

    def condition(self, feed, step):
        """The condition of the samples of a step."""
        pde = self.problem.pde
        return condition(pde, torch.from_numpy(self.shards.params(feed.ids(step), pde.varying)))


def _moments(zero):
    """First moments of Adam by name, in full shapes."""
    from deepspeed.utils import safe_get_full_optimizer_state

    if zero.settings.stage == 0:
        state = zero.engine.optimizer.state
        return {n: state[p]["exp_avg"].clone() for n, p in zero.module.named_parameters()}
    moments = {n: (p, safe_get_full_optimizer_state(p, "exp_avg")) for n, p in zero.module.named_parameters()}
    return {n: m.reshape(getattr(p, "ds_shape", p.shape)).clone() for n, (p, m) in moments.items()}


def _train(case, mesh):
    """Train a teacher for some steps; return losses and norms, and for some steps weights, gradients and moments."""
    teacher = training.build(case.settings, case.problem, case.noise, mesh)
    found = {"loss": [], "norm": [], "at": {}, "plan": tuple(teacher.plan.indices.shape)}
    feed = case.feed(mesh)
    for step in range(STEPS):
        x = case.problem.normaliser.encode(feed.batch(step).fields_BCYX)
        before = weights(teacher.zero.module, case.settings.cluster.zero_stage, mesh) if step in COMPARED else None
        loss = teacher.gradients(step, x, case.condition(feed, step), StepTimer())
        gradients = teacher.zero.gradients() if step in COMPARED else None
        norm, applied = teacher.zero.step(learning_rate(case.settings.teacher, step))
        assert applied
        teacher.ema.update(step)
        found["loss"].append(float(mesh.sum(loss)))
        found["norm"].append(norm)
        if step in COMPARED:
            found["at"][step] = {"weights": before, "gradients": gradients}
        if step == 0:
            found["moments"] = _moments(teacher.zero)
    feed.close()
    found["poisoned"] = _poison(case, teacher, mesh)
    teacher.zero.close()
    return found


def _poison(case, teacher, mesh):
    """Take steps with one sample that is not finite on one rank, then a step with finite ones; return what they changed."""
    stage = case.settings.cluster.zero_stage
    feed = case.feed(mesh)
    seen = []
    clean = case.problem.normaliser.encode(feed.batch(0).fields_BCYX)
    for bad in (math.nan, math.inf):
        before = weights(teacher.zero.module, stage, mesh)
        moments = _moments(teacher.zero)
        x = clean.clone()
        if mesh.rank == mesh.world - 1:
            x[0, 0, 3, 3] = bad
        teacher.gradients(0, x, case.condition(feed, 0), StepTimer())
        norm, applied = teacher.zero.step(1e-3)
        after = weights(teacher.zero.module, stage, mesh)
        kept = _moments(teacher.zero)
        same = all(torch.equal(before[n], after[n]) and torch.equal(moments[n], kept[n]) for n in before)
        seen.append((math.isfinite(norm), applied, same))
    before = weights(teacher.zero.module, stage, mesh)
    teacher.gradients(0, clean, case.condition(feed, 0), StepTimer())
    norm, applied = teacher.zero.step(1e-3)
    after = weights(teacher.zero.module, stage, mesh)
    moved = [n for n in before if not torch.equal(before[n], after[n])]
    feed.close()
    return {"steps": seen, "again": (norm, applied), "moved": len(moved)}


def _even(case, mesh):
    """One global batch that divides evenly, without clipping."""
    teacher = training.build(case.settings, case.problem, case.noise, mesh)
    feed = case.feed(mesh)
    teacher.gradients(
        0, case.problem.normaliser.encode(feed.batch(0).fields_BCYX), case.condition(feed, 0), StepTimer()
    )
    gradients = teacher.zero.gradients()
    result = teacher.zero.step(1e-3)
    moments = _moments(teacher.zero)
    feed.close()
    teacher.zero.close()
    return {"gradients": gradients, "step": result, "moments": moments}


def _all_stages(rank, world, shards, model, stages):
    mesh = Mesh(rank, world)
    found = {}
    for stage in stages:
        uneven = Case(shards, model, stage)
        even = Case(shards, model, stage, batch=8, clip=0.0)
        found[stage] = (_train(uneven, mesh), _even(even, mesh))
    return found


# ---- the reference: one process of plain PyTorch


def _plain_loss(case, model, step):
    """The loss of a whole global batch, from the equations (Karras et al. 2022, eq. 8)."""
    batch = case.settings.teacher.global_batch
    seed = case.settings.run.seed
    numbers = range(step * batch, (step + 1) * batch)
    feed = case.feed(Mesh())
    x = case.problem.normaliser.encode(feed.batch(step).fields_BCYX)
    conditions = []
    if case.problem.pde.varying:  # the diffusivity of each sample, its range as [-1, 1]
        conditions = [[(case.shards.meta(n)["params"]["diffusivity"] - 2.75e-3) / 2.25e-3] for n in feed.ids(step)]
    feed.close()
    eps = seeds.normal(seed, "teacher/noise", numbers, case.problem.shape)
    level = seeds.normal(seed, "teacher/level", numbers, (1, 1, 1)).flatten()
    sigma = (case.noise.p_mean + case.noise.p_std * level).exp()
    denoised = model(x + sigma[:, None, None, None] * eps, sigma, torch.tensor(conditions))
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    return (weight * ((denoised - x) ** 2).mean(dim=(1, 2, 3))).mean()


def _plain_model(case):
    torch.manual_seed(case.settings.run.seed)
    return build_denoiser(training.describe(case.settings, case.problem), case.noise.sigma_data)


def _plain_gradients(case, state, step):
    model = _plain_model(case)
    if state is not None:
        model.load_state_dict(state)
    _plain_loss(case, model, step).backward()
    return {n: p.grad for n, p in model.named_parameters()}


def _plain_rate(settings, step):
    return settings.lr * min(1, (step + 1) / settings.warmup) * (1 + math.cos(math.pi * step / settings.steps)) / 2


def _plain_curve(case):
    model = _plain_model(case)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, betas=(0.9, 0.99), weight_decay=0.0)
    losses = []
    norms = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = _plain_loss(case, model, step)
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), case.settings.teacher.clip)))
        optimizer.param_groups[0]["lr"] = _plain_rate(case.settings.teacher, step)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, norms


def _norm(tensors):
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors.values()))


def _distance(found, expected):
    """Distance of two sets of tensors relative to the global norm of the second."""
    assert found.keys() == expected.keys()
    assert all(found[n].shape == expected[n].shape for n in expected)
    return _norm({n: found[n] - expected[n] for n in expected}) / _norm(expected)


def _clipped(gradients, clip):
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients.values()]
    for parameter, gradient in zip(parameters, gradients.values(), strict=True):
        parameter.grad = gradient.clone()
    nn.utils.clip_grad_norm_(parameters, clip)
    return {n: p.grad for n, p in zip(gradients, parameters, strict=True)}


def _check(shards, model, world, stages):
    ranks = spawn(_all_stages, world, shards, model, stages, timeout=300)
    case = Case(shards, model)
    even = Case(shards, model, batch=8)
    losses, norms = _plain_curve(case)
    assert max(norms) > CLIP > min(norms), norms  # else the test would not cover clipping
    first = _plain_gradients(case, None, 0)
    second = _plain_gradients(even, None, 0)
    for stage in stages:
        for rank in ranks:
            found, even_batch = rank[stage]
            where = f"{model}, {world} ranks, stage {stage}"
            assert found["plan"] == ((2, 2) if world == 2 else (4, 2)), where
            assert found["loss"] == pytest.approx(losses, rel=1e-5), where
            assert found["norm"] == pytest.approx(norms, rel=1e-4), where
            assert found["norm"][0] == pytest.approx(norms[0], rel=1e-6), where
            for step, seen in found["at"].items():
                expected = _plain_gradients(case, seen["weights"], step)
                assert _distance(seen["gradients"], expected) < 1e-5, (where, step)
                assert found["norm"][step] == pytest.approx(_norm(expected), rel=1e-5), (where, step)
            start, later = (found["at"][step]["weights"] for step in COMPARED)
            assert sum(not torch.equal(later[n], start[n]) for n in start) > 0.9 * len(first), where
            moments = {n: m / 0.1 for n, m in found["moments"].items()}
            assert _distance(moments, _clipped(first, CLIP)) < 1e-5, where
            assert _distance(even_batch["gradients"], second) < 1e-5, where
            assert even_batch["step"][0] == pytest.approx(_norm(second), rel=1e-5) and even_batch["step"][1], where
            assert _distance({n: m / 0.1 for n, m in even_batch["moments"].items()}, second) < 1e-5, where
            assert found["poisoned"]["steps"] == [(False, False, True)] * 2, where
            assert found["poisoned"]["again"][1] and found["poisoned"]["moved"] > 0.9 * len(first), where
    for other in ranks[1:]:  # every rank gets the same numbers
        for stage in stages:
            assert other[stage][0]["norm"] == ranks[0][stage][0]["norm"]
            assert other[stage][0]["loss"] == ranks[0][stage][0]["loss"]


@pytest.mark.parametrize("model", ["unet", "fno"])
def test_two_ranks_compute_what_plain_torch_does(small_shards, model):
    _check(small_shards, model, 2, STAGES)


def test_two_ranks_are_conditioned_on_the_parameters_of_their_own_samples(heat_shards):
    _check(heat_shards, "unet", 2, (1, 3))


def test_one_rank_computes_what_plain_torch_does(small_shards):
    _check(small_shards, "unet", 1, (1, 3))


def test_a_complex_parameter_is_refused_by_name():
    module = nn.Module()
    module.inner = nn.Module()
    module.inner.weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"inner\.weight is complex.*real pairs"):
        Zero(module, ZeroSettings(1, 1, 1, 1.0, {}), Mesh())
