"""Solvers of two other libraries, with their own operators, as a reference for our fields and residuals.

scikit-fem solves steady equations, py-pde equations in time; no other file imports them. Knows nothing of pidscale.
Shapes: a_YX, f_YX values at all nodes of the unit square, both ends included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pde
import skfem
from scipy import sparse
from skfem.helpers import dot, grad
from skfem.models.poisson import mass


@skfem.BilinearForm
def flux(u: Any, v: Any, w: Any) -> Any:
    return w["a"] * dot(grad(u), grad(v))


def finite_elements(a_YX: np.ndarray, shift: float, f_YX: np.ndarray, degree: int, lumped: bool = False) -> np.ndarray:
    """Solve -div(a grad u) - shift u = f with u = 0 on the edge, by finite elements on right triangles.

    Args:
        a_YX: The coefficient at the nodes, of which there are as many each way.
        shift: The shift.
        f_YX: The source at the nodes.
        degree: The degree of the elements, 1 or 2; their degrees of freedom are the nodes, and a and f lie in their space.
        lumped: Whether the mass matrix is lumped to its diagonal, as in finite differences.

    Returns:
        The solution at the nodes, [Y, X].
    """
    points = len(a_YX)
    ticks = np.linspace(0.0, 1.0, (points - 1) // degree + 1)
    element = {1: skfem.ElementTriP1, 2: skfem.ElementTriP2}[degree]()
    basis = skfem.Basis(skfem.MeshTri.init_tensor(ticks, ticks), element, intorder=3 * degree)
    x, y = np.rint(basis.doflocs * (points - 1)).astype(int)
    weights = mass.assemble(basis)
    if lumped:
        weights = sparse.diags_array(np.ravel(weights.sum(axis=1))).tocsr()
    matrix = flux.assemble(basis, a=basis.interpolate(a_YX[y, x])) - shift * weights
    system = skfem.condense(matrix, weights @ f_YX[y, x], D=basis.get_dofs())
    u_YX = np.full_like(a_YX, np.nan)
    u_YX[y, x] = skfem.solve(*system, solver=skfem.solver_direct_scipy(permc_spec="MMD_AT_PLUS_A"))
    return u_YX


Operator = Callable[[np.ndarray], np.ndarray]


def operators(grid: pde.CartesianGrid, boundary: Any) -> tuple[Operator, Operator]:
    """Return the second-order Laplacian and gradient of values in the cells of a grid."""
    laplace, gradient = (grid.make_operator(name, bc=boundary, backend="scipy") for name in ("laplace", "gradient"))
    return laplace, gradient


class _Rate(pde.PDEBase):
    def __init__(self, rate: Operator) -> None:
        super().__init__()
        self.rate = rate

    def evolution_rate(self, state: Any, t: float = 0) -> Any:
        change = state.copy()
        change.data[...] = self.rate(state.data)
        return change


def march(
    grid: pde.CartesianGrid, state: np.ndarray, rate: Operator, duration: float, frames: int, **solver: Any
) -> np.ndarray:
    """Return frames [F, S, ...] of s_t = rate(s) at even times, from a state [S, ...] of S species."""
    kept = pde.MemoryStorage()
    fields = pde.FieldCollection([pde.ScalarField(grid, values) for values in state])
    tracker = kept.tracker(duration / (frames - 1))
    _Rate(rate).solve(fields, t_range=duration, backend="numpy", tracker=[tracker], **solver)
    assert len(kept) == frames, kept.times
    return np.array(kept.data)
