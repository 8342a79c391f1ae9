"""Networks: sizes, shapes, parameters without complex ones, and what stays in float32 under precision=bf16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pidscale.models import PRESETS, architecture, build_denoiser
from pidscale.models.fno import SpectralConv
from pidscale.models.layers import Attention
from pidscale.models.precondition import PreconditionedNetwork

MILLIONS = {  # least and most parameters of a preset
    "unet": {"tiny": (0.2, 1), "small": (2, 10), "medium": (20, 60), "large": (250, 500), "xl": (1000, 2000)},
    "fno": {"tiny": (0.2, 1), "small": (2, 10), "medium": (20, 80), "large": (250, 700), "xl": (1000, 3000)},
}
TINY: dict[str, dict[str, Any]] = {
    "unet": {"width": 8, "multipliers": [1, 2], "embedding": 16},
    "fno": {"width": 8, "modes": 6, "layers": 2, "embedding": 16},
}


def tiny(kind: str, precision: str = "fp32", channels: int = 2, **changes: Any) -> PreconditionedNetwork:
    """A small network with random weights everywhere, also where they are initialised to zero: every branch contributes."""
    torch.manual_seed(0)
    model = build_denoiser(architecture(kind, "tiny", channels, **(TINY[kind] | changes)), precision=precision)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model.eval().requires_grad_(False)


def inputs(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator), torch.rand(shape[0], generator=generator) + 0.2


@pytest.mark.parametrize(("kind", "size"), [(kind, size) for kind in PRESETS for size in PRESETS[kind]])
def test_every_preset_has_its_number_of_parameters(kind: str, size: str) -> None:
    with torch.device("meta"):
        model = build_denoiser(architecture(kind, size, 2))
    least, most = MILLIONS[kind][size]
    assert least <= sum(p.numel() for p in model.parameters()) / 1e6 <= most
    assert all(p.dtype == torch.float32 and not p.is_complex() for p in model.parameters())


@pytest.mark.parametrize("kind", ["unet", "fno"])
def test_any_rectangle_is_mapped_to_the_same_shape(kind: str) -> None:
    model = tiny(kind, channels=3)
    for height, width in ((32, 32), (16, 40), (48, 20)):
        x, sigma = inputs(2, 3, height, width)
        out = model(x, sigma)
        assert out.shape == x.shape and out.isfinite().all()
        # samples do not depend on each other, and the two sides are not confused
        torch.testing.assert_close(model(x[1:], sigma[1:]), out[1:], atol=1e-5, rtol=1e-5)
        assert (model(x.flip(3), sigma).flip(3) - out).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["unet", "fno"])
def test_the_memory_format_of_the_input_does_not_matter(kind: str) -> None:
    model = tiny(kind)
    x, sigma = inputs(3, 2, 16, 24)
    last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(last, sigma), model(x, sigma), atol=1e-5, rtol=1e-5)


def test_fno_weights_apply_at_any_resolution() -> None:
    """A spectral layer maps a smooth periodic field, sampled more finely, to the same function."""
    model = tiny("fno", modes=4, padding=0.0)
    layer = model.network.layers[0].spectral

    def field(n: int) -> Tensor:
        y, x = torch.arange(n)[:, None] / n, torch.arange(n)[None, :] / n
        wave = torch.sin(2 * torch.pi * x) * torch.cos(2 * torch.pi * 2 * y) + torch.cos(2 * torch.pi * (x + y))
        return wave.expand(1, 8, n, n)

    coarse = layer(field(32))
    fine = layer(field(48))
    torch.testing.assert_close(fine[..., ::3, ::3], coarse[..., ::2, ::2], atol=1e-5, rtol=1e-4)
    assert coarse.std() > 0.1
    for n in (32, 48):
        assert model(*inputs(1, 2, n, n)).shape == (1, 2, n, n)


def test_a_spectral_layer_multiplies_the_kept_modes_and_drops_the_others() -> None:
    layer = SpectralConv(1, 1, 3)
    y, x = torch.arange(16)[:, None] / 16, torch.arange(16)[None, :] / 16

    def wave(ky: int, kx: int) -> Tensor:
        return torch.cos(2 * torch.pi * (ky * y + kx * x))[None, None]

    real, imaginary = layer.weight[0, 0, 0, 2, 1].tolist()
    # a weight times exp(i k x) changes amplitude and phase of one cosine
    expected = real * wave(2, 1) - imaginary * torch.sin(2 * torch.pi * (2 * y + x))
    torch.testing.assert_close(layer(wave(2, 1)), expected, atol=1e-5, rtol=1e-5)
    assert layer(wave(0, 3)).abs().max() < 1e-5 and layer(wave(4, 1)).abs().max() < 1e-5
    high = layer.weight[1, 0, 0, 1, 2].tolist()  # row 1 of the last 3 rows is wave number -2
    expected = high[0] * wave(-2, 2) - high[1] * torch.sin(2 * torch.pi * (-2 * y + 2 * x))
    torch.testing.assert_close(layer(wave(-2, 2)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["unet", "fno"])
def test_bf16_applies_inside_the_network_only(kind: str) -> None:
    model = tiny(kind, "bf16")
    seen: dict[str, list[tuple[torch.dtype, torch.dtype]]] = {}

    def watch(name: str) -> Any:
        return lambda module, given, made: seen.setdefault(name, []).append((given[0].dtype, made.dtype))

    for name, module in model.network.named_modules():
        if isinstance(module, (nn.Conv2d, SpectralConv)):
            module.register_forward_hook(watch(name))
    x, sigma = inputs(2, 2, 16, 16)
    out = model(x, sigma)
    assert out.dtype == torch.float32
    assert seen["last"] == [(torch.float32, torch.float32)]
    inside = [pair[1] for name, pairs in seen.items() if name != "last" and "spectral" not in name for pair in pairs]
    assert inside and set(inside) == {torch.bfloat16}  # bf16 is in use
    spectral = [pair[1] for name, pairs in seen.items() if "spectral" in name for pair in pairs]
    assert set(spectral) == ({torch.float32} if kind == "fno" else set())
    exact = tiny(kind)(x, sigma)
    assert 1e-6 < (out - exact).norm() / exact.norm() < 0.03


def test_a_spectral_layer_computes_in_float32_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every backend casts complex products under autocast, so the test also looks at the autocast state."""
    layer = SpectralConv(4, 4, 3)
    product = torch.einsum
    seen: list[tuple[bool, torch.dtype]] = []
    x, _ = inputs(2, 4, 16, 16)
    plain = layer(x)

    def watched(*given: Any) -> Tensor:
        seen.append((torch.is_autocast_enabled("cpu"), given[1].dtype))
        return product(*given)

    monkeypatch.setattr(torch, "einsum", watched)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = layer(x)
    assert torch.equal(inside, plain) and seen == [(False, torch.complex64)] * 2


