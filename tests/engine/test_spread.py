"""Split forms of layers and networks: outputs and gradients equal those of the plain ones on whole fields."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pidscale.config import RunSettings, Settings, UserError
from pidscale.engine.spread import check_split, spread, window_for
from pidscale.engine.window import TileWindow
from pidscale.models import architecture, build_denoiser
from pidscale.models.fno import SpectralConv
from pidscale.models.layers import Attention, Down, ResidualBlock, Up
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh, Space
from pidscale.parallel.split import Cut, gather_on_first, recut
from pidscale.pde.heat import Heat
from pidscale.run.agree import agree
from tests.ranks import spawn

HEIGHT, WIDTH, CHANNELS, BATCH = 24, 12, 16, 2
GRID = Grid((HEIGHT, WIDTH))
CUTS = {
    2: [(0, 12, 24), (0, 8, 24)],
    4: [(0, 4, 12, 16, 24), (0, 4, 8, 12, 24)],
}  # multiples of 4: three levels


def conv(kernel, stride, mode):
    return nn.Conv2d(CHANNELS, 6, kernel, stride, padding=kernel // 2, padding_mode=mode)


LAYERS = {
    **{
        f"conv {kernel} / {stride} {mode}": lambda k=kernel, s=stride, m=mode: conv(k, s, m)
        for kernel in (1, 3, 5, 7)
        for stride in (1, 2)
        for mode in ("zeros", "circular")
    },
    "group norm": lambda: nn.GroupNorm(2, CHANNELS),
    "attention": lambda: Attention(CHANNELS, 8),
    "spectral": lambda: SpectralConv(CHANNELS, 6, 4),
    "spectral, all modes": lambda: SpectralConv(CHANNELS, 6, 40),
    "down": lambda: Down(CHANNELS, 6),
    "up": lambda: Up(CHANNELS, 6),
    "depthwise": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS),
}
UNET = {"width": 8, "multipliers": [1, 2, 2], "blocks": 1, "attention_levels": 1, "embedding": 16}
FNO = {"kind": "fno", "channels": 2, "width": 8, "modes": 4, "layers": 2, "embedding": 16}
NETWORKS = {
    "unet": {"kind": "unet", "channels": 2, **UNET, "patch": 1},
    "unet, patches": {
        "kind": "unet",
        "channels": 2,
        **UNET,
        "patch": 2,
        "multipliers": [1, 2],
        "conditions": 1,
    },
    "fno": {**FNO, "padding": 0.25},
    "fno, periodic": {**FNO, "padding": 0.0},
}


def fill(model, dtype):
    """Fill all weights with random numbers; initial zeros would hide most of a network."""
    rng = torch.manual_seed(3)
    for parameter in model.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, dtype=torch.float64, generator=rng).to(dtype)
    return model.to(dtype)


def drawn(channels, dtype):
    return torch.randn(BATCH, channels, HEIGHT, WIDTH, dtype=torch.float64, generator=torch.manual_seed(5)).to(dtype)


def made(name, dtype):
    """A model, its input channels and its other inputs."""
    if name in LAYERS:
        return fill(LAYERS[name](), dtype), CHANNELS, ()
    description = NETWORKS[name]
    model = fill(build_denoiser(description, recompute="patches" in name), dtype)
    condition = torch.tensor([[0.3], [-0.5]], dtype=dtype) if description.get("conditions") else None
    return model, 2, (torch.tensor([0.5, 40.0], dtype=dtype), condition)


def weigh(output, whole_shape, rows):
    """A loss that weighs every point of the output differently."""
    weight = torch.randn(whole_shape, dtype=torch.float64, generator=torch.manual_seed(9)).to(output.dtype)
    return (weight[..., rows, :] * output).sum()


def plain(name, dtype):
    model, channels, rest = made(name, dtype)
    x = drawn(channels, dtype).requires_grad_()
    output = model(x, *rest)
    weigh(output, output.shape, slice(None)).backward()
    return output.detach(), x.grad, {n: p.grad for n, p in model.named_parameters()}


def split(rank, world, names, dtype):
    mesh = Mesh.over(rank, world, torch.device("cpu"), world)
    found = {}
    for name in names:
        for ends in CUTS[world]:
            model, channels, rest = made(name, dtype)
            before = [n for n, _ in model.named_parameters()]
            # a single layer is put into a list, in which its split form can replace it
            model = spread(nn.ModuleList([model]) if name in LAYERS else model, TileWindow(GRID, Cut(ends), mesh.space))
            run = model[0] if name in LAYERS else model
            assert [n for n, _ in run.named_parameters()] == before
            x = drawn(channels, dtype)[..., ends[rank] : ends[rank + 1], :].clone().requires_grad_()
            output = run(x, *rest)
            cut = Cut(ends).at(rank, output.shape[-2])
            shape = (*output.shape[:-2], cut.total, output.shape[-1])
            weigh(output, shape, cut.rows(rank)).backward()
            found[name, ends] = output.detach(), x.grad, {n: p.grad for n, p in run.named_parameters()}
    return found


def near(name, found, wanted, tolerance):
    error = (found - wanted).norm()
    size = wanted.norm()
    assert error <= tolerance * size, f"{name}: {float(error / size):.2e} of the norm"


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_split_forms_equal_plain_layers_and_networks(world, dtype, tolerance):
    names = [*LAYERS, *NETWORKS]
    ranks = spawn(split, world, names, dtype)
    for name in names:
        output, gradient, parameters = plain(name, dtype)
        joined = torch.cat([p.flatten() for p in parameters.values()]).norm()
        for ends in CUTS[world]:
            parts = [rank[name, ends] for rank in ranks]
            near(f"{name} {ends} output", torch.cat([part[0] for part in parts], dim=-2), output, tolerance)
            near(f"{name} {ends} input", torch.cat([part[1] for part in parts], dim=-2), gradient, tolerance)
            for key, wanted in parameters.items():
                error = (sum(part[2][key] for part in parts) - wanted).norm()
                assert error <= tolerance * joined, f"{name} {ends} {key}: {float(error / joined):.2e}"


class Odd(nn.Module):
    """A layer with parameters and without a split form."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (Odd(), r"layer 1 \(Odd\) has no split form"),
        (nn.Conv2d(2, 2, 4, padding=2), "layer 1 .Conv2d. has a split form for an odd kernel"),
        (nn.Conv2d(2, 2, 3, padding=1, dilation=2), "dilation 1"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), "padding_mode zeros or circular"),
        (nn.ConvTranspose2d(2, 2, 2, 2), "no split form"),
        (nn.BatchNorm2d(2), "no split form"),
        (nn.GroupNorm(1, 2, affine=False), "affine"),
    ],
)
def test_a_layer_without_a_split_form_is_refused_by_name(layer, said):
    with pytest.raises(UserError, match=said):
        spread(nn.Sequential(nn.SiLU(), layer), TileWindow(GRID, Cut.even(24, 2), Space(0, 2)))


