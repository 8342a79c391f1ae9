"""The state of ZeRO by parameter name: what the ranks hold covers each tensor once, and loads at any other stage."""

from __future__ import annotations

import math
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from torch import nn

from pidscale.engine.slices import Reader, file_name, write
from pidscale.engine.zero import Zero, ZeroSettings
from pidscale.engine.zero_state import MASTER, MOMENTS
from pidscale.parallel.mesh import Mesh
from tests.engine.test_ema import SHAPES, Odd
from tests.ranks import spawn

STAGES = (0, 1, 2, 3)
STEPS = 3


def _zero(stage, mesh, scale=1.0):
    module = Odd()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale)
    section = {"zero_optimization": {"stage3_param_persistence_threshold": 10}}  # some are kept whole, some are not
    return Zero(module, ZeroSettings(stage, 1, 1, 0.5, section if stage == 3 else {}), mesh)


def _step(zero, step):
    loss = zero(torch.tensor(math.sin(3.0 * step)))
    zero.backward(loss / zero.mesh.world)
    assert zero.step(0.1)[1]
    return float(loss.detach())


def _written(zero, folder):
    """The state as a reader sees it that all ranks have written."""
    if zero.mesh.first:
        folder.mkdir(parents=True)
    zero.mesh.barrier()
    write(folder / file_name(zero.mesh.rank), zero.slices())
    zero.mesh.barrier()
    return Reader.of(folder, [file_name(rank) for rank in range(zero.mesh.world)])


