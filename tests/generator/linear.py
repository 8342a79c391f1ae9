"""A student that is a linear map of its noise, on 4 x 4 points: its tasks have solutions in closed form."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pidscale.diffusion.noise import EdmNoise
from pidscale.diffusion.normaliser import Normaliser
from pidscale.generator.card import Card
from pidscale.generator.student import Student
from pidscale.pde import build_pde

POINTS = 4


class LinearDenoiser(nn.Module):
    """A eps + b + the condition, for every noise level."""

    def __init__(self, size: int, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        matrix = rng.normal(size=(size, size)) / size**0.5 + 0.3 * np.eye(size)
        self.matrix = torch.tensor(0.5 * matrix, dtype=torch.float32)
        self.offset = torch.tensor(0.2 * rng.normal(size=size), dtype=torch.float32)

    def forward(self, x_BCYX: Tensor, sigma_B: Tensor, condition_BP: Tensor | None = None) -> Tensor:
        eps = x_BCYX / sigma_B[:, None, None, None]
        fields = (eps.flatten(1) @ self.matrix.T + self.offset).reshape(x_BCYX.shape)
        if condition_BP is None or not condition_BP.shape[1]:
            return fields
        return fields + condition_BP.sum(dim=1)[:, None, None, None]


def linear_student(equation: str = "poisson", seed: int = 0, points: int = POINTS, **params: object) -> Student:
    """Return a student of an equation with these parameters; the units of its channels differ by a factor of 100."""
    pde = build_pde(equation, params)
    grid = pde.grid(points)
    channels = len(pde.channels)
    units = Normaliser(
        tuple(0.1 * (c + 1) for c in range(channels)), tuple(10.0 ** -(2 * (c % 2)) for c in range(channels))
    )
    card = Card.of("student", pde, grid=grid, normaliser=units, architecture={}, noise=EdmNoise())
    size = channels * grid.shape[0] * grid.shape[1]
    return Student(card, LinearDenoiser(size, seed), pde, grid, units, EdmNoise(), torch.device("cpu"))  # type: ignore


def affine(student: Student) -> tuple[Tensor, Tensor]:
    """Return the map from noise to physical fields as a matrix [D, D] and an offset [D], float64."""
    denoiser: LinearDenoiser = student.denoiser  # type: ignore
    points = student.grid.shape[0] * student.grid.shape[1]
    scale = torch.tensor(student.normaliser.std, dtype=torch.float64).repeat_interleave(points) / 0.5
    mean = torch.tensor(student.normaliser.mean, dtype=torch.float64).repeat_interleave(points)
    return scale[:, None] * denoiser.matrix.double(), scale * denoiser.offset.double() + mean


def gaussian_posterior(student: Student, values: Tensor, known: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean [D] and covariance [D, D] of the fields of a linear student given noisy values, by the normal equations."""
    matrix, offset = affine(student)
    seen = known.flatten()
    rows = matrix[seen]
    noise = sigma.double().expand(known.shape).flatten()[seen]
    weighted = rows / noise[:, None]
    precision = torch.eye(len(offset), dtype=torch.float64) + weighted.T @ weighted
    inverse = torch.linalg.inv(precision)
    eps = inverse @ (weighted.T @ ((values.flatten()[seen].double() - offset[seen]) / noise))
    return matrix @ eps + offset, matrix @ inverse @ matrix.T