@pytest.mark.parametrize("kind", ["unet", "fno"])
def test_an_outer_autocast_does_not_change_fp32(kind: str) -> None:
    model = tiny(kind)
    x, sigma = inputs(2, 2, 16, 16)
    plain = model(x, sigma)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(x, sigma), plain)


@pytest.mark.parametrize("patch", [2, 4])
def test_patches_are_unfolded_where_they_were_folded(patch: int) -> None:
    model = tiny("unet", patch=patch)
    assert model.network.multiple == 2 * patch
    x, sigma = inputs(2, 2, 8 * patch, 4 * patch)
    plain = tiny("unet", channels=2 * patch**2)
    plain.load_state_dict(model.state_dict())
    folded = plain.network(functional.pixel_unshuffle(x, patch), sigma)
    torch.testing.assert_close(model.network(x, sigma), functional.pixel_shuffle(folded, patch))
    assert folded.std() > 0.1


def test_attention_sees_all_points_and_no_order() -> None:
    torch.manual_seed(0)
    layer = Attention(64)
    nn.init.normal_(layer.out.weight, std=0.1)
    x, _ = inputs(1, 64, 4, 6)
    moved = x.clone()
    moved[0, :, 0, 0] += 3.0
    assert ((layer(moved) - layer(x))[0, :, 3, 5].abs()).max() > 1e-4
    order = torch.randperm(24)
    shuffled = x.flatten(2)[..., order].reshape(1, 64, 4, 6)
    torch.testing.assert_close(layer(shuffled).flatten(2), layer(x).flatten(2)[..., order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "changes", "named"),
    [
        (("vit", "tiny", 2), {}, "model.kind='vit'"),
        (("unet", "huge", 2), {}, "model.size='huge'"),
        (("unet", "tiny", 2), {"modes": 8}, "model.change.modes"),
        (("fno", "tiny", 2), {"multipliers": [1]}, "model.change.multipliers"),
    ],
)
def test_an_unknown_architecture_is_refused_by_name(arguments: tuple[str, str, int], changes: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        architecture(*arguments, **changes)


def test_channels_that_do_not_divide_into_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="104"):
        Attention(104)


@pytest.mark.parametrize(
    "change",
    [{"multipliers": []}, {"multipliers": 3}, {"patch": 0}, {"width": -3}, {"width": "abc"}, {"attention_levels": -1}],
)
def test_a_change_that_describes_no_network_is_refused_by_name(change):
    with pytest.raises(ValueError, match=rf"model.change.{next(iter(change))}=.*expected"):
        architecture("unet", "tiny", 2, **change)
