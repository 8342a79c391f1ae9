"""A student as its users see it: samples, refined samples, and answers to forward, inverse and reconstruction problems.

Needs torch and numpy only. Knows no files and no ranks.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from pidscale.caller import sheltered
from pidscale.config import UserError
from pidscale.generator.arguments import LARGEST_COUNT, as_int, check_found
from pidscale.generator.generator import Fields, Teacher
from pidscale.generator.module import FieldModule
from pidscale.generator.more_calls import more_calls, several_calls
from pidscale.generator.one_step import OneStepGenerator
from pidscale.generator.refine import Refined, refine
from pidscale.generator.tasks.likeliest import Answer, solve_task
from pidscale.generator.tasks.observations import Observation, observe, warnings_for
from pidscale.generator.tasks.posterior import Posterior, posterior
from pidscale.generator.tasks.readings import Readings, check_channel
from pidscale.generator.tasks.search import MOST, search_from
from pidscale.generator.tasks.solver import solve_inputs
from pidscale.generator.tasks.start import StartNetwork
from pidscale.generator.tasks.suggest import Suggestion, best_sensors

STARTED_STEPS = 40  # default number of evaluations of a search that a start network begins
FIELD_STEPS = 300  # default number of evaluations of a second search, over the field itself, for the likeliest field


@dataclass(frozen=True)
class Student(OneStepGenerator):
    """A generator that makes a field in one network call.

    Attributes:
        teacher: The teacher that the student was distilled from; None if it was not loaded.
        start: The network that says where searches start; None if it was not learnt.

    Examples:
        >>> student = pidscale.load_student("students/darcy")
        >>> fields = student.sample(n=16, seed=0)
        >>> student.residual(fields)["l2"]
        >>> answer = student.forward(fields["permeability"][:1])
    """

    teacher: Teacher | None = None
    start: StartNetwork | None = None

    @sheltered
    def sample(
        self,
        n: int,
        seed: int = 0,
        batch: int = 64,
        params: Mapping[str, Any] | None = None,
        nfe: int = 1,
        head: int | None = None,
    ) -> Fields:
        """Generate samples. Sample i depends only on (seed, i), its parameters, `nfe` and `head`.

        An argument out of range, or more calls than the student was trained for without a teacher, raises a UserError that
        names the argument.

        Args:
            n: Number of samples.
            seed: Seed of noise and parameters.
            batch: Number of samples generated at once.
            params: Varying parameters by name, one number or [n]; parameters that are not given are drawn.
            nfe: Number of network calls for each sample: 1 for one of the student, more for calls of its teacher after that,
                or of itself if it was trained for so many (more_calls.py).
            head: Number of solver steps behind each field; None for those of this student (`with_head`).

        Returns:
            Channels [n, Y, X] in physical units and varying parameters [n] by name, on the CPU.
        """
        n = as_int("n", n, 1, LARGEST_COUNT)
        batch = as_int("batch", batch, 1)
        seed = as_int("seed", seed, 0)
        nfe = as_int("nfe", nfe, 1)
        generator = self if head is None else self.with_head(head)

        def make(counters: range, eps: Tensor, own: Tensor) -> Tensor:
            if nfe == 1:
                return generator.generate_physical(eps, own)
            if nfe <= 1 + len(self.card.call_levels):
                further = [self.eps(counters, seed, f"sample/again/{number}") for number in range(nfe - 1)]
                return generator.to_physical(several_calls(self, eps, further, own), own)
            again = self.eps(counters, seed, "sample/again")
            return generator.to_physical(more_calls(self, self.teacher, eps, again, own, nfe - 1), own)

        return generator._sample(n, seed, batch, params, make)

    @sheltered
    def refine(self, n: int, seed: int = 0, steps: int = 20, **how: Any) -> Refined:
        """Lower the residual of the samples that `sample(n, seed)` returns.

        An argument out of range raises a UserError that names it.

        Args:
            n: Number of samples.
            seed: Seed of noise and parameters.
            steps: Largest number of evaluations (a network call and its gradient) for each sample.
            **how: Further arguments of `pidscale.generator.refine.refine`.

        Returns:
            The refined samples, residuals before and after, and distances from the samples as they were drawn.
        """
        return self._refined(n, seed, steps, how)

    @sheltered
    def forward(
        self,
        inputs: Any,
        sigma: Any = None,
        params: Mapping[str, Any] | None = None,
        solver: bool | None = None,
        **search: Any,
    ) -> Answer:
        """Solve forward problems: find the field for known inputs (coefficient, source or initial state).

        Where all inputs and parameters are known, and without noise, solver steps of the equation answer (tasks/solver.py),
        unless this student has no head. Else the likeliest field is searched for. Wrong values, parameters or settings raise
        a UserError that names the argument; so do those of the other tasks.

        Args:
            inputs: [Y, X] or [n, Y, X] in physical units, or a dict by channel name.
            sigma: Standard deviation of the noise of the values, a number or a dict by channel; None for noiseless values.
            params: Varying parameters that are known, by name.
            solver: Whether solver steps answer: True refuses what they cannot solve, False always searches.
            **search: Settings of `pidscale.generator.tasks.search.Search`; `field_steps` is FIELD_STEPS by default.

        Returns:
            Answers to the n problems, whose `stage` says what found them.

        Raises:
            UserError: When `solver` is True, and solver steps cannot answer, or when it is neither True, False nor None.
        """
        if solver not in (None, True, False):
            raise UserError(f"solver={solver!r}: expected True, False, or None to choose by what is known")
        observation = self._observed("forward", inputs, None, sigma)
        settings = search_from(search)
        solves = self.head > 0 and sigma is None and solver is not False
        answer = solve_inputs(self, observation, params, settings.batch) if solves else None
        if answer is not None:
            self._warn_of_refused(answer.fields)
            return answer
        if solver:
            raise UserError(
                "solver=True: needs a head, all inputs without noise and all parameters, and steps that lead to a solution; "
                "leave solver out to search"
            )
        return self._solve(observation, params, search)

    @sheltered
    def inverse(
        self, solution: Any, sigma: Any = None, params: Mapping[str, Any] | None = None, **search: Any
    ) -> Answer:
        """Solve inverse problems: find the likeliest field for a known solution.

        Args:
            solution: As `inputs` of `forward`.
            sigma: As in `forward`.
            params: As in `forward`.
            **search: As in `forward`.

        Returns:
            Answers to the n problems.
        """
        return self._solve(self._observed("inverse", solution, None, sigma), params, search)

    @sheltered
    def reconstruct(
        self,
        values: Any = None,
        mask: Any = None,
        sigma: Any = None,
        params: Mapping[str, Any] | None = None,
        readings: Sequence[Readings] = (),
        **search: Any,
    ) -> Answer:
        """Reconstruct fields: find the likeliest field for values at some points of any channels, or for other readings.

        Args:
            values: As `inputs` of `forward`, for any channels; None if there are only readings.
            mask: True where values are known; None if they are known where they are not NaN.
            sigma: As in `forward`.
            params: As in `forward`.
            readings: Values between grid points, means, slopes and others (tasks/readings.py).
            **search: As in `forward`.

        Returns:
            Answers to the n problems.
        """
        return self._solve(self._observed("reconstruct", values, mask, sigma, readings), params, search)

    @sheltered
    def posterior(
        self,
        task: str,
        values: Any = None,
        count: int = 32,
        mask: Any = None,
        sigma: Any = None,
        params: Mapping[str, Any] | None = None,
        readings: Sequence[Readings] = (),
        **search: Any,
    ) -> Posterior:
        """Draw posterior samples: fields that agree with noisy values (tasks/posterior.py).

        Args:
            task: `forward`, `inverse` or `reconstruct`.
            values: Known values, as the method of that name takes them.
            count: Number of samples for each observation, 2 or more.
            mask: As in `reconstruct`.
            sigma: As in `forward`.
            params: As in `forward`.
            readings: As in `reconstruct`.
            **search: As in `forward`, but `physics` and `field_steps` are 0 by default.

        Returns:
            The samples with their mean, standard deviation and intervals.
        """
        observation = self._observed(task, values, mask, sigma, readings)
        return self._drawn(observation, count, params, search)

    @sheltered
    def suggest(
        self,
        values: Any = None,
        count: int = 1,
        mask: Any = None,
        sigma: Any = None,
        params: Mapping[str, Any] | None = None,
        readings: Sequence[Readings] = (),
        reads: Sequence[str] = (),
        about: Sequence[str] = (),
        draws: int = 64,
        drawn: Posterior | None = None,
        **search: Any,
    ) -> list[Suggestion]:
        """Say where further sensors lower the posterior variance of one field most (tasks/suggest.py).

        Args:
            values: As in `reconstruct`, of one field.
            count: Number of sensors, each of which is chosen given those before it.
            mask: As in `reconstruct`.
            sigma: As in `forward`; the noise of further readings too.
            params: As in `forward`.
            readings: As in `reconstruct`.
            reads: Channels that a sensor may read; empty: all that are given a value.
            about: Channels whose variance is to fall, each in its standard deviation; empty: all.
            draws: Number of posterior samples.
            drawn: Samples that `posterior` has drawn for the same values and readings; None to draw them here.
            **search: As in `posterior`.

        Returns:
            The sensors in the order of choice.

        Raises:
            UserError: When there are several fields, or an argument is wrong.
        """
        count = as_int("count", count, 1)
        draws = as_int("draws", draws, 2, MOST)
        for name in (*reads, *about):
            check_channel(self, name, "reads" if name in reads else "about")
        observation = self._observed("reconstruct", values, mask, sigma, readings)
        if len(observation) > 1:
            raise UserError(f"values: {len(observation)} fields; suggest takes one at a time")
        found = self._drawn(observation, draws, params, search) if drawn is None else drawn
        if not isinstance(found, Posterior):
            raise UserError(f"drawn: a {type(found).__name__}, expected what posterior returns")
        check_found("drawn", found.mean, self.channels, self.grid.shape)
        if len(found.mismatch) > 1:
            raise UserError(f"drawn: samples of {len(found.mismatch)} fields; suggest takes one at a time")
        samples = torch.stack([found.samples[name][0] for name in self.channels], dim=1)
        std = torch.tensor(self.normaliser.std, dtype=torch.float32)
        given = observation.known_NCYX[0].flatten(1).any(dim=1).tolist()
        read = [name in reads if reads else known for name, known in zip(self.channels, given, strict=True)]
        target = torch.tensor([name in about or not about for name in self.channels])
        places = ~observation.known_NCYX[0] & torch.tensor(read if any(read) else [True] * len(read))[:, None, None]
        noise = observation.sigma_NC[0] / std
        return best_sensors(samples / std[:, None, None], noise, places, target, self.channels, self.grid, count)

    def start_for(self, seen: Observation) -> tuple[StartNetwork | None, dict[str, int]]:
        """Return the start network for an observation, and the defaults of a search from it that are not those of `Search`.

        There is none for readings between grid points, which are not among its input.
        """
        if self.start is None or seen.readings:
            return None, {}
        return self.start, {"steps": STARTED_STEPS, "starts": 1}

    def with_precision(self, precision: str) -> Self:
        """Return this student, and its teacher if it has one, in a precision, as `Generator.with_precision` says."""
        student = super().with_precision(precision)
        return student if self.teacher is None else replace(student, teacher=self.teacher.with_precision(precision))

    def module(self) -> FieldModule:
        """Return the student as a `torch.nn.Module` of noise [B, C, Y, X] and varying parameters [B, P].

        Its output are physical fields [B, C, Y, X] behind constraints and head; `torch.export` takes it (docs/head.md).
        """
        return FieldModule(self)

    def _solve(self, known: Observation, params: Mapping[str, Any] | None, search: dict[str, Any]) -> Answer:
        start, usual = self.start_for(known)
        first = None if start is None else start.vectors(self, known, params)
        answer = solve_task(self, known, params, search_from(search, field_steps=FIELD_STEPS, **usual), first=first)
        self._warn_of_refused(answer.fields)
        return answer

    def _refined(self, n: int, seed: int, steps: int, how: Mapping[str, Any]) -> Refined:
        refined = refine(self, n, seed, steps, **how)
        self._warn_of_refused(refined.fields)
        return refined

    def _drawn(
        self, known: Observation, count: int, params: Mapping[str, Any] | None, search: Mapping[str, Any]
    ) -> Posterior:
        start, usual = self.start_for(known)
        draws = posterior(self, known, count, params, search_from(search, **usual, physics=0.0), start)
        self._warn_of_refused(draws.samples)
        return draws

    def _observed(
        self, task: str, values: Any, mask: Any, sigma: Any, readings: Sequence[Readings] = ()
    ) -> Observation:
        observation = observe(self, task, values, mask, sigma, readings=readings)
        for line in warnings_for(self, observation):
            warnings.warn(line.removeprefix("warning: "), stacklevel=4)  # the line that called the task
        return observation
