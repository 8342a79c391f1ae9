"""A rank that holds a part of the rows reads that part of the bytes, in as few reads as possible."""

import itertools
import os

import numpy as np
import pytest

from pidscale.config import UserError
from pidscale.parallel.mesh import rank_slice
from pidscale.records.format import VERSION, sample_key
from pidscale.records.manifest import ChannelInfo, Manifest, Split
from pidscale.records.plan import ReadPlan
from pidscale.records.read import ShardSet
from pidscale.records.write import publish_manifest, write_shard

HEIGHT, WIDTH, SAMPLES = 128, 32, 6


@pytest.fixture
def tall(tmp_path):
    """Six samples of two channels on 128 x 32; halves and quarters of the rows are whole row blocks."""
    rng = np.random.default_rng(0)
    stored = [
        (sample_key(n), rng.normal(size=(2, HEIGHT, WIDTH)).astype(np.float32), {"seed": n, "params": {}})
        for n in range(SAMPLES)
    ]
    entry, stats = write_shard(tmp_path, "train", 0, stored)
    manifest = Manifest(
        version=VERSION,
        equation="darcy",
        channels=(ChannelInfo("permeability", "1", "input"), ChannelInfo("pressure", "1", "solution")),
        grid={"kind": "node", "shape": [HEIGHT, WIDTH], "extent": [1.0, 1.0], "boundary": "dirichlet"},
        params={},
        normaliser={"mean": list(stats.mean), "std": list(stats.std)},
        dtype="float32",
        splits={"train": Split((0, SAMPLES), SAMPLES, (entry,))},
        truth_residual={},
        request={},
    )
    publish_manifest(tmp_path, manifest)
    return tmp_path


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_each_rank_reads_its_share_of_the_bytes(tall, parts, verify):
    all_bytes = SAMPLES * 2 * HEIGHT * WIDTH * 4
    for rank in range(parts):
        shards = ShardSet(tall, "train", verify=verify)
        shards.read(range(SAMPLES), rank_slice(HEIGHT, rank, parts))
        assert shards.bytes_read / all_bytes == pytest.approx(1 / parts, rel=0.05)


@pytest.mark.parametrize(("rows", "reads"), [(slice(None), 1), (slice(0, 64), 2)])
def test_adjacent_channels_are_read_at_once(tall, monkeypatch, rows, reads):
    shards = ShardSet(tall, "train")
    seen = []
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *given: seen.append(preadv(*given)) or seen[-1])
    shards.read([3], rows)
    assert len(seen) == reads and sum(seen) == shards.bytes_read


def test_pieces_are_small_and_consist_of_whole_row_blocks():
    plan = ReadPlan.of((2, 1000, 2048), 16, 1000, verify=True, most=2**20)
    assert plan.bytes == 2 * 984 * 2048 * 4 and max(stop - start for start, stop, _, _ in plan.pieces) <= 2**20
    blocks = [block for *_, held in plan.pieces for block in held]
    assert [number for *_, number in blocks] == [*range(1, 63), *range(64, 126)]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(blocks))


def test_the_channel_in_which_a_file_ends_is_named(tall):
    shards = ShardSet(tall, "train")
    shards.read([0])
    offset = shards._shard(0).offsets[5]
    os.truncate(tall / "train-00000.tar", offset + HEIGHT * WIDTH * 4 + 100)  # in the second channel of the last sample
    with pytest.raises(UserError, match=r"sample 00000005, channel 1 \(pressure\): .*ends inside"):
        shards.read([5])
    shards.read([4])
