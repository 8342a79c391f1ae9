"""Shards are tars with the same bytes for the same samples, and their statistics merge."""

import json
import tarfile

import numpy as np
import pytest

from pidscale.config import UserError
from pidscale.records.write import Stats, finished_shard, merge_stats, write_shard


def test_the_stock_library_reads_equal_arrays(made):
    webdataset = pytest.importorskip("webdataset")
    urls = [str(made.root / e.name) for e in made.manifest.splits["train"].shards]
    read = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in read] == [f"{n:08d}" for n in range(13)]
    for n, sample in enumerate(read):
        assert sample["fields.npy"].dtype == np.float32
        np.testing.assert_array_equal(sample["fields.npy"], made.draw(n))
        assert sample["json"] == {"seed": n, "params": {"nu": n / 8}, "residual": {"l2": 1e-6}}


def test_same_samples_give_the_same_bytes(made, tmp_path):
    made.make_set(tmp_path / "again")
    names = sorted(p.name for p in made.root.iterdir())
    assert names == sorted(p.name for p in (tmp_path / "again").iterdir()) and len(names) == 9
    for name in names:
        assert (made.root / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_tars_are_ustar_without_owner_or_time(made):
    path = made.root / "train-00000.tar"
    assert path.read_bytes()[257:263] == b"ustar\0"
    with tarfile.open(path) as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")


def test_the_index_states_where_the_fields_are(made):
    index = json.loads((made.root / "train-00001.index.json").read_text())
    data = (made.root / "train-00001.tar").read_bytes()
    assert len(index["samples"]) == 5 and index["bytes"] == len(data)
    for n, sample in enumerate(index["samples"], start=5):
        start = sample["fields"]["array"]
        values = np.frombuffer(data[start : start + 4 * 2 * 40 * 24], dtype="<f4").reshape(sample["shape"])
        np.testing.assert_array_equal(values, made.draw(n))
        meta = data[sample["json"]["offset"] :][: sample["json"]["bytes"]]
        assert json.loads(meta) == sample["meta"]
        assert [len(c) for c in sample["checksums"]] == [3, 3]


def test_merged_statistics_equal_those_of_all_samples(made):
    fields = np.stack([made.draw(n) for n in range(13)]).astype(np.float64)
    np.testing.assert_allclose(made.manifest.normaliser["mean"], fields.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(made.manifest.normaliser["std"], fields.std(axis=(0, 2, 3)), rtol=1e-12)


def test_statistics_do_not_depend_on_the_memory_layout(made):
    fields = made.draw(3)
    channels_last = np.ascontiguousarray(fields.transpose(1, 2, 0)).transpose(2, 0, 1)
    assert Stats.of(channels_last) == Stats.of(fields)


def test_statistics_are_accurate_with_a_large_offset():
    fields = [np.random.default_rng(n).normal(1e5, 1.0, (1, 16, 16)) for n in range(8)]
    merged = merge_stats(
        [merge_stats([Stats.of(f) for f in fields[:3]]), merge_stats([Stats.of(f) for f in fields[3:]])]
    )
    np.testing.assert_allclose(merged.std, np.std(fields), rtol=1e-10)
    assert merged.count == 8 * 256


@pytest.mark.parametrize(
    ("samples", "part"),
    [
        ([], "at least one"),
        ([("00000000", np.zeros((1, 4, 4)), {})], "float64"),
        ([("0.5", np.zeros((1, 4, 4), np.float32), {})], "digits"),
        (
            [("00000001", np.zeros((1, 4, 4), np.float32), {}), ("00000000", np.zeros((1, 4, 4), np.float32), {})],
            "rising",
        ),
        (
            [("00000000", np.zeros((1, 4, 4), np.float32), {}), ("00000001", np.zeros((1, 4, 5), np.float32), {})],
            "(1, 4, 4)",
        ),
        ([("00000000", np.full((1, 4, 4), np.nan, np.float32), {})], "not finite"),
    ],
)
def test_wrong_samples_are_named_and_no_file_is_left(tmp_path, samples, part):
    with pytest.raises(UserError) as error:
        write_shard(tmp_path, "train", 0, samples)
    assert part in str(error.value) and "train-00000.tar" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_finished_shard_is_recognised_only_if_it_is_intact(made):
    entry = made.manifest.splits["train"].shards[1]
    found = finished_shard(made.root, "train", 1, 5)
    assert found is not None and found[0] == entry
    assert finished_shard(made.root, "train", 1, 4) is None
    assert finished_shard(made.root, "train", 7, 5) is None
    path = made.root / entry.name
    data = bytearray(path.read_bytes())
    data[9000] ^= 4
    path.write_bytes(data)
    assert finished_shard(made.root, "train", 1, 5) is None
