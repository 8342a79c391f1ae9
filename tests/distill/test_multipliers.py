"""Weights of the residual that follow it: they find the multiplier of a problem whose answer is known."""

from __future__ import annotations

import json
import math

import pytest

from pidscale.distill.multipliers import HORIZON, LEAST, Multipliers


@pytest.mark.parametrize("goal", [0.1, 0.5])
def test_they_find_the_multiplier_of_a_quadratic_problem(goal: float) -> None:
    """The least (x - 1)^2 with x^2 <= goal^2 is at x = goal, with the multiplier (1 - goal) / goal."""
    found = Multipliers(goal, {"l2": 0.05})
    x = 1.0
    for _ in range(20_000):
        x -= 0.01 * (2 * (x - 1) + found.weights["l2"] * 2 * x)
        found.follow({"l2": x * x})
    assert x == pytest.approx(goal, rel=1e-3)
    assert found.weights["l2"] == pytest.approx((1 - goal) / goal, rel=1e-2)


def test_a_multiplier_that_is_not_needed_vanishes() -> None:
    found = Multipliers(0.5, {"l2": 0.05})
    for _ in range(20_000):
        found.follow({"l2": 0.01})
    assert found.weights["l2"] == LEAST


def test_a_step_changes_them_by_a_bounded_factor() -> None:
    found = Multipliers(1e-3, {"l2": 0.05, "dual": 0.2})
    found.follow({"l2": 1e12, "dual": 0.0, "boundary": 1.0})
    assert found.weights == {"l2": 0.05 * math.exp(1 / HORIZON), "dual": 0.2 * math.exp(-1 / HORIZON)}


def test_a_checkpoint_keeps_them_to_the_bit() -> None:
    found = Multipliers(0.1, {"l2": 0.3, "dual": 0.7})
    for step in range(5):
        found.follow({"l2": 0.1 * step, "dual": 1 / 3})
    other = Multipliers(0.1, {"l2": 1.0, "dual": 1.0})
    other.restore(json.loads(json.dumps(found.state())))
    assert other == found
