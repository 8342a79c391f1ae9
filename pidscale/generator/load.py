"""Load a consolidated generator and use it: `sample` for fields, `residual` for how well fields obey the equation, `refine`
for less of it; `forward`, `inverse`, `reconstruct` and `posterior` for fields that agree with what is known (tasks.py).

Needs torch, numpy and safetensors only. Knows no ranks.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.caller import sheltered
from pidscale.config import SOLVERS, UserError
from pidscale.diffusion.denoiser import Denoiser, conditioned
from pidscale.diffusion.noise import Noise, noise_from
from pidscale.diffusion.normaliser import Normaliser
from pidscale.diffusion.solvers import integrate, one_step
from pidscale.generator.arguments import as_int, beside, chosen, device_of, real
from pidscale.generator.artifact import TEACHER, read_card, read_weights
from pidscale.generator.more_calls import more_calls
from pidscale.generator.refine import Refined, refine
from pidscale.generator.tasks.energy import Answer, search_from, solve_task
from pidscale.generator.tasks.observations import Observation, observe, warnings_for
from pidscale.generator.tasks.posterior import Posterior, posterior
from pidscale.models import build_denoiser
from pidscale.models.precondition import PreconditionedNetwork
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.paths import expanded
from pidscale.pde import stored_pde
from pidscale.pde.base import Pde, condition, draw_params, residual_squares
from pidscale.pde.constraints import check_constraints, constrain
from pidscale.precision import float32_island

Fields = dict[str, Tensor]


@dataclass(frozen=True)
class Generator:
    """A one-step student or a teacher, ready to use on one device."""

    card: dict[str, Any]
    denoiser: PreconditionedNetwork
    pde: Pde
    grid: Grid
    normaliser: Normaliser
    noise: Noise
    device: torch.device
    teacher: Generator | None = None  # that goes on from a student's samples

    @property
    def channels(self) -> list[str]:
        """Names of the physical fields, in the order of the joint field."""
        return [channel.name for channel in self.pde.channels]

    @sheltered
    def eps(self, counters: range, seed: int, stream: str = "sample") -> Tensor:
        """Standard normal noise [n, C, Y, X] of these counters."""
        shape = (len(self.channels), *self.grid.shape)
        return seeds.normal(seed, stream, list(counters), shape, device=self.device)

    @sheltered
    def params(self, counters: range, seed: int, stream: str = "sample") -> Tensor:
        """The parameters [n, P] that vary from sample to sample, drawn for these counters; on the CPU, in float64."""
        return draw_params(self.pde, seed, stream, counters)

    def conditioned_on(self, params_BP: Tensor) -> Denoiser:
        """The denoiser of samples with these parameters."""
        return conditioned(self.denoiser, condition(self.pde, params_BP).to(self.device))

    @sheltered
    def generate(self, eps_BCYX: Tensor, params_BP: Tensor, steps: int | None = None, solver: str = "heun") -> Tensor:
        """Fields in the units of the model from noise: one call of a student, `steps` solver steps of a teacher."""
        with torch.no_grad():
            if solver not in SOLVERS:
                raise UserError(f"solver={solver!r}: expected one of {', '.join(SOLVERS)}")
            steps = None if steps is None else as_int("steps", steps, 1)
            if self.card["kind"] == "student":
                if steps not in (None, 1):
                    raise UserError(f"steps={steps}: a student takes one step; load the teacher for more")
                return one_step(self.conditioned_on(params_BP), eps_BCYX, self.noise.sigma_max, self.card.get("told"))
            return integrate(self.conditioned_on(params_BP), eps_BCYX, self.noise.levels(steps or 18), solver)

    @property
    def constraints(self) -> tuple[str, ...]:
        """Hard constraints that its output is held to; a card that names none holds it to none."""
        return tuple(self.card.get("constraints", ()))

    def physical(self, eps_BCYX: Tensor, params_BP: Tensor, steps: int | None = None, solver: str = "heun") -> Tensor:
        """`generate` in physical units, under the constraints of the card."""
        return self.finished(self.generate(eps_BCYX, params_BP, steps, solver))

    @sheltered
    def finished(self, x_BCYX: Tensor) -> Tensor:
        """Fields of the model in physical units, under the constraints of the card."""
        return constrain(self.pde, Window(self.grid), self.constraints, self.normaliser.decode(x_BCYX))

    def differentiable(self, eps_BCYX: Tensor, params_BP: Tensor) -> Tensor:
        """One call's fields in physical units under the constraints of the card, with gradients to noise and parameters.

        Raises UserError for a teacher, whose fields are dozens of calls away from their noise.
        """
        if self.card["kind"] != "student":
            raise UserError("a teacher cannot refine or solve tasks: load the student distilled from it")
        if torch.is_inference_mode_enabled():
            raise UserError("torch.inference_mode() is on: a search needs gradients; call it outside")
        with float32_island(self.device):
            told = self.conditioned_on(params_BP.cpu())  # which takes float64, and some devices hold none
            x = one_step(told, eps_BCYX, self.noise.sigma_max, self.card.get("told"))
        return self.finished(x)

    @sheltered
    def refine(self, n: int, seed: int = 0, steps: int = 20, **how: Any) -> Refined:
        """The samples of `sample(n, seed)` with less residual, and how far they went: see refine.py."""
        return refine(self, n, seed, steps, **how)

    @sheltered
    def forward(self, inputs: Any, sigma: Any = None, params: Mapping[str, Any] | None = None, **search: Any) -> Answer:
        """Fields whose inputs are these: coefficient, source or initial state, [Y, X] or [n, Y, X] in physical units."""
        return self._solve(self._observed("forward", inputs, None, sigma), params, search)

    @sheltered
    def inverse(
        self, solution: Any, sigma: Any = None, params: Mapping[str, Any] | None = None, **search: Any
    ) -> Answer:
        """Fields whose solution is this."""
        return self._solve(self._observed("inverse", solution, None, sigma), params, search)

    @sheltered
    def reconstruct(
        self, values: Any, mask: Any = None, sigma: Any = None, params: Mapping[str, Any] | None = None, **search: Any
    ) -> Answer:
        """Fields that have these values where `mask` is true; where values are finite, if there is no mask."""
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
        """`count` fields that agree with noisy values of a task (`forward`, `inverse` or `reconstruct`): see posterior.py."""
        observation = self._observed(task, values, mask, sigma)
        return posterior(self, observation, count, params, search_from(search, physics=0.0))

    def _solve(self, known: Observation, params: Mapping[str, Any] | None, search: dict[str, Any]) -> Answer:
        return solve_task(self, known, params, search_from(search))

    def _observed(self, task: str, values: Any, mask: Any, sigma: Any) -> Observation:
        observation = observe(self, task, values, mask, sigma)
        for line in warnings_for(self, observation):
            warnings.warn(line.removeprefix("warning: "), stacklevel=4)  # where the task was asked
        return observation

    @sheltered
    def sample(
        self,
        n: int,
        seed: int = 0,
        batch: int = 64,
        steps: int | None = None,
        solver: str = "heun",
        params: Mapping[str, Any] | None = None,
        nfe: int = 1,
    ) -> Fields:
        """Generate n samples: a dict of channel name to [n, Y, X] in physical units, on the CPU.

        Where an equation has parameters that vary from sample to sample, they stand in the dict too, [n] each: drawn from
        their ranges, or as `params` says (name to a number or [n]). Sample i depends on (seed, i) and its parameters alone.
        batch: samples generated at once. steps, solver: for a teacher only. nfe: network calls of a student that has its
        teacher with it, 1 for the student alone (more_calls.py).
        """
        n, batch, seed, nfe = (
            as_int("n", n, 1),
            as_int("batch", batch, 1),
            as_int("seed", seed, 0),
            as_int("nfe", nfe, 1),
        )
        if nfe > 1 and (self.card["kind"] == "teacher" or steps is not None):
            raise UserError(f"nfe={nfe}: network calls of a student; a teacher takes steps=")
        if nfe > 1 and solver != "heun":
            raise UserError(f"solver={solver!r}: of a teacher's steps; leave it away beside nfe={nfe}")
        told = chosen(self.pde, self.params(range(n), seed), params)
        parts = []
        for start in range(0, n, batch):
            counters, own = range(start, min(n, start + batch)), told[start : start + batch]
            noise = self.eps(counters, seed)
            if nfe > 1:
                again = self.eps(counters, seed, "sample/again")
                parts.append(self.finished(more_calls(self, noise, again, own, nfe - 1)).cpu())
            else:
                parts.append(self.physical(noise, own, steps, solver).cpu())
        return self.split(torch.cat(parts)) | dict(zip(self.pde.varying, told.T, strict=True))

    def split(self, physical_NCYX: Tensor) -> Fields:
        """Joint physical fields as a dict of channel name to [n, Y, X]."""
        return {name: physical_NCYX[:, i] for i, name in enumerate(self.channels)}

    @sheltered
    def join(self, fields: Mapping[str, Any]) -> Tensor:
        """A dict of channel name to [n, Y, X] as joint fields [n, C, Y, X]. Raises UserError that names the channel."""
        if not isinstance(fields, Mapping):
            raise UserError(f"fields: a {type(fields).__name__}, expected a dict of {', '.join(self.channels)}")
        parts = []
        for name in self.channels:
            if name not in fields:
                raise UserError(f"fields: channel {name!r} is missing; expected {', '.join(self.channels)}")
            values = real(f"fields[{name!r}]", fields[name])
            if values.ndim != 3 or tuple(values.shape[1:]) != self.grid.shape or len(values) == 0:
                expected = f"[n, {self.grid.shape[0]}, {self.grid.shape[1]}] with n of 1 or more"
                raise UserError(f"fields[{name!r}]: shape {tuple(values.shape)}, expected {expected}")
            if not torch.isfinite(values).all():
                raise UserError(f"fields[{name!r}]: holds values that are not finite")
            parts.append(values)
        if len({len(p) for p in parts}) > 1:
            raise UserError(f"fields: {[len(p) for p in parts]} samples in the channels, expected the same number")
        return torch.stack(parts, dim=1)

    @sheltered
    def residual(self, fields: Mapping[str, Any]) -> Fields:
        """Relative residuals of physical fields, each [n]: `l2`, `dual`, `boundary`; 1 is the equation's own scale."""
        joint = self.join(fields)
        squares = residual_squares(self.pde, self.grid, joint, beside(self.pde, fields, len(joint)))
        found = {k: v.sqrt() for k, v in squares.items()}
        if not all(torch.isfinite(v).all() for v in found.values()):
            raise UserError("fields: too large for the residual in their precision; give float64, or smaller values")
        return found


