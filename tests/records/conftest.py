"""A small intact shard set in a temporary folder: 3 + 1 shards of two channels on 40 x 24 nodes."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pidscale.records.format import VERSION, sample_key
from pidscale.records.manifest import ChannelInfo, Manifest, Split
from pidscale.records.write import merge_stats, publish_manifest, write_shard

HEIGHT, WIDTH = 40, 24  # 40 rows: two full row blocks and a short one


def draw(number: int) -> np.ndarray:
    """The fields of one sample, a function of its number."""
    return np.random.default_rng(number).normal(2.0, 3.0, (2, HEIGHT, WIDTH)).astype(np.float32)


def samples(first: int, last: int, base: int = 0):
    """Yield samples first to last - 1 of a split as write_shard takes them; sample n has the fields of number base + n."""
    for n in range(base + first, base + last):
        yield sample_key(n - base), draw(n), {"seed": n, "params": {"nu": n / 8}, "residual": {"l2": 1e-6}}


def make_set(root: Path) -> Manifest:
    """Write the splits train (5 + 5 + 3 samples) and test (4 samples, with the fields of numbers 1000 to 1003)."""
    root.mkdir(parents=True, exist_ok=True)
    train = [write_shard(root, "train", i, samples(5 * i, min(5 * i + 5, 13))) for i in range(3)]
    test = [write_shard(root, "test", 0, samples(0, 4, base=1000))]
    stats = merge_stats([s for _, s in train])
    manifest = Manifest(
        version=VERSION,
        equation="darcy",
        channels=(ChannelInfo("permeability", "1", "input"), ChannelInfo("pressure", "1", "solution")),
        grid={"kind": "node", "shape": [HEIGHT, WIDTH], "extent": [1.0, 1.0], "boundary": "dirichlet"},
        params={"variant": "two_phase"},
        normaliser={"mean": list(stats.mean), "std": list(stats.std)},
        dtype="float32",
        splits={
            "train": Split((0, 13), 13, tuple(e for e, _ in train)),
            "test": Split((1000, 1004), 4, tuple(e for e, _ in test)),
        },
        truth_residual={"train": {"l2": 1e-6, "max_l2": 2e-6}},
        request={},
    )
    publish_manifest(root, manifest)
    return manifest


@pytest.fixture
def made(tmp_path: Path) -> SimpleNamespace:
    """A set: its folder, its manifest, and the functions that made it."""
    root = tmp_path / "set"
    return SimpleNamespace(root=root, manifest=make_set(root), draw=draw, make_set=make_set, samples=samples)
