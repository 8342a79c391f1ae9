"""A loaded generator of fields: what teachers and students share, a teacher, and the one-call map of a student.

Needs torch and numpy only. Knows no files and no ranks. Shapes: eps_BCYX standard normal noise, x_BCYX fields in the units
of the model, params_BP parameters that vary from sample to sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.caller import sheltered
from pidscale.config import SOLVERS, UserError
from pidscale.diffusion.denoiser import Denoiser, conditioned
from pidscale.diffusion.noise import Noise
from pidscale.diffusion.normaliser import Normaliser
from pidscale.diffusion.solvers import integrate, one_step
from pidscale.generator.arguments import as_int, beside, chosen, real
from pidscale.generator.card import Card
from pidscale.models.precondition import PreconditionedNetwork
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.pde.base import Pde
from pidscale.pde.constraints import constrain
from pidscale.pde.parameters import condition, draw_params
from pidscale.pde.residuals import residual_squares
from pidscale.precision import float32_island

Fields = dict[str, Tensor]
TEACHER_STEPS = 18  # Heun steps of a teacher's sample where nothing else is asked for


@dataclass(frozen=True)
class Generator(ABC):
    """A trained network with its equation and units, ready to use on one device.

    Attributes:
        card: What its file says of it.
        denoiser: The network D(x, sigma).
        pde: The equation.
        grid: The grid that it makes fields on.
        normaliser: Between physical units and those of the model.
        noise: The noise schedule.
        device: Where it computes.
    """

    card: Card
    denoiser: PreconditionedNetwork
    pde: Pde
    grid: Grid
    normaliser: Normaliser
    noise: Noise
    device: torch.device

    @property
    def channels(self) -> list[str]:
        """Names of the physical fields, in the order of the joint field."""
        return [channel.name for channel in self.pde.channels]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape [C, Y, X] of one joint field."""
        return len(self.pde.channels), *self.grid.shape

    @sheltered
    def eps(self, counters: range, seed: int, stream: str = "sample") -> Tensor:
        """Return standard normal noise [n, C, Y, X] of these counters, on the generator's device."""
        return seeds.normal(seed, stream, list(counters), self.shape, device=self.device)

    @sheltered
    def params(self, counters: range, seed: int, stream: str = "sample") -> Tensor:
        """Return the varying parameters [n, P] drawn for these counters, on the CPU in float64."""
        return draw_params(self.pde, seed, stream, counters)

    def conditioned_on(self, params_BP: Tensor) -> Denoiser:
        """Return the denoiser of samples with these parameters."""
        return conditioned(self.denoiser, condition(self.pde, params_BP).to(self.device))

    @abstractmethod
    def generate(self, eps_BCYX: Tensor, params_BP: Tensor) -> Tensor:
        """Return fields in the units of the model from noise, without gradients."""

    def physical(self, eps_BCYX: Tensor, params_BP: Tensor) -> Tensor:
        """Return what `generate` makes in physical units, under the constraints of the card."""
        return self.finished(self.generate(eps_BCYX, params_BP))

    @sheltered
    def finished(self, x_BCYX: Tensor) -> Tensor:
        """Return fields of the model in physical units, under the constraints of the card."""
        return constrain(self.pde, Window(self.grid), self.card.constraints, self.normaliser.decode(x_BCYX))

    def split(self, physical_NCYX: Tensor) -> Fields:
        """Return joint physical fields as a dict of channel name to [n, Y, X]."""
        return {name: physical_NCYX[:, i] for i, name in enumerate(self.channels)}

    @sheltered
    def join(self, fields: Mapping[str, Any]) -> Tensor:
        """Return a dict of channel name to [n, Y, X] as joint fields.

        Args:
            fields: Arrays or tensors of real numbers by channel name, in physical units. Other names are ignored.

        Returns:
            Joint fields [n, C, Y, X].

        Raises:
            UserError: When a channel is missing or has a wrong shape or values that are not finite; names the channel.
        """
        if not isinstance(fields, Mapping):
            raise UserError(f"fields: a {type(fields).__name__}, expected a dict of {', '.join(self.channels)}")
        parts = [self._joined(name, fields) for name in self.channels]
        if len({len(p) for p in parts}) > 1:
            raise UserError(f"fields: {[len(p) for p in parts]} samples in the channels, expected the same number")
        return torch.stack(parts, dim=1)

    def _joined(self, name: str, fields: Mapping[str, Any]) -> Tensor:
        """One channel [n, Y, X], checked."""
        if name not in fields:
            raise UserError(f"fields: channel {name!r} is missing; expected {', '.join(self.channels)}")
        values = real(f"fields[{name!r}]", fields[name])
        if values.ndim != 3 or tuple(values.shape[1:]) != self.grid.shape or len(values) == 0:
            expected = f"[n, {self.grid.shape[0]}, {self.grid.shape[1]}] with n of 1 or more"
            raise UserError(f"fields[{name!r}]: shape {tuple(values.shape)}, expected {expected}")
        if not torch.isfinite(values).all():
            raise UserError(f"fields[{name!r}]: holds values that are not finite")
        return values

    @sheltered
    def residual(self, fields: Mapping[str, Any]) -> Fields:
        """Return relative residuals of physical fields; 1 is the equation's own scale.

        Args:
            fields: As `sample` returns them: channels [n, Y, X], and the varying parameters beside them.

        Returns:
            `l2`, `dual` and `boundary`, each [n].

        Raises:
            UserError: When fields or parameters are missing or wrong, or too large for the residual in their precision.
        """
        joint = self.join(fields)
        squares = residual_squares(self.pde, self.grid, joint, beside(self.pde, fields, len(joint)))
        found = {name: square.sqrt() for name, square in squares.items()}
        if not all(torch.isfinite(values).all() for values in found.values()):
            raise UserError("fields: too large for the residual in their precision; give float64, or smaller values")
        return found

    def _drawn(self, n: int, seed: int, params: Mapping[str, Any] | None) -> Tensor:
        """The parameters [n, P] of n samples: drawn, or as the caller gives them."""
        return chosen(self.pde, self.params(range(n), seed), params)

    def _named(self, physical_NCYX: Tensor, params_NP: Tensor) -> Fields:
        """Fields and parameters by name."""
        return self.split(physical_NCYX) | dict(zip(self.pde.varying, params_NP.T, strict=True))

    def _batched(self, n: int, seed: int, batch: int, params_NP: Tensor, make: Callable[..., Tensor]) -> Fields:
        """n samples, `batch` at a time. make: (counters, noise [b, C, Y, X], parameters [b, P]) -> physical fields."""
        parts = []
        for start in range(0, n, batch):
            counters = range(start, min(n, start + batch))
            parts.append(make(counters, self.eps(counters, seed), params_NP[start : counters.stop]).cpu())
        return self._named(torch.cat(parts), params_NP)


