"""The memory plan: activations as in real tensors, states as DeepSpeed holds them, limits as the system reports them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pidscale.config import ClusterSettings, DistillSettings, ModelSettings, Settings, TeacherSettings
from pidscale.engine.spread import spread, window_for
from pidscale.engine.zero import Zero, ZeroSettings
from pidscale.engine.zero_config import state_bytes, update_bytes
from pidscale.models import architecture, build_denoiser
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.pde import build_pde
from pidscale.pde.base import solution_mask, truths
from pidscale.pde.head import correct
from pidscale.plain import size_text
from pidscale.run.activations import Alive, activation_bytes, head_bytes, norms_of_cuda
from pidscale.run.host_limits import device_limit, group_limit, memory_limit
from pidscale.run.memory import PROCESS, MemoryPlan, advice, memory_plan
from pidscale.run.preflight import plan_lines
from tests.ranks import spawn

TINY: dict[str, dict[str, Any]] = {
    "unet": {"width": 8, "multipliers": [1, 2], "embedding": 16},
    "fno": {"width": 8, "modes": 4, "layers": 2, "embedding": 16},
}


def tiny(kind: str, conditions: int = 0) -> dict[str, Any]:
    return architecture(kind, "tiny", 2, conditions, **TINY[kind])


def real_pass(
    description: dict[str, Any],
    shape: tuple[int, int],
    batch: int,
    recompute: bool = False,
    precision: str = "fp32",
    trains: bool = True,
    window: Window | None = None,
) -> tuple[int, int]:
    """Return the most bytes alive in a pass over real tensors, and the bytes that autograd saved."""
    model = build_denoiser(description, precision=precision, recompute=recompute)
    model = spread(model, window) if window else model
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    held = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]
    own = {p.untyped_storage()._cdata for p in held}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    conditions = description["conditions"]
    condition = torch.ones(batch, conditions) if conditions else None
    x = torch.randn(batch, 2, *shape)
    sigma = torch.ones(batch)
    with Alive(held) as alive, nullcontext() if trains else torch.no_grad():
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = model(x, sigma, condition)
        kept = sum(storage.nbytes() for key, storage in saved.items() if key not in own)
        saved.clear()
        if trains:
            out.square().sum().backward()
    return alive.most, kept


def test_alive_counts_storages_and_not_views() -> None:
    before = torch.zeros(10)
    with Alive([before]) as alive:
        before.add_(1)
        a = torch.zeros(1000)
        b = a.reshape(10, 100).t()
        assert (alive.now, alive.most) == (4000, 4000)
        c = torch.zeros(500, dtype=torch.float64)
        del c
        assert (alive.now, alive.most) == (4000, 8000)
        del a
        assert alive.now == 4000  # the view keeps it alive
        torch.zeros(10, device="meta")
        del b
        assert (alive.now, alive.most) == (0, 8000)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", ["unet", "fno"])
def test_activations_are_those_of_real_tensors(kind: str, recompute: bool, batch: int) -> None:
    description = tiny(kind)
    shape = (32, 48)
    counted = activation_bytes(description, shape, batch, 32, recompute)
    most, kept = real_pass(description, shape, batch, recompute)
    assert counted == pytest.approx(most, rel=0.01)
    assert kept < counted and (recompute or counted < 1.25 * kept)  # temporary tensors are a small part


@pytest.mark.parametrize("kind", ["unet", "fno"])
def test_activations_with_conditions_in_bfloat16_and_without_gradients(kind: str) -> None:
    description = tiny(kind, conditions=3)
    shape = (32, 32)
    for trains, precision in ((True, "bf16"), (False, "fp32")):
        counted = activation_bytes(description, shape, 4, 32, False, precision, trains)
        assert counted == pytest.approx(real_pass(description, shape, 4, False, precision, trains)[0], rel=0.01)


@pytest.mark.parametrize("kind", ["unet", "fno"])
def test_bfloat16_is_counted_as_a_gpu_computes_it(kind: str) -> None:
    """CUDA's autocast computes norms in float32, so that they and what follows them take twice the memory."""
    description = tiny(kind)
    plain, cuda = (activation_bytes(description, (32, 32), 4, 32, precision="bf16", cuda=gpu) for gpu in (False, True))
    with norms_of_cuda():
        real = real_pass(description, (32, 32), 4, precision="bf16")[0]
    assert cuda == pytest.approx(real, rel=0.01)
    assert 1.1 * plain < cuda < activation_bytes(description, (32, 32), 4, 32) * 1.1


