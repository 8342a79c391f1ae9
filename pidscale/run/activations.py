"""What a training step keeps in memory, measured: forward and backward passes on tensors with shapes and no bytes."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pidscale.models import build_denoiser
from pidscale.models.layers import Attention


class Alive(TorchDispatchMode):
    """Within it, `now` is the bytes of all tensors that were made in it and still live, `most` the most there ever were.

    besides: tensors from outside that operations may hand back; they are not counted.
    """

    def __init__(self, besides: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.besides = {tensor.untyped_storage()._cdata for tensor in besides}
        self.known: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.device.type != "meta":
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.besides or key in self.known:
            return

        def gone(_: Any) -> None:
            del self.known[key]
            self.now -= size

        self.known[key] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)


def _pass(
    description: Mapping[str, Any], shape: tuple[int, ...], rows: int, recompute: bool, precision: str, trains: bool
) -> int:
    """The most bytes alive in one pass over a batch [B, C, y, X], beyond weights, buffers and gradients of weights.

    rows: those of the whole field, whose keys and values every rank gathers where the network attends.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    gathered = [0]

    def attended(_: nn.Module, __: Any, out: Tensor) -> None:
        elsewhere = (rows - shape[-2]) / shape[-2]
        gathered.append(round(2 * out.numel() * out.element_size() * elsewhere))

    with FakeTensorMode(), torch.set_grad_enabled(trains):
        model = build_denoiser(description, precision=precision, recompute=recompute)
        gradients = [torch.zeros_like(p) for p in model.parameters()]
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        for module in model.modules():
            if isinstance(module, Attention):
                module.register_forward_hook(attended)
        x_BCYX, sigma_B = torch.ones(shape), torch.ones(shape[0])
        told_BP = torch.ones(shape[0], description["conditions"]) if description["conditions"] else None
        with Alive([*model.parameters(), *model.buffers(), *gradients]) as alive:
            out = model(x_BCYX, sigma_B, told_BP)
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
) -> int:
    """The most bytes that one micro-step holds at once, beyond weights and their gradients, on a rank with `rows` rows.

    What the forward pass keeps for the backward pass and what this then makes for a while, a recomputed stage included; the
    keys and values that attention gathers of a whole coarse field too, but not the borders that neighbours exchange, nor
    what the backend of a device needs within an operation. description: as `architecture` gives it. shape: (Y, X) of the
    whole field; rows: a multiple of the network's `multiple`. trains False: a forward pass alone, as sampling does it.
    Takes seconds at most and no memory, whatever the size. Raises ValueError for rows that the field has not.
    """
    height, width = shape
    if not 0 < rows <= height:
        raise ValueError(f"{rows} rows of a field of {height}")
    # what modes cost is the same on every rank, however few its rows: a tile is never so low that it would lose some
    tile = max(rows, min(height, 2 * int(description.get("modes", 0))))

    def of(batch: int) -> int:
        return _pass(description, (batch, description["channels"], tile, width), height, recompute, precision, trains)

    # without bytes a batch of one takes strides that real tensors do not take, and attention then another kernel
    return of(micro_batch) if micro_batch > 1 else 2 * of(2) - of(3)
