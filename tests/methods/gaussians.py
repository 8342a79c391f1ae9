"""Teachers and a student with a known distribution: the points of each channel are independent and normal."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pidscale.diffusion.noise import EdmNoise, FlowNoise, Noise
from pidscale.diffusion.normaliser import Normaliser
from pidscale.generator.card import Card, Metrics, Provenance
from pidscale.generator.generator import Teacher
from pidscale.generator.regression import Regression
from pidscale.generator.student import Student
from pidscale.methods.base import Question
from pidscale.pde import build_pde
from pidscale.pde.base import truths

POINTS = 8
SPREAD = 0.5
MEAN = 0.1
PDE = build_pde("poisson")
GRID = PDE.grid(POINTS)
UNITS = Normaliser((1.0, 0.2), (2.0, 0.1))
SCALES = {"l2": 1.0, "dual": 1.0, "boundary": 1.0}


class Exact(nn.Module):
    """The exact denoiser of points N(MEAN, SPREAD^2), in units of the model."""

    def forward(self, x_BCYX: Tensor, sigma_B: Tensor, condition_BP: Tensor, *level: Tensor) -> Tensor:
        s = sigma_B.reshape(-1, 1, 1, 1)
        return MEAN + SPREAD**2 / (SPREAD**2 + s**2) * (x_BCYX - MEAN)


class Map(nn.Module):
    """A student's network: SPREAD eps + MEAN."""

    def forward(self, x_BCYX: Tensor, sigma_B: Tensor, condition_BP: Tensor, *level: Tensor) -> Tensor:
        return SPREAD * x_BCYX / sigma_B.reshape(-1, 1, 1, 1) + MEAN


def card(kind: str, noise: Noise) -> Card:
    """Return the card of a generator."""
    provenance = Provenance(scales=SCALES if kind == "student" else None)
    parts = {"grid": GRID, "normaliser": UNITS, "noise": noise, "architecture": {}, "provenance": provenance}
    return Card.of(kind, PDE, metrics=Metrics(2.0), **parts)


def teacher(noise: Noise | None = None) -> Teacher:
    """Return a teacher, of the flow unless another noise is given."""
    noise = noise or FlowNoise()
    return Teacher(card("teacher", noise), Exact(), PDE, GRID, UNITS, noise, torch.device("cpu"))  # type: ignore[arg-type]


def regression() -> Regression:
    """Return a network that was trained by regression."""
    edm = EdmNoise()
    return Regression(card("regression", edm), Exact(), PDE, GRID, UNITS, edm, torch.device("cpu"))  # type: ignore[arg-type]


def student() -> Student:
    """Return a student with its teacher."""
    edm = EdmNoise()
    cpu = torch.device("cpu")
    return Student(card("student", edm), Map(), PDE, GRID, UNITS, edm, cpu, teacher(edm))  # type: ignore[arg-type]


def question(n: int = 5, **further: object) -> Question:
    """Return a question of n samples with truths."""
    made = teacher()
    truth = truths(PDE, 3, range(n), GRID)
    fields = truth._replace(fields=truth.fields.float())
    training = truths(PDE, 4, range(9), GRID)
    known = {"truth": fields, "training": training._replace(fields=training.fields.float()), **further}
    return Question(made.eps(range(n), 7), made.params(range(n), 7), torch.arange(n), **known)  # type: ignore[arg-type]
