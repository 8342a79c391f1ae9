"""A one-step student as its users see it: samples, refined samples, and answers to what is known of a field.

Needs torch and numpy only. Knows no files and no ranks.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pidscale.caller import sheltered
from pidscale.generator.arguments import as_int
from pidscale.generator.generator import Fields, OneCall, Teacher
from pidscale.generator.more_calls import more_calls
from pidscale.generator.refine import Refined, refine
from pidscale.generator.tasks.energy import Answer, search_from, solve_task
from pidscale.generator.tasks.observations import Observation, observe, warnings_for
from pidscale.generator.tasks.posterior import Posterior, posterior


@dataclass(frozen=True)
class Student(OneCall):
    """A generator that makes a field in one network call.

    Attributes:
        teacher: The teacher that it was distilled from, where that was loaded beside it.

    Example:
        >>> student = pidscale.load_student("runs/demo/student")
        >>> fields = student.sample(n=16, seed=0)
        >>> student.residual(fields)["l2"]
        >>> answer = student.forward(fields["permeability"][:1])
    """

    teacher: Teacher | None = None

    @sheltered
    def sample(
        self,
        n: int,
        seed: int = 0,
        batch: int = 64,
        params: Mapping[str, Any] | None = None,
        nfe: int = 1,
    ) -> Fields:
        """Generate samples. Sample i depends on (seed, i), its parameters and nfe alone.

        Args:
            n: Number of samples.
            seed: Seed of their noise and parameters.
            batch: Samples generated at once.
            params: Varying parameters by name, a number or [n]; drawn from their ranges where not given.
            nfe: Network calls of each sample: 1 for the student alone; more add calls of its teacher (more_calls.py).

        Returns:
            Channel name to [n, Y, X] in physical units, and varying parameter name to [n], on the CPU.

        Raises:
            UserError: When an argument is out of range, or nfe is above 1 and no teacher was loaded; names the argument.
        """
        n = as_int("n", n, 1)
        batch = as_int("batch", batch, 1)
        seed = as_int("seed", seed, 0)
        nfe = as_int("nfe", nfe, 1)

        def make(counters: range, eps: Tensor, own: Tensor) -> Tensor:
            if nfe == 1:
                return self.physical(eps, own)
            again = self.eps(counters, seed, "sample/again")
            return self.finished(more_calls(self, self.teacher, eps, again, own, nfe - 1))

        return self._batched(n, seed, batch, self._drawn(n, seed, params), make)

    @sheltered
    def refine(self, n: int, seed: int = 0, steps: int = 20, **how: Any) -> Refined:
        """Return the samples of `sample(n, seed)` with a lower residual, and how far they moved.

        Args:
            n: Number of samples.
            seed: Seed of their noise and parameters.
            steps: Evaluations (a call and its gradient) of each sample at most.
            **how: Further arguments of `pidscale.generator.refine.refine`.

        Returns:
            Fields before and after, their residuals and distances.

        Raises:
            UserError: When an argument is out of range; names the argument.
        """
        return refine(self, n, seed, steps, **how)

    @sheltered
    def forward(self, inputs: Any, sigma: Any = None, params: Mapping[str, Any] | None = None, **search: Any) -> Answer:
        """Find fields whose inputs are these: coefficient, source or initial state.

        Args:
            inputs: [Y, X] or [n, Y, X] in physical units, or a dict by channel name.
            sigma: Standard deviation of their noise, a number or a dict by channel; None for noiseless values.
            params: Varying parameters that are known.
            **search: Settings of `Search`.

        Returns:
            One answer for each of the n inputs.

        Raises:
            UserError: When values, parameters or settings are wrong; names the argument.
        """
        return self._solve(self._observed("forward", inputs, None, sigma), params, search)

    @sheltered
    def inverse(
        self, solution: Any, sigma: Any = None, params: Mapping[str, Any] | None = None, **search: Any
    ) -> Answer:
        """Find fields whose solution is this.

        Args:
            solution: As `inputs` of `forward`.
            sigma: As in `forward`.
            params: As in `forward`.
            **search: As in `forward`.

        Returns:
            One answer for each of the n solutions.

        Raises:
            UserError: As `forward`.
        """
        return self._solve(self._observed("inverse", solution, None, sigma), params, search)

    @sheltered
    def reconstruct(
        self, values: Any, mask: Any = None, sigma: Any = None, params: Mapping[str, Any] | None = None, **search: Any
    ) -> Answer:
        """Find fields that have these values at the known points.

        Args:
            values: As `inputs` of `forward`, of any channels.
            mask: True where values are known; where values are not NaN if None.
            sigma: As in `forward`.
            params: As in `forward`.
            **search: As in `forward`.

        Returns:
            One answer for each of the n sets of values.

        Raises:
            UserError: As `forward`.
        """
        return self._solve(self._observed("reconstruct", values, mask, sigma), params, search)

    @sheltered
    def posterior(
        self,
        task: str,
        values: Any,
        count: int = 32,
        mask: Any = None,
        sigma: Any = None,
        params: Mapping[str, Any] | None = None,
        **search: Any,
    ) -> Posterior:
        """Draw fields that agree with noisy values (posterior.py).

        Args:
            task: `forward`, `inverse` or `reconstruct`.
            values: As that task takes them.
            count: Samples of each observation.
            mask: As in `reconstruct`.
            sigma: As in `forward`.
            params: As in `forward`.
            **search: As in `forward`; `physics` is 0 unless given.

        Returns:
            Samples, their mean and spread.

        Raises:
            UserError: As `forward`.
        """
        observation = self._observed(task, values, mask, sigma)
        return posterior(self, observation, count, params, search_from(search, physics=0.0))

    def _solve(self, known: Observation, params: Mapping[str, Any] | None, search: dict[str, Any]) -> Answer:
        return solve_task(self, known, params, search_from(search))

    def _observed(self, task: str, values: Any, mask: Any, sigma: Any) -> Observation:
        observation = observe(self, task, values, mask, sigma)
        for line in warnings_for(self, observation):
            warnings.warn(line.removeprefix("warning: "), stacklevel=4)  # where the task was asked
        return observation
