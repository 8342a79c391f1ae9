"""A Fourier neural operator without complex numbers, for programs that have none. Knows no files and no equations.

A transform of a field of known size is a matrix product on each axis. Its matrix is the transform of unit vectors. Only the
kept modes are computed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pidscale.models.fno import SpectralConv, as_complex
from pidscale.precision import float32_island, float32_or_better


class RealSpectralConv(nn.Module):
    """What a `SpectralConv` computes for fields of one size, as real matrix products.

    Real and imaginary parts lie one behind the other: spectra are [B, C, 2, M, K] with M kept modes along y and K along x.
    """

    along_x: Tensor
    along_y: Tensor
    back_y: Tensor
    back_x: Tensor
    real: Tensor
    imaginary: Tensor

    def __init__(self, layer: SpectralConv, height: int, width: int) -> None:
        """Compute the matrices of a layer.

        Args:
            layer: The layer.
            height: The number Y of rows of its input.
            width: The number X of columns.
        """
        super().__init__()
        rows = min(layer.modes, height // 2)
        columns = min(layer.modes, width // 2 + 1)
        kept = [*range(rows), *range(height - rows, height)]
        weight = as_complex(layer.weight.detach())[:, :, :, :rows, :columns]
        weight = torch.cat([weight[0], weight[1]], dim=2)  # [inputs, outputs, M, K]

        def keep(name: str, values: Tensor) -> None:
            self.register_buffer(name, values.to(weight.device, weight.real.dtype).contiguous())

        unit_x = torch.eye(width, dtype=torch.float64)
        unit_y = torch.eye(height, dtype=torch.float64)
        modes = torch.eye(width // 2 + 1, dtype=torch.complex128)[:columns]
        wave_x = torch.fft.rfft(unit_x, norm="ortho")[:, :columns]
        wave_y = torch.fft.fft(unit_y, norm="ortho")[:, kept].T
        keep("along_x", torch.stack([wave_x.real, wave_x.imag]))  # [2, X, K]
        keep("along_y", torch.stack([wave_y.real, wave_y.imag]))  # [2, M, Y]
        keep("back_y", torch.stack([wave_y.real.T, -wave_y.imag.T]))  # [2, Y, M]
        keep(
            "back_x", torch.stack([torch.fft.irfft(unit * modes, n=width, norm="ortho") for unit in (1, 1j)])
        )  # [2, K, X]
        keep("real", weight.real)
        keep("imaginary", weight.imag)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Map [B, inputs, Y, X] to [B, outputs, Y, X], in float32 or float64."""
        with float32_island(x_BCYX.device):
            x = float32_or_better(x_BCYX)
            real, imaginary = _times(self.along_y, x @ self.along_x[0], x @ self.along_x[1])

            def mixed(values: Tensor, weight: Tensor) -> Tensor:
                return torch.einsum("bcyx,cdyx->bdyx", values, weight)

            mixed_real = mixed(real, self.real) - mixed(imaginary, self.imaginary)
            mixed_imaginary = mixed(real, self.imaginary) + mixed(imaginary, self.real)
            real, imaginary = _times(self.back_y, mixed_real, mixed_imaginary)
            return real @ self.back_x[0] + imaginary @ self.back_x[1]


def _times(matrix: Tensor, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
    """Return real and imaginary parts of the product of a complex matrix, as [2, ...], with complex values."""
    return matrix[0] @ real - matrix[1] @ imaginary, matrix[0] @ imaginary + matrix[1] @ real


def in_real_numbers(network: nn.Module, *example: Any) -> None:
    """Replace all spectral layers of a network by real ones, for fields of one size.

    Args:
        network: The network, which is changed.
        *example: Input of that size, which is passed through once.
    """
    sizes: dict[str, tuple[int, int]] = {}
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, SpectralConv)}

    def watch(name: str) -> Any:
        def note(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            sizes[name] = given[0].shape[-2], given[0].shape[-1]

        return layers[name].register_forward_pre_hook(note)

    hooks = [watch(name) for name in layers]
    with torch.no_grad():
        network(*example)
    for hook in hooks:
        hook.remove()
    for name, layer in layers.items():
        network.set_submodule(name, RealSpectralConv(layer, *sizes[name]))
