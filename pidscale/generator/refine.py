"""Refinement of finished samples (PIDDM-ref): descend the residual over the noise that a student made them from.

    minimise over eps   sum_k R_k(d(eps))^2 / s_k^2  +  (mean |x - x0|^2 + mean |eps - eps0|^2) / tau^2      k: l2, dual,
    boundary

(Zhang et al., Physics-informed distillation of diffusion models, ICML 2026, who descend the residual alone.) x is the field
in standard deviations of its channels. The second term keeps a sample near the one that was drawn: in eps, for which the
student was made, and in the field, because eps alone does not hold its size. That hangs on a handful of strong modes, which
hardly count among thousands of values; and where an equation holds for the field that is nothing (linear ones without a
fixed source), the descent leads there. Means over the values of a sample, as R_k^2 is one, so that tau means the same on
every grid: the distance that costs as much as one s_k. Knows no files and no ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.generator.arguments import amount, as_int, chosen
from pidscale.generator.generator import OneCall
from pidscale.generator.tasks.descend import minimise
from pidscale.pde.parameters import draw_params
from pidscale.pde.residuals import residual_squares
from pidscale.pde.terms import NORMS

Progress = Callable[[int, int, str], None]
"""Told how many evaluations are done, of how many at most, and a note."""

MEASURED = 16  # own samples that scales are measured on where a card has none
LEAST_SCALE = 1e-4  # s^2 at least, as in training: a hundredth of the equation's own scale
USUAL_FLOOR = 0.01  # the l2 residual that ends a descent where an older card does not hold the truths' own


@dataclass(frozen=True)
class Refined:
    """Samples before and after a descent, n of them.

    fields: as `sample` gives them, on the CPU. changed: root mean square distance of the fields from where they began, in
    standard deviations of their channels, [n]. before, after: relative residuals, each [n]: `l2`, `dual`, `boundary`.
    moved: root mean square distance of eps from where it began, [n]; two draws are sqrt(2) apart. size: root mean square of
    the final eps, [n]; noise has 1. variance: by channel, over samples, relative to that before; empty for one sample. eps
    [n, C, Y, X] as found. calls: network evaluations with their gradient, int [n].
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


def residual_scales(generator: OneCall) -> dict[str, float]:
    """s_k^2 by term: those that the student was distilled with, else mean squares over fixed samples of its own.

    Either is a function of the student alone, so that a sample's result does not depend on what it is refined with.
    """
    known = generator.card.provenance.scales
    if known is not None and all(k in known for k in NORMS):
        return {k: known[k] for k in NORMS}
    counters, shape = range(MEASURED), (len(generator.channels), *generator.grid.shape)
    eps = seeds.normal(0, "scales", list(counters), shape, device=generator.device)
    params = draw_params(generator.pde, 0, "scales", counters)
    with torch.no_grad():
        squares = residual_squares(
            generator.pde, generator.grid, generator.differentiable(eps, params).detach(), params
        )
    return {k: max(float(squares[k].mean()), LEAST_SCALE) for k in NORMS}


def floor_of(generator: OneCall) -> float:
    """The truths' own l2 residual, which the card has had since the student was published; else 0.01 of the equation's scale.

    What a report says of the student is not looked at: it comes later, and an answer may not depend on when it is asked for.
    """
    return generator.card.provenance.residual_floor or USUAL_FLOOR


