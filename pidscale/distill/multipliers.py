"""Weights of the residual's terms that follow the residual: large as long as it is above a goal. Knows no ranks.

For the problem of least loss of the distillation among students with mean R_k^2 / s_k^2 <= goal^2 for every term k, the
multiplier lambda_k changes with every step by

    lambda_k <- lambda_k exp(clip(r_k / goal^2 - 1, -1, 1) / HORIZON)

with r_k a running mean of R_k^2 / s_k^2. This is the exponential method of multipliers (Kort and Bertsekas, 1972; Bertsekas,
Constrained optimization and Lagrange multiplier methods, 1982, section 5.1.2) with bounded steps, since r_k is noisy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

HORIZON = 300.0  # steps in which a multiplier changes by a factor of e at most
MEMORY = 0.05  # share of a step in the running mean
LEAST = 1e-6  # below it a multiplier would need long to grow again


@dataclass
class Multipliers:
    """Multipliers of the terms of the residual, the same on every rank.

    Attributes:
        goal: Goal for the root mean square of each term, relative to its scale.
        weights: Multiplier lambda_k of each term that has a weight, by name.
        means: Running mean of R_k^2 / s_k^2 of each term, by name.
    """

    goal: float
    weights: dict[str, float]
    means: dict[str, float] = field(default_factory=dict)

    def follow(self, ratios: Mapping[str, float]) -> None:
        """Change the multipliers after a step.

        Args:
            ratios: Mean of R_k^2 / s_k^2 over the global batch of the step, by name of the term.
        """
        for name, weight in self.weights.items():
            mean = self.means.get(name, ratios[name])
            self.means[name] = mean + MEMORY * (ratios[name] - mean)
            excess = min(1.0, max(-1.0, self.means[name] / self.goal**2 - 1.0))
            self.weights[name] = max(LEAST, weight * math.exp(excess / HORIZON))

    def state(self) -> dict[str, dict[str, float]]:
        """Return what a checkpoint keeps, as plain JSON values."""
        return {"weights": dict(self.weights), "means": dict(self.means)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint has kept."""
        self.weights = dict(state["weights"])
        self.means = dict(state["means"])