def _of_deepspeed(zero):
    """Weights and moments in full shapes, as DeepSpeed's own functions gather them."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    found = {}
    for name, parameter in zero.module.named_parameters():
        if zero.settings.stage == 0:
            state = zero.engine.optimizer.state[parameter]
            parts = {MASTER: parameter.detach(), **{key: state[key] for key in MOMENTS}}
        else:
            parts = {key: safe_get_full_optimizer_state(parameter, key) for key in MOMENTS}
            parts[MASTER] = safe_get_full_fp32_param(parameter)
        shape = SHAPES[name.removeprefix("values.")]
        for key, part in parts.items():
            found[f"{key}/{name}"] = part.detach().reshape(-1)[: math.prod(shape)].reshape(shape).clone()
    return found


def _lives(rank, world, folder):
    """Each stage: the state after some steps, beside what DeepSpeed says; then what engines of other stages make of it."""
    mesh = Mesh(rank, world)
    found = {}
    for stage in STAGES:
        zero = _zero(stage, mesh)
        for step in range(STEPS):
            _step(zero, step)
        reader = _written(zero, folder / str(stage))
        one = {"written": reader.wholes(), "deepspeed": _of_deepspeed(zero)}
        other = _zero((stage + 1) % len(STAGES), mesh, 3.0)
        other.restore(reader)
        one["other stage"] = _written(other, folder / f"{stage}-other").wholes()
        copy = _zero(stage, mesh, 3.0)
        copy.copy_from(zero)
        one["copy"] = _written(copy, folder / f"{stage}-copy").wholes()
        networks = {"own": zero, "copy": copy, "other": other}
        one["losses"] = [_step(network, STEPS) for network in networks.values()]
        one["ends"] = [_written(network, folder / f"{stage}-{n}-end").wholes() for n, network in networks.items()]
        found[stage] = one
        for network in networks.values():
            network.close()
    return found


def _loads(rank, world, before, folder, writers):
    """States that two ranks wrote, by stage, in engines of another stage."""
    mesh = Mesh(rank, world)
    found = {}
    for stage, other in enumerate((2, 3, 0, 1)):
        zero = _zero(other, mesh, 3.0)
        zero.restore(Reader.of(before / str(stage), [file_name(rank) for rank in range(writers)]))
        found[stage] = _written(zero, folder / str(stage)).wholes(), _step(zero, STEPS)
        zero.close()
    return found


def _same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_state_is_deepspeeds_own_and_loads_at_every_stage_and_world_size(tmp_path):
    names = {f"{key}/values.{name}" for key in (MASTER, *MOMENTS) for name in SHAPES}
    ranks = spawn(_lives, 2, tmp_path / "two")
    for found in ranks:
        for stage, one in found.items():
            written = one["written"]
            assert written.keys() == names | {"step"} and float(written["step"]) == STEPS, stage
            assert all(torch.equal(written[name], one["deepspeed"][name]) for name in names), stage
            assert all(written[f"exp_avg_sq/values.{name}"].abs().max() > 0 for name in SHAPES), stage
            assert _same(written, one["copy"]) and _same(written, one["other stage"]), stage
            assert len(set(one["losses"])) == 1, stage  # the weights of the next forward pass are those restored
            own, copy, other = one["ends"]
            assert _same(own, copy), stage
            for name in own:
                torch.testing.assert_close(other[name], own[name], rtol=1e-6, atol=1e-7)
    for world in (3, 1):
        for found in spawn(_loads, world, tmp_path / "two", tmp_path / str(world), 2):
            for stage, (written, loss) in found.items():
                assert _same(written, ranks[0][stage]["written"]), (world, stage)
                assert loss == ranks[0][stage]["losses"][0], (world, stage)


PRIVATE = {
    1: {
        "optimizer": (
            "optimizer",
            "single_partition_of_fp32_groups",
            "update_lp_params",
            "_lazy_init_hp_params_optimizer_state",
        ),
        "parameter": ("_hp_mapping",),
        "_hp_mapping": ("hp_fragment", "lp_fragment_address", "get_optim_state_fragment"),
    },
    3: {
        "optimizer": (
            "optimizer",
            "fp32_partitioned_groups_flat",
            "_get_fp32_opt_state_partition",
            "checkpoint_event_prologue",
            "checkpoint_event_epilogue",
        ),
        "parameter": ("ds_numel", "ds_shape", "ds_tensor"),
    },
}


def _private(rank, world):
    """The names that zero_state.py takes from DeepSpeed, by stage."""
    missing = []
    mesh = Mesh(rank, world)
    for stage in (1, 3):
        zero = _zero(stage, mesh)
        parameter = next(zero.module.parameters())
        holders = {"optimizer": zero.engine.optimizer, "parameter": parameter}
        for part, names in PRIVATE[stage].items():
            holder = holders[part] if part in holders else getattr(parameter, part, None)
            missing += [f"{part}.{name} at stage {stage}" for name in names if not hasattr(holder, name)]
        zero.close()
    return missing


def test_the_private_names_of_deepspeed_are_there():
    missing = spawn(_private, 1)[0]
    assert not missing, (
        f"DeepSpeed {version('deepspeed')} has no {', '.join(missing)}: adapt pidscale/engine/zero_state.py"
    )


def test_only_one_file_uses_deepspeeds_private_names():
    package = Path(__file__).parents[2] / "pidscale"
    names = ("_hp_mapping", "ds_tensor", "fp32_partitioned_groups_flat", "_lazy_init_hp_params_optimizer_state")
    users = {file.name for file in package.rglob("*.py") if any(name in file.read_text() for name in names)}
    assert users == {"zero_state.py"}


class Plain(nn.Module):
    """Two parameters, one of which no loss uses."""

    def __init__(self):
        super().__init__()
        self.used = nn.Parameter(torch.ones(3))
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return (self.used * x).sum()


def _unused(rank, world, folder):
    zero = Zero(Plain(), ZeroSettings(0, 1, 1, 0.0, {}), Mesh(rank, world))
    zero.backward(zero(torch.tensor(2.0)))
    zero.step(0.1)
    again = Zero(Plain(), ZeroSettings(0, 1, 1, 0.0, {}), Mesh(rank, world))
    again.restore(_written(zero, folder / "state"))
    return [_written(one, folder / name).wholes() for name, one in (("a", zero), ("b", again))]


def test_a_parameter_without_a_gradient_has_moments_of_zero(tmp_path):
    ((first, second),) = spawn(_unused, 1, tmp_path)
    assert first["exp_avg/unused"].eq(0).all() and first["exp_avg/used"].ne(0).all()
    assert all(torch.equal(first[n], second[n]) for n in first)
    with pytest.raises(KeyError):
        first["exp_avg/others"]
