"""Smooth fields of each equation with their exact continuous residual: what a scheme's order is measured on.

One function an equation: (points) -> grid, fields float64 [1, C, Y, X], exact interior residual at the inner points [y, x].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.pde import build_pde
from pidscale.pde.base import Pde

Made = tuple[Pde, Grid, torch.Tensor, torch.Tensor]


def _nodes(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    y, x = (np.linspace(0.0, length, n) for length, n in zip(grid.extent, grid.shape, strict=True))
    return y[:, None], x[None, :]


def darcy(points: int) -> Made:
    """a = exp(sin(pi x) cos(pi y)), u = sin(pi x) sin(2 pi y): div(a grad u) + 1."""
    pde = build_pde("darcy", {"variant": "log_normal"})
    grid = pde.grid(points)
    y, x = _nodes(grid)
    p = np.pi
    a = np.exp(np.sin(p * x) * np.cos(p * y))
    a_x, a_y = a * p * np.cos(p * x) * np.cos(p * y), -a * p * np.sin(p * x) * np.sin(p * y)
    u = np.sin(p * x) * np.sin(2 * p * y)
    u_x, u_y = p * np.cos(p * x) * np.sin(2 * p * y), 2 * p * np.sin(p * x) * np.cos(2 * p * y)
    exact = a_x * u_x + a_y * u_y - 5 * p**2 * a * u + 1.0
    return pde, grid, *_tensors([a, u], exact)


def _shifted(name: str, shift: float, points: int) -> Made:
    pde = build_pde(name)
    grid = pde.grid(points)
    y, x = _nodes(grid)
    u = np.sin(np.pi * x) * np.sin(2 * np.pi * y) * np.exp(x)
    u_xx = np.sin(2 * np.pi * y) * np.exp(x) * ((1 - np.pi**2) * np.sin(np.pi * x) + 2 * np.pi * np.cos(np.pi * x))
    f = np.cos(3 * x + y)
    return pde, grid, *_tensors([f, u], u_xx - 4 * np.pi**2 * u + shift * u - f)


def poisson(points: int) -> Made:
    """u = sin(pi x) sin(2 pi y) exp(x), f = cos(3 x + y): lap u - f."""
    return _shifted("poisson", 0.0, points)


def helmholtz(points: int) -> Made:
    """The same fields: lap u + u - f."""
    return _shifted("helmholtz", 1.0, points)


def _tensors(fields: list[np.ndarray], exact: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(np.stack(fields)[None]), torch.from_numpy(exact[1:-1, 1:-1])


CASES: dict[str, tuple[Callable[[int], Made], float]] = {  # and the order that the scheme states
    "darcy": (darcy, 2.0),
    "helmholtz": (helmholtz, 2.0),
    "poisson": (poisson, 2.0),
}


def observed_order(name: str, sizes: tuple[int, ...] = (17, 33, 65)) -> tuple[float, float]:
    """The order at which the residual nears its continuous value over these grids, in l2 and in the dual norm."""
    errors = []
    for points in sizes:
        pde, grid, fields, exact = CASES[name][0](points)
        term = pde.residual(Window(grid), fields)["interior"]
        wrong = type(term)(term.values - exact, term.scale)
        errors.append([float(wrong.values.square().mean().sqrt()), float(pde.dual_square(wrong, grid).sqrt())])
    halvings = np.log2((sizes[-1] - 1) / (sizes[0] - 1))
    l2, dual = np.log2(np.array(errors[0]) / np.array(errors[-1])) / halvings
    return float(l2), float(dual)