@dataclass(frozen=True)
class Teacher(Generator):
    """A network trained by denoising, sampled by solving the probability-flow ODE.

    Example:
        >>> teacher = pidscale.load_teacher("runs/demo/teacher")
        >>> fields = teacher.sample(n=16, seed=0, steps=18)
    """

    @sheltered
    def generate(self, eps_BCYX: Tensor, params_BP: Tensor, steps: int = TEACHER_STEPS, solver: str = "heun") -> Tensor:
        """Return fields in the units of the model from noise, without gradients.

        Args:
            eps_BCYX: Standard normal noise.
            params_BP: Varying parameters.
            steps: Solver steps.
            solver: A name of `SOLVERS`.

        Returns:
            Fields [B, C, Y, X].

        Raises:
            UserError: For an unknown solver, or a number of steps below 1.
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
    ) -> Fields:
        """Generate samples. Sample i depends on (seed, i), its parameters, steps and solver alone.

        Args:
            n: Number of samples.
            seed: Seed of their noise and parameters.
            batch: Samples generated at once.
            steps: Solver steps.
            solver: A name of `SOLVERS`.
            params: Varying parameters by name, a number or [n]; drawn from their ranges where not given.

        Returns:
            Channel name to [n, Y, X] in physical units, and varying parameter name to [n], on the CPU.

        Raises:
            UserError: When an argument is out of range; names the argument.
        """
        n = as_int("n", n, 1)
        batch = as_int("batch", batch, 1)
        seed = as_int("seed", seed, 0)

        def make(counters: range, eps: Tensor, own: Tensor) -> Tensor:
            return self.finished(self.generate(eps, own, steps, solver))

        return self._batched(n, seed, batch, self._drawn(n, seed, params), make)


@dataclass(frozen=True)
class OneCall(Generator):
    """The map of a student: a field from noise in one network call, d(eps) = D(sigma_max eps, sigma_max).

    What tasks and refinement need of a student; `student.Student` adds what its users call.
    """

    @sheltered
    def generate(self, eps_BCYX: Tensor, params_BP: Tensor) -> Tensor:
        """Return fields in the units of the model from noise, by one network call without gradients."""
        with torch.no_grad():
            return self._call(self.conditioned_on(params_BP), eps_BCYX)

    def differentiable(self, eps_BCYX: Tensor, params_BP: Tensor) -> Tensor:
        """Return one call's physical fields under the constraints, with gradients to noise and parameters.

        Args:
            eps_BCYX: Noise.
            params_BP: Varying parameters.

        Returns:
            Physical fields [B, C, Y, X].

        Raises:
            UserError: When torch.inference_mode() is on, which rules gradients out.
        """
        if torch.is_inference_mode_enabled():
            raise UserError("torch.inference_mode() is on: a search needs gradients; call it outside")
        with float32_island(self.device):
            network = self.conditioned_on(params_BP.cpu())  # which takes float64, and some devices hold none
            x = self._call(network, eps_BCYX)
        return self.finished(x)

    def _call(self, network: Denoiser, eps_BCYX: Tensor) -> Tensor:
        return one_step(network, eps_BCYX, self.noise.sigma_max, self.card.network_level)
