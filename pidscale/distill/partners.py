"""Networks beside a student: those that are trained are a `Zero` as the student is, those that follow it are here.

Knows no equations and no objectives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pidscale.engine.ema import weights
from pidscale.engine.slices import Reader, Slice, shared_out
from pidscale.engine.zero import Zero
from pidscale.parallel.mesh import Mesh


class AveragedNetwork:
    """A network whose weights are an exponential average of a student's, whole on every rank as a frozen teacher's are.

    The average that a student is published with is another matter (engine/ema.py): that one is split over the ranks and calls
    nothing.
    """

    def __init__(self, module: nn.Module, rate: float, mesh: Mesh) -> None:
        """Hold a network of the student's architecture and first weights.

        Args:
            module: The network, for the rows of this rank, on its device.
            rate: The share of the average that each step keeps.
            mesh: The ranks.
        """
        self.module = module.eval().requires_grad_(False)
        self.rate = rate
        self.mesh = mesh

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """Call the network."""
        result: Tensor = self.module(*inputs)
        return result

    def follow(self, student: Zero) -> None:
        """Blend in the weights of the student after a step.

        Below ZeRO stage 3 every rank has them whole; at stage 3 one all-gather for each parameter.
        """
        stage = student.settings.stage
        own = dict(self.module.named_parameters())
        fresh = weights(student.module, stage, self.mesh) if stage == 3 else dict(student.module.named_parameters())
        with torch.no_grad():
            theirs = [fresh[name].to(one) for name, one in own.items()]
            torch._foreach_lerp_(list(own.values()), theirs, 1 - self.rate)

    def slices(self) -> list[Slice]:
        """Return what this rank writes of the average in a checkpoint. No messages."""
        return whole_slices(self.module, self.mesh)

    def restore(self, reader: Reader) -> None:
        """Take over the average of a checkpoint, on every rank."""
        self.module.load_state_dict(reader.wholes())

    def copy_from(self, other: Any) -> None:
        """Take over another `AveragedNetwork` of the same architecture, in memory."""
        self.module.load_state_dict(other.module.state_dict())


def whole_slices(module: nn.Module, mesh: Mesh) -> list[Slice]:
    """Return what this rank writes of a network that every rank holds whole."""
    return [shared_out(name, one, mesh.rank, mesh.world) for name, one in module.state_dict().items()]
