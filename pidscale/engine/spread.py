"""Split forms of layers, with which each rank of a space group computes some rows of every field.

Models know no ranks: what a layer sends and receives is written here. A split form shares its parameters with the plain
layer under the same names, so that weights, averages and cards are those of the plain network. A layer without a split form
is refused by name.

Messages of a forward pass: a convolution sends one to each neighbour, a norm does one all-gather of its statistics, attention
one all-gather of keys and values, a spectral layer one all-reduce of its kept modes; pointwise layers send nothing.
Shapes: x_BCyX this rank's rows.
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
from pidscale.parallel.halo import attach_halo
from pidscale.parallel.mesh import Space
from pidscale.parallel.modes import from_modes, kept_modes
from pidscale.parallel.split import Cut, recut
from pidscale.pde.base import Pde
from pidscale.precision import float32_island, float32_or_better


class _Tile:
    """Which rows a layer sees: `cut` is the cut of the finest level, from which those of coarser levels follow."""

    def __init__(self, cut: Cut, space: Space) -> None:
        self.cut = cut
        self.space = space

    def of(self, x_BCyX: Tensor) -> Cut:
        """Return the cut at the level that these rows of this rank belong to."""
        return self.cut.at(self.space.rank, x_BCyX.shape[-2])


class SplitConv2d(nn.Module):
    """The split form of a convolution with an odd kernel, stride 1 or 2, and zero or periodic padding.

    Args:
        plain: The convolution.
        tile: The rows of this rank.

    Raises:
        ValueError: The convolution is of another kind; the message says what is supported.
    """

    def __init__(self, plain: nn.Conv2d, tile: _Tile) -> None:
        super().__init__()
        kernel = plain.kernel_size
        stride = plain.stride[0]
        odd = all(k % 2 for k in kernel) and plain.padding == (kernel[0] // 2, kernel[1] // 2)
        if not odd or plain.stride not in ((1, 1), (2, 2)) or plain.dilation != (1, 1):
            raise ValueError("an odd kernel, padding of half of it, stride 1 or 2 and dilation 1")
        if plain.padding_mode not in ("zeros", "circular"):
            raise ValueError("padding_mode zeros or circular")
        self.weight = plain.weight
        self.bias = plain.bias
        self.stride = stride
        self.groups = plain.groups
        self.wraps = plain.padding_mode == "circular"
        self.sideways = kernel[1] // 2
        self.above = kernel[0] // 2
        self.below = max(0, kernel[0] - stride - self.above)  # rows below the tile that its last output row depends on
        self.tile = tile

    def forward(self, x_BCyX: Tensor) -> Tensor:
        """Map [B, inputs, y, X] to [B, outputs, y / stride, X / stride].

        One message to each neighbour, and one back for gradients.

        Args:
            x_BCyX: This rank's rows of the input.

        Returns:
            This rank's rows of the output.

        Raises:
            ValueError: The rows do not divide by the stride.
        """
        rows = x_BCyX.shape[-2]
        if rows % self.stride:
            raise ValueError(f"a tile of {rows} rows cannot be halved: cut at multiples of the network's levels")
        x = x_BCyX
        if self.above:
            x = attach_halo(x_BCyX, self.above, self.below, self.wraps, self.tile.space, not self.wraps)
        if self.wraps and self.sideways:
            x = functional.pad(x, (self.sideways, self.sideways, 0, 0), mode="circular")
        sides = 0 if self.wraps else self.sideways
        return functional.conv2d(x, self.weight, self.bias, self.stride, (0, sides), groups=self.groups)


class SplitGroupNorm(nn.Module):
    """The split form of a group norm, with the statistics of all rows.

    Args:
        plain: The group norm.
        tile: The rows of this rank.

    Raises:
        ValueError: The group norm has no parameters.
    """

    def __init__(self, plain: nn.GroupNorm, tile: _Tile) -> None:
        super().__init__()
        if not plain.affine:
            raise ValueError("affine")
        self.weight = plain.weight
        self.bias = plain.bias
        self.groups = plain.num_groups
        self.eps = plain.eps
        self.tile = tile

    def forward(self, x_BCyX: Tensor) -> Tensor:
        """Map [B, C, y, X] to the same shape. One all-gather of two numbers a group and sample."""
        with torch.autocast(device_type=x_BCyX.device.type, enabled=False):
            x = float32_or_better(x_BCyX)
            rows = self.tile.of(x_BCyX)
            return reduce.group_norm(x, self.weight, self.bias, self.groups, self.eps, rows, self.tile.space)


class SplitAttention(nn.Module):
    """The split form of attention: this rank's points attend to all points, whose keys and values are gathered.

    Args:
        plain: The attention layer.
        tile: The rows of this rank.
    """

    def __init__(self, plain: Attention, tile: _Tile) -> None:
        super().__init__()
        self.heads = plain.heads
        self.tile = tile
        self.norm = plain.norm
        self.qkv = plain.qkv
        self.out = plain.out

    def forward(self, x_BCyX: Tensor) -> Tensor:
        """Map [B, C, y, X] to the same shape. One all-gather of keys and values, and one all-to-all for gradients."""
        batch, channels, rows, width = x_BCyX.shape
        q, k, v = self.qkv(self.norm(x_BCyX)).chunk(3, dim=1)
        both = reduce.gather_rows(torch.cat([k, v], dim=1), self.tile.of(x_BCyX), self.tile.space)
        q, k, v = (self._heads(part) for part in (q, *both.chunk(2, dim=1)))
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return x_BCyX + self.out(mixed.transpose(-1, -2).reshape(batch, channels, rows, width))

    def _heads(self, x_BCYX: Tensor) -> Tensor:
        """Reshape [B, C, Y, X] to contiguous [B, heads, Y X, C / heads]; of other layouts torch keeps all products."""
        batch, channels = x_BCYX.shape[:2]
        return x_BCYX.reshape(batch, self.heads, channels // self.heads, -1).transpose(-1, -2).contiguous()


class SplitSpectralConv(nn.Module):
    """The split form of a spectral convolution: partial transforms of this rank's rows give the modes on every rank.

    Args:
        plain: The spectral convolution.
        tile: The rows of this rank.
    """

    def __init__(self, plain: SpectralConv, tile: _Tile) -> None:
        super().__init__()
        self.modes = plain.modes
        self.weight = plain.weight
        self.tile = tile

    def forward(self, x_BCyX: Tensor) -> Tensor:
        """Map [B, inputs, y, X] to [B, outputs, y, X]. One all-reduce of the kept modes, whatever the resolution."""
        with float32_island(x_BCyX.device):
            x = float32_or_better(x_BCyX)
            cut = self.tile.of(x_BCyX)
            space = self.tile.space
            rows = cut.rows(space.rank)
            height = cut.total
            width = x.shape[-1]
            m = min(self.modes, height // 2)
            columns = min(self.modes, width // 2 + 1)
            weight = as_complex(self.weight)[:, :, :, :m, :columns]
            low, high = kept_modes(x, rows, height, (m, columns), space).chunk(2, dim=2)
            low = torch.einsum("bcyx,cdyx->bdyx", low, weight[0])
            high = torch.einsum("bcyx,cdyx->bdyx", high, weight[1])
            return from_modes(torch.cat([low, high], dim=2), rows, height, width)


class SplitExtend(nn.Module):
    """The split form of `Extend`: rows are divided again, so that the added rows are shared evenly too.

    Args:
        plain: The layer.
        outer: The rows of this rank in the field.
        inner: The rows of this rank in the extended field.
    """

    def __init__(self, plain: Extend, outer: _Tile, inner: _Tile) -> None:
        super().__init__()
        self.plain = plain
        self.outer = outer
        self.inner = inner

    def forward(self, x_BCyX: Tensor) -> Tensor:
        """Map [B, C, y, X] to [B, C, y', X + margin] of the extended field. One all-to-all of the rows that move."""
        cut = self.outer.cut
        want = self.inner.cut
        space = self.outer.space
        moved = recut(x_BCyX, cut, want.inside(0, cut.total), space)
        missing = want.sizes[space.rank] - moved.shape[-2]
        return functional.pad(moved, (0, self.plain.margin(x_BCyX.shape[-1]), 0, missing))


class SplitCrop(nn.Module):
    """The split form of `Crop`: removes the margin, and restores the cut of the field.

    Args:
        plain: The layer, which has no parameters.
        outer: The rows of this rank in the field.
        inner: The rows of this rank in the extended field.
    """

    def __init__(self, plain: Crop, outer: _Tile, inner: _Tile) -> None:
        super().__init__()
        self.outer = outer
        self.inner = inner

    def forward(self, x_BCyX: Tensor, height: int, width: int) -> Tensor:
        """Map [B, C, y', X + margin] to [B, C, y, X]. One all-to-all of the rows that move.

        Args:
            x_BCyX: This rank's rows of the extended field.
            height: The rows y of this rank in the field; they follow from the cut.
            width: The columns X of the field.

        Returns:
            This rank's rows of the field.
        """
        cut = self.outer.cut
        space = self.outer.space
        have = self.inner.cut.inside(0, cut.total)
        return recut(x_BCyX[:, :, : have.sizes[space.rank], :width], have, cut, space)


LEAST_ROWS = {"strip": 3}  # that every rank must hold, by kind of grid: residuals in time join four rows that are times
_POINTWISE = (nn.Linear, nn.Identity, nn.SiLU, Up)
_SPLIT_FORMS: dict[type[nn.Module], Callable[[Any, _Tile], nn.Module]] = {
    nn.Conv2d: SplitConv2d,
    nn.GroupNorm: SplitGroupNorm,
    Attention: SplitAttention,
    SpectralConv: SplitSpectralConv,
}

Model = TypeVar("Model", bound=nn.Module)


def spread(model: Model, window: Window) -> Model:
    """Replace the layers of a model by their split forms, in place.

    A layer with parameters of its own and without a split form raises a UserError that names it.

    Args:
        model: The model.
        window: The window of this rank; with a window of whole fields the model is not changed.

    Returns:
        The model itself.
    """
    if not isinstance(window, TileWindow):
        return model
    cut = window.cut
    space = window.space
    outer = inner = _Tile(cut, space)
    margins = [layer.margin(cut.total) for layer in model.modules() if isinstance(layer, Extend)]
    if any(margins):
        inner = _Tile(Cut.even(cut.total + margins[0], space.size), space)
    layers = list(model.named_modules())
    after_crop = {f"{name}.{child}".lstrip(".") for name, layer in layers for child in getattr(layer, "after_crop", ())}
    for name, layer in layers:
        split_form = _split_form(name, layer, outer, outer if name in after_crop else inner)
        if split_form is not None:
            model.set_submodule(name, split_form)
    return model


def window_for(description: Mapping[str, Any], grid: Grid, space: Space) -> Window:
    """Return the window of this rank, with a cut that the levels of a network allow.

    Args:
        description: The description of the network, as `architecture` returns it.
        grid: The grid of the fields.
        space: The space group of this rank.

    Returns:
        The window.

    Raises:
        UserError: The fields have too few rows for the group.
    """
    if space.size == 1:
        return Window(grid)
    unit = row_unit(description)
    rows = grid.shape[0]
    least = max(unit, LEAST_ROWS.get(grid.kind, 1))
    if rows % unit or min(Cut.even(rows, space.size, unit).sizes) < least:
        raise UserError(
            f"cluster.space={space.size}: {rows} rows in units of {unit} (levels and patches of the network) leave a worker "
            f"less than the {least} rows it needs{' for residuals in time' if least > unit else ''}; at most "
            f"cluster.space={rows // (unit * -(-least // unit))}"
        )
    return TileWindow(grid, Cut.even(rows, space.size, unit), space)


def check_split(description: Mapping[str, Any], pde: Pde, grid: Grid, size: int) -> None:
    """Refuse networks and equations whose fields cannot be split, before any worker starts.

    Too few rows and layers without a split form raise a UserError too.

    Args:
        description: The description of the network, as `architecture` returns it.
        pde: The equation.
        grid: The grid of the fields.
        size: The number of ranks that share each field.

    Raises:
        UserError: The residual of the equation is not written for split fields.
    """
    if size > 1:
        if not pde.splits:
            raise UserError(
                f"pde.name={pde.name}: its residual takes whole fields only; set cluster.space=1, or write it for split "
                "fields (docs/own_equation.md)"
            )
        window = window_for(description, grid, Space(0, size))
        spread(without_bytes(description), window)


def _split_form(name: str, layer: nn.Module, outer: _Tile, inner: _Tile) -> nn.Module | None:
    """Return the split form of a layer, None for a layer that needs none."""
    if isinstance(layer, Extend):
        return SplitExtend(layer, outer, inner)
    if isinstance(layer, Crop):
        return SplitCrop(layer, outer, inner)
    make = _SPLIT_FORMS.get(type(layer))
    if make is None:
        if isinstance(layer, _POINTWISE) or not any(True for _ in layer.parameters(recurse=False)):
            return None
        raise UserError(f"model: layer {name} ({type(layer).__name__}) has no split form; set cluster.space=1")
    try:
        return make(layer, inner)
    except ValueError as error:
        kind = type(layer).__name__
        raise UserError(
            f"model: layer {name} ({kind}) has a split form for {error} only; set cluster.space=1"
        ) from None
