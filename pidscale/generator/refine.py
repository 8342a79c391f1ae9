"""Refinement of finished samples (PIDDM-ref): descend the residual over the noise that a student made them from.

    minimise over eps   sum_k R_k(d(eps))^2 / s_k^2  +  (mean |x - x0|^2 + mean |eps - eps0|^2) / tau^2

with k: l2, dual, boundary. The first term is that of Zhang et al., Physics-informed distillation of diffusion models, ICML
2026. x is the field d(eps) in standard deviations of its channels; x0 and eps0 are those of the sample as it was drawn.

The second term keeps a sample near the one that was drawn: in eps, for which the student was trained, and in the field,
because distance in eps alone does not preserve the size of a field. The size depends on a few strong modes, which hardly
count among thousands of values of eps, and where the zero field obeys the equation (linear equations without a fixed source)
the descent leads there. Both distances are means over the values of a sample, as R_k^2 is, so that tau has the same meaning
on every grid: the distance that costs as much as one scale s_k. Knows no files and no ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pidscale.generator.arguments import LARGEST_COUNT, Progress, as_amount, as_int, override_params
from pidscale.generator.one_step import OneStepGenerator
from pidscale.generator.scales import residual_floor, residual_scales
from pidscale.generator.tasks.descend import minimise
from pidscale.pde.residuals import residual_squares
from pidscale.pde.terms import NORMS


@dataclass(frozen=True)
class Refined:
    """Samples before and after refinement, on the CPU.

    Attributes:
        fields: Refined channels [n, Y, X] in physical units and varying parameters [n], by name.
        before: Relative residuals of the samples as they were drawn, each [n], by term.
        after: Relative residuals of the refined samples, each [n], by term.
        changed: Root mean square distance of the fields from those that were drawn, in standard deviations of their
            channels, [n].
        moved: Root mean square distance of eps from the noise that was drawn, [n]; for two draws it is about sqrt(2).
        size: Root mean square of the final eps, [n]; for noise it is about 1.
        variance: Variance over the samples relative to that before, by channel; empty for one sample.
        eps: The final eps [n, C, Y, X].
        calls: Evaluations (a network call and its gradient) of each sample, int [n].
    """

    fields: dict[str, Tensor]
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    changed: Tensor
    moved: Tensor
    size: Tensor
    variance: dict[str, float]
    eps: Tensor
    calls: Tensor


def refine(
    generator: OneStepGenerator,
    n: int,
    seed: int = 0,
    steps: int = 20,
    tau: float = 0.5,
    floor: float | None = None,
    params: Mapping[str, Any] | None = None,
    batch: int = 64,
    optimiser: str = "lbfgs",
    stream: str = "sample",
    progress: Progress | None = None,
) -> Refined:
    """Lower the residual of the samples that `sample(n, seed)` returns.

    An argument out of range raises a UserError that names it.

    Args:
        generator: The student.
        n: Number of samples.
        seed: Seed of noise and parameters.
        steps: Largest number of evaluations (a network call and its gradient) for each sample.
        tau: Distance that costs as much as one residual scale.
        floor: Relative l2 residual at which the descent of a sample ends; None for `residual_floor`.
        params: Varying parameters by name, as in `sample`.
        batch: Number of samples refined at once.
        optimiser: `lbfgs` or `adam`.
        stream: Random stream of noise and parameters; the default is that of `sample`.
        progress: Called after every evaluation.

    Returns:
        The samples before and after refinement.
    """
    n = as_int("n", n, 1, LARGEST_COUNT)
    seed = as_int("seed", seed, 0)
    steps = as_int("steps", steps, 1)
    batch = as_int("batch", batch, 1)
    tau = as_amount("tau", tau)
    floor = residual_floor(generator) if floor is None else as_amount("floor", floor)
    drawn = override_params(generator.pde, generator.params(range(n), seed, stream), params)
    scales = residual_scales(generator)
    parts = []
    for first in range(0, n, batch):
        rows = range(first, min(n, first + batch))

        def report(done: int, energy: float, first: int = first) -> None:
            if progress is not None:
                progress((first // batch) * steps + done, -(-n // batch) * steps, f"energy {energy:.4g}")

        eps = generator.eps(rows, seed, stream)
        own = drawn[rows.start : rows.stop]
        parts.append(_descend(generator, eps, own, scales, tau, floor, steps, optimiser, report))
    return _gathered(generator, parts, drawn)


def refine_from(
    generator: OneStepGenerator,
    eps_BCYX: Tensor,
    params_BP: Tensor,
    steps: int = 20,
    tau: float = 0.5,
    optimiser: str = "lbfgs",
) -> Refined:
    """Refine the samples of given noise as one batch. An unknown optimiser raises a UserError.

    Args:
        generator: The student.
        eps_BCYX: Noise of the samples.
        params_BP: Varying parameters of the samples.
        steps: Largest number of evaluations for each sample.
        tau: Distance that costs as much as one residual scale.
        optimiser: `lbfgs` or `adam`.

    Returns:
        The samples before and after refinement.
    """

    def report(done: int, energy: float) -> None:
        """Report nothing."""

    scales = residual_scales(generator)
    floor = residual_floor(generator)
    part = _descend(generator, eps_BCYX, params_BP, scales, tau, floor, steps, optimiser, report)
    return _gathered(generator, [part], params_BP)


def _descend(
    generator: OneStepGenerator,
    eps0_BCYX: Tensor,
    params_BP: Tensor,
    scales: Mapping[str, float],
    tau: float,
    floor: float,
    steps: int,
    optimiser: str,
    report: Callable[[int, float], None],
) -> dict[str, Tensor]:
    """Refine one batch. Returns fields and residuals before and after, eps, distances and calls by name, on the CPU."""
    start = eps0_BCYX.flatten(1)
    units = generator.normaliser

    def squares(x: Tensor, params: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        fields = generator.differentiable(x.unflatten(1, eps0_BCYX.shape[1:]), params)
        return fields, residual_squares(generator.pde, generator.grid, fields, params)

    def change(fields: Tensor, rows: Tensor | slice) -> Tensor:
        return ((units.encode(fields) - units.encode(old[rows])) / units.sigma_data).flatten(1)

    def energy(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        fields, found = squares(x, params_BP[rows.cpu()])
        away = change(fields, rows).square().mean(dim=1) + (x - start[rows]).square().mean(dim=1)
        physical = torch.stack([found[k] / scales[k] for k in NORMS]).sum(dim=0)
        return physical + away / tau**2, found["l2"].detach() <= floor**2

    with torch.no_grad():
        old, before = squares(start, params_BP)
    best = minimise(energy, start, steps, optimiser, report)
    with torch.no_grad():
        new, after = squares(best.x_BD, params_BP)
    residuals = {f"before {k}": v.sqrt() for k, v in before.items()}
    residuals |= {f"after {k}": v.sqrt() for k, v in after.items()}
    away = {"changed": change(new, slice(None)), "moved": best.x_BD - start, "size": best.x_BD}
    distances = {name: values.square().mean(dim=1).sqrt() for name, values in away.items()}
    eps = best.x_BD.reshape(eps0_BCYX.shape)
    found = {"old": old, "new": new, "eps": eps, "calls": best.calls_B, **residuals, **distances}
    return {name: values.detach().cpu() for name, values in found.items()}


def _gathered(generator: OneStepGenerator, parts: list[dict[str, Tensor]], params_NP: Tensor) -> Refined:
    """Return all batches as one set of samples."""
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    variance = {}
    if len(params_NP) > 1:
        old, new = (found[name].double().var(dim=0).flatten(1).sum(dim=1) for name in ("old", "new"))
        ratio = new / old.clamp_min(torch.finfo(old.dtype).tiny)
        variance = dict(zip(generator.channels, ratio.tolist(), strict=True))
    return Refined(
        fields=generator.split(found["new"]) | dict(zip(generator.pde.varying, params_NP.T, strict=True)),
        before={k: found[f"before {k}"] for k in NORMS},
        after={k: found[f"after {k}"] for k in NORMS},
        changed=found["changed"],
        moved=found["moved"],
        size=found["size"],
        variance=variance,
        eps=found["eps"],
        calls=found["calls"],
    )
