"""The mesh of ranks: its collectives, and which items each rank takes."""

from __future__ import annotations

import itertools
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pidscale.parallel.mesh import Mesh
from tests.ranks import spawn

COUNTS = st.integers(0, 10_000)
WORLDS = st.integers(1, 64)


@given(count=COUNTS, world=WORLDS)
def test_slices_cover_all_items_once_and_in_order(count, world):
    slices = [Mesh(rank, world).slice(count) for rank in range(world)]
    assert slices[0].start == 0 and slices[-1].stop == count
    assert all(a.stop == b.start for a, b in itertools.pairwise(slices))
    sizes = [s.stop - s.start for s in slices]
    assert min(sizes) >= 0 and max(sizes) - min(sizes) <= 1


def test_one_process_exchanges_nothing():
    mesh = Mesh()
    assert mesh.first and mesh.slice(7) == slice(0, 7)
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    total = mesh.sum(values)
    assert total.dtype == torch.float64 and not total.requires_grad and total.tolist() == [1.0, 2.0]
    total[0] = 5.0
    assert values[0] == 1.0  # the sum is a copy, not a view
    assert mesh.any(True) and not mesh.any(False)
    box = {"a": 1}
    assert mesh.broadcast(box) is box
    assert mesh.gather_pieces(values)[0] is values
    assert mesh.gather(box) == [box] and mesh.aside().gather(3) == [3]
    mesh.aside().leave()
    mesh.barrier()


def _exchange(rank, world):
    mesh = Mesh(rank, world)
    own = torch.full((2,), 1e8, requires_grad=True) if rank == 0 else torch.tensor([1.0, -1e8])
    total = mesh.sum(own)
    piece = torch.arange(6.0).reshape(3, 2)[:, rank % 2] + 10 * rank  # not contiguous
    mesh.barrier()
    return {
        "first": mesh.first,
        "total": total,
        "graph": total.requires_grad,
        "own": own.detach(),
        "any": [mesh.any(False), mesh.any(rank == world - 1), mesh.any(True)],
        "value": mesh.broadcast({"from": rank, "path": ["x", rank]}),
        "nothing": mesh.broadcast(None if rank == 0 else "something"),
        "pieces": mesh.gather_pieces(piece),
        "gathered": mesh.gather({"rank": rank}),
        "aside": _aside(mesh),
    }


def _aside(mesh):
    """What a thread gathers while this one sums, in an order that the ranks do not share."""
    aside = mesh.aside()
    found = []

    def exchange():
        for number in range(20):
            found.append((aside.gather((number, aside.rank)), aside.broadcast(number if aside.first else None)))

    thread = threading.Thread(target=exchange)
    thread.start()
    sums = [float(mesh.sum(torch.tensor(float(number)))) for number in range(20)]
    thread.join()
    aside.leave()
    return found, sums


def test_three_ranks_get_the_same_results():
    ranks = spawn(_exchange, 3)
    assert [r["first"] for r in ranks] == [True, False, False]
    for rank, found in enumerate(ranks):
        assert found["total"].tolist() == [1e8 + 2, -1e8]  # float32 would lose the ones
        assert found["total"].dtype == torch.float64 and not found["graph"]
        assert found["own"].tolist() == ([1e8, 1e8] if rank == 0 else [1.0, -1e8])  # the input is unchanged
        assert found["any"] == [False, True, True]
        assert found["value"] == {"from": 0, "path": ["x", 0]} and found["nothing"] is None
        expected = [[0.0, 2.0, 4.0], [11.0, 13.0, 15.0], [20.0, 22.0, 24.0]]
        assert [p.tolist() for p in found["pieces"]] == expected
        assert found["gathered"] == [{"rank": other} for other in range(3)]
        gathered, sums = found["aside"]
        assert gathered == [([(number, other) for other in range(3)], number) for number in range(20)]
        assert sums == [3.0 * number for number in range(20)]


def test_a_mesh_is_immutable():
    with pytest.raises(AttributeError):
        Mesh().rank = 1
