"""Gradients without conflict against the published formula, and over ranks and micro-steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pidscale.engine.conflict import PartGradients, factors
from pidscale.parallel.mesh import Mesh


def config(first: Tensor, second: Tensor) -> Tensor:
    """ConFIG as its paper writes it: unit vectors of what each gradient has across the other, and the projections' length."""

    def across(one: Tensor, other: Tensor) -> Tensor:
        return other - (one @ other) / (one @ one) * one

    def unit(vector: Tensor) -> Tensor:
        return vector / vector.norm()

    direction = unit(unit(across(first, second)) + unit(across(second, first)))
    return (first @ direction + second @ direction) * direction


@pytest.mark.parametrize("seed", range(6))
def test_the_combination_is_that_of_the_paper_and_serves_both(seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, 40, dtype=torch.float64, generator=draws)
    second = second * 10.0 ** (seed - 3) - (0.9 * first if seed % 2 else 0)  # of any length, with and against the first
    one, other = factors(float(first.norm()), float(second.norm()))
    found = one * first + other * second
    torch.testing.assert_close(found, config(first, second))
    cosines = [float(found @ each / (found.norm() * each.norm())) for each in (first, second)]
    assert cosines[0] == pytest.approx(cosines[1]) and cosines[0] > 0


def test_a_part_without_gradient_leaves_the_other() -> None:
    assert factors(3.0, 0.0) == factors(0.0, 3.0) == factors(float("nan"), 1.0) == (1.0, 1.0)


class Plain:
    """An engine without DeepSpeed."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def backward(self, share: Tensor) -> None:
        share.backward()


def test_the_gradients_of_all_micro_steps_are_combined_once() -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2).double()
    x = torch.randn(6, 3, dtype=torch.float64)

    def losses(part: Tensor) -> Tensor:
        made = module(part)
        return torch.stack([made.square().sum(), 0.1 * (made - 1).abs().sum()])

    whole = [torch.autograd.grad(loss, list(module.parameters()), retain_graph=True) for loss in losses(x)]
    flat = [torch.cat([one.flatten() for one in parts]) for parts in whole]
    apart = PartGradients(Plain(module), Mesh(), accumulation=3)
    for part in x.split(2):
        apart.backward(losses(part))
    found = torch.cat([weight.grad.flatten() for weight in module.parameters()])
    torch.testing.assert_close(found, config(*flat))
