"""Scales of the terms of the residual, measured on samples of the teacher before the first step."""

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
from pidscale.run.monitor import null_residuals


def measure_scales(
    settings: Settings, problem: Problem, batches: Batches, window: Window, mesh: Mesh
) -> dict[str, float]:
    """Measure s_k^2 by term: mean squared residuals of teacher samples, bounded below (`frozen_scales`).

    The samples are divided over the ranks. All ranks call it. Two all-reduces of 8 bytes per term.

    Args:
        settings: Settings of the run.
        problem: Equation, grid, units and data; the truths determine the floor and the null solution.
        batches: Batches that provide the teacher samples.
        window: Rows of this rank.
        mesh: The mesh of ranks.

    Returns:
        The scales, the same on every rank.

    Raises:
        UserError: When the residual of the teacher's samples is not finite.
    """
    d = settings.distill
    rows = d.scale_samples // d.global_batch
    more = extra_measures(active_weights(d))
    terms = (*NORMS, *more)
    found = batches.scaling(rows, d)
    fields = torch.cat([one.fields_BCYX for one in found])
    params = torch.cat([one.params_BP for one in found])
    decode = batches.rollout.teacher.normaliser.decode  # the teacher's units, which may differ from those of the set
    shares = residual_shares(problem.pde, window, decode(fields), params, more)
    sums = mesh.sum(torch.stack([shares[k].double().sum() for k in terms])) / (rows * d.global_batch)
    truth = problem.samples("train", 64, window.rows).on(mesh.device)
    nulls = null_residuals(problem, truth, window, mesh, more)
    scales = frozen_scales(
        dict(zip(terms, sums.tolist(), strict=True)),
        problem.manifest.truth_residual["train"],
        nulls,
    )
    for name in not_finite(scales):
        raise UserError(
            f"distill.teacher: the residual ({name}) of its samples is not a finite number, so they teach nothing; train it "
            "again, or name another"
        )
    return scales
