"""A Fourier neural operator in real numbers is the same function."""

from __future__ import annotations

import pytest
import torch

from pidscale.models.fno import SpectralConv
from pidscale.models.real import in_real_numbers


@pytest.mark.parametrize(("height", "width"), [(16, 16), (15, 9), (6, 7), (8, 40), (4, 4)])
def test_a_spectral_layer_is_the_same_function(height: int, width: int) -> None:
    """Odd and even sizes, and fields with fewer modes than the layer has."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(SpectralConv(3, 5, modes=4), SpectralConv(5, 2, modes=3)).double()
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    before = network(x)
    in_real_numbers(network, x)
    assert not any(isinstance(layer, SpectralConv) for layer in network)
    assert torch.allclose(network(x), before, rtol=0, atol=1e-12 * float(before.detach().abs().max()))
    assert not any(values.is_complex() for values in network.state_dict().values())
