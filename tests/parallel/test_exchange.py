"""Exchanges of a space group: exact gradients, periodic fields and ends, uneven rows, and a rank that is lost."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch

from pidscale.parallel.halo import attach_halo, finish_halo, start_halo
from pidscale.parallel.mesh import Mesh, Space
from pidscale.parallel.modes import from_modes, kept_modes
from pidscale.parallel.reduce import gather_rows, total
from pidscale.parallel.spawn import LOOPBACK, RankFailed
from pidscale.parallel.split import Cut
from pidscale.parallel.transpose import to_columns, to_rows
from tests.conftest import RAY_ENVIRONMENT
from tests.ranks import spawn

HEIGHT, WIDTH = 13, 7
CUT = {2: Cut((0, 5, 13)), 4: Cut((0, 2, 6, 9, 13))}


def field(*lead, complex_=False):
    kind = torch.complex128 if complex_ else torch.float64
    return torch.randn(*lead, HEIGHT, WIDTH, dtype=kind, generator=torch.manual_seed(4))


def maps(cut, space):
    """Linear maps of this rank's rows, by name."""
    columns = Cut.even(WIDTH, space.size)

    def in_two_steps(x):
        exchange = start_halo(x, 2, 1, True, space)
        return torch.cat(finish_halo(x, exchange, 2, 1, True, space), dim=-2)

    return {
        "periodic": lambda x: attach_halo(x, 1, 2, True, space),
        "not periodic": lambda x: attach_halo(x, 2, 1, False, space),
        "in two steps": in_two_steps,
        "columns": lambda x: to_columns(x, cut, columns, space),
        "columns and back": lambda x: to_rows(to_columns(x, cut, columns, space), cut, columns, space),
        "total": lambda x: total(x.sum(dim=-2), space),
        "gathered": lambda x: gather_rows(x, cut, space),
    }


def adjoint(rank, world):
    """For each map A, <A x, y> and <x, A^T y> summed over ranks, with random x and y."""
    mesh = Mesh.over(rank, world, torch.device("cpu"), world)
    cut = CUT[world]
    found = {}
    for complex_ in (False, True):
        for name, apply in maps(cut, mesh.space).items():
            x = field(2, 3, complex_=complex_)[..., cut.rows(rank), :].clone().requires_grad_()
            image = apply(x)
            rng = torch.manual_seed(100 + rank)
            y = torch.randn(image.shape, dtype=image.dtype, generator=rng)
            (back,) = torch.autograd.grad(image, x, y)
            sums = torch.stack([(image.detach() * y.conj()).real.sum(), (x.detach() * back.conj()).real.sum()])
            found[name, complex_] = mesh.sum(sums).tolist()
            if name == "columns":
                own = Cut.even(WIDTH, world).rows(rank)
                assert torch.equal(image, field(2, 3, complex_=complex_)[..., own])
            if name == "columns and back":
                assert torch.equal(image, x)
            if name == "periodic":
                rows = torch.arange(cut.ends[rank] - 1, cut.ends[rank + 1] + 2) % HEIGHT
                assert torch.equal(image, field(2, 3, complex_=complex_)[..., rows, :])
    return found


@pytest.mark.parametrize("world", [2, 4])
def test_backward_passes_are_exact_adjoints(world):
    for found in spawn(adjoint, world):
        assert len(found) == 14
        for name, (forward, backward) in found.items():
            assert abs(forward - backward) <= 1e-12 * max(1.0, abs(forward)), name


@pytest.mark.parametrize("width", [7, 8])
@pytest.mark.parametrize("modes", [(3, 3), (6, 5)])
def test_kept_modes_are_those_of_the_transform(width, modes):
    """In one process, which holds all rows."""
    x = torch.randn(2, 3, HEIGHT, width, dtype=torch.float64)
    m = min(modes[0], HEIGHT // 2)
    columns = min(modes[1], width // 2 + 1)
    spectrum = torch.fft.rfft2(x, norm="ortho")
    kept = torch.cat([spectrum[:, :, :m, :columns], spectrum[:, :, -m:, :columns]], dim=2)
    found = kept_modes(x, slice(0, HEIGHT), HEIGHT, (m, columns), Space())
    torch.testing.assert_close(found, kept, rtol=0, atol=1e-12)
    only = torch.zeros_like(spectrum)
    only[:, :, :m, :columns] = kept[:, :, :m]
    only[:, :, -m:, :columns] = kept[:, :, m:]
    back = torch.fft.irfft2(only, s=(HEIGHT, width), norm="ortho")
    torch.testing.assert_close(from_modes(kept, slice(0, HEIGHT), HEIGHT, width), back, rtol=0, atol=1e-12)


def too_wide(rank, world):
    space = Mesh.over(rank, world, torch.device("cpu"), world).space
    attach_halo(field()[CUT[world].rows(rank)], 6, 6, False, space)


def test_a_halo_wider_than_a_tile_is_refused():
    with pytest.raises(RankFailed, match=r"a tile of 5 rows cannot give its neighbours 6: lower cluster\.space"):
        spawn(too_wide, 2)


def test_a_space_size_that_does_not_divide_the_workers_is_refused():
    with pytest.raises(ValueError, match=r"cluster\.space=3 does not divide the 4 workers"):
        Mesh.over(0, 4, torch.device("cpu"), 3)


def axes(rank, world):
    mesh = Mesh.over(rank, world, torch.device("cpu"), 2)
    return mesh.data, mesh.data_rank, mesh.space.rank, mesh.space.above, mesh.space.below, mesh.slice(6)


def test_space_groups_have_consecutive_ranks():
    assert spawn(axes, 4) == [
        (2, 0, 0, 1, 1, slice(0, 3)),
        (2, 0, 1, 0, 0, slice(0, 3)),
        (2, 1, 0, 3, 3, slice(3, 6)),
        (2, 1, 1, 2, 2, slice(3, 6)),
    ]


LOST = """
import os, signal, sys, time
import torch, torch.distributed as dist
from pidscale.parallel.halo import attach_halo
from pidscale.parallel.mesh import Mesh

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
space = Mesh.over(rank, 2, torch.device("cpu"), 2).space
x = torch.zeros(4, 3, requires_grad=True)
y = attach_halo(x, 1, 1, True, space).sum()
print("ready", flush=True)
if rank:
    time.sleep(600)
sys.stdin.readline()
start = time.perf_counter()
try:
    y.backward()
except RuntimeError as error:
    print("ended after", time.perf_counter() - start, str(error)[:80], flush=True)
    os._exit(3)
"""


def test_a_rank_that_is_killed_does_not_hang_the_others(tmp_path):
    """One rank is killed before its backward pass; the other, which waits for its rows, ends with an error at once."""
    environment = RAY_ENVIRONMENT | {"GLOO_SOCKET_IFNAME": LOOPBACK, "PATH": "", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", LOST, str(rank), str(tmp_path / "store")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in (0, 1)
    ]
    try:
        assert [rank.stdout.readline() for rank in ranks] == ["ready\n", "ready\n"]
        ranks[1].kill()
        ranks[1].wait()
        start = time.monotonic()
        said, _ = ranks[0].communicate("go\n", timeout=60)
        assert ranks[0].returncode == 3 and "ended after" in said
        assert time.monotonic() - start < 30
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
