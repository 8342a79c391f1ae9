"""The descent finds exact minima, treats each sample alone, and ends."""

from __future__ import annotations

import itertools

import pytest
import torch

from pidscale.config import UserError
from pidscale.generator.tasks.descend import Minimum, minimise


def quiet(done: int, energy: float) -> None:
    """Report nothing."""


def never(rows: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(rows, dtype=torch.bool)


class Bowls:
    """Quadratic energies, each with its own minimum and its own condition number, up to 10^4."""

    def __init__(self, count: int = 5, size: int = 12) -> None:
        g = torch.Generator().manual_seed(1)
        self.least = torch.randn(count, size, generator=g, dtype=torch.float64)
        turns = torch.linalg.qr(torch.randn(count, size, size, generator=g, dtype=torch.float64)).Q
        spans = torch.stack([torch.logspace(0, 4 * i / (count - 1), size, dtype=torch.float64) for i in range(count)])
        self.forms = turns @ torch.diag_embed(spans) @ turns.mT
        self.start = torch.zeros(count, size, dtype=torch.float64)

    def __call__(self, x: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        away = x - self.least[rows]
        return 0.5 * torch.einsum("bi,bij,bj->b", away, self.forms[rows], away) + 1.0, never(rows)


def test_every_sample_reaches_its_own_minimum() -> None:
    bowls = Bowls()
    found = minimise(bowls, bowls.start, 300, "lbfgs", quiet)
    torch.testing.assert_close(found.energy_B, torch.ones(5, dtype=torch.float64), rtol=0, atol=2e-5)
    assert (found.x_BD[:3] - bowls.least[:3]).abs().max() < 1e-2
    assert found.calls_B[0] < 20 and (found.calls_B < 300).all()  # all end before the limit


def rosenbrock(x: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = x.unbind(dim=1)
    return (1 - a).square() + 100 * (b - a.square()).square(), never(rows)


def test_a_bent_valley_is_followed() -> None:
    start = torch.tensor([[-1.2, 1.0], [0.0, 3.0], [2.0, -2.0]], dtype=torch.float64)
    found = minimise(rosenbrock, start, 200, "lbfgs", quiet)
    torch.testing.assert_close(found.x_BD, torch.ones(3, 2, dtype=torch.float64), rtol=0, atol=1e-4)


def test_samples_do_not_affect_each_other() -> None:
    bowls = Bowls()
    together = minimise(bowls, bowls.start, 40, "lbfgs", quiet)
    for i in range(5):

        def one(x: torch.Tensor, rows: torch.Tensor, i: int = i) -> tuple[torch.Tensor, torch.Tensor]:
            return bowls(x, rows + i)

        alone = minimise(one, bowls.start[i : i + 1], 40, "lbfgs", quiet)
        torch.testing.assert_close(alone.x_BD[0], together.x_BD[i], rtol=1e-6, atol=1e-6)
        assert alone.calls_B[0] == together.calls_B[i]


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
def test_a_sample_that_may_end_is_not_evaluated_again(optimiser: str) -> None:
    asked: list[int] = []

    def energy(x: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(len(rows))
        squares = (x - 3).square().sum(dim=1)
        return squares, squares < torch.where(rows == 0, 100.0, 1e-2)

    start = torch.zeros(2, 4)
    found = minimise(energy, start, 400, optimiser, quiet)
    assert found.calls_B[0] == 1 and torch.equal(found.x_BD[0], start[0])
    assert found.energy_B[1] < 1e-2 and len(asked) == found.calls_B[1] < 400
    assert asked == [2] + [1] * (len(asked) - 1)  # the finished sample costs no more calls


def test_points_without_a_finite_energy_are_never_accepted() -> None:
    def energy(x: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (x.sqrt() - 0.01).square().sum(dim=1), never(rows)  # NaN below 0, close to the minimum

    found = minimise(energy, torch.full((2, 3), 0.04), 100, "lbfgs", quiet)
    assert found.x_BD.isfinite().all() and found.energy_B.max() < 1e-4
    lost = minimise(lambda x, rows: ((x / 0).sum(dim=1), never(rows)), torch.ones(1, 3), 100, "lbfgs", quiet)
    assert lost.calls_B[0] < 40  # before the limit


def test_adam_returns_the_best_point_that_it_visits() -> None:
    bowls = Bowls()
    reports = []
    found = minimise(bowls, bowls.start, 300, "adam", lambda done, energy: reports.append((done, energy)))
    begin = bowls(bowls.start, torch.arange(5))[0]
    assert isinstance(found, Minimum) and (found.energy_B - 1 < 0.3 * (begin - 1)).all()
    torch.testing.assert_close(bowls(found.x_BD, torch.arange(5))[0], found.energy_B)
    assert [done for done, _ in reports] == list(range(1, 301))
    assert all(b <= a for (_, a), (_, b) in itertools.pairwise(reports))


def test_an_unknown_optimiser_is_named() -> None:
    with pytest.raises(UserError, match=r"optimiser='sgd': expected one of lbfgs, adam"):
        minimise(rosenbrock, torch.zeros(1, 2), 5, "sgd", quiet)
