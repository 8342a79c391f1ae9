"""The order at which each equation's residual nears its continuous value, on smooth fields where that is known.

python -m benchmarks.proofs.manufactured [--pde darcy ...] [--quick] [--json benchmarks/results/manufactured.json]

One function an equation: (size) -> equation, grid, fields float64 [1, C, Y, X], exact interior residual. Size is points a
side, or for a scheme whose truncation is in time, frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from benchmarks.report import Row, circumstances, finish, options
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.pde import build_pde
from pidscale.pde.base import Pde, truths
from pidscale.pde.evolution import Evolution
from pidscale.pde.parameters import draw_params

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
    a_x = a * p * np.cos(p * x) * np.cos(p * y)
    a_y = -a * p * np.sin(p * x) * np.sin(p * y)
    u = np.sin(p * x) * np.sin(2 * p * y)
    u_x = p * np.cos(p * x) * np.sin(2 * p * y)
    u_y = 2 * p * np.sin(p * x) * np.cos(2 * p * y)
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


State = Callable[[float], np.ndarray]


def _evolution(pde: Evolution, grid: Grid, state: State, rate: State) -> Made:
    """Frames of a state [S, Y, X] that does not obey the equation, and by how much: its change less the mean of its rate."""
    times = np.arange(pde.frames) * pde.interval
    frames = np.stack([state(t) for t in times])
    exact = (frames[1:] - frames[:-1]) / pde.interval - _means(rate, times)
    return pde, grid, torch.from_numpy(frames.reshape(1, -1, *grid.shape)), torch.from_numpy(exact)


def _means(rate: State, times: np.ndarray) -> np.ndarray:
    """The mean of a rate over each interval, by eight Gauss points."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    dt = times[1] - times[0]
    inner = [(w / 2, dt / 2 * (1 + x)) for x, w in zip(nodes, weights, strict=True)]
    return np.stack([np.sum([w * rate(t + part) for w, part in inner], axis=0) for t in times[:-1]])


def navier_stokes(frames: int) -> Made:
    """w = cos(2 pi x + 2 t) + sin(4 pi y) cos(3 t), trigonometric, so that all truncation is in time."""
    pde = build_pde("navier_stokes", {"frames": frames, "viscosity": 0.01})
    assert isinstance(pde, Evolution)
    grid = pde.grid(24)
    y = np.arange(24)[:, None] / 24
    x = np.arange(24)[None, :] / 24
    a = 2 * np.pi
    b = 4 * np.pi

    def state(t: float) -> np.ndarray:
        return (np.cos(a * x + 2 * t) + np.sin(b * y) * np.cos(3 * t))[None]

    def rate(t: float) -> np.ndarray:
        one = np.cos(a * x + 2 * t)
        two = np.sin(b * y) * np.cos(3 * t)
        w_x = -a * np.sin(a * x + 2 * t) + 0 * y
        w_y = b * np.cos(b * y) * np.cos(3 * t) + 0 * x
        psi_x = w_x / a**2
        psi_y = w_y / b**2
        force = 0.1 * (np.sin(a * (x + y)) + np.cos(a * (x + y)))
        return (force - 0.01 * (a**2 * one + b**2 * two) - (psi_y * w_x - psi_x * w_y))[None]

    return _evolution(pde, grid, state, rate)


def reaction_diffusion(points: int) -> Made:
    """Cosines without flux through the edge, frames so close that the truncation is in space."""
    params = {"frames": 21, "duration": 0.2, "diffusion_u": 0.05, "diffusion_v": 0.1}
    pde = build_pde("reaction_diffusion", params)
    assert isinstance(pde, Evolution)
    grid = pde.grid(points)
    centre = (np.arange(points) + 0.5) * 2 / points  # from the edge
    y = centre[:, None]
    x = centre[None, :]
    half = np.pi / 2

    def parts(t: float) -> tuple[np.ndarray, np.ndarray]:
        u = np.cos(half * x) * np.cos(2 * half * y) * np.exp(-t)
        v = np.cos(3 * half * x) * np.cos(half * y) * np.cos(t)
        return u, v

    def state(t: float) -> np.ndarray:
        return np.stack(parts(t))

    def rate(t: float) -> np.ndarray:
        u, v = parts(t)
        spread_u = -0.05 * 5 * half**2 * u
        spread_v = -0.1 * 10 * half**2 * v
        return np.stack([spread_u + u - u**3 - 5e-3 - v, spread_v + u - v])

    return _evolution(pde, grid, state, rate)