@pytest.mark.parametrize("kind", ["unet", "fno"])
def test_recomputing_needs_less_and_sampling_least(kind: str) -> None:
    description = architecture(kind, "tiny", 2)
    shape = (64, 64)
    whole = activation_bytes(description, shape, 4, 64)
    again = activation_bytes(description, shape, 4, 64, recompute=True)
    forward = activation_bytes(description, shape, 4, 64, trains=False)
    assert 2 * forward < 1.5 * again < whole


def test_a_tile_needs_its_share_and_what_attention_gathers() -> None:
    description = tiny("unet")
    rows = 64
    width = 32
    batch = 2
    # for each attention: keys and values of 16 channels on the 24 of 32 coarse rows of other ranks
    gathered = 2 * batch * 16 * 24 * (width // 2) * 4
    for recompute, attentions in ((False, 3), (True, 1)):
        tile = activation_bytes(description, (rows, width), batch, rows // 4, recompute)
        alone = activation_bytes(description, (rows // 4, width), batch, rows // 4, recompute)
        assert tile - alone == attentions * gathered
        whole = activation_bytes(description, (rows, width), batch, rows, recompute)
        assert alone == pytest.approx(whole / 4, rel=0.03)


def test_a_tile_of_an_fno_needs_its_share_but_holds_all_modes() -> None:
    description = tiny("fno")
    whole, half, few, fewer = (activation_bytes(description, (64, 64), 2, rows) for rows in (64, 32, 8, 2))
    assert half == pytest.approx(whole / 2, rel=0.05)
    assert fewer == few < half / 3
    with pytest.raises(ValueError, match="rows=65: expected 1 to 64"):
        activation_bytes(description, (64, 64), 2, 65)


def test_measuring_the_largest_network_needs_no_memory_and_no_random_numbers() -> None:
    state = torch.get_rng_state()
    counted = activation_bytes(architecture("unet", "xl", 2), (4096, 4096), 2, 4096, recompute=True)
    assert 2**40 < counted < 2**42
    assert torch.equal(torch.get_rng_state(), state) and torch.ones(1).item() == 1


def test_states_are_split_by_the_zero_stage() -> None:
    """1000 parameters on 4 workers: the optimiser holds 2 numbers for each, or 3 with DeepSpeed's copy."""
    assert state_bytes(1000, 4, 0) == (4000, 4000, 8000)
    assert state_bytes(1000, 4, 1) == (4000, 4000, 3000)
    assert state_bytes(1000, 4, 2) == (4000, 1000, 3000)
    assert state_bytes(1000, 4, 3) == (1000, 1000, 3000)
    assert state_bytes(10, 3, 3) == (14, 14, 42)  # rounded up


def _held(mesh: Mesh, stage: int) -> tuple[float, float]:
    """Return the bytes for each parameter that are alive after a step, and the most that are in the optimiser's step."""
    small = {"zero_optimization": {"reduce_bucket_size": 10_000}}
    with Alive() as alive:
        model = nn.Sequential(*[nn.Linear(400, 400) for _ in range(6)])
        zero = Zero(model, ZeroSettings(stage, 1, 1, 1.0, small), mesh)
        for _ in range(2):
            zero.backward(zero(torch.ones(1, 400)).square().sum())
            alive.most = alive.now
            zero.step(1e-3)
        held, most = alive.now, alive.most
    zero.close()
    return held / (6 * 400 * 401), most / (6 * 400 * 401)


def _measured(rank: int, world: int) -> tuple[list[tuple[float, float]], dict[str, tuple[int, int]]]:
    """Return the bytes of each stage, and the rows of this rank and the bytes of a pass for each network."""
    mesh = Mesh.over(rank, world, torch.device("cpu"), world)
    tiles = {}
    for kind in TINY:
        window = window_for(tiny(kind), Grid((36, 32)), mesh.space)
        rows = window.rows.stop - window.rows.start if window.rows else 0
        tiles[kind] = rows, real_pass(tiny(kind), (rows, 32), 3, window=window)[0]
    return [_held(mesh, stage) for stage in range(4)], tiles


def test_real_workers_hold_what_the_plan_says() -> None:
    """After a step gradients are freed at stages 0 to 2; at stage 3 their buffer stays. A tile also has halo rows."""
    for states, tiles in spawn(_measured, 2):
        for stage, (held, most) in enumerate(states):
            weights, gradients, optimiser = state_bytes(10**6, 2, stage)
            expected = (weights + optimiser + (gradients if stage == 3 else 0)) / 10**6
            assert held == pytest.approx(expected, rel=0.05), f"stage {stage}"
            step = (weights + gradients + optimiser + update_bytes(10**6, 2, stage)) / 10**6
            assert stage == 0 or most == pytest.approx(step, rel=0.05), f"stage {stage}"
        for kind, (rows, most) in tiles.items():
            assert activation_bytes(tiny(kind), (36, 32), 3, rows) == pytest.approx(most, rel=0.15), kind


def settings(
    recompute: bool = False, workers: int = 4, space: int = 2, stage: int = 2, control: bool = True
) -> Settings:
    return Settings(
        model=ModelSettings("unet", "tiny", TINY["unet"], recompute=recompute),
        teacher=TeacherSettings(global_batch=10, micro_batch=3, evaluate_samples=2),
        distill=DistillSettings(global_batch=8, micro_batch=4, chunk=2, buffer_rows=5, control=control),
        cluster=ClusterSettings(workers=workers, space=space, zero_stage=stage),
    )


def test_the_plan_of_a_teacher_is_that_of_the_worker_with_most_rows() -> None:
    s = settings()
    description = tiny("unet")
    plan = memory_plan(s, description, (54, 32), "teacher", 1000)
    assert plan.tile == (28, 32)  # 27 pairs of rows: 13 and 14
    assert plan.micro_batch == 3  # 5 samples a group, in two micro-steps
    assert (plan.weights, plan.gradients, plan.optimiser, plan.ema) == (4000, 1000, 3000, 1000)
    assert plan.activations == activation_bytes(description, (54, 32), 3, 28)
    assert plan.sampling == activation_bytes(description, (54, 32), 1, 28, trains=False) + 4000
    assert (plan.frozen, plan.endpoints, plan.networks) == (0, 0, 1)
    assert plan.checkpoint == 4000  # weight, two moments and average, a quarter of each
    assert plan.total == 17000 + PROCESS + plan.activations
    three = memory_plan(replace(s, cluster=replace(s.cluster, zero_stage=3)), description, (54, 32), "teacher", 1000)
    assert three.gathered == 4000 and three.weights == 1000 and three.bucket == 4000
    assert (
        three.total == plan.total - 3000 + 4000
    )  # a quarter of the weights is held, and all of them while a step computes
    own = {"zero_optimization": {"reduce_bucket_size": 10, "stage3_max_live_parameters": 100}}
    few = replace(s, cluster=replace(s.cluster, zero_stage=3, deepspeed=own))
    assert memory_plan(few, description, (54, 32), "teacher", 1000).total == three.total - 990 * 4 - 900 * 4
    on_gpus = replace(s, cluster=replace(s.cluster, use_gpu=True))
    assert memory_plan(on_gpus, description, (54, 32), "teacher", 1000).checkpoint == 0  # in the host's memory


def test_the_plan_of_a_distillation_holds_a_frozen_teacher_and_its_students() -> None:
    description = tiny("unet")
    plan = memory_plan(settings(recompute=True), description, (48, 32), "distill", 1000)
    assert plan.networks == 2 and plan.frozen == 4000 and plan.micro_batch == 4
    assert plan.endpoints == 5 * 4 * (2 * 24 * 32 * 4)  # a buffer of 5 rows of 4 samples, two channels
    assert plan.activations == activation_bytes(description, (48, 32), 4, 24, recompute=True)
    assert plan.total == 2 * 17000 + 4000 + PROCESS + plan.endpoints + plan.activations
    alone = memory_plan(settings(recompute=True, control=False), description, (48, 32), "distill", 1000)
    assert plan.total - alone.total == 17000
    assert plan.sampling - alone.sampling == 4000  # a copy of each student


@pytest.mark.parametrize("name", ["poisson", "darcy", "burgers", "navier_stokes", "reaction_diffusion"])
def test_solver_steps_hold_what_is_measured_on_one_sample(name: str) -> None:
    """On truths that a generator missed a little, with more steps than are measured."""
    pde = build_pde(name)
    grid = pde.grid(16)
    truth, params = truths(pde, 3, range(3), grid)
    fields = truth.float() * torch.where(solution_mask(pde, grid), 0.95, 1.0)
    correct(pde, grid, fields, params, 1)
    for trains in (True, False):
        given = fields.clone().requires_grad_(trains)
        with torch.set_grad_enabled(trains), Alive([given]) as alive:
            found = correct(pde, grid, given, params, 5)
            if trains:
                found.square().sum().backward()
        assert 3 * head_bytes(pde, grid, 5, trains) == pytest.approx(alive.most, rel=0.15), trains
    assert head_bytes(pde, grid, 0) == 0


def test_the_plan_of_a_distillation_holds_the_steps_of_its_head() -> None:
    description = tiny("unet")
    plain = settings()
    headed = replace(plain, distill=replace(plain.distill, head=4, head_in_training=True))
    after = replace(plain, distill=replace(plain.distill, head=4))
    assert memory_plan(after, description, (48, 48), "distill", 1000).head == 0  # behind the finished student alone
    without, plan = (memory_plan(one, description, (48, 48), "distill", 1000) for one in (plain, headed))
    pde = build_pde("darcy")
    assert without.head == 0 and plan.head == 4 * -(-head_bytes(pde, pde.grid(48), 4) // 2)  # half of the rows
    assert plan.total - without.total == plan.head > 0
    assert f"solver steps behind it {size_text(plan.head)}" in plan_lines(plan)
    assert "distill.head below 4" in plan.advice and "distill.head" not in without.advice
    assert memory_plan(headed, description, (48, 48), "teacher", 1000).head == 0


def test_the_plan_holds_both_gradients_that_are_combined_without_conflict() -> None:
    description = tiny("unet")
    plain = settings()
    combined = replace(plain, distill=replace(plain.distill, combine="conflict_free"))
    pbfm = replace(plain, teacher=replace(plain.teacher, objective={"name": "pbfm", "unroll": 1}))
    for phase, other in (("distill", combined), ("teacher", pbfm)):
        without, plan = (memory_plan(one, description, (48, 48), phase, 1000) for one in (plain, other))
        assert without.apart == 0 and plan.apart == 2 * 4 * 1000 == plan.total - without.total
        assert "gradients of two losses 7.8 KiB" in plan_lines(plan)
    none = replace(pbfm, teacher=replace(pbfm.teacher, objective={"name": "pbfm", "weight": 0.0}))
    assert memory_plan(none, description, (48, 48), "teacher", 1000).apart == 0


def test_steps_and_sampling_do_not_add_up() -> None:
    plan = MemoryPlan(1, 2, 3, 4, 50, 60, frozen=100, endpoints=200, networks=2)
    assert plan.total == 20 + 300 + 60
    assert replace(plan, activations=70).total == 20 + 300 + 70


def test_advice_names_the_settings_that_help() -> None:
    s = settings()
    assert advice(s, "distill") == (
        "try distill.micro_batch below 4, model.recompute=true, distill.chunk below 2, cluster.zero_stage=3, or "
        "cluster.space above 2"
    )
    sampling = advice(s, "teacher", steps=False)
    assert sampling == "try teacher.micro_batch below 3, cluster.zero_stage=3, or cluster.space above 2"
    s = settings(recompute=True, workers=1, space=1)
    s = replace(s, teacher=replace(s.teacher, micro_batch=1))
    assert advice(s, "teacher", samples=False) == "try cluster.space above 1"


def test_sizes_have_fitting_units() -> None:
    read = [size_text(n) for n in (0, 1536, 3 << 20, 5 << 30, 7 << 40)]
    assert read == ["0.0 B", "1.5 KiB", "3.0 MiB", "5.0 GiB", "7.0 TiB"]


def put(root: Path, files: dict[str, object]) -> Path:
    for name, contents in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{contents}\n")
    return root


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/memory.max": "max"}, None),
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/memory.max": "max", "sys/fs/cgroup/a/memory.max": 7}, 7),
        ({"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/memory.max": 5, "sys/fs/cgroup/memory.max": 9}, 5),
        ({"proc/self/cgroup": "0::/host/only", "sys/fs/cgroup/memory.max": 9}, 9),  # as a container sees itself
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/a\n2:memory:/a\n0::/",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": 11,
                "sys/fs/cgroup/cpu/a/memory.limit_in_bytes": 3,
            },
            11,
        ),
    ],
)
def test_the_limit_of_control_groups_is_the_least_on_the_way_up(tmp_path: Path, files: Any, limit: int | None) -> None:
    assert group_limit(put(tmp_path, files)) == limit


def test_workers_of_one_host_share_its_memory() -> None:
    alone = memory_limit()
    shared = memory_limit(1000)
    assert alone is not None and shared is not None and 2**20 < shared < alone / 100
    assert device_limit(torch.device("cpu"), 1000) == pytest.approx(shared, rel=0.2)


def test_a_gpu_belongs_to_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 80))
    assert device_limit(torch.device("cuda", 1), 4) == 80
