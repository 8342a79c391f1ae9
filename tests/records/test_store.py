"""Stores: folders with links, files that are not regular files, and addresses that fsspec reads."""

import os

import numpy as np
import pytest

from pidscale.config import UserError
from pidscale.records.check import check_set, load_manifest
from pidscale.records.read import ShardSet
from pidscale.records.repair import repair_indices
from pidscale.records.stores.folder import Folder
from pidscale.records.stores.opening import open_store


@pytest.mark.parametrize("name", ["manifest.json", "train-00001.tar", "train-00001.index.json"])
def test_links_out_of_the_folder_are_followed_and_their_contents_checked(made, tmp_path, name):
    (made.root / name).rename(tmp_path / name)
    (made.root / name).symlink_to(tmp_path / name)
    np.testing.assert_array_equal(ShardSet(made.root, "train").read([7])[0], made.draw(7))
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"{made.root / name}: "):
        ShardSet(made.root, "train").read(range(8))


def test_a_set_of_links_is_read_and_checked(made, tmp_path):
    """The caches of huggingface_hub, DVC and git-annex consist of links."""
    (tmp_path / "blobs").mkdir()
    linked = tmp_path / "snapshots" / "abc"
    linked.mkdir(parents=True)
    for number, file in enumerate(sorted(made.root.iterdir())):
        (tmp_path / "blobs" / str(number)).write_bytes(file.read_bytes())
        (linked / file.name).symlink_to(f"../../blobs/{number}")
    np.testing.assert_array_equal(ShardSet(linked, "train").read([7])[0], made.draw(7))
    assert check_set(load_manifest(linked), linked, contents=True) is None
    done = repair_indices(linked)
    assert (done.true, done.written, done.left) == (4, [], []) and all(file.is_symlink() for file in linked.iterdir())


def test_links_within_the_folder_and_to_it_are_followed(made, tmp_path):
    (made.root / "train-00001.tar").rename(made.root / "elsewhere")
    (made.root / "train-00001.tar").symlink_to("elsewhere")
    (tmp_path / "link").symlink_to(made.root)
    np.testing.assert_array_equal(ShardSet(tmp_path / "link", "train").read([7])[0], made.draw(7))


@pytest.mark.parametrize("name", ["manifest.json", "train-00001.tar", "train-00001.index.json"])
@pytest.mark.parametrize("kind", ["pipe", "circular link", "folder"])
@pytest.mark.parametrize("late", [False, True])
def test_a_file_that_is_not_regular_is_refused_at_once(made, name, kind, late):
    shards = ShardSet(made.root, "train")
    path = made.root / name
    path.unlink()
    {"pipe": lambda: os.mkfifo(path), "circular link": lambda: path.symlink_to(name), "folder": path.mkdir}[kind]()
    if late and name != "manifest.json":  # an open set does not read the manifest again
        with pytest.raises(UserError, match=rf"{path}: .*(not a regular file|Too many levels)"):
            shards.read([7])
    else:
        with pytest.raises(UserError, match=rf"{path}: (missing|not a regular file|Too many levels)"):
            ShardSet(made.root, "train")


def test_other_addresses_are_read_by_fsspec(made):
    """file:// stands for all of them: the same code asks fsspec for byte ranges."""
    shards = ShardSet(f"file://{made.root}/", "train")
    np.testing.assert_array_equal(
        shards.read([12, 0], slice(16, 32)), np.stack([made.draw(n)[:, 16:32] for n in (12, 0)])
    )
    os.truncate(made.root / "train-00002.tar", 1000)
    with pytest.raises(UserError, match=r"file://.*train-00002\.tar: 1000 bytes"):
        ShardSet(f"file://{made.root}", "train")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s4://bucket/set", "cannot be opened"),
        ("file:///nowhere/at/all", "nothing is there"),
        ("memory://none", "nothing is there"),
    ],
)
def test_addresses_without_a_set_are_named(address, said):
    with pytest.raises(UserError, match=f"{address}.*{said}"):
        load_manifest(open_store(address, patience=0.1))


def test_a_part_of_a_buffer_is_filled(made):
    store = Folder(made.root)
    buffer = bytearray(10)
    store.fill("manifest.json", 5, memoryview(buffer)[2:8])
    assert buffer[2:8] == (made.root / "manifest.json").read_bytes()[5:11] and buffer[:2] == bytes(2)
    with pytest.raises(ValueError, match="ends inside"):
        store.fill("manifest.json", 10**6, memoryview(buffer))
    with pytest.raises(FileNotFoundError):
        store.fill("nothing", 0, memoryview(buffer))
