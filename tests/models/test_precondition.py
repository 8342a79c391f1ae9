"""EDM preconditioning: the published coefficients and both limits of the noise level."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pidscale.models.precondition import PreconditionedNetwork
from tests.models.test_networks import inputs, tiny


class Recorder(nn.Module):
    """A raw network that records its inputs and returns ones."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, c_noise: Tensor, condition: Tensor | None = None) -> Tensor:
        self.seen.append((x, c_noise))
        return torch.ones_like(x)


def test_coefficients_are_those_of_the_paper() -> None:
    network = Recorder()
    x = torch.full((2, 1, 4, 4), 3.0)
    sigma = torch.tensor([0.1, 2.0])
    out = PreconditionedNetwork(network, sigma_data=0.5)(x, sigma)
    seen, c_noise = network.seen[0]
    for i, s in enumerate((0.1, 2.0)):
        total = s**2 + 0.25
        assert out[i, 0, 0, 0].item() == pytest.approx(0.25 / total * 3 + s * 0.5 / math.sqrt(total))
        assert seen[i, 0, 0, 0].item() == pytest.approx(3 / math.sqrt(total))
        assert c_noise[i].item() == pytest.approx(math.log(s) / 4)


@pytest.mark.parametrize("kind", ["unet", "fno"])
def test_without_noise_the_denoiser_is_the_identity(kind: str) -> None:
    model = tiny(kind)
    x, _ = inputs(2, 2, 16, 16)
    errors = [float((model(x, torch.full((2,), s)) - x).abs().max()) for s in (1e-2, 1e-3, 1e-5)]
    assert errors[2] < 1e-4 and errors[1] < errors[0] / 5


def test_at_high_levels_the_input_is_ignored() -> None:
    network = Recorder()
    x = 80.0 * torch.randn(1, 1, 8, 8)
    out = PreconditionedNetwork(network, sigma_data=0.5)(x, torch.tensor([80.0]))
    torch.testing.assert_close(out, torch.full_like(out, 0.5), atol=0.02, rtol=0)


def test_one_level_applies_to_a_whole_batch() -> None:
    model = tiny("unet")
    x, _ = inputs(3, 2, 16, 16)
    torch.testing.assert_close(model(x, torch.tensor([0.7])), model(x, torch.full((3,), 0.7)))
