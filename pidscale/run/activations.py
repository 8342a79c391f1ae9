"""Memory of a training step, measured: passes of a network over tensors that have shapes but no storage, and solver steps.

Knows no settings and no ranks.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pidscale.models import build_denoiser
from pidscale.models.layers import Attention
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde
from pidscale.pde.head import correct
from pidscale.pde.parameters import draw_params


class Alive(TorchDispatchMode):
    """A context that counts the bytes of the tensors created in it: `now` of those alive, `most` the largest `now` so far.

    Args:
        besides: Tensors from outside that operations may return; they are not counted.
    """

    def __init__(self, besides: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.besides = {tensor.untyped_storage()._cdata for tensor in besides}
        self.known: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self.now = 0
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.device.type != "meta":
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        size = storage.nbytes()
        if key in self.besides or key in self.known:
            return

        def gone(_: Any) -> None:
            del self.known[key]
            self.now -= size

        self.known[key] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)


@contextmanager
def norms_of_cuda() -> Iterator[None]:
    """Compute group norms in float32 while the body runs, as autocast does on CUDA, but not on the CPU."""
    plain = nn.functional.group_norm

    def in_float32(
        input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
    ) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return plain(input.float(), num_groups, weight, bias, eps)

    nn.functional.group_norm = in_float32
    try:
        yield
    finally:
        nn.functional.group_norm = plain


def _pass(
    description: Mapping[str, Any],
    shape: tuple[int, ...],
    rows: int,
    recompute: bool,
    precision: str,
    trains: bool,
    cuda: bool,
) -> int:
    """Return the most bytes alive in one pass over a batch [B, C, y, X], beyond weights, buffers and gradients of weights.

    rows: rows of the whole field, whose keys and values attention gathers on every rank.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    gathered = [0]

    def attended(_: nn.Module, __: Any, out: Tensor) -> None:
        elsewhere = (rows - shape[-2]) / shape[-2]
        gathered.append(round(2 * out.numel() * out.element_size() * elsewhere))

    norms = norms_of_cuda() if cuda and precision == "bf16" else nullcontext()
    with FakeTensorMode(), torch.set_grad_enabled(trains), norms:
        model = build_denoiser(description, precision=precision, recompute=recompute)
        gradients = [torch.zeros_like(p) for p in model.parameters()]
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        for module in model.modules():
            if isinstance(module, Attention):
                module.register_forward_hook(attended)
        x_BCYX = torch.ones(shape)
        sigma_B = torch.ones(shape[0])
        condition_BP = torch.ones(shape[0], description["conditions"]) if description["conditions"] else None
        with Alive([*model.parameters(), *model.buffers(), *gradients]) as alive:
            out = model(x_BCYX, sigma_B, condition_BP)
            if trains:
                out.square().sum().backward()
    return alive.most + (sum(gathered) if trains and not recompute else max(gathered))


def activation_bytes(
    description: Mapping[str, Any],
    shape: tuple[int, int],
    micro_batch: int,
    rows: int,
    recompute: bool = False,
    precision: str = "fp32",
    trains: bool = True,
    cuda: bool = False,
) -> int:
    """Return the most bytes that one micro-step holds at once on a rank, beyond weights and their gradients.

    Counts what the forward pass keeps for the backward pass, what the backward pass creates temporarily, recomputed stages
    included, and the keys and values that attention gathers from the whole coarse field. Does not count the halo rows that
    neighbours exchange, or what the backend of a device needs within an operation. Takes seconds at most and no memory,
    whatever the size of the network.

    Args:
        description: Description of the network, as `architecture` returns it.
        shape: Rows and columns of the whole field.
        micro_batch: Number of samples of the micro-step.
        rows: Number of rows on the rank, a multiple of what the network needs.
        recompute: Whether the network recomputes activations in the backward pass.
        precision: Precision of the network's inner layers, `fp32` or `bf16`.
        trains: Whether there is a backward pass; without one as in sampling.
        cuda: Whether the network will run on a CUDA device, where autocast computes norms in float32.

    Returns:
        Bytes.

    Raises:
        ValueError: When `rows` is not between 1 and the number of rows of the field.
    """
    height, width = shape
    if not 0 < rows <= height:
        raise ValueError(f"rows={rows}: expected 1 to {height}, the rows of the field")
    # spectral layers hold all modes on every rank, however few its rows, so that the tile needs rows for all of them
    tile = max(rows, min(height, 2 * int(description.get("modes", 0))))

    def of(batch: int) -> int:
        size = (batch, description["channels"], tile, width)
        return _pass(description, size, height, recompute, precision, trains, cuda)

    # without storage, a batch of one has strides that real tensors do not have, for which attention takes another kernel
    return of(micro_batch) if micro_batch > 1 else 2 * of(2) - of(3)


def head_bytes(pde: Pde, grid: Grid, steps: int, trains: bool = True) -> int:
    """Return the most bytes that solver steps behind a network hold at once for one sample.

    Measured with up to three steps, on one sample; each further step keeps as much as the third.

    Args:
        pde: The equation.
        grid: Grid of the whole field.
        steps: Number of steps.
        trains: Whether there is a backward pass through the steps; without one as in sampling.

    Returns:
        Bytes.
    """
    params = draw_params(pde, 0, "memory", [0])
    quiet = 0.1 * torch.randn(1, len(pde.channels), *grid.shape, generator=torch.Generator().manual_seed(0))

    def most(count: int) -> int:
        fields = quiet.clone().requires_grad_(trains)
        with torch.set_grad_enabled(trains), Alive([fields]) as alive:
            found = correct(pde, grid, fields, params, count)
            if trains:
                found.sum().backward()
        return alive.most

    if steps == 0:
        return 0
    most(1)  # which makes tables that all calls share
    if steps <= 3:
        return most(steps)
    two, three = most(2), most(3)
    return three + (steps - 3) * (three - two)
