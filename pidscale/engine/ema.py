"""An exponential moving average of the weights, divided over the ranks by parameter name.

Every rank holds one piece of each flattened parameter, of one size on all ranks. The pieces are the same at every ZeRO stage;
stage 3 divides its parameters in this way itself. Knows no equations.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pidscale.engine.slices import Reader, Slice, share
from pidscale.parallel.mesh import Mesh


def _piece(parameter: Tensor, stage: int, mesh: Mesh) -> Tensor:
    """Return this rank's flat float32 piece of a parameter, filled up with zeros."""
    if stage == 3:
        from deepspeed.utils import safe_get_local_fp32_param

        local: Tensor = safe_get_local_fp32_param(parameter)
        return local.detach().flatten()
    flat = parameter.detach().float().flatten()
    size = -(-flat.numel() // mesh.world)
    piece = flat[mesh.rank * size : (mesh.rank + 1) * size]
    return torch.cat([piece, piece.new_zeros(size - piece.numel())]) if piece.numel() < size else piece


def pieces(module: nn.Module, stage: int, mesh: Mesh) -> dict[str, Tensor]:
    """Return this rank's flat pieces of the current float32 weights, by parameter name. No messages.

    The pieces of all ranks are equally long. Those at the end of a parameter are filled up, at stage 3 with whatever was in
    the memory that DeepSpeed uses for it; `values` omits that.

    Args:
        module: The module, as DeepSpeed has prepared it.
        stage: Its ZeRO stage.
        mesh: The mesh of ranks.

    Returns:
        The pieces.
    """
    return {n: _piece(p, stage, mesh) for n, p in module.named_parameters()}


def values(module: nn.Module, stage: int, mesh: Mesh) -> list[Tensor]:
    """Return this rank's pieces as `pieces` does, without what fills them up."""
    return _cut(pieces(module, stage, mesh), _bounds(module, mesh))


def _bounds(module: nn.Module, mesh: Mesh) -> dict[str, tuple[torch.Size, int, int]]:
    """Return the shape of each parameter and the bounds of this rank's piece of it."""
    shapes = {n: _shape(p) for n, p in module.named_parameters()}
    return {n: (shape, *share(shape.numel(), mesh.rank, mesh.world)) for n, shape in shapes.items()}


def _cut(filled: Mapping[str, Tensor], bounds: Mapping[str, tuple[torch.Size, int, int]]) -> list[Tensor]:
    """Return pieces without what fills them up."""
    return [filled[name][: stop - start] for name, (_, start, stop) in bounds.items()]


def _shape(parameter: Tensor) -> torch.Size:
    """Return the full shape of a parameter, also where stage 3 holds only a piece of it."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


class Ema:
    """The average of a module's weights. Its half-life is a share of the steps so far, so that early weights fade out.

    Args:
        module: The module, as DeepSpeed has prepared it.
        stage: Its ZeRO stage.
        mesh: The mesh of ranks.
        share: The half-life as a share of the steps done so far.
    """

    def __init__(self, module: nn.Module, stage: int, mesh: Mesh, share: float) -> None:
        self.module = module
        self.stage = stage
        self.mesh = mesh
        self.share = share
        self.pieces = {n: p.clone() for n, p in pieces(module, stage, mesh).items()}

    def update(self, step: int) -> None:
        """Blend in the current weights, after the update of `step` (counted from 0). No messages."""
        decay = 0.5 ** (1.0 / (self.share * (step + 1) + 1e-9))
        with torch.no_grad():
            fresh = list(pieces(self.module, self.stage, self.mesh).values())
            torch._foreach_lerp_(list(self.pieces.values()), fresh, 1 - decay)

    def full_weights(self, kept: bool = True) -> dict[str, Tensor]:
        """Return the average by parameter name in full shapes, on the CPU. All ranks call it; one all-gather a parameter.

        Args:
            kept: Whether this rank keeps the average; others return nothing, and never hold more than one parameter.

        Returns:
            The average.
        """
        shapes = {n: _shape(p) for n, p in self.module.named_parameters()}
        gathered = ((n, self.mesh.gather_pieces(piece)) for n, piece in self.pieces.items())
        return {n: _joined(found, shapes[n]) for n, found in gathered if kept}

    def values(self) -> list[Tensor]:
        """Return this rank's pieces without what fills them up. No messages."""
        return _cut(self.pieces, _bounds(self.module, self.mesh))

    def slices(self) -> list[Slice]:
        """Return this rank's pieces by name, without what fills them up. No messages."""
        bounds = _bounds(self.module, self.mesh)
        named = zip(bounds.items(), _cut(self.pieces, bounds), strict=True)
        return [Slice(name, tuple(shape), start, own) for (name, (shape, start, _)), own in named]

    def restore(self, reader: Reader) -> None:
        """Take this rank's pieces from a checkpoint, whatever stage and world size wrote it. No messages."""
        for name, (_, start, stop) in _bounds(self.module, self.mesh).items():
            self.pieces[name].zero_()[: stop - start].copy_(reader.read(name, start, stop))

    def copy_from(self, other: Ema) -> None:
        """Take over the pieces of another average of the same network on the same mesh. No messages."""
        for name, piece in self.pieces.items():
            piece.copy_(other.pieces[name])


def _joined(found: list[Tensor], shape: torch.Size) -> Tensor:
    """Return a parameter in its full shape on the CPU, from the pieces of all ranks."""
    flat = torch.cat(found)
    return flat[: shape.numel()].reshape(shape).cpu().clone()


def weights(module: nn.Module, stage: int, mesh: Mesh) -> dict[str, Tensor]:
    """Return the current float32 weights by parameter name in full shapes, at any stage. One all-gather a parameter.

    Args:
        module: The module, as DeepSpeed has prepared it.
        stage: Its ZeRO stage.
        mesh: The mesh of ranks.

    Returns:
        The weights on the CPU of every rank.
    """
    named = dict(module.named_parameters())
    return {n: _joined(mesh.gather_pieces(_piece(p, stage, mesh)), _shape(p)) for n, p in named.items()}
