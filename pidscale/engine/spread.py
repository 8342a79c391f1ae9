"""Swap the layers of a network for split twins, so that each rank of a space group holds some rows of every field.

The one file that knows both models and ranks. Twins share their parameters with the plain layers and carry the same names, so
that weights, averages and cards are those of the plain network. A layer that has no twin is refused by name.

Messages of a forward pass: a convolution one to each neighbour, a norm one all-gather of its statistics, attention one
all-gather of keys and values, a spectral layer one all-reduce of its kept modes; pointwise layers none. Shapes: x_BCyX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pidscale.config import UserError
from pidscale.engine.window import TileWindow
from pidscale.models import row_unit, without_bytes
from pidscale.models.fno import Crop, Extend, SpectralConv, as_complex
from pidscale.models.layers import Attention, Up
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.parallel import reduce
from pidscale.parallel.halo import attach
from pidscale.parallel.mesh import Space
from pidscale.parallel.modes import from_modes, kept_modes
from pidscale.parallel.split import Cut, recut
from pidscale.pde.base import Pde
from pidscale.precision import float32_island, float32_or_better


class _Tile:
    """Where the rows of a layer lie: `cut` is that of the finest level; coarser ones follow from the rows at hand."""

    def __init__(self, cut: Cut, space: Space) -> None:
        self.cut, self.space = cut, space

    def of(self, x_BCyX: Tensor) -> Cut:
        """The cut that these rows belong to."""
        return self.cut.at(self.space.rank, x_BCyX.shape[-2])


class SplitConv2d(nn.Module):
    """A convolution with an odd kernel of stride 1 or 2, zeros or a periodic field beyond its ends."""

    def __init__(self, plain: nn.Conv2d, tile: _Tile) -> None:
        super().__init__()
        kernel, stride = plain.kernel_size, plain.stride[0]
        odd = all(k % 2 for k in kernel) and plain.padding == (kernel[0] // 2, kernel[1] // 2)
        if not odd or plain.stride not in ((1, 1), (2, 2)) or plain.dilation != (1, 1):
            raise ValueError("kernel odd, padding half of it, stride 1 or 2, dilation 1")
        if plain.padding_mode not in ("zeros", "circular"):
            raise ValueError("padding_mode zeros or circular")
        self.weight, self.bias = plain.weight, plain.bias
        self.stride, self.groups = stride, plain.groups
        self.wraps, self.sideways = plain.padding_mode == "circular", kernel[1] // 2
        self.above = kernel[0] // 2
        self.below = max(0, kernel[0] - stride - self.above)  # rows that the last output row of a tile sees beyond it
        self.tile = tile

    def forward(self, x_BCyX: Tensor) -> Tensor:
        """[B, inputs, y, X] -> [B, outputs, y / stride, X / stride]. One message to each neighbour."""
        space, own = self.tile.space, x_BCyX.shape[-2]
        if own % self.stride:
            raise ValueError(f"a tile of {own} rows cannot be halved: cut at multiples of the network's levels")
        x = attach(x_BCyX, self.above, self.below, self.wraps, space, not self.wraps) if self.above else x_BCyX
        if self.wraps and self.sideways:
            x = functional.pad(x, (self.sideways, self.sideways, 0, 0), mode="circular")
        sides = 0 if self.wraps else self.sideways
        return functional.conv2d(x, self.weight, self.bias, self.stride, (0, sides), groups=self.groups)


class SplitGroupNorm(nn.Module):
    """Group norm with the statistics of all rows."""

    def __init__(self, plain: nn.GroupNorm, tile: _Tile) -> None:
        super().__init__()
        if not plain.affine:
            raise ValueError("affine")
        self.weight, self.bias = plain.weight, plain.bias
        self.groups, self.eps, self.tile = plain.num_groups, plain.eps, tile

    def forward(self, x_BCyX: Tensor) -> Tensor:
        """[B, C, y, X] -> the same. One all-gather of two numbers for each group."""
        with torch.autocast(device_type=x_BCyX.device.type, enabled=False):
            x, rows = float32_or_better(x_BCyX), self.tile.of(x_BCyX)
            return reduce.group_norm(x, self.weight, self.bias, self.groups, self.eps, rows, self.tile.space)


class SplitAttention(nn.Module):
    """Attention of the points at hand over all points: keys and values of the coarse field are gathered."""

    def __init__(self, plain: Attention, tile: _Tile) -> None:
        super().__init__()
        self.heads, self.tile = plain.heads, tile
        self.norm, self.qkv, self.out = plain.norm, plain.qkv, plain.out

    def forward(self, x_BCyX: Tensor) -> Tensor:
        """[B, C, y, X] -> the same. One all-gather of keys and values together."""
        batch, channels, rows, width = x_BCyX.shape
        q, k, v = self.qkv(self.norm(x_BCyX)).chunk(3, dim=1)
        both = reduce.all_rows(torch.cat([k, v], dim=1), self.tile.of(x_BCyX), self.tile.space)
        q, k, v = (self._heads(part) for part in (q, *both.chunk(2, dim=1)))
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return x_BCyX + self.out(mixed.transpose(-1, -2).reshape(batch, channels, rows, width))

    def _heads(self, x_BCYX: Tensor) -> Tensor:
        """[B, C, Y, X] -> [B, heads, Y X, C / heads], packed: else torch would keep every product of a query and a key."""
        batch, channels = x_BCYX.shape[:2]
        return x_BCYX.reshape(batch, self.heads, channels // self.heads, -1).transpose(-1, -2).contiguous()


class SplitSpectralConv(nn.Module):
    """The kept modes by partial transforms of the rows at hand; every rank multiplies them all."""

    def __init__(self, plain: SpectralConv, tile: _Tile) -> None:
        super().__init__()
        self.modes, self.weight, self.tile = plain.modes, plain.weight, tile

    def forward(self, x_BCyX: Tensor) -> Tensor:
        """[B, inputs, y, X] -> [B, outputs, y, X]. One all-reduce of the kept modes, whatever the resolution."""
        with float32_island(x_BCyX.device):
            x, cut, space = float32_or_better(x_BCyX), self.tile.of(x_BCyX), self.tile.space
            rows, height, width = cut.rows(space.rank), cut.total, x.shape[-1]
            m, columns = min(self.modes, height // 2), min(self.modes, width // 2 + 1)
            weight = as_complex(self.weight)[:, :, :, :m, :columns]
            low, high = kept_modes(x, rows, height, (m, columns), space).chunk(2, dim=2)
            low = torch.einsum("bcyx,cdyx->bdyx", low, weight[0])
            high = torch.einsum("bcyx,cdyx->bdyx", high, weight[1])
            return from_modes(torch.cat([low, high], dim=2), rows, height, width)


class SplitExtend(nn.Module):
    """Zeros below and to the right; rows are shared anew, so that every rank holds as much of what was added."""

    def __init__(self, plain: Extend, outer: _Tile, inner: _Tile) -> None:
        super().__init__()
        self.plain, self.outer, self.inner = plain, outer, inner

    def forward(self, x_BCyX: Tensor) -> Tensor:
        """[B, C, y, X] of the field -> [B, C, y', X + margin] of the extended one. One all-to-all of the rows that move."""
        cut, want, space = self.outer.cut, self.inner.cut, self.outer.space
        moved = recut(x_BCyX, cut, want.inside(0, cut.total), space)
        missing = want.sizes[space.rank] - moved.shape[-2]
        return functional.pad(moved, (0, self.plain.margin(x_BCyX.shape[-1]), 0, missing))


class SplitCrop(nn.Module):
    """Back to the field and its own cut."""

    def __init__(self, plain: Crop, outer: _Tile, inner: _Tile) -> None:
        super().__init__()
        self.outer, self.inner = outer, inner

    def forward(self, x_BCyX: Tensor, height: int, width: int) -> Tensor:
        """[B, C, y', X'] -> [B, C, height, width], `height` the rows at hand. One all-to-all of the rows that move."""
        cut, space = self.outer.cut, self.outer.space
        have = self.inner.cut.inside(0, cut.total)
        return recut(x_BCyX[:, :, : have.sizes[space.rank], :width], have, cut, space)


LEAST_ROWS = {"strip": 3}  # that a residual asks of every tile: times are lined up by fours
_POINTWISE = (nn.Linear, nn.Identity, nn.SiLU, Up)
_TWINS: dict[type[nn.Module], Callable[[Any, _Tile], nn.Module]] = {
    nn.Conv2d: SplitConv2d,
    nn.GroupNorm: SplitGroupNorm,
    Attention: SplitAttention,
    SpectralConv: SplitSpectralConv,
}


Model = TypeVar("Model", bound=nn.Module)


def spread(model: Model, window: Window) -> Model:
    """The same model with split twins in place of its layers, for the tiles of this window. Of whole fields: as it is.

    Raises UserError that names a layer with parameters of its own and no twin.
    """
    if not isinstance(window, TileWindow):
        return model
    cut, space = window.cut, window.space
    outer = inner = _Tile(cut, space)
    margins = [layer.margin(cut.total) for layer in model.modules() if isinstance(layer, Extend)]
    if any(margins):
        inner = _Tile(Cut.even(cut.total + margins[0], space.size), space)
    layers = list(model.named_modules())
    after_crop = {f"{name}.{child}".lstrip(".") for name, layer in layers for child in getattr(layer, "after_crop", ())}
    for name, layer in layers:
        twin = _twin(name, layer, outer, outer if name in after_crop else inner)
        if twin is not None:
            model.set_submodule(name, twin)
    return model


def window_for(description: Mapping[str, Any], grid: Grid, space: Space) -> Window:
    """The rows of this rank, cut where the levels of this network allow. UserError where they are too few to share."""
    if space.size == 1:
        return Window(grid)
    unit, rows = row_unit(description), grid.shape[0]
    least = max(unit, LEAST_ROWS.get(grid.kind, 1))
    if rows % unit or min(Cut.even(rows, space.size, unit).sizes) < least:
        raise UserError(
            f"cluster.space={space.size}: {rows} rows in units of {unit} (levels and patches of the network) leave a worker "
            f"less than the {least} rows it needs{' for residuals in time' if least > unit else ''}; at most "
            f"cluster.space={rows // (unit * -(-least // unit))}"
        )
    return TileWindow(grid, Cut.even(rows, space.size, unit), space)


def check_split(description: Mapping[str, Any], pde: Pde, grid: Grid, size: int) -> None:
    """Raise UserError where a field of this grid, network and equation cannot be shared by `size` ranks. For a driver."""
    if size > 1:
        if not pde.splits:
            raise UserError(
                f"pde.name={pde.name}: its residual takes whole fields only; set cluster.space=1, or write it for tiles "
                "(docs/own_equation.md)"
            )
        window = window_for(description, grid, Space(0, size))
        spread(without_bytes(description), window)


def _twin(name: str, layer: nn.Module, outer: _Tile, inner: _Tile) -> nn.Module | None:
    """The split twin of a layer, None for one that needs none."""
    if isinstance(layer, Extend):
        return SplitExtend(layer, outer, inner)
    if isinstance(layer, Crop):
        return SplitCrop(layer, outer, inner)
    make = _TWINS.get(type(layer))
    if make is None:
        if isinstance(layer, _POINTWISE) or not any(True for _ in layer.parameters(recurse=False)):
            return None
        raise UserError(
            f"model: layer {name} ({type(layer).__name__}) has no twin for split fields; set cluster.space=1"
        )
    try:
        return make(layer, inner)
    except ValueError as error:
        kind = type(layer).__name__
        raise UserError(f"model: layer {name} ({kind}) has a twin for {error} only; set cluster.space=1") from None
