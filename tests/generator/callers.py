"""Calls every public function once, on small inputs whose dtype and device are explicit, for tests of a caller's state."""

from __future__ import annotations

import functools
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import pidscale
from pidscale import metrics
from pidscale.generator.tasks.observations import observe
from pidscale.generator.tasks.posterior import coverage, crps
from pidscale.generator.tasks.search import Search
from pidscale.methods.direct import direct
from pidscale.pde import PDES, build_pde
from pidscale.pde.base import shuffled, solution_mask, truths
from pidscale.pde.parameters import condition, draw_params
from pidscale.pde.residuals import residual_rms, residual_squares

POINTS = 8
BRIEF = Search(steps=3, physics=0.0)
FRAMES = ("advection_diffusion", "heat", "navier_stokes", "reaction_diffusion", "wave")


def state() -> dict[str, object]:
    """Return the global state that no call may change."""
    torch_says = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype())
    return {
        "torch": (
            *torch_says,
            str(torch.get_default_device()),
            torch.is_autocast_enabled("cpu"),
            torch.get_num_threads(),
        ),
        "precision": torch.get_float32_matmul_precision(),
        "random": (torch.get_rng_state().numpy().tobytes(), str(np.random.get_state())),
        "numpy": tuple(np.geterr().items()),
        "process": (
            os.getcwd(),
            list(sys.path),
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        ),
    }


def forget() -> None:
    """Empty every cache of the package, as in a new process."""
    modules = [module for name, module in sys.modules.items() if name.startswith("pidscale.")]
    kept = [getattr(one, "__wrapped__", None) for module in modules for one in vars(module).values()]
    caches = [one for one in kept if isinstance(one, functools._lru_cache_wrapper)]
    assert len(caches) > 12
    for cache in caches:
        cache.cache_clear()


def everything(folder: Path) -> dict[str, Tensor]:
    """Return all results by name."""
    found: dict[str, Tensor] = {}
    for name in PDES:
        found |= {f"{name} {key}": values for key, values in _equation(name).items()}
    for name in ("darcy", "heat"):
        found |= {f"{name} {key}": values for key, values in _student(folder, name).items()}
    return {name: values.detach().clone() for name, values in found.items()}


def gradients(folder: Path) -> dict[str, Tensor]:
    """Return the gradient of the residual for each equation, and a refined sample: cached tensors must allow gradients."""
    found = {}
    for name in PDES:
        pde = build_pde(name, {"frames": 4} if name in FRAMES else {})
        made = truths(pde, 0, range(1), pde.grid(POINTS))
        moved = (made.fields.float() * 1.01).requires_grad_()
        sum(square.sum() for square in residual_squares(pde, pde.grid(POINTS), moved, made.params).values()).backward()
        found[name] = moved.grad
    found["eps"] = pidscale.load_student(folder / "darcy").refine(1, steps=3).eps
    return found


def _equation(name: str) -> dict[str, Tensor]:
    pde = build_pde(name, {"frames": 4} if name in FRAMES else {})
    grid = pde.grid(POINTS)
    made = truths(pde, 0, range(3), grid)
    fields = made.fields.float()
    params = made.params
    found = {"truths": made.fields, "params": params, "draws": draw_params(pde, 1, "x", [4, 5])}
    found["condition"] = condition(pde, params)
    found["mask"] = solution_mask(pde, grid)
    for what, values in (
        ("truth", fields),
        ("trivial", pde.trivial(fields)),
        ("shuffled", shuffled(pde, grid, fields)),
    ):
        found |= {f"{what} {key}": square for key, square in residual_squares(pde, grid, values, params).items()}
    found["rms"] = torch.tensor(
        list(residual_rms(pde, grid, fields, params).values()), dtype=torch.float64, device="cpu"
    )
    found["solved"] = torch.from_numpy(pde.solve(made.fields[0].numpy(), grid, params[0].tolist())[0])
    return found


def _student(folder: Path, name: str) -> dict[str, Tensor]:
    teacher = folder / "teacher" if name == "darcy" else None
    student = pidscale.load_student(folder / name, teacher=teacher)
    drawn = student.sample(3, seed=2, batch=2)
    how = {"steps": 3, "starts": 1}
    found = {"sample": student.join(drawn), **student.residual(drawn)}
    refined = student.refine(2, seed=1, steps=4)
    found |= {
        "refined": student.join(refined.fields),
        "eps": refined.eps,
        **{f"after {k}": v for k, v in refined.after.items()},
    }
    known = {c.name: drawn[c.name][:2] for c in student.pde.channels if c.role == "solution"}
    given = {c.name: drawn[c.name][:2] for c in student.pde.channels if c.role == "input"} or known
    mask = torch.arange(student.grid.shape[1], device="cpu").expand(student.grid.shape) % 3 == 0
    inverse = student.inverse(known, **how)
    found |= {"inverse": student.join(inverse.fields), "energy": inverse.energy, "mismatch": inverse.mismatch}
    found["forward"] = student.join(student.forward(given, sigma=0.1, **how).fields)
    found["reconstruct"] = student.join(student.reconstruct(known, mask=mask.numpy(), optimiser="adam", **how).fields)
    draws = student.posterior("inverse", known, count=3, sigma=0.1, steps=3)
    channel = next(iter(known))
    found |= {f"posterior {k}": v for k, v in draws.samples.items()} | {f"low {k}": v for k, v in draws.low.items()}
    found["score"] = torch.tensor(
        [coverage(draws.samples[channel], known[channel]), crps(draws.samples[channel], known[channel])],
        dtype=torch.float64,
        device="cpu",
    )
    if name == "heat":
        return found
    found["more"] = student.join(student.sample(2, nfe=3))
    found["teacher"] = student.teacher.join(student.teacher.sample(2, steps=3))
    seen = observe(student, "inverse", known)
    found["direct"] = direct(student.pde, student.grid, student.normaliser, seen, {}, search=BRIEF).eps
    x = student.normaliser.encode(student.join(drawn))
    other = student.normaliser.encode(student.join(student.sample(3)))
    row = metrics.distribution_row(x, other, [0.1], student.channels)
    flat = [v for value in row.values() for v in (value.values() if isinstance(value, dict) else [value])]
    found["metrics"] = torch.tensor([*flat, metrics.sliced_floor(x.flatten(1), 2)], dtype=torch.float64, device="cpu")
    found["nearest"] = metrics.nearest(x, other)
    found["spectrum"] = metrics.spectrum(x)
    found["features"] = metrics.features(x)
    return found
