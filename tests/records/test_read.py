"""Reading returns the stored numbers, reads only the wanted rows, and refuses changed bytes."""

import json
import os

import numpy as np
import pytest

from pidscale.config import UserError
from pidscale.records.read import ShardSet
from pidscale.records.stores import folder


def flip(made, number, channel, row):
    """Change one value of a train sample in its tar; return the path of the tar."""
    shard, position = divmod(number, 5)
    index = json.loads((made.root / f"train-{shard:05d}.index.json").read_text())
    path = made.root / f"train-{shard:05d}.tar"
    offset = index["samples"][position]["fields"]["array"] + 4 * 24 * (channel * 40 + row)
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    return path


def test_samples_are_read_in_any_order_as_written(made):
    shards = ShardSet(made.root, "train")
    ids = [12, 0, 5, 4, 4]
    assert len(shards) == 13 and shards.counts == [5, 5, 3]
    np.testing.assert_array_equal(shards.read(ids), np.stack([made.draw(n) for n in ids]))
    assert shards.meta(7) == {"seed": 7, "params": {"nu": 7 / 8}, "residual": {"l2": 1e-6}}
    np.testing.assert_array_equal(ShardSet(made.root, "test").read([3])[0], made.draw(1003))
    assert shards.read([]).shape == (0, 2, 40, 24)


def test_parameters_are_in_the_order_of_their_names_and_a_missing_one_is_named(made):
    shards = ShardSet(made.root, "train")
    assert shards.params([12, 3], ["nu"]).tolist() == [[1.5], [0.375]] and shards.params([0, 1], []).shape == (2, 0)
    with pytest.raises(UserError, match=r"train-00002\.tar: sample 12 .*'alpha' \(found None\).*make the set again"):
        shards.params([12], ["nu", "alpha"])
    shards.meta(4)["params"]["nu"] = float("nan")
    with pytest.raises(UserError, match=r"sample 4 .*'nu' \(found nan\)"):
        shards.params([3, 4], ["nu"])


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("rows", [(0, 40), (0, 16), (16, 32), (32, 40), (3, 5), (10, 39), (39, 40), (7, 7), (0, 0)])
def test_rows_equal_those_of_whole_fields(made, rows, verify):
    shards = ShardSet(made.root, "train", verify=verify)
    np.testing.assert_array_equal(shards.read([2, 11], slice(*rows)), shards.read([2, 11])[:, :, slice(*rows)])


def test_only_the_row_blocks_of_the_wanted_rows_are_read(made, monkeypatch):
    shards = ShardSet(made.root, "train")
    read = []
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda f, b, o: read.append(preadv(f, b, o)) or read[-1])
    shards.read([1], slice(16, 32))
    assert read == [16 * 24 * 4] * 2  # one read per channel


def test_a_given_array_is_filled_in_place(made):
    shards = ShardSet(made.root, "train")
    out = np.empty((1, 2, 8, 24), np.float32)
    assert shards.read([3], slice(32, 40), out) is out
    np.testing.assert_array_equal(out[0], made.draw(3)[:, 32:])
    with pytest.raises(ValueError, match="float32"):
        shards.read([3], out=out)
    with pytest.raises(ValueError, match="step"):
        shards.read([3], slice(0, 40, 2))
    with pytest.raises(IndexError):
        shards.read([13])


def test_flipped_byte_is_named(made):
    path = flip(made, 6, channel=1, row=20)
    shards = ShardSet(made.root, "train")
    with pytest.raises(UserError) as error:
        shards.read([6])
    line = str(error.value)
    for part in (str(path), "00000006", "channel 1 (pressure)", "row block 1 (rows 16 to 31)"):
        assert part in line
    shards.read([6], slice(32, 40))  # the other rows are intact
    with pytest.raises(UserError, match="row block 1"):
        shards.read([6], slice(30, 40))
    ShardSet(made.root, "train", verify=False).read([6])


def test_a_missing_or_truncated_shard_is_named_when_the_set_is_opened(made):
    path = made.root / "train-00002.tar"
    os.truncate(path, 1000)
    with pytest.raises(UserError, match=r"train-00002\.tar: 1000 bytes"):
        ShardSet(made.root, "train")
    path.unlink()
    with pytest.raises(UserError, match=r"train-00002\.tar: missing"):
        ShardSet(made.root, "train")
    with pytest.raises(UserError, match="no split 'valid'"):
        ShardSet(made.root, "valid")


def test_a_shard_that_is_truncated_while_open_is_named(made):
    shards = ShardSet(made.root, "train")
    shards.read([0])
    os.truncate(made.root / "train-00000.tar", 9000)
    with pytest.raises(UserError, match=r"sample 00000004.*ends inside"):
        shards.read([4])


def test_values_that_are_not_finite_are_named(made):
    shards = ShardSet(made.root, "train", verify=False)
    offset = shards._shard(0).offsets[2]
    with open(made.root / "train-00000.tar", "r+b") as file:
        file.seek(offset)
        file.write(np.array([np.inf], "<f4").tobytes())
    with pytest.raises(
        UserError, match=r"sample 00000002, channel 0 \(permeability\): holds values that are not finite"
    ):
        shards.read([2])


def test_the_number_of_open_files_is_limited(made, monkeypatch):
    monkeypatch.setattr(folder, "_MOST_OPEN_FILES", 2)
    before = len(os.listdir("/proc/self/fd"))
    shards = ShardSet(made.root, "train")
    shards.read([0, 5, 10, 0, 12, 5])
    assert len(os.listdir("/proc/self/fd")) == before + 2
    shards.close()
    assert len(os.listdir("/proc/self/fd")) == before
    np.testing.assert_array_equal(shards.read([5])[0], made.draw(5))
