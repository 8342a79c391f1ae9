"""Load a consolidated generator and use it: `sample` for fields, `residual` for how well fields obey the equation.

Needs torch, numpy and safetensors only. Knows no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.config import UserError
from pidscale.diffusion.noise import EdmNoise
from pidscale.diffusion.normaliser import Normaliser
from pidscale.diffusion.solvers import SOLVERS, one_step, solve
from pidscale.models import build_denoiser
from pidscale.models.precondition import Denoiser
from pidscale.ops.grid import Grid
from pidscale.pde import build_pde
from pidscale.pde.base import Pde, residual_squares
from pidscale.student.artifact import read_card, read_weights

Fields = dict[str, Tensor]


@dataclass(frozen=True)
class Generator:
    """A one-step student or a teacher, ready to use on one device."""

    card: dict[str, Any]
    denoiser: Denoiser
    pde: Pde
    grid: Grid
    normaliser: Normaliser
    noise: EdmNoise
    device: torch.device

    @property
    def channels(self) -> list[str]:
        """Names of the physical fields, in the order of the joint field."""
        return [channel.name for channel in self.pde.channels]

    def eps(self, counters: range, seed: int, stream: str = "sample") -> Tensor:
        """Standard normal noise [n, C, Y, X] of these counters."""
        shape = (len(self.channels), *self.grid.shape)
        return seeds.normal(seed, stream, list(counters), shape, device=self.device)

    def generate(self, eps_BCYX: Tensor, steps: int | None = None, solver: str = "heun") -> Tensor:
        """Fields in the units of the model from noise: one call of a student, `steps` solver steps of a teacher."""
        with torch.no_grad():
            if self.card["kind"] == "student":
                if steps not in (None, 1):
                    raise UserError(f"steps={steps}: a student takes one step; load the teacher for more")
                return one_step(self.denoiser, eps_BCYX, self.noise.sigma_max)
            if (steps is not None and steps < 1) or solver not in SOLVERS:
                raise UserError(
                    f"steps={steps}, solver={solver!r}: expected 1 or more, and one of {', '.join(SOLVERS)}"
                )
            return solve(self.denoiser, eps_BCYX, self.noise.levels(steps or 18), solver)

    def sample(self, n: int, seed: int = 0, batch: int = 64, steps: int | None = None, solver: str = "heun") -> Fields:
        """Generate n samples: a dict of channel name to [n, Y, X] in physical units, on the CPU.

        Sample i depends on (seed, i) alone. batch: samples generated at once. steps, solver: for a teacher only.
        """
        if n < 1 or batch < 1:
            raise UserError(f"sample(n={n}, batch={batch}): expected 1 or more")
        parts = []
        for start in range(0, n, batch):
            noise = self.eps(range(start, min(n, start + batch)), seed)
            parts.append(self.normaliser.decode(self.generate(noise, steps, solver)).cpu())
        return self.split(torch.cat(parts))

    def split(self, physical_NCYX: Tensor) -> Fields:
        """Joint physical fields as a dict of channel name to [n, Y, X]."""
        return {name: physical_NCYX[:, i] for i, name in enumerate(self.channels)}

    def join(self, fields: Mapping[str, Any]) -> Tensor:
        """A dict of channel name to [n, Y, X] as joint fields [n, C, Y, X]. Raises UserError that names the channel."""
        parts = []
        for name in self.channels:
            if name not in fields:
                raise UserError(f"fields: channel {name!r} is missing; expected {', '.join(self.channels)}")
            values = torch.as_tensor(fields[name])
            if values.ndim != 3 or tuple(values.shape[1:]) != self.grid.shape:
                expected = f"[n, {self.grid.shape[0]}, {self.grid.shape[1]}]"
                raise UserError(f"fields[{name!r}]: shape {tuple(values.shape)}, expected {expected}")
            if not torch.isfinite(values).all():
                raise UserError(f"fields[{name!r}]: holds values that are not finite")
            parts.append(values if values.dtype == torch.float64 else values.float())
        if len({len(p) for p in parts}) > 1:
            raise UserError(f"fields: {[len(p) for p in parts]} samples in the channels, expected the same number")
        return torch.stack(parts, dim=1)

    def residual(self, fields: Mapping[str, Any]) -> Fields:
        """Relative residuals of physical fields, each [n]: `l2`, `dual`, `boundary`; 1 is the equation's own scale."""
        return {k: v.sqrt() for k, v in residual_squares(self.pde, self.grid, self.join(fields)).items()}


def load_student(path: str | Path, device: str | torch.device = "cpu") -> Generator:
    """Load a consolidated student, or a teacher in the same form, from its folder.

    Raises UserError with one clear line where a file is missing, truncated or altered, or is no generator.
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={str(device)!r}: this torch sees no GPU; use device='cpu'")
    card = read_card(path)
    weights = read_weights(path, card)
    try:
        denoiser = build_denoiser(card["architecture"], card["noise"]["sigma_data"], "fp32")
        denoiser.load_state_dict(weights)
        pde = build_pde(card["equation"]["name"], card["equation"]["params"])
        normaliser = Normaliser(tuple(card["normaliser"]["mean"]), tuple(card["normaliser"]["std"]))
        noise, grid = EdmNoise(**card["noise"]), Grid.from_description(card["grid"])
        if {len(normaliser.mean), len(normaliser.std)} != {len(pde.channels)}:
            raise ValueError(f"the normaliser does not have the {len(pde.channels)} channels of {pde.name}")
    except (UserError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: card and weights do not fit together ({reason}); copy the folder again") from None
    denoiser = denoiser.to(device).eval().requires_grad_(False)
    return Generator(card, denoiser, pde, grid, normaliser, noise, torch.device(device))
