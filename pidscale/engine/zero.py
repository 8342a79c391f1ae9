"""DeepSpeed around one model. This is the only place that knows how DeepSpeed scales a loss.

Each rank passes shares l_r whose sum over ranks and micro-steps is the loss L of the global batch. DeepSpeed averages over
ranks and over micro-steps, so its engine is given world * accumulation * l_r. Knows no equations.
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pidscale.config import UserError
from pidscale.engine.slices import Reader, Slice
from pidscale.engine.zero_config import deepspeed_dict
from pidscale.engine.zero_state import ZeroState
from pidscale.parallel.mesh import Mesh


@dataclass(frozen=True)
class ZeroSettings:
    """What DeepSpeed has to know of a training.

    Attributes:
        stage: The ZeRO stage, 0 to 3.
        micro_batch: The samples of a micro-step on one rank.
        accumulation: The micro-steps of a step.
        clip: The largest norm of the gradient; 0 for no clipping.
        section: The user's own keys, `cluster.deepspeed`.
    """

    stage: int
    micro_batch: int
    accumulation: int
    clip: float
    section: dict[str, Any]


class Zero:
    """A model whose state DeepSpeed ZeRO divides over all ranks, with torch's AdamW.

    Args:
        module: The model, on the device of this rank.
        settings: What DeepSpeed has to know.
        mesh: The mesh of ranks.

    Raises:
        UserError: DeepSpeed uses another device than the mesh.

    Example:
        >>> zero = Zero(model, ZeroSettings(1, micro_batch=4, accumulation=2, clip=1.0, section={}), mesh)
        >>> for batch in micro_batches:
        ...     zero.backward(share_of_loss(zero(batch)))
        >>> norm, applied = zero.step(lr=1e-3)
    """

    def __init__(self, module: nn.Module, settings: ZeroSettings, mesh: Mesh) -> None:
        refuse_complex(module)
        deepspeed = _import_deepspeed(mesh)
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
        clip = settings.clip if settings.stage else 0.0  # stage 0 is clipped in _gate
        count = sum(p.numel() for p in module.parameters())
        config = deepspeed_dict(
            settings.stage, settings.micro_batch, settings.accumulation, clip, settings.section, count
        )
        index = mesh.device.index  # None on CPUs
        if index is not None:  # Ray may number the workers of a host in another order than its GPUs
            os.environ["LOCAL_RANK"] = str(index)
        self.engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
        if index is not None and self.engine.device != mesh.device:
            raise UserError(f"rank {mesh.rank}: DeepSpeed uses {self.engine.device}, but Ray gave it {mesh.device}")
        self.settings = settings
        self.mesh = mesh
        self.micro_steps = 0

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """Run the forward pass of the wrapped module, which takes these inputs."""
        result: Tensor = self.engine(*inputs)
        return result

    @property
    def module(self) -> nn.Module:
        """The wrapped module; under stage 3 each rank holds only pieces of its parameters."""
        module: nn.Module = self.engine.module
        return module

    def backward(self, share: Tensor) -> None:
        """Run the backward pass of one micro-step.

        Args:
            share: This micro-step's share of the loss of the global batch, a scalar.
        """
        self.engine.backward(share * (self.mesh.world * self.settings.accumulation))
        self.micro_steps += 1
        if self.micro_steps % self.settings.accumulation:
            self.engine.step()

    def step(self, lr: float) -> tuple[float, bool]:
        """Update the weights after the last micro-step of a step.

        A step is skipped on all ranks if its gradient is not finite, below stage 3 also if the squared norm of its gradient
        exceeds the range of float32. DeepSpeed reduces the gradients between the ranks.

        Args:
            lr: The learning rate of this step.

        Returns:
            The norm of the gradient before clipping, and whether the step was taken.

        Raises:
            RuntimeError: Some micro-steps of this step are missing.
        """
        if self.micro_steps % self.settings.accumulation:
            raise RuntimeError("step() was called before backward() had all micro-steps of the global batch")
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        norm = self._gate() if self.settings.stage == 0 else None
        self.engine.step()
        if norm is None:
            reduced = self.engine.get_global_grad_norm()
            norm = float(reduced) if reduced is not None else math.nan
        return norm, math.isfinite(norm)

    def _gate(self) -> float:
        """Clip the gradient at stage 0, or drop it if it is not finite; return its norm before clipping.

        DeepSpeed would apply such a gradient at stage 0. One whose squared norm exceeds float32 is dropped too: it would make
        Adam's second moments infinite. Stages 1 and 2 measure the norm in float32 and skip it for this reason.
        """
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        squares = torch.stack(
            [g.double().square().sum() for g in gradients]
        ).cpu()  # one transfer, and not one for each
        total = sum(squares, torch.zeros((), dtype=torch.float64))
        if not total < torch.finfo(torch.float32).max:
            for parameter in self.module.parameters():
                parameter.grad = None
            return math.nan
        norm = math.sqrt(total)
        if 0 < self.settings.clip < norm:
            torch._foreach_mul_(gradients, self.settings.clip / (norm + 1e-6))
        return norm

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients of the global batch by name, before clipping, on every rank.

        Call it between the last backward() and step(). All ranks call it; DeepSpeed gathers each parameter's gradient.
        """
        from deepspeed.utils import safe_get_full_grad

        return {name: safe_get_full_grad(p).float().cpu().clone() for name, p in self.module.named_parameters()}

    def slices(self) -> list[Slice]:
        """Return what this rank writes of a checkpoint: weights and optimiser's state by parameter name. No messages."""
        return self._state.slices()

    def restore(self, reader: Reader) -> None:
        """Take over the state of a checkpoint, whatever world size and stage wrote it. All ranks call it.

        One all-gather of weights, as after a step.

        Args:
            reader: Reads what `slices` named.
        """
        self._state.restore(reader)

    def copy_from(self, other: Any) -> None:
        """Take over the state of another `Zero` around the same network, in memory. Messages as for `restore`."""
        self._state.copy_from(other._state)

    @property
    def _state(self) -> ZeroState:
        return ZeroState(self.engine, self.settings.stage, self.mesh)

    def close(self) -> None:
        """Release DeepSpeed's hooks and buffers."""
        self.engine.destroy()


def refuse_complex(module: nn.Module) -> None:
    """Refuse complex parameters, on which ZeRO fails or whose imaginary part it drops silently.

    Args:
        module: The module.

    Raises:
        ValueError: A parameter is complex; the message names it.
    """
    for name, parameter in module.named_parameters():
        if parameter.is_complex():
            raise ValueError(f"parameter {name} is complex: store it as real pairs (..., 2)")


def _import_deepspeed(mesh: Mesh) -> Any:
    """Import DeepSpeed so that it logs only warnings, and return the module."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed

    if mesh.device.type == "cpu":  # plain gloo: the shared-memory extension needs a compiler at run time
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    return deepspeed
