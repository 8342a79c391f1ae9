"""The state that DeepSpeed trains, by parameter name: float32 weights and Adam's moments as slices, at every ZeRO stage.

    master/NAME  exp_avg/NAME  exp_avg_sq/NAME  step

The slices of all ranks cover every parameter once, and nothing in them knows the stage or the world size, so that they load
at any other. Private names of DeepSpeed are used in this file alone; tests/engine/test_zero_state.py pins them. The optimiser
is torch's AdamW. Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pidscale.engine.slices import Reader, Slice, share, shared_out
from pidscale.parallel.mesh import Mesh

MASTER = "master"
MOMENTS = ("exp_avg", "exp_avg_sq")
STEP = "step"


@dataclass(frozen=True)
class Held:
    """What DeepSpeed holds of one parameter on this rank, as views of its own memory.

    Attributes:
        name: Name of the parameter.
        shape: Its whole shape.
        offset: Where the range begins in the flattened parameter.
        parts: Values of the range, 1-D, under MASTER and the names of MOMENTS.
    """

    name: str
    shape: tuple[int, ...]
    offset: int
    parts: dict[str, Tensor]


@dataclass(frozen=True)
class ZeroState:
    """The trained state of a DeepSpeed engine, read and set in place.

    Attributes:
        engine: The engine.
        stage: Its ZeRO stage.
        mesh: The mesh of ranks.
    """

    engine: Any
    stage: int
    mesh: Mesh

    def slices(self) -> list[Slice]:
        """Return the slices that this rank writes, as views. No messages."""
        found = [self._step_slice()]
        for one in self._held():
            for key, part in one.parts.items():
                name = f"{key}/{one.name}"
                if self.stage == 0:  # every rank holds all
                    found.append(shared_out(name, part.view(one.shape), self.mesh.rank, self.mesh.world))
                else:
                    found.append(Slice(name, one.shape, one.offset, part))
        return found

    def restore(self, reader: Reader) -> None:
        """Take over the state of a checkpoint, whatever stage and world size wrote it. All ranks call it.

        Up to stage 2, one all-gather of the weights; at stage 3, one of the small weights that every rank keeps whole.

        Args:
            reader: Reads what `slices` named.
        """
        with self._weights_follow():
            self._set_step(float(reader.whole(STEP)))
            for one in self._held():
                for key, part in one.parts.items():
                    part.copy_(reader.read(f"{key}/{one.name}", one.offset, one.offset + part.numel()))

    def copy_from(self, other: ZeroState) -> None:
        """Take over the state of an engine for the same network and stage, in memory. Messages as for `restore`."""
        with self._weights_follow():
            self._set_step(other.step)
            for own, theirs in zip(self._held(), other._held(), strict=True):
                for key, part in own.parts.items():
                    part.copy_(theirs.parts[key])

    @property
    def step(self) -> float:
        """The number of steps that Adam has taken."""
        return max((float(one[STEP]) for one in self._states()), default=0.0)

    def _step_slice(self) -> Slice:
        return shared_out(STEP, torch.tensor([self.step]), self.mesh.rank, self.mesh.world)

    def _set_step(self, step: float) -> None:
        for one in self._states():
            one[STEP].fill_(step)

    @property
    def _parameters(self) -> list[tuple[str, Any]]:  # DeepSpeed gives them names that torch does not know
        return list(self.engine.module.named_parameters())

    def _states(self) -> list[dict[str, Tensor]]:
        """Return the entries of Adam's state on this rank, and make those that do not exist before its first step."""
        if self.stage == 0:
            adam = self.engine.optimizer
            tensors = [parameter for _, parameter in self._parameters]
        else:
            zero = self.engine.optimizer
            adam = zero.optimizer
            tensors = zero.fp32_partitioned_groups_flat if self.stage == 3 else zero.single_partition_of_fp32_groups
        for one in tensors:
            if STEP not in adam.state[one]:
                moments = {name: torch.zeros_like(one, requires_grad=False) for name in MOMENTS}
                adam.state[one].update({STEP: torch.tensor(0.0), **moments})
        if self.stage in (1, 2):
            self.engine.optimizer._lazy_init_hp_params_optimizer_state()
        return [adam.state[one] for one in tensors]

    def _held(self) -> Iterator[Held]:
        """Yield what this rank holds of each parameter, without what DeepSpeed fills up."""
        self._states()
        return {0: self._whole, 1: self._fragments, 2: self._fragments, 3: self._partitions}[self.stage]()

    def _whole(self) -> Iterator[Held]:
        for name, parameter in self._parameters:
            state = self.engine.optimizer.state[parameter]
            parts = {MASTER: parameter.detach(), **{key: state[key] for key in MOMENTS}}
            yield Held(name, tuple(parameter.shape), 0, {key: part.view(-1) for key, part in parts.items()})

    def _fragments(self) -> Iterator[Held]:
        """Stages 1 and 2: the rank's part of one flat buffer, which cuts parameters anywhere."""
        for name, parameter in self._parameters:
            fragment = parameter._hp_mapping
            if fragment is not None:
                parts = {key: fragment.get_optim_state_fragment(key) for key in MOMENTS}
                parts[MASTER] = fragment.hp_fragment.detach()
                yield Held(name, tuple(parameter.shape), fragment.lp_fragment_address.start, parts)

    def _partitions(self) -> Iterator[Held]:
        """Stage 3: an equal part of every parameter; the last ones are filled up."""
        zero = self.engine.optimizer
        for name, parameter in self._parameters:
            start, stop = share(parameter.ds_numel, self.mesh.rank, self.mesh.world)
            parts = {
                key: zero._get_fp32_opt_state_partition(parameter, False, state)[0].detach()[: stop - start]
                for key, state in ((MASTER, None), *zip(MOMENTS, MOMENTS, strict=True))
            }
            yield Held(name, tuple(parameter.ds_shape), start, parts)

    @contextmanager
    def _weights_follow(self) -> Iterator[None]:
        """Set the weights that the next forward pass uses from the float32 weights that the body has set."""
        zero = self.engine.optimizer
        if self.stage == 3:
            zero.checkpoint_event_prologue()  # gives up the weights that every rank keeps whole
        with torch.no_grad():
            yield
            if self.stage in (1, 2):
                zero.update_lp_params()
            elif self.stage == 3:
                for one in self._partitions():
                    parameter = self.engine.module.get_parameter(one.name)
                    own = parameter.ds_tensor.view(-1)
                    count = one.parts[MASTER].numel()
                    own[:count].copy_(one.parts[MASTER])
                    own[count:].zero_()
                zero.checkpoint_event_epilogue()
