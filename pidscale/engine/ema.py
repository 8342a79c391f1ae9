"""An exponential average of the weights, split over ranks as ZeRO splits them, kept by parameter name.

Every rank holds an equal piece of each flattened parameter, at every ZeRO stage alike; stage 3 cuts its own pieces the
same way. Knows no equations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pidscale.parallel.mesh import Mesh


def _piece(parameter: Tensor, stage: int, mesh: Mesh) -> Tensor:
    if stage == 3:
        from deepspeed.utils import safe_get_local_fp32_param

        local: Tensor = safe_get_local_fp32_param(parameter)
        return local.detach().flatten()
    flat = parameter.detach().float().flatten()
    size = -(-flat.numel() // mesh.world)
    piece = flat[mesh.rank * size : (mesh.rank + 1) * size]
    return torch.cat([piece, piece.new_zeros(size - piece.numel())]) if piece.numel() < size else piece


def pieces(module: nn.Module, stage: int, mesh: Mesh) -> dict[str, Tensor]:
    """This rank's flat pieces of the current float32 weights, by name."""
    return {n: _piece(p, stage, mesh) for n, p in module.named_parameters()}


def _shape(parameter: Tensor) -> torch.Size:
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


class Ema:
    """Average with a half-life that is a share of the steps done so far, so that early weights are forgotten."""

    def __init__(self, module: nn.Module, stage: int, mesh: Mesh, share: float) -> None:
        self.module, self.stage, self.mesh, self.share = module, stage, mesh, share
        self.pieces = {n: p.clone() for n, p in pieces(module, stage, mesh).items()}

    def update(self, step: int) -> None:
        """Blend in the weights after the update of `step` (counted from 0)."""
        decay = 0.5 ** (1.0 / (self.share * (step + 1) + 1e-9))
        with torch.no_grad():
            fresh = list(pieces(self.module, self.stage, self.mesh).values())
            torch._foreach_lerp_(list(self.pieces.values()), fresh, 1 - decay)

    def full_weights(self) -> dict[str, Tensor]:
        """The average by name with whole shapes, on every rank's CPU. One all-gather for each parameter."""
        shapes = {n: _shape(p) for n, p in self.module.named_parameters()}
        return {n: _whole(piece, shapes[n], self.mesh) for n, piece in self.pieces.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take this rank's pieces of a whole average, whatever world size wrote it."""
        for name, piece in self.pieces.items():
            piece.copy_(_piece(state[name].to(piece.device), 0, self.mesh)[: piece.numel()])


def _whole(piece: Tensor, shape: torch.Size, mesh: Mesh) -> Tensor:
    flat = torch.cat(mesh.gather_pieces(piece))
    return flat[: shape.numel()].reshape(shape).cpu().clone()


def weights(module: nn.Module, stage: int, mesh: Mesh) -> dict[str, Tensor]:
    """The current float32 weights by name with whole shapes, at any stage. One all-gather for each parameter."""
    return {n: _whole(_piece(p, stage, mesh), _shape(p), mesh) for n, p in module.named_parameters()}
