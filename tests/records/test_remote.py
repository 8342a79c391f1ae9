"""A set in an object store reads as in a folder, requests are repeated while the store is unavailable, faults are named."""

import itertools
import multiprocessing
import os
import threading
import time

import fsspec
import numpy as np
import pytest

from pidscale.config import UserError
from pidscale.records.check import load_manifest
from pidscale.records.feed import Feed
from pidscale.records.read import ShardSet
from pidscale.records.stores.base import Unreachable
from pidscale.records.stores.cache import Cache
from pidscale.records.stores.opening import open_store
from tests import s3

NUMBERS = itertools.count()


@pytest.fixture
def address(server, made):
    server.line.mend()
    return server.upload(made.root, f"set{next(NUMBERS)}")


def test_fields_and_rows_equal_those_of_the_folder(made, address):
    local = ShardSet(made.root, "train")
    remote = ShardSet(address, "train")
    np.testing.assert_array_equal(remote.read(range(13)), local.read(range(13)))
    np.testing.assert_array_equal(remote.read([11, 2], slice(3, 21)), local.read([11, 2], slice(3, 21)))
    assert remote.meta(7) == local.meta(7) and remote.manifest == local.manifest


def test_rows_take_their_share_of_the_bytes(made, address, server):
    remote = ShardSet(address, "train", verify=False)
    remote.read([0])  # reads the index
    costs = []
    for rows in (slice(0, 40), slice(0, 10)):
        before = server.line.carried
        remote.read([1, 2, 3, 4], rows)
        costs.append(server.line.carried - before)
    body = 4 * 2 * 40 * 24 * 4
    head = 1000  # of a request; a whole sample is one request, some rows are one request a channel
    assert body < costs[0] < body + 4 * head and body / 4 < costs[1] < body / 4 + 8 * head


def test_requests_are_repeated_until_the_store_is_back(address, server):
    feed = Feed(ShardSet(open_store(address, patience=60), "train"), 0, 5, 0, 1)
    batches = [feed.batch(step).fields_BCYX.clone() for step in range(8)]
    server.line.cut()
    threading.Timer(2.0, server.line.mend).start()
    began = time.monotonic()
    for step, expected in enumerate(batches):
        assert bool((feed.batch(step).fields_BCYX == expected).all())
    assert time.monotonic() - began > 1.5
    feed.close()


def test_a_store_that_stays_unavailable_is_named(address, server):
    shards = ShardSet(open_store(address, patience=1.0), "train")
    server.line.cut()
    began = time.monotonic()
    with pytest.raises(
        UserError, match=rf"{address}/train-00000.*the store is unavailable \(.*data\.patience"
    ) as error:
        shards.read([0])
    assert "\n" not in str(error.value) and time.monotonic() - began < 30
    with pytest.raises(UserError, match="the store is unavailable"):
        ShardSet(open_store(address, patience=0.0), "train")


def test_a_damaged_object_is_named(made, address, server):
    key = f"{address.removeprefix('s3://fields/')}/train-00001.tar"
    data = bytearray(server.get(key))
    data[3000] ^= 1
    server.put(key, bytes(data))
    with pytest.raises(
        UserError, match=rf"{address}/train-00001\.tar: sample 0000000\d, channel \d .*fails its checksum"
    ):
        ShardSet(address, "train").read(range(13))
    server.put(key, bytes(data[:-512]))
    with pytest.raises(UserError, match=rf"{address}/train-00001\.tar: \d+ bytes, manifest.json says"):
        ShardSet(address, "train")
    server.client.delete_object(Bucket=s3.BUCKET, Key=key)
    with pytest.raises(UserError, match=rf"{address}/train-00001\.tar: missing"):
        ShardSet(address, "train")


def test_missing_buckets_and_sets_are_named(server):
    for nowhere in ("s3://nobody/set", "s3://fields/nothing"):
        with pytest.raises(UserError, match=nowhere):
            ShardSet(open_store(nowhere, patience=0.5), "train")


# the cache


def cached(address, folder, limit=10**9):
    remote = open_store(address, 10.0)
    return Cache(remote, load_manifest(remote), folder, limit)


def test_a_cached_set_is_fetched_once(made, address, server, tmp_path):
    first = ShardSet(cached(address, tmp_path / "cache"), "train")
    np.testing.assert_array_equal(first.read(range(13)), np.stack([made.draw(n) for n in range(13)]))
    before = server.line.carried
    first.read(range(13))
    assert server.line.carried == before
    again = ShardSet(cached(address, tmp_path / "cache"), "train")
    opened = server.line.carried
    again.read(range(13))
    assert server.line.carried == opened
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_the_cache_stays_within_its_limit_and_deletes_the_least_recently_used(made, address, tmp_path):
    shard = (made.root / "train-00000.tar").stat().st_size
    shards = ShardSet(cached(address, tmp_path / "cache", int(2.2 * shard)), "train", verify=False)
    for numbers in ([0, 1], [5, 6], [0, 2], [10, 12], [1, 3], [7]):
        np.testing.assert_array_equal(shards.read(numbers), np.stack([made.draw(n) for n in numbers]))
        shards.close()  # an open file stays readable after it was deleted
        held = [p for p in (tmp_path / "cache").glob("*/*") if not p.name.startswith(".")]
        assert sum(p.stat().st_size for p in held) <= 2.2 * shard
    with pytest.raises(UserError, match=r"data\.cache_gib: .*more than the cache may hold"):
        ShardSet(cached(address, tmp_path / "small", shard - 1), "train").read([0])


