"""A loaded generator of fields: what teachers and students share, and a teacher.

Needs torch and numpy only. Knows no files and no ranks. Shapes: eps_BCYX standard normal noise, x_BCYX fields in units of the
model, params_BP parameters that vary from sample to sample.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.caller import sheltered
from pidscale.config import SOLVERS, UserError
from pidscale.diffusion.denoiser import Denoiser, conditioned
from pidscale.diffusion.noise import Noise
from pidscale.diffusion.normaliser import Normaliser
from pidscale.diffusion.solvers import integrate
from pidscale.generator.arguments import LARGEST_COUNT, as_int, as_real, override_params, params_beside
from pidscale.generator.card import Card
from pidscale.models.precondition import HALVES, PreconditionedNetwork
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.pde.base import UNSEEN, Pde, truths
from pidscale.pde.constraints import STEPS, constrain
from pidscale.pde.head import LARGEST, check_head, correct
from pidscale.pde.parameters import condition, draw_params
from pidscale.pde.residuals import residual_squares

Fields = dict[str, Tensor]
TEACHER_STEPS = 18  # default number of solver steps of a teacher's sample


@dataclass(frozen=True)
class Generator(ABC):
    """A trained network with its equation and units, ready to sample from on one device.

    Attributes:
        card: The generator's card.
        denoiser: The network D(x, sigma).
        pde: The equation.
        grid: Grid of the generated fields.
        normaliser: Conversion between physical units and units of the model.
        noise: Noise schedule.
        device: Device of the network.
        head: Number of solver steps of the equation behind every field that it generates (pde/head.py).
    """

    card: Card
    denoiser: PreconditionedNetwork
    pde: Pde
    grid: Grid
    normaliser: Normaliser
    noise: Noise
    device: torch.device
    head: int = field(default=0, kw_only=True)

    @property
    def precision(self) -> str:
        """Precision of the network's inner layers: `fp32`, `bf16` or `fp16`."""
        return getattr(self.denoiser, "precision", "fp32")

    @property
    def channels(self) -> list[str]:
        """Names of the physical fields, in the order of the joint field."""
        return [channel.name for channel in self.pde.channels]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape [C, Y, X] of one joint field."""
        return len(self.pde.channels), *self.grid.shape

    @property
    def steps_apart(self) -> bool:
        """Whether inputs behind a head differ from those without: the card has a constraint that goes with the head."""
        return bool(set(STEPS) & set(self.card.constraints))

    @sheltered
    def with_head(self, steps: int) -> Self:
        """Return this generator with solver steps of its equation behind every field: samples, refinements and answers.

        Args:
            steps: Number of steps; 0 for the network's own fields.

        Returns:
            The generator, with the same network. A number out of range, or an equation without solver steps, is a UserError.
        """
        steps = as_int("head", steps, 0, LARGEST)
        check_head(self.pde, steps)
        return replace(self, head=steps)

    def with_precision(self, precision: str) -> Self:
        """Return this generator with a network whose inner layers compute in 16 bits, or in float32 again.

        Samples alone use them. Weights, the network's first and last operations, constraints, head and residuals stay in
        float32, and so do searches by gradients: refinement, tasks and posterior samples.

        Args:
            precision: `fp32`, `bf16` or `fp16`.

        Returns:
            The generator, with the same weights.

        Raises:
            UserError: When the precision is unknown.
        """
        if precision not in ("fp32", *HALVES):
            raise UserError(f"precision={precision!r}: expected one of fp32, {', '.join(HALVES)}")
        if precision == self.precision:
            return self
        denoiser = copy(self.denoiser)  # shares parameters and layers
        denoiser.precision = precision
        return replace(self, denoiser=denoiser)

    @sheltered
    def eps(self, counters: range, seed: int, stream: str = "sample") -> Tensor:
        """Draw standard normal noise.

        Args:
            counters: Numbers of the samples in the random stream.
            seed: Seed of the stream.
            stream: Name of the stream.

        Returns:
            Noise [n, C, Y, X], float32 on the generator's device.
        """
        return seeds.normal(seed, stream, list(counters), self.shape, device=self.device)

    @sheltered
    def params(self, counters: range, seed: int, stream: str = "sample") -> Tensor:
        """Draw varying parameters, uniform in their ranges.

        Args:
            counters: Numbers of the samples in the random stream.
            seed: Seed of the stream.
            stream: Name of the stream.

        Returns:
            Parameters [n, P], float64 on the CPU.
        """
        return draw_params(self.pde, seed, stream, counters)

    def conditioned_on(self, params_BP: Tensor) -> Denoiser:
        """Return the denoiser of a batch of samples with these parameters [B, P]."""
        return conditioned(self.denoiser, condition(self.pde, params_BP).to(self.device))

    @abstractmethod
    def generate(self, eps_BCYX: Tensor, params_BP: Tensor) -> Tensor:
        """Generate fields [B, C, Y, X] in units of the model from noise, without gradients."""

    def generate_physical(self, eps_BCYX: Tensor, params_BP: Tensor) -> Tensor:
        """Generate fields [B, C, Y, X] in physical units from noise, without gradients; they satisfy the constraints."""
        return self.to_physical(self.generate(eps_BCYX, params_BP), params_BP)

    @sheltered
    def to_physical(self, x_BCYX: Tensor, params_BP: Tensor, smooth: bool = False) -> Tensor:
        """Convert fields to physical units, apply the constraints of the card, and take the steps of the head.

        Args:
            x_BCYX: Fields in units of the model.
            params_BP: Varying parameters of each sample.
            smooth: Whether to leave out constraints that are steps, for a search by gradients. Without a head they are left
                out too.

        Returns:
            Physical fields [B, C, Y, X].
        """
        smooth = smooth or self.head == 0
        fields = constrain(self.pde, Window(self.grid), self.card.constraints, self.normaliser.decode(x_BCYX), smooth)
        return correct(self.pde, self.grid, fields, params_BP, self.head)

    def split(self, physical_NCYX: Tensor) -> Fields:
        """Return the channels of joint fields [n, C, Y, X] by name, each [n, Y, X]."""
        return {name: physical_NCYX[:, i] for i, name in enumerate(self.channels)}

    @sheltered
    def join(self, fields: Mapping[str, Any], argument: str = "fields") -> Tensor:
        """Stack channels to joint fields.

        Args:
            fields: Arrays or tensors [n, Y, X] of real numbers by channel name. Other names are ignored.
            argument: Name of the argument that has them, for messages.

        Returns:
            Joint fields [n, C, Y, X].

        Raises:
            UserError: When a channel is missing, has a wrong shape or holds values that are not finite. The error names it.
        """
        if not isinstance(fields, Mapping):
            raise UserError(f"{argument}: a {type(fields).__name__}, expected a dict of {', '.join(self.channels)}")
        parts = [self._joined(name, fields, argument) for name in self.channels]
        if len({len(p) for p in parts}) > 1:
            raise UserError(f"{argument}: {[len(p) for p in parts]} samples in the channels, expected the same number")
        return torch.stack(parts, dim=1)

    def _joined(self, name: str, fields: Mapping[str, Any], argument: str) -> Tensor:
        """Return one channel [n, Y, X], checked."""
        if name not in fields:
            raise UserError(f"{argument}: channel {name!r} is missing; expected {', '.join(self.channels)}")
        values = as_real(f"{argument}[{name!r}]", fields[name])
        if values.ndim != 3 or tuple(values.shape[1:]) != self.grid.shape or len(values) == 0:
            expected = f"[n, {self.grid.shape[0]}, {self.grid.shape[1]}] with n of 1 or more"
            raise UserError(f"{argument}[{name!r}]: shape {tuple(values.shape)}, expected {expected}")
        if not torch.isfinite(values).all():
            raise UserError(f"{argument}[{name!r}]: holds values that are not finite")
        return values

    @sheltered
    def residual(self, fields: Mapping[str, Any]) -> Fields:
        """Return the relative residuals of physical fields; 1 is the equation's own scale.

        Args:
            fields: Channels [n, Y, X] and varying parameters [n] by name, as `sample` returns them.

        Returns:
            `l2`, `dual` and `boundary`, each [n].

        Raises:
            UserError: When channels or parameters are missing or wrong, or too large for the residual in their dtype.
        """
        joint = self.join(fields)
        squares = residual_squares(self.pde, self.grid, joint, params_beside(self.pde, fields, len(joint)))
        found = {name: square.sqrt() for name, square in squares.items()}
        if not all(torch.isfinite(values).all() for values in found.values()):
            raise UserError("fields: too large for the residual in their dtype; give float64, or smaller values")
        return found

    @sheltered
    def truths(self, n: int, seed: int = 0) -> Fields:
        """Solve the equation numerically for n inputs that no training saw, drawn as those of shard sets are.

        Args:
            n: Number of fields.
            seed: Seed of inputs and parameters.

        Returns:
            Fields and parameters, as `sample` returns them.

        Raises:
            UserError: When an argument is out of range, or scipy is missing.
        """
        n = as_int("n", n, 1)
        seed = as_int("seed", seed, 0)
        try:
            found = truths(self.pde, seed, range(UNSEEN, UNSEEN + n), self.grid)
        except ModuleNotFoundError as error:
            raise UserError(f"truths: {error.name} is missing, which solves; pip install 'pidscale[train]'") from None
        return self.split(found.fields.float()) | dict(zip(self.pde.varying, found.params.T, strict=True))

    @sheltered
    def null(self, fields: Mapping[str, Any]) -> Fields:
        """Return fields with a null solution for the same inputs: what a residual has to tell from a solution."""
        joint = self.join(fields)
        params = params_beside(self.pde, fields, len(joint))
        return self.split(self.pde.trivial(joint)) | dict(zip(self.pde.varying, params.T, strict=True))

    def refused(self, fields: Mapping[str, Tensor]) -> str:
        """Return a sentence on inputs that the solver steps behind fields had to replace; empty if they took all.

        Args:
            fields: Channels [..., Y, X] by name. Other names are ignored.

        Returns:
            The sentence.
        """
        if self.head == 0:
            return ""
        counts = self.pde.refused(torch.stack([fields[name] for name in self.channels], dim=-3).flatten(0, -4))
        if not counts.any():
            return ""
        inputs = ", ".join(channel.name for channel in self.pde.channels if channel.role == "input")
        return (
            f"{inputs}: {int(counts.sum())} values in {int((counts > 0).sum())} of {len(counts)} samples lie outside what a "
            f"solver of {self.pde.name} takes; the head's {self.head} steps used the nearest that it takes"
        )

    def _warn_of_refused(self, fields: Mapping[str, Tensor]) -> None:
        """Warn the caller of the public method that calls a function that calls this one."""
        if line := self.refused(fields):
            warnings.warn(line, stacklevel=5)

    def _sample(
        self,
        n: int,
        seed: int,
        batch: int,
        given: Mapping[str, Any] | None,
        make: Callable[[range, Tensor, Tensor], Tensor],
    ) -> Fields:
        """Return n samples by name, generated `batch` at a time.

        make: (counters, noise [b, C, Y, X], varying parameters [b, P]) -> physical fields [b, C, Y, X].
        """
        params = override_params(self.pde, self.params(range(n), seed), given)
        joint = torch.empty(0)
        for start in range(0, n, batch):
            counters = range(start, min(n, start + batch))
            part = make(counters, self.eps(counters, seed), params[start : counters.stop])
            if start == 0:  # all of them, so that too many for the memory are refused here, and none is held twice
                joint = torch.empty(n, *self.shape, dtype=part.dtype)
            if self.precision == "fp16" and not part.isfinite().all():
                raise UserError("precision=fp16: this network has values beyond float16; use bf16")
            joint[start : counters.stop] = part
        fields = self.split(joint)
        self._warn_of_refused(fields)
        return fields | dict(zip(self.pde.varying, params.T, strict=True))


@dataclass(frozen=True)
class Teacher(Generator):
    """A network trained by denoising, sampled by solving the probability-flow ODE.

    Example:
        >>> teacher = pidscale.load_teacher("runs/demo/teacher")
        >>> fields = teacher.sample(n=16, seed=0, steps=18)
    """

    @sheltered
    def generate(self, eps_BCYX: Tensor, params_BP: Tensor, steps: int = TEACHER_STEPS, solver: str = "heun") -> Tensor:
        """Generate fields from noise by solving the ODE, without gradients.

        Args:
            eps_BCYX: Standard normal noise.
            params_BP: Varying parameters.
            steps: Number of solver steps, 1 or more.
            solver: A name of `SOLVERS`.

        Returns:
            Fields [B, C, Y, X] in units of the model.

        Raises:
            UserError: When the solver is unknown, or the number of steps is below 1.
        """
        if solver not in SOLVERS:
            raise UserError(f"solver={solver!r}: expected one of {', '.join(SOLVERS)}")
        steps = as_int("steps", steps, 1)
        with torch.no_grad():
            return integrate(self.conditioned_on(params_BP), eps_BCYX, self.noise.levels(steps), solver)

    @sheltered
    def sample(
        self,
        n: int,
        seed: int = 0,
        batch: int = 64,
        steps: int = TEACHER_STEPS,
        solver: str = "heun",
        params: Mapping[str, Any] | None = None,
        head: int | None = None,
    ) -> Fields:
        """Generate samples. Sample i depends only on (seed, i), its parameters, `steps`, `solver` and `head`.

        An argument out of range raises a UserError that names it.

        Args:
            n: Number of samples.
            seed: Seed of noise and parameters.
            batch: Number of samples generated at once.
            steps: Number of solver steps.
            solver: A name of `SOLVERS`.
            params: Varying parameters by name, one number or [n]; parameters that are not given are drawn.
            head: Number of solver steps behind each field; None for those of this generator (`with_head`).

        Returns:
            Channels [n, Y, X] in physical units and varying parameters [n] by name, on the CPU.
        """
        n = as_int("n", n, 1, LARGEST_COUNT)
        batch = as_int("batch", batch, 1)
        seed = as_int("seed", seed, 0)
        generator = self if head is None else self.with_head(head)

        def make(counters: range, eps: Tensor, own: Tensor) -> Tensor:
            return generator.to_physical(self.generate(eps, own, steps, solver), own)

        return generator._sample(n, seed, batch, params, make)
