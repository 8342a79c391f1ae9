"""PCFM: a flow teacher whose extrapolated fields are projected onto the constraints (Utkarsh et al., NeurIPS 2025).

Each step extrapolates, projects onto the constraints, and goes back to the noise that it began with:

    u1 = x_t + (1 - t) v(x_t, t)
    u1 = u1 with the values that are fixed: known ones, and zeros on the edge
    u1 = u1 - J^T (J J^T + delta)^-1 h(u1)      one Gauss-Newton step for the equation; J = dh / du for all other values
    x_t' = (1 - t') e + t' u1

h is the residual relative to the equation's scale. `final` more projections follow the last step. The published code takes
a dense Jacobian for each sample, whose condition grows as h^-4. Here J J^T is applied by automatic differentiation and its
system solved by conjugate gradients, preconditioned on nodes by the square of the inverse Laplacian. The optional penalty
of the paper between projection and interpolation is left out. Fields are in units of the model; the state is x = u1 + sigma
e, as in eci.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from pidscale.caller import sheltered
from pidscale.generator.generator import Generator
from pidscale.methods.base import FLOW_TEACHER, SAMPLE, Question, check_given, check_settings
from pidscale.methods.search import TASKS
from pidscale.ops.krylov import conjugate_gradients
from pidscale.ops.spectral import inverse_laplacian
from pidscale.ops.window import Window
from pidscale.pde.base import Samples
from pidscale.pde.constraints import constrain
from pidscale.precision import float32_or_better

DAMPING = 1e-6  # delta


@dataclass(frozen=True)
class Pcfm:
    """Sample a flow teacher with constraints imposed at every step. A setting out of range raises a UserError.

    Attributes:
        steps: Number of Euler steps; 100 in the paper.
        inner: Number of conjugate gradients in a projection.
        final: Number of projections after the last step.
        physics: Whether the equation is among the constraints; known values always are.
        source: The paper that it follows.
        takes: Kinds of generators that it can ask.
        answers: Kinds of questions that it answers.
    """

    steps: int = 100
    inner: int = 30
    final: int = 5
    physics: bool = True
    source: ClassVar[str] = "Utkarsh et al., Physics-constrained flow matching (PCFM), NeurIPS 2025"
    takes: ClassVar[frozenset[str]] = frozenset({FLOW_TEACHER})
    answers: ClassVar[frozenset[str]] = TASKS | {SAMPLE}

    def __post_init__(self) -> None:
        check_settings(self, steps=1, inner=1, final=0)

    @sheltered
    def run(self, generator: Generator, question: Question) -> Samples:
        """Sample each field. A varying parameter that is not given raises a UserError."""
        check_given(self, question)
        network = generator.conditioned_on(question.params_NP)
        levels = generator.noise.levels(self.steps).tolist()
        eps = float32_or_better(question.eps_NCYX.to(generator.device))
        constraints = Constraints(generator, question, self.physics)
        x = eps * levels[0]
        with torch.no_grad():
            for here, there in pairwise(levels):
                clean = network(x, x.new_full((len(x),), here))
                x = constraints.projected(clean, self.inner) + there * eps
            for _ in range(self.final):
                x = constraints.projected(x, self.inner)
        return Samples(generator.to_physical(x, question.params_NP), question.params_NP)


class Constraints:
    """What the fields of a question have to obey, in units of the model.

    Args:
        generator: The generator, whose equation and units are taken.
        question: Known values and parameters.
        physics: Whether the equation is among the constraints.
    """

    def __init__(self, generator: Generator, question: Question, physics: bool) -> None:
        self.generator = generator
        self.params_NP = question.params_NP.to(generator.device)
        self.physics = physics
        encode = generator.normaliser.encode
        one = torch.ones(1, *generator.shape, device=generator.device, dtype=torch.float32)
        names = [name for name in generator.pde.constraints if name == "zero_edge" and physics]
        edge = constrain(generator.pde, Window(generator.grid), names, one) == 0
        self.fixed_NCYX = edge.expand(len(question), *generator.shape)
        self.values_NCYX = encode(torch.zeros_like(one)).expand_as(self.fixed_NCYX)
        if question.known is not None:
            known = question.known.on(generator.device)
            self.values_NCYX = torch.where(known.known_NCYX, encode(known.values_NCYX), self.values_NCYX)
            self.fixed_NCYX = self.fixed_NCYX | known.known_NCYX

    def residual(self, u_NCYX: Tensor) -> dict[str, Tensor]:
        """Return h by term, [N, ...] each."""
        fields = self.generator.normaliser.decode(u_NCYX)
        terms = self.generator.pde.residual(Window(self.generator.grid), fields, self.params_NP)
        return {name: term.values / (term.scale * term.count**0.5) for name, term in terms.items()}

    def projected(self, u_NCYX: Tensor, inner: int) -> Tensor:
        """Return fields after the fixed values are set and one Gauss-Newton step is taken towards h = 0."""
        u = torch.where(self.fixed_NCYX, self.values_NCYX.to(u_NCYX.dtype), u_NCYX)
        if not self.physics:
            return u
        values, pulled = torch.func.vjp(self.residual, u)[:2]
        flat = _Flat(values)

        def back(dual_NM: Tensor) -> Tensor:
            return torch.where(self.fixed_NCYX, 0.0, pulled(flat.parts(dual_NM))[0])

        def product(dual_NM: Tensor) -> Tensor:
            ahead = torch.func.jvp(self.residual, (u,), (back(dual_NM),))[1]
            return flat.joined(ahead) + DAMPING * dual_NM

        left = flat.joined(values)
        dual = conjugate_gradients(
            residual=lambda dual_NM: left - product(dual_NM),
            operator=product,
            precondition=self._preconditioner(flat, values, back),
            guess=torch.zeros_like(left),
            steps=inner,
            total=lambda share: share,
        )
        return u - back(dual)

    def _preconditioner(
        self, flat: _Flat, values: dict[str, Tensor], back: Callable[[Tensor], Tensor]
    ) -> Callable[[Tensor], Tensor]:
        """Return an approximate inverse of J J^T: on nodes that of c lap^2 for the interior, the identity for what is left.

        c is such that both agree on the residual at hand.
        """
        window = Window(self.generator.grid)
        if self.generator.grid.kind != "node":
            return lambda dual_NM: dual_NM

        def smooth(interior: Tensor) -> Tensor:
            return inverse_laplacian(window, functional.pad(interior, (1, 1, 1, 1)))[..., 1:-1, 1:-1]

        zeros = {name: torch.zeros_like(part) for name, part in values.items()}
        probe = back(flat.joined(zeros | {"interior": smooth(values["interior"])}))
        size = values["interior"].square().flatten(1).sum(dim=1)
        scale = size / probe.square().flatten(1).sum(dim=1).clamp_min(torch.finfo(probe.dtype).tiny)

        def precondition(dual_NM: Tensor) -> Tensor:
            parts = flat.parts(dual_NM)
            twice = smooth(smooth(parts["interior"]))
            return flat.joined(parts | {"interior": twice * scale.reshape(-1, *[1] * (twice.ndim - 1))})

        return precondition


class _Flat:
    """Tensors by name, [N, ...] each, as one tensor [N, M], and back.

    Args:
        like: Tensors of the shapes that are meant.
    """

    def __init__(self, like: dict[str, Tensor]) -> None:
        self._shapes = {name: part.shape for name, part in like.items()}

    def joined(self, parts: dict[str, Tensor]) -> Tensor:
        """Return one tensor."""
        return torch.cat([parts[name].flatten(1) for name in self._shapes], dim=1)

    def parts(self, flat_NM: Tensor) -> dict[str, Tensor]:
        """Return the tensors of which it was made."""
        sizes = [shape[1:].numel() for shape in self._shapes.values()]
        split = flat_NM.split(sizes, dim=1)
        return {name: part.reshape(shape) for (name, shape), part in zip(self._shapes.items(), split, strict=True)}