def test_one_process_keeps_the_plain_model():
    model = build_denoiser(NETWORKS["unet"])
    assert spread(model, Window(GRID)) is model
    assert type(model.network.first) is nn.Conv2d
    assert ResidualBlock is type(model.network.middle.block)


def moved(rank, world):
    space = Mesh.over(rank, world, torch.device("cpu"), world).space
    have = Cut((0, 1, 7, 9))
    want = Cut((0, 4, 4, 9))
    field = torch.arange(18.0).reshape(9, 2)
    x = field[have.rows(rank)].clone().requires_grad_()
    y = recut(x, have, want, space)
    (y * field[want.rows(rank)]).sum().backward()
    gathered = gather_on_first(x, have, space)
    return torch.equal(y, field[want.rows(rank)]), torch.equal(x.grad, field[have.rows(rank)]), gathered


def test_rows_move_from_one_cut_to_another():
    ranks = spawn(moved, 3)
    assert [rank[:2] for rank in ranks] == [(True, True)] * 3
    assert torch.equal(ranks[0][2], torch.arange(18.0).reshape(9, 2)) and ranks[1][2] is None


def test_cuts_are_even_and_scale():
    assert Cut.even(24, 3, 4).ends == (0, 8, 16, 24) and Cut.even(20, 3, 4).ends == (0, 4, 12, 20)
    assert Cut((0, 8, 24)).at(1, 4).ends == (0, 2, 6) and Cut((0, 8, 24)).inside(1, 23).sizes == [7, 15]
    with pytest.raises(ValueError, match="not a multiple of 4"):
        Cut.even(22, 2, 4)
    with pytest.raises(ValueError, match="do not scale"):
        Cut((0, 6, 24)).at(1, 5)


@pytest.mark.parametrize(
    ("kind", "grid", "space", "said"),
    [
        ("unet", Grid((16, 16)), 8, r"cluster\.space=8: 16 rows in units of 4 .* at most cluster\.space=4"),
        ("unet", Grid((18, 18)), 2, "18 rows in units of 4"),
        (
            "fno",
            Grid((8, 8), kind="strip"),
            4,
            r"less than the 3 rows it needs for residuals in time; at most cluster\.space=2",
        ),
        ("fno", Grid((8, 8)), 9, r"less than the 1 rows it needs; at most cluster\.space=8"),
    ],
)
def test_too_few_rows_to_share_are_refused_with_the_largest_space(kind, grid, space, said):
    with pytest.raises(UserError, match=said):
        window_for(architecture(kind, "tiny", 2), grid, Space(0, space))


def test_an_equation_for_whole_fields_is_refused_before_a_run_starts():
    class Whole(Heat):
        splits = False

    pde = Whole.from_params({"frames": 4})
    check_split(architecture("fno", "tiny", 4), pde, pde.grid(16), 1)
    with pytest.raises(UserError, match=r"heat: its residual takes whole fields only; set cluster\.space=1"):
        check_split(architecture("fno", "tiny", 4), pde, pde.grid(16), 2)


def disagree(rank, world):
    mesh = Mesh(rank, world)
    agree(Settings(), mesh)
    try:
        agree(Settings(run=RunSettings(seed=rank)), mesh)
    except UserError as error:
        return str(error)


def test_ranks_with_different_settings_stop_together():
    assert spawn(disagree, 2) == [
        "another worker has other settings, versions or files; give all workers the same ones",
        "rank 1 has run.seed=1, not 0 as on rank 0; give all workers the same settings, versions and files",
    ]