def burgers(points: int) -> Made:
    """u = sin(2 pi x + 2 t) + cos(4 pi x) cos(5 t): trigonometric, so that all truncation is in time, over `points` rows."""
    pde = build_pde("burgers")
    grid = pde.grid(points)
    x = np.arange(points) / points
    a = 2 * np.pi
    dt = grid.spacing[0]
    times = np.linspace(0, 1, points)

    def state(t: float) -> np.ndarray:
        return np.sin(a * x + 2 * t) + np.cos(2 * a * x) * np.cos(5 * t)

    def rate(t: float) -> np.ndarray:
        slope = a * np.cos(a * x + 2 * t) - 2 * a * np.sin(2 * a * x) * np.cos(5 * t)
        bend = -(a**2) * np.sin(a * x + 2 * t) - 4 * a**2 * np.cos(2 * a * x) * np.cos(5 * t)
        return 0.01 * bend - state(t) * slope

    rows = np.stack([state(t) for t in times])
    exact = (rows[1:] - rows[:-1]) / dt - _means(rate, times)
    return pde, grid, torch.from_numpy(rows[None, None]), torch.from_numpy(exact)


def stokes(points: int) -> Made:
    """The closed form of one swing, whose residual is all truncation; the viscosity is the middle of its range."""
    pde = build_pde(
        "stokes", {"viscosity_low": 0.05, "viscosity_high": 0.05, "frequency_low": 5.0, "frequency_high": 5.0}
    )
    grid = pde.grid(points)
    fields = truths(pde, 0, [0], grid).fields
    return pde, grid, fields, torch.zeros(points - 1, points - 2)


@dataclass(frozen=True)
class Case:
    """Fields of a size, the sizes to compare (each doubles the steps of the one before), the order the scheme states."""

    make: Callable[[int], Made]
    sizes: tuple[int, ...]
    order: float


NODES = (17, 33, 65)
CASES: dict[str, Case | None] = {  # None: a scheme without truncation
    "advection_diffusion": None,
    "burgers": Case(burgers, NODES, 4.0),
    "darcy": Case(darcy, NODES, 2.0),
    "heat": None,
    "helmholtz": Case(helmholtz, NODES, 2.0),
    "navier_stokes": Case(navier_stokes, (9, 17, 33), 4.0),
    "poisson": Case(poisson, NODES, 2.0),
    "reaction_diffusion": Case(reaction_diffusion, (16, 32, 64), 2.0),
    "stokes": Case(stokes, NODES, 4.0),
    "wave": None,
}


def observed_order(name: str, quick: bool = False) -> tuple[float, float] | None:
    """Return the order at which the residual nears its continuous value, in l2 and in the dual norm.

    Args:
        name: An equation.
        quick: Compare the two smallest sizes alone.

    Returns:
        Two orders, or None where the scheme has no truncation.
    """
    case = CASES[name]
    if case is None:
        return None
    sizes = case.sizes[:2] if quick else case.sizes
    errors = []
    for size in sizes:
        pde, grid, fields, exact = case.make(size)
        term = pde.residual(Window(grid), fields, draw_params(pde, 0, pde.name, range(1)))["interior"]
        wrong = replace(term, values=term.values - exact)
        errors.append([float(wrong.values.square().mean().sqrt()), float(pde.dual_square(wrong, Window(grid)).sqrt())])
    l2, dual = np.log2(np.array(errors[0]) / np.array(errors[-1])) / (len(sizes) - 1)
    return float(l2), float(dual)


def measure(name: str, quick: bool = False) -> Row:
    """Return the orders of one equation, None where its scheme is exact."""
    case = CASES[name]
    l2, dual = observed_order(name, quick) or (None, None)
    return {"pde": name, "expected_order": case.order if case else None, "order": l2, "order_dual": dual}


def main() -> None:
    """Measure the equations that are asked for and write the rows."""
    parser = options(__doc__, "manufactured")
    parser.add_argument("--pde", nargs="+", choices=sorted(CASES), default=sorted(CASES))
    parser.add_argument("--quick", action="store_true", help="the two smallest sizes alone")
    arguments = parser.parse_args()
    rows = [measure(name, arguments.quick) for name in arguments.pde]
    finish(arguments.json, {"rows": rows, "meta": circumstances()})


if __name__ == "__main__":
    main()