def refine(
    generator: OneCall,
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
    """The samples that `sample(n, seed)` gives, with less residual: at most `steps` evaluations of each.

    floor: relative l2 residual at which a sample is left as it is; None takes `floor_of`. tau: see above. params: as in
    `sample`. batch: samples refined at once. optimiser: `lbfgs` or `adam`. stream: of the noise, that of `sample`. Raises
    UserError for a teacher and for what is no such number.
    """
    n = as_int("n", n, 1)
    seed = as_int("seed", seed, 0)
    steps = as_int("steps", steps, 1)
    batch = as_int("batch", batch, 1)
    tau = amount("tau", tau)
    floor = floor_of(generator) if floor is None else amount("floor", floor)
    drawn = chosen(generator.pde, generator.params(range(n), seed, stream), params)
    scales = residual_scales(generator)
    parts = []
    for first in range(0, n, batch):
        rows = range(first, min(n, first + batch))

        def tell(done: int, energy: float, first: int = first) -> None:
            if progress is not None:
                progress((first // batch) * steps + done, -(-n // batch) * steps, f"energy {energy:.4g}")

        eps = generator.eps(rows, seed, stream)
        own = drawn[rows.start : rows.stop]
        parts.append(_descend(generator, eps, own, scales, tau, floor, steps, optimiser, tell))
    return _gathered(generator, parts, drawn)


def refined(
    generator: OneCall, eps_BCYX: Tensor, params_BP: Tensor, steps: int = 20, tau: float = 0.5, optimiser: str = "lbfgs"
) -> Refined:
    """Refine the samples of given noise; `refine` draws it.

    Args:
        generator: The student.
        eps_BCYX: Noise of the samples.
        params_BP: Their varying parameters.
        steps: Evaluations of each sample at most.
        tau: See above.
        optimiser: `lbfgs` or `adam`.

    Returns:
        The samples before and after, as one batch.

    Raises:
        UserError: For an unknown optimiser.
    """

    def tell(done: int, energy: float) -> None:
        """Nobody watches."""

    scales = residual_scales(generator)
    floor = floor_of(generator)
    part = _descend(generator, eps_BCYX, params_BP, scales, tau, floor, steps, optimiser, tell)
    return _gathered(generator, [part], params_BP)


def _descend(
    generator: OneCall,
    eps0_BCYX: Tensor,
    params_BP: Tensor,
    scales: Mapping[str, float],
    tau: float,
    floor: float,
    steps: int,
    optimiser: str,
    tell: Callable[[int, float], None],
) -> dict[str, Tensor]:
    """One batch: fields and residuals before and after, eps, distance and calls."""
    start, units = eps0_BCYX.flatten(1), generator.normaliser

    def squares(x: Tensor, params: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        fields = generator.differentiable(x.unflatten(1, eps0_BCYX.shape[1:]), params)
        return fields, residual_squares(generator.pde, generator.grid, fields, params)

    def changed(fields: Tensor, rows: Tensor | slice) -> Tensor:
        return ((units.encode(fields) - units.encode(old[rows])) / units.sigma_data).flatten(1)

    def energy(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        fields, found = squares(x, params_BP[rows.cpu()])
        away = changed(fields, rows).square().mean(dim=1) + (x - start[rows]).square().mean(dim=1)
        physical = torch.stack([found[k] / scales[k] for k in NORMS]).sum(dim=0)
        return physical + away / tau**2, found["l2"].detach() <= floor**2

    with torch.no_grad():
        old, before = squares(start, params_BP)
    best = minimise(energy, start, steps, optimiser, tell)
    with torch.no_grad():
        new, after = squares(best.x_BD, params_BP)
    measured = {f"before {k}": v.sqrt() for k, v in before.items()} | {f"after {k}": v.sqrt() for k, v in after.items()}
    away = {"changed": changed(new, slice(None)), "moved": best.x_BD - start, "size": best.x_BD}
    measured |= {name: values.square().mean(dim=1).sqrt() for name, values in away.items()}
    eps = best.x_BD.reshape(eps0_BCYX.shape)
    kept = {"old": old, "new": new, "eps": eps, "calls": best.calls_B, **measured}
    return {name: values.detach().cpu() for name, values in kept.items()}


def _gathered(generator: OneCall, parts: list[dict[str, Tensor]], params_NP: Tensor) -> Refined:
    whole_set = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    before, after = ({k: whole_set[f"{when} {k}"] for k in NORMS} for when in ("before", "after"))
    variance = {}
    if len(params_NP) > 1:
        old, new = (whole_set[name].double().var(dim=0).flatten(1).sum(dim=1) for name in ("old", "new"))
        variance = dict(
            zip(generator.channels, (new / old.clamp_min(torch.finfo(old.dtype).tiny)).tolist(), strict=True)
        )
    fields = generator.split(whole_set["new"]) | dict(zip(generator.pde.varying, params_NP.T, strict=True))
    found = {name: whole_set[name] for name in ("changed", "moved", "size", "eps", "calls")}
    return Refined(fields, before, after, variance=variance, **found)
