"""A pass with the stock library gives the same samples, and damage is an error."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pidscale.config import UserError
from pidscale.records import write
from pidscale.records.manifest import Split
from pidscale.records.stores.folder import Folder
from pidscale.records.stream import stream_samples


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_together_see_every_sample_once(made, world):
    seen = {}
    for rank in range(world):
        for key, fields, meta in stream_samples(made.root, "train", rank, world):
            assert int(key) not in seen and meta["seed"] == int(key)
            seen[int(key)] = fields
    assert sorted(seen) == list(range(13))
    for number, fields in seen.items():
        np.testing.assert_array_equal(fields, made.draw(number))
    assert [key for key, _, _ in stream_samples(made.root, "test")] == [f"{n:08d}" for n in range(4)]
    with pytest.raises(UserError, match="no split 'valid'"):
        next(stream_samples(made.root, "valid"))


class Shortened(Folder):
    """A store whose tar reads as zeros from some offset on, which a tar reader takes for its end."""

    def __init__(self, root, name, end):
        super().__init__(root)
        self.name = name
        self.end = end

    def fill(self, name, offset, view):
        super().fill(name, offset, view)
        if name == self.name and offset + len(view) > self.end:
            view[max(0, self.end - offset) :] = bytes(len(view) - max(0, self.end - offset))


@pytest.mark.parametrize("members", [0, 1, 2, 3])
def test_a_tar_that_ends_early_is_named(made, members):
    member = 512 + -(-(2 * 40 * 24 * 4 + 128) // 512) * 512
    end = (members // 2) * (member + 1024) + (members % 2) * member
    with pytest.raises(UserError, match=r"train-00001\.tar: (ends after|sample \d+ )"):
        list(stream_samples(Shortened(made.root, "train-00001.tar", end), "train"))


def test_a_flipped_byte_is_named_unless_checks_are_off(made):
    path = made.root / "train-00000.tar"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"train-00000\.tar: sample 00000000 fails its checksums"):
        list(stream_samples(made.root, "train"))
    assert len(list(stream_samples(made.root, "train", verify=False))) == 13


def edited(made, change):
    """A train split of one shard that was written without checks, with matching hashes."""
    root = made.root.parent / "edited"
    root.mkdir()
    fields = [change(made.draw(n)) for n in range(3)]
    plain = write.npy.write_array
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(write, "_check_sample", lambda *given: None)
        patched.setattr(write.npy, "write_array", lambda file, array, **own: plain(file, fields[int(array[0, 0, 0])]))
        marked = ((f"{n:08d}", np.full((2, 40, 24), n, np.float32), {"seed": n, "params": {}}) for n in range(3))
        entry, _ = write.write_shard(root, "train", 0, marked)
    split = Split((0, 3), 3, (entry,))
    manifest = replace(made.manifest, splits={"train": split})
    (root / "manifest.json").write_text(json.dumps(manifest.to_json()))
    return root


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: np.where(x == x[0, 3, 3], np.float32("nan"), x), "not finite"),
        (lambda x: np.ascontiguousarray(x.transpose(0, 2, 1)), "shape"),
        (lambda x: x.astype("<f8"), "float64"),
        (lambda x: x.astype(">f4"), ">f4"),
        (lambda x: np.asfortranarray(x), "expected float32"),
    ],
)
def test_fields_that_a_set_may_not_hold_are_named(made, change, said):
    with pytest.raises(UserError, match=rf"train-00000.*{said}"):
        list(stream_samples(edited(made, change), "train"))


def test_a_damaged_header_is_named(made):
    path = made.root / "train-00000.tar"
    data = bytearray(path.read_bytes())
    data[:512] = b"x" * 512
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"train-00000\.tar"):
        list(stream_samples(made.root, "train"))
