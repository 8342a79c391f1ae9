"""Distribution matching against closed forms: Gaussian laws, whose denoisers and scores are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pidscale import seeds
from pidscale.config import DistillSettings, UserError
from pidscale.diffusion.noise import EdmNoise
from pidscale.diffusion.normaliser import Normaliser
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.loop import open_batches
from pidscale.distill.objectives import open_objective
from pidscale.distill.objectives.base import Targets
from pidscale.distill.objectives.dmd import LOWEST, Matching
from pidscale.distill.students import build_student
from pidscale.engine.schedule import micro_plan
from pidscale.generator.load import load_teacher
from pidscale.meter import StepTimer
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.pde.darcy import Darcy
from tests import small
from tests.distill.test_rollout import write_teacher
from tests.ranks import spawn
from tests.small import bare_teacher

PDE = Darcy()
GRID = PDE.grid(16)


class Law:
    """The exact denoiser of fields whose points are N(mean, spread^2)."""

    def __init__(self, mean: float, spread: float) -> None:
        self.mean, self.spread = mean, spread

    def __call__(self, x: Tensor, sigma: Tensor, *_: Tensor) -> Tensor:
        s = sigma.reshape(-1, 1, 1, 1)
        return self.mean + self.spread**2 / (self.spread**2 + s**2) * (x - self.mean)


def objective(teacher: Law, critic: Law, **settings: object) -> Matching:
    made = bare_teacher(teacher, PDE, GRID, Normaliser((0, 0), (1, 1)), EdmNoise())
    own = {"name": "dm", "match": 0.0, **settings}
    return Matching(DistillSettings(objective=own), made, Window(GRID), None, 7, {"critic": critic})


def batch(step: int = 0, size: int = 8, target: Tensor | None = None) -> Batch:
    fresh = torch.arange(size) + step * size
    eps = torch.randn(size, 2, 16, 16, generator=torch.Generator().manual_seed(step))
    return Batch(step, fresh, eps, torch.zeros(size, 0), torch.zeros(size, 0), target)


class Student:
    """d(eps) = mean + spread eps."""

    def __init__(self, mean: float, spread: float) -> None:
        self.weights = torch.tensor([mean, spread], requires_grad=True)

    def __call__(self, x: Tensor, sigma: Tensor, *_: Tensor) -> Tensor:
        return self.weights[0] + self.weights[1] * x / 80.0


def test_the_gradient_is_the_difference_of_the_scores() -> None:
    """By hand, of every sample and point."""
    goal, student, part = objective(Law(0.0, 0.5), Law(0.3, 0.4)), Student(0.3, 0.4), batch()
    loss, parts, fields = goal.losses(student, part, StepTimer())
    x = fields.detach()
    sigma, eps = goal.noised(x, part, "distill/score")
    noisy = x + sigma.reshape(-1, 1, 1, 1) * eps
    real, fake = Law(0.0, 0.5)(noisy, sigma), Law(0.3, 0.4)(noisy, sigma)
    size = (x - real).abs().mean(dim=(1, 2, 3), keepdim=True)
    (found,) = torch.autograd.grad(loss.sum(), fields)
    torch.testing.assert_close(found, (fake - real) / size / x[0].numel())
    torch.testing.assert_close(parts["score"], (real - fake).square().mean(dim=(1, 2, 3)))
    assert set(parts) == {"score"} and float(sigma.min()) >= LOWEST and sigma.unique().numel() == 8


def test_a_student_of_the_teachers_law_stays() -> None:
    loss, parts, _ = objective(Law(0.2, 0.5), Law(0.2, 0.5)).losses(Student(0.2, 0.5), batch(), StepTimer())
    assert float(parts["score"].detach().max()) < 1e-10 and float(loss.detach().max()) < 1e-10


def test_descent_leads_to_the_teachers_law() -> None:
    """With a critic that knows the student's law exactly, mean and spread come to the teacher's without any pair."""
    student = Student(1.0, 0.1)
    optimiser = torch.optim.Adam([student.weights], lr=0.02)
    for step in range(400):
        mean, spread = (float(w) for w in student.weights)
        loss = objective(Law(-0.2, 0.5), Law(mean, spread)).losses(student, batch(step), StepTimer())[0].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert student.weights.tolist() == pytest.approx([-0.2, 0.5], abs=0.03)


def test_draws_are_new_at_every_step_though_noise_comes_again() -> None:
    goal = objective(Law(0, 1), Law(0, 1))
    x, one, other = torch.zeros(8, 2, 16, 16), batch(0), batch(1)
    assert not torch.equal(goal.noised(x, one, "a")[1], goal.noised(x, other, "a")[1])
    assert not torch.equal(goal.noised(x, one, "a")[0], goal.noised(x, one, "b")[0])
    sigma, eps = goal.noised(x[2:4], one.part(torch.tensor([2, 3])), "a")
    assert torch.equal(sigma, goal.noised(x, one, "a")[0][2:4]) and torch.equal(eps, goal.noised(x, one, "a")[1][2:4])


def test_a_match_is_added_with_its_weight() -> None:
    target = torch.ones(8, 2, 16, 16)
    goal = objective(Law(0, 0.5), Law(0.3, 0.4), match=0.7)
    assert goal.targets(goal.own) is Targets.ENDPOINTS and goal.settings.takes_endpoints
    assert not objective(Law(0, 1), Law(0, 1)).settings.takes_endpoints
    loss, parts, fields = goal.losses(Student(0.3, 0.4), batch(target=target), StepTimer())
    plain = objective(Law(0, 0.5), Law(0.3, 0.4)).losses(Student(0.3, 0.4), batch(), StepTimer())[0]
    torch.testing.assert_close(parts["match"], (fields - 1).square().mean(dim=(1, 2, 3)))
    torch.testing.assert_close(loss, plain + 0.7 * parts["match"])


def test_samples_of_several_calls_are_those_of_multistep_sampling() -> None:
    """With the law of the samples as the student, whatever the number of calls: each call is exact (by hand)."""
    goal = objective(Law(0.2, 0.5), Law(0.2, 0.5), call_levels=[1.0, 0.3])
    made = {goal.calls(step): step for step in range(60)}
    assert set(made) == {1, 2, 3}
    law, part = Law(0.2, 0.5), batch(size=64)
    for calls, step in made.items():
        x = law(80.0 * part.eps_BCYX, torch.full((64,), 80.0))
        for number, level in enumerate([1.0, 0.3][1 - calls :] if calls > 1 else [], start=1):
            eps = seeds.normal(7, f"distill/again {number}", part.fresh, (2, 16, 16))
            x = law(x + level * eps, torch.full((64,), level))
        found = goal.losses(law, replace(part, step=step), StepTimer()).fields
        torch.testing.assert_close(found, x)


def test_one_student_of_several_calls_has_gradients_through_the_last_and_a_match_of_the_first() -> None:
    target = torch.ones(8, 2, 16, 16)
    goal = objective(Law(0, 0.5), Law(0.3, 0.4), match=0.7, call_levels=[1.0])
    steps = {goal.calls(step): step for step in range(60)}
    calls: list[bool] = []

    class Watched(Student):
        def __call__(self, x: Tensor, sigma: Tensor, *others: Tensor) -> Tensor:
            calls.append(torch.is_grad_enabled())
            return super().__call__(x, sigma, *others)

    for number, wanted in ((1, [True]), (2, [False, True])):
        calls.clear()
        _, parts, fields = goal.losses(
            Watched(0.3, 0.4), replace(batch(target=target), step=steps[number]), StepTimer()
        )
        assert calls == wanted and fields.requires_grad
        assert (float(parts["match"].detach().max()) > 0) == (number == 1)
    for levels, words in (([0.3, 1.0], "expected falling levels"), ([1.0, 1.0], "each once"), ([0.0], "above 0")):
        with pytest.raises(UserError, match=words):
            _ = DistillSettings(objective={"name": "dm", "call_levels": levels}).own


def test_the_critic_learns_on_samples_without_a_gradient_to_them() -> None:
    """Its loss is least for the law of the samples: 1 at every level, in the weights of the schedule."""
    x = (0.3 + 0.5 * torch.randn(64, 2, 16, 16, generator=torch.Generator().manual_seed(0))).requires_grad_()
    losses = {
        law: float(objective(Law(0, 1), Law(*law)).partner_losses("critic", x, batch(size=64)).mean())
        for law in ((0.3, 0.5), (0.0, 0.5), (0.3, 0.3))
    }
    assert losses[0.3, 0.5] == pytest.approx(1.0, rel=0.05) and min(losses, key=losses.__getitem__) == (0.3, 0.5)
    assert not objective(Law(0, 1), Law(0, 1)).partner_losses("critic", x, batch(size=64)).requires_grad


def _wild(rank: int, world: int, shards: Path, folder: Path) -> list[str]:
    """Who could not take a step, where a weight of the critic is not a number."""
    settings = small.settings(shards, folder, distill={"objective": {"name": "dm"}})
    teacher, mesh = load_teacher(folder / "teacher"), Mesh(rank, world)
    window, d = Window(teacher.grid), settings.distill
    student = build_student(
        "student",
        settings,
        open_objective(settings, teacher, window),
        micro_plan(d.global_batch, d.micro_batch, mesh),
        mesh,
    )
    with torch.no_grad():
        next(iter(student.partners["critic"].module.parameters())).fill_(float("nan"))
    student.gradients(open_batches(settings, teacher, window, mesh).at(0, StepTimer().section), StepTimer())
    return [name for name, (_, applied) in student.update(1e-3, 0).items() if not applied]


def test_a_critic_that_cannot_step_is_named(small_shards: Path, tmp_path: Path) -> None:
    write_teacher(tmp_path / "teacher", small.settings(small_shards, tmp_path))
    assert spawn(_wild, 1, small_shards, tmp_path) == [["student", "student's critic"]]
