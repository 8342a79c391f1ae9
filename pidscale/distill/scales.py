"""What each term of the residual is divided by, measured on the teacher's own samples before the first step."""

from __future__ import annotations

import torch

from pidscale.config import Settings, UserError
from pidscale.dataset.problem import Problem
from pidscale.distill.endpoints.batch import Batches
from pidscale.distill.objectives.physics import active_weights, extra_measures, frozen_scales
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.pde.residuals import residual_shares
from pidscale.pde.terms import NORMS
from pidscale.plain import not_finite


def measure_scales(
    settings: Settings, problem: Problem, batches: Batches, window: Window, mesh: Mesh
) -> dict[str, float]:
    """Measure s_k^2 by term: mean squared residuals of the teacher's own samples, bounded below (`frozen_scales`).

    Args:
        settings: Those of the run.
        problem: The data, whose truths give the floor and the null solution.
        batches: Make the samples, which are split over the ranks.
        window: The rows of this rank.
        mesh: The ranks, which all call it; two all-reduces of 8 bytes a term.

    Returns:
        The scales, the same on every rank.

    Raises:
        UserError: The teacher's samples are so wrong that their residual is not finite.
    """
    d = settings.distill
    rows = d.scale_samples // d.global_batch
    more = extra_measures(active_weights(d))
    terms = (*NORMS, *more)
    found = batches.scaling(rows, d)
    fields = torch.cat([one.fields_BCYX for one in found])
    params = torch.cat([one.params_BP for one in found])
    decode = batches.rollout.teacher.normaliser.decode  # its units, which another set of its data need not have
    shares = residual_shares(problem.pde, window, decode(fields), params, more)
    sums = mesh.sum(torch.stack([shares[k].double().sum() for k in terms])) / (rows * d.global_batch)
    truth = problem.samples("train", 64, window.rows).on(mesh.device)
    null = residual_shares(problem.pde, window, problem.pde.trivial(truth.fields, window), truth.params, more)
    nulls = mesh.sum(torch.stack([null[k].double().sum() for k in terms])) / (mesh.data * len(truth.fields))
    scales = frozen_scales(
        dict(zip(terms, sums.tolist(), strict=True)),
        problem.manifest.truth_residual["train"],
        dict(zip(terms, nulls.sqrt().tolist(), strict=True)),
    )
    for name in not_finite(scales):
        raise UserError(
            f"distill.teacher: the residual ({name}) of its samples is not a finite number, so they teach nothing; train it "
            "again, or name another"
        )
    return scales