@sheltered
def load_student(path: str | Path, device: str | torch.device = "cpu", teacher: str | Path | None = None) -> Generator:
    """Load a consolidated student, or a teacher in the same form, from its folder.

    teacher: the folder of a student's teacher, for more calls than one; the one that lies in its own folder, if one does.
    Raises UserError with one clear line where a file is missing, truncated or altered, or is no generator.
    """
    if not isinstance(path, (str, Path)):
        raise UserError(f"load_student({path!r}): expected the path of a folder")
    path = expanded(path, "path")
    where = device_of(device)
    card = read_card(path)
    weights = read_weights(path, card)
    pde = stored_pde(str(path), card["equation"].get("name"), card["equation"].get("params"))
    try:
        with torch.device("meta"):  # shapes alone: no random weights are drawn that the file's would replace
            denoiser = build_denoiser(card["architecture"], card["noise"]["sigma_data"], "fp32")
        own = {name: values.to(torch.float32, copy=True) for name, values in weights.items()}
        denoiser.load_state_dict(own, assign=True)
        if card["architecture"].get("conditions", 0) != len(pde.varying):
            raise ValueError(f"the network is not told the {len(pde.varying)} varying parameters of {pde.name}")
        check_constraints(pde, card.get("constraints", ()))
        normaliser = Normaliser(tuple(card["normaliser"]["mean"]), tuple(card["normaliser"]["std"]))
        noise, grid = noise_from(card["noise"]), Grid.from_description(card["grid"])
        if not 0 < float(card.get("told") or noise.sigma_max) <= noise.sigma_max:
            raise ValueError(f"told={card['told']!r}: expected a level up to {noise.sigma_max:g}")
        if len(normaliser.mean) != len(pde.channels):
            raise ValueError(f"the normaliser does not have the {len(pde.channels)} channels of {pde.name}")
    except (UserError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise UserError(f"{path}: card and weights do not fit together ({reason}); copy the folder again") from None
    denoiser = denoiser.to(where).eval().requires_grad_(False)
    alone = Generator(card, denoiser, pde, grid, normaliser, noise, where)
    beside_it = Path(path) / TEACHER if teacher is None and (Path(path) / TEACHER).is_dir() else teacher
    return alone if beside_it is None else _taught(alone, path, beside_it)


def _taught(student: Generator, path: str | Path, folder: str | Path) -> Generator:
    """A student with its teacher. Raises UserError where that is none, or another's."""
    teacher, wanted = load_student(folder, student.device), student.card["provenance"].get("teacher")
    if student.card["kind"] != "student" or teacher.card["kind"] != "teacher":
        raise UserError(
            f"{folder}: a {teacher.card['kind']} for a {student.card['kind']}; name a student and its teacher"
        )
    if teacher.card["weights"]["sha256"] != wanted:
        raise UserError(f"{folder}: not the teacher that {path} was distilled from; name that one")
    return replace(student, teacher=teacher)


def check_fits(generator: Generator, path: str | Path, pde: Pde, grid: Grid, remedy: str) -> None:
    """Raise UserError unless a generator is of this equation, with these parameters, on this grid."""
    for key, have, want in (
        ("equation", _equation(generator.pde), _equation(pde)),
        ("grid", generator.grid.describe(), grid.describe()),
    ):
        if have != want:
            kind = generator.card["kind"]
            raise UserError(f"{path}: {kind} of {key} {have}, the settings say {want}; {remedy}")


def _equation(pde: Pde) -> str:
    return ", ".join([pde.name, *(f"{k}={v}" for k, v in sorted(pde.params_dict().items()))])
