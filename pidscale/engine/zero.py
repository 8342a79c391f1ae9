"""DeepSpeed around one model. The contract of the loss is kept here and nowhere else.

Each rank hands over shares l_r whose sum over ranks and micro-steps is the loss L of the global batch. DeepSpeed
averages over ranks and over micro-steps, so the engine is given world * accumulation * l_r. Knows no equations.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pidscale.config import UserError
from pidscale.engine.zero_config import deepspeed_dict, state_bytes
from pidscale.parallel.mesh import Mesh


@dataclass(frozen=True)
class ZeroSettings:
    """Stage, micro-batch, accumulation, clipping (0: off), and the user's own DeepSpeed section."""

    stage: int
    micro_batch: int
    accumulation: int
    clip: float
    section: dict[str, Any]


class Zero:
    """A model whose state DeepSpeed ZeRO splits over the world; torch's AdamW inside."""

    def __init__(self, module: nn.Module, settings: ZeroSettings, mesh: Mesh) -> None:
        refuse_complex(module)
        deepspeed = _import_deepspeed(mesh)
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
        clip = settings.clip if settings.stage else 0.0  # stage 0 is clipped in _gate
        count = sum(p.numel() for p in module.parameters())
        config = deepspeed_dict(
            settings.stage, settings.micro_batch, settings.accumulation, clip, settings.section, count
        )
        self.engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
        kept, _, state = state_bytes(count, 1, settings.stage)
        self.bytes = kept + state  # of what `save` writes, all ranks together
        self.settings = settings
        self.mesh = mesh
        self.micro_steps = 0

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """Run the forward pass of the wrapped module, which takes these inputs."""
        result: Tensor = self.engine(*inputs)
        return result

    @property
    def module(self) -> nn.Module:
        """The wrapped module; its parameters are whole only below stage 3."""
        module: nn.Module = self.engine.module
        return module

    def backward(self, share: Tensor) -> None:
        """Backward of this micro-step's share of the loss of the global batch."""
        self.engine.backward(share * (self.mesh.world * self.settings.accumulation))
        self.micro_steps += 1
        if self.micro_steps % self.settings.accumulation:
            self.engine.step()

    def step(self, lr: float) -> tuple[float, bool]:
        """Update at the boundary of accumulation; returns (gradient norm before clipping, whether it was applied).

        A step with a gradient that is not finite is skipped on all ranks at every stage; below stage 3 also one whose
        square is beyond float32.
        """
        if self.micro_steps % self.settings.accumulation:
            raise RuntimeError("step() before all micro-steps of the global batch were given to backward()")
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        norm = self._gate() if self.settings.stage == 0 else None
        self.engine.step()
        if norm is None:
            reduced = self.engine.get_global_grad_norm()
            norm = float(reduced) if reduced is not None else math.nan
        return norm, math.isfinite(norm)

    def _gate(self) -> float:
        """Stage 0: clip, or drop gradients that are not finite, which DeepSpeed would apply; returns the norm before.

        So does one whose square is beyond float32, which would stop Adam for ever; stages 1 and 2 measure it in float32.
        """
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        total = sum((g.double().square().sum().cpu() for g in gradients), torch.zeros((), dtype=torch.float64))
        if not total < torch.finfo(torch.float32).max:
            for parameter in self.module.parameters():
                parameter.grad = None
            return math.nan
        norm = math.sqrt(total)
        if 0 < self.settings.clip < norm:
            torch._foreach_mul_(gradients, self.settings.clip / (norm + 1e-6))
        return norm

    def gradients(self) -> dict[str, Tensor]:
        """Gradients of the global batch by name, before clipping, on every rank; between backward() and step()."""
        from deepspeed.utils import safe_get_full_grad

        return {name: safe_get_full_grad(p).float().cpu().clone() for name, p in self.module.named_parameters()}

    def save(self, folder: Path, tag: str) -> None:
        """Write this rank's part of weights and optimiser state under folder/tag. All ranks call it."""
        self.engine.save_checkpoint(str(folder), tag=tag, save_latest=False)

    def load(self, folder: Path, tag: str) -> None:
        """Load what `save` wrote with the same stage and world size. All ranks call it."""
        path, _ = self.engine.load_checkpoint(str(folder), tag=tag)
        if path is None:
            raise UserError(
                f"{folder}/{tag}: DeepSpeed could not load this checkpoint; delete it to use an earlier one"
            )

    def close(self) -> None:
        """Release hooks and buffers."""
        self.engine.destroy()


def refuse_complex(module: nn.Module) -> None:
    """Raise ValueError for complex parameters: ZeRO fails on them or drops their imaginary part without a word."""
    for name, parameter in module.named_parameters():
        if parameter.is_complex():
            raise ValueError(f"{name} is complex: store it as real pairs (..., 2)")


def _import_deepspeed(mesh: Mesh) -> Any:
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed

    if mesh.device.type == "cpu":  # plain gloo: the shared-memory extension would need a compiler at run time
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    return deepspeed
