"""A folder of an object store that files are written to: what is listed, written again, removed, and away for a while."""

from __future__ import annotations

import itertools
import threading

import pytest

from pidscale.records.stores.base import Unreachable
from pidscale.records.stores.objects import Objects
from tests import s3

NUMBERS = itertools.count()


@pytest.fixture
def objects(server):
    server.line.mend()
    return Objects(f"s3://{s3.BUCKET}/place{next(NUMBERS)}", 30.0, "run.folder")


def test_objects_are_listed_read_replaced_and_removed(objects, tmp_path):
    assert objects.listed() == {} and objects.sizes() == {} and objects.content("a") is None
    objects.write("a", b"12")
    (tmp_path / "file").write_bytes(b"345")
    objects.upload("b/c/d", tmp_path / "file")
    objects.write("b/cc", b"")
    assert objects.listed() == {"a": 2, "b/c/d": 3, "b/cc": 0} and objects.sizes() == {"a": 2}
    assert objects.listed("b/c") == {"b/c/d": 3} and objects.listed("none") == {}
    assert objects.content("b/c/d") == b"345" and objects.content("b/cc") == b""
    objects.download("b/c/d", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_bytes() == b"345"
    objects.write("a", b"6789")
    assert objects.content("a") == b"6789" and objects.listed()["a"] == 4
    with pytest.raises(FileNotFoundError):
        objects.download("none", tmp_path / "none")
    objects.remove(["a", "none", "b/c/d"])
    assert objects.listed() == {"b/cc": 0}


def test_large_files_travel_in_parts(objects, tmp_path):
    data = bytes(range(256)) * 2**17  # 32 MiB
    (tmp_path / "file").write_bytes(data)
    objects.upload("large", tmp_path / "file")
    objects.download("large", tmp_path / "copy")
    assert objects.listed() == {"large": len(data)} and (tmp_path / "copy").read_bytes() == data


def test_a_bucket_that_does_not_exist_is_named(tmp_path):
    nowhere = Objects("s3://no-such-bucket/runs", 5.0, "run.folder")
    (tmp_path / "file").write_bytes(b"1")
    for act in (lambda: nowhere.write("a", b"1"), lambda: nowhere.upload("a", tmp_path / "file")):
        with pytest.raises(Unreachable, match=r"^run\.folder=s3://no-such-bucket/runs: nothing .* create the bucket"):
            act()


def test_requests_wait_for_a_store_that_comes_back(server, objects, tmp_path):
    server.line.cut()
    threading.Timer(2.0, server.line.mend).start()
    objects.write("a", b"1")
    assert objects.content("a") == b"1"


def test_a_store_that_stays_away_is_named(server, objects):
    objects.write("a", b"1")
    brief = Objects(objects.address, 1.0, "run.folder")
    server.line.cut()
    try:
        for act in (brief.listed, brief.sizes, lambda: brief.content("a"), lambda: brief.write("a", b"2")):
            with pytest.raises(Unreachable, match=r"the store is unavailable .* data.patience=1 s are over"):
                act()
    finally:
        server.line.mend()
    assert objects.content("a") == b"1"
