"""Memory of a training step, measured: passes of a network over tensors that have shapes but no storage, and solver steps.

Knows no settings and no ranks.
"""

from __future__ import annotations

import math
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
from pidscale.pde.base import Pde, solution_mask, truths
from pidscale.pde.flow import Flow
from pidscale.pde.head import correct

MEASURED = 32  # points a side of the grid on which solver steps are measured


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

    Measured on a truth whose solution is 5 % off, so that every step is taken, with up to three steps and on a grid of at
    most MEASURED points a side; each further step keeps as much as the third, and each point as much as another.

    Args:
        pde: The equation.
        grid: Grid of the whole field.
        steps: Number of steps.
        trains: Whether there is a backward pass through the steps; without one as in sampling.

    Returns:
        Bytes.
    """
    if steps == 0:
        return 0
    small = pde.grid(min(max(grid.shape), MEASURED))
    truth, params = truths(pde, 0, range(1), small)
    near = truth.float() * torch.where(solution_mask(pde, small), 0.95, 1.0)

    def most(count: int) -> int:
        fields = near.clone().requires_grad_(trains)
        with torch.set_grad_enabled(trains), Alive([fields]) as alive:
            found = correct(pde, small, fields, params, count)
            if trains:
                found.sum().backward()
        return alive.most

    most(1)  # which makes tables that all calls share
    measured = most(min(steps, 3))
    if steps > 3:
        measured += (steps - 3) * (measured - most(2))
    larger = math.prod(grid.shape) / math.prod(small.shape)
    if isinstance(pde, Flow):
        larger *= pde.substeps(grid) / pde.substeps(small)
    return math.ceil(larger * measured)