def test_the_cache_refuses_damaged_objects(made, address, server, tmp_path):
    key = f"{address.removeprefix('s3://fields/')}/train-00002.tar"
    data = bytearray(server.get(key))
    data[700] ^= 1  # in a header: no field changes, so that only the hash of the file shows it
    server.put(key, bytes(data))
    with pytest.raises(UserError, match=rf"{address}/train-00002\.tar: SHA-256 differs .*damaged"):
        ShardSet(cached(address, tmp_path / "cache"), "train").read([12])
    assert not list((tmp_path / "cache").rglob("train-00002.tar"))


def _read_all(address, folder, limit):
    shards = ShardSet(cached(address, folder, limit), "train")
    return float(np.sum([shards.read([n]).astype(np.float64).sum() for n in range(13)]))


def test_processes_share_a_cache_and_fetch_each_shard_once(made, address, server, tmp_path):
    sizes = sum(p.stat().st_size for p in made.root.glob("train-*"))
    before = server.line.carried
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        sums = pool.starmap(_read_all, [(address, tmp_path / "cache", 10**9)] * 3)
        assert server.line.carried - before < 1.5 * sizes  # besides manifests and listings
        tight = int(1.5 * (made.root / "train-00000.tar").stat().st_size)
        sums += pool.starmap(_read_all, [(address, tmp_path / "tight", tight)] * 3)
    assert sums == [pytest.approx(sum(made.draw(n).astype(np.float64).sum() for n in range(13)), rel=1e-9)] * 6


def test_the_cache_deletes_only_files_that_it_fetched(made, address, tmp_path):
    """Its folder may hold other files, and shards in other folders do not belong to it."""
    folder = tmp_path / "work"
    shard = (made.root / "train-00000.tar").stat().st_size
    for name in ("thesis/results.csv", "dset/train-00000.tar", "a.txt", "proj/sub/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(10 * shard))
        os.utime(folder / name, (0, 0))
    shards = ShardSet(cached(address, folder, int(1.2 * shard)), "train")
    for n in (0, 5, 12, 1, 7):
        np.testing.assert_array_equal(shards.read([n])[0], made.draw(n))
    for name in ("thesis/results.csv", "dset/train-00000.tar", "a.txt", "proj/sub/x"):
        assert (folder / name).stat().st_size == 10 * shard


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
@pytest.mark.parametrize("name", ["train-00001.tar", "train-00001.index.json"])
def test_a_damaged_file_in_the_cache_is_fetched_again(made, address, tmp_path, damage, name):
    ShardSet(cached(address, tmp_path / "cache"), "train").read(range(13))
    (held,) = (tmp_path / "cache").rglob(name)
    data = bytearray(held.read_bytes())
    for at in range(100, len(data), 300):
        data[at] ^= 1
    held.write_bytes({"flip": bytes(data), "cut": bytes(data[:50]), "empty": b""}[damage])
    shards = ShardSet(cached(address, tmp_path / "cache"), "train")
    np.testing.assert_array_equal(shards.read(range(13)), np.stack([made.draw(n) for n in range(13)]))
    assert held.read_bytes() == (made.root / name).read_bytes()


def test_temporary_files_of_a_killed_process_are_removed(address, tmp_path):
    first = cached(address, tmp_path / "cache")
    (left,) = (p.parent / ".train-00000.tar.99999.tmp" for p in (tmp_path / "cache").glob("*/.pidscale-cache"))
    left.write_bytes(bytes(100))
    ShardSet(first, "train").read([0])
    assert not left.exists()


def test_an_unavailable_store_is_not_counted_as_damaged_samples(address, server, tmp_path):
    """An unavailable store, or a cache that is too small, ends the search for bad samples at once."""
    small = ShardSet(cached(address, tmp_path / "small", 1000), "train")
    with pytest.raises(Unreachable, match=r"data\.cache_gib"):
        small.faults(range(13))
    shards = ShardSet(open_store(address, patience=1.0), "train")
    shards.read([0])
    server.line.cut()
    began = time.monotonic()
    with pytest.raises(Unreachable, match="the store is unavailable"):
        shards.faults(range(13))
    assert time.monotonic() - began < 15


def test_refused_requests_are_not_repeated(address, server, monkeypatch):
    began = time.monotonic()
    with pytest.raises(UserError, match=r"the store refuses .*Invalid bucket name"):
        load_manifest(open_store("s3://Bad_Bucket!/set", patience=100.0))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(UserError, match=r"the store refuses .*nobody"):
        load_manifest(open_store(address, patience=100.0))
    assert time.monotonic() - began < 30
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_an_object_that_is_truncated_while_the_set_is_open_is_named_at_once(made, address, server):
    shards = ShardSet(open_store(address, patience=100.0), "train")
    key = address.removeprefix("s3://fields/")
    shards.read([5])
    server.put(f"{key}/train-00001.tar", (made.root / "train-00001.tar").read_bytes()[:600])
    with pytest.raises(UserError, match=r"sample 00000009, channel 0 .*ends inside this sample"):
        shards.read([9])


def test_a_cache_that_cannot_be_written_is_named(address, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data\.cache=.*file"):
        cached(address, tmp_path / "file")
