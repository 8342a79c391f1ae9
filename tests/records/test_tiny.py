"""The set in the repository, which the first version of the format wrote, is read by the present one."""

import numpy as np
import torch

from pidscale.pde import build_pde
from pidscale.pde.residuals import truth_residuals
from pidscale.records.check import check_set, load_manifest
from pidscale.records.read import ShardSet
from pidscale.records.stream import stream_samples
from tests.scripts import ROOT

TINY = ROOT / "shards" / "tiny"
# the data hash, which no change of the code may change
HASH = "156ce789dcd2c7258b93de9d16a9a9a31d0424910c8e8f2c22a14bf0e4769af4"


def test_the_tiny_set_is_read_as_it_was_written():
    manifest = load_manifest(TINY)
    assert manifest.version == 1 and manifest.data_hash == HASH
    check_set(manifest, TINY, contents=True)
    for split, count in (("train", 12), ("test", 4)):
        shards = ShardSet(TINY, split)
        fields = shards.read(range(count))
        assert len(shards) == count and fields.shape == (count, 2, 20, 20)
        np.testing.assert_array_equal(fields, np.stack([one for _, one, _ in stream_samples(TINY, split)]))
        pde = build_pde(manifest.equation, manifest.params)
        norms = truth_residuals(pde, pde.grid(20), fields, np.empty((count, 0)))
        for n in range(count):
            np.testing.assert_allclose(norms["l2"][n], shards.meta(n)["residual"]["l2"], rtol=0.5)


def test_its_samples_are_functions_of_their_counters():
    pde = build_pde("darcy")
    shards = ShardSet(TINY, "test")
    for n in range(4):
        fields, _ = pde.sample(0, shards.meta(n)["seed"], pde.grid(20))
        torch.testing.assert_close(torch.from_numpy(fields).float(), torch.from_numpy(shards.read([n])[0]))
