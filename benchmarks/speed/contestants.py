"""Readers of the same fields that benchmarks.speed.loader times: ours, the stock library in many settings, and DataLoaders.

A contestant is a function of a case that opens what it reads and returns a function that delivers one epoch: an iterator of
float32 arrays, batches [B, C, Y, X] or single samples [C, Y, X], each valid until the next one.
"""

from __future__ import annotations

import io
import itertools
import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import webdataset
from torch.utils.data import DataLoader, Dataset
from webdataset.gopen import gopen_schemes

from pidscale.records.feed import Feed
from pidscale.records.read import ShardSet

SEED = 0
BLOCKS = {"16 KiB": 2**14, "64 KiB": 2**16, "256 KiB": 2**18, "1 MiB": 2**20}  # of the stock library's openers


@dataclass(frozen=True)
class Case:
    """Fields of one size, as a shard set in root/shards, as npy files in root/npy, and as root/fields.h5."""

    name: str
    shape: tuple[int, int, int]
    batch: int
    samples: int
    root: Path

    @property
    def size(self) -> int:
        """Bytes of a field."""
        return 4 * int(np.prod(self.shape))

    @property
    def urls(self) -> list[str]:
        """The tars."""
        return sorted(str(path) for path in (self.root / "shards").glob("*.tar"))


Epoch = Callable[[], Iterator[np.ndarray]]


def _feed(case: Case, verify: bool) -> Feed:
    """Feed over ShardSet, in the thread that wants the batch."""
    return Feed(ShardSet(case.root / "shards", "train", verify), SEED, case.batch, 0, 1, threads=0)


def _batches(feed: Feed, case: Case, first: int) -> Iterator[np.ndarray]:
    for step in range(first, first + case.samples // case.batch):
        yield feed.batch(step).fields_BCYX.numpy()


def ours(case: Case, verify: bool) -> Epoch:
    """Return epochs of one feed, each in an order of its own."""
    feed = _feed(case, verify)
    epochs = itertools.count()
    steps = case.samples // case.batch
    return lambda: _batches(feed, case, next(epochs) * steps)


def ours_reopened(case: Case, verify: bool) -> Epoch:
    """Return epochs of a set that is opened for each: indices are read and values looked at."""
    return lambda: _batches(_feed(case, verify), case, 0)


class _Blocks(io.FileIO):
    """A file whose reads bring at least so many bytes: the stock library asks for 10 KiB at a time and takes more."""

    block = 0

    def read(self, size: int | None = -1) -> bytes:
        return super().read(size if size is None or size < 0 else max(size, self.block))


def _open_blocks(url: str, mode: str = "rb", bufsize: int = 0, *, block: int) -> _Blocks:
    file = _Blocks(url.split(":", 1)[1])
    file.block = block
    return file


class _Mapped(mmap.mmap):
    """A mapped file with such reads."""

    block = 0

    def read(self, size: int | None = None) -> bytes:
        return super().read(size if size is None else max(size, self.block))


def _open_mapped(url: str, mode: str = "rb", bufsize: int = 0, *, block: int) -> _Mapped:
    with open(url.split(":", 1)[1], "rb") as file:
        mapped = _Mapped(file.fileno(), 0, access=mmap.ACCESS_READ)
    mapped.block = block
    return mapped


def _open_buffered(url: str, mode: str = "rb", bufsize: int = 0) -> Any:
    return open(url.split(":", 1)[1], "rb", buffering=2**20)


OPENERS = {
    "unbuffered": partial(_open_blocks, block=0),
    "buffer of 1 MiB": _open_buffered,
    "mapped": partial(_open_mapped, block=0),
    "mapped, blocks of 64 KiB": partial(_open_mapped, block=2**16),
    **{f"blocks of {name}": partial(_open_blocks, block=block) for name, block in BLOCKS.items()},
}


def _numbers(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers of an npy file where they lie."""
    return np.frombuffer(data, "<f4", offset=10 + int.from_bytes(data[8:10], "little")).reshape(shape)


def _is_array(name: str) -> bool:
    return name.endswith(".npy")


def stock(case: Case, opener: str = "", select: bool = False, decoder: str = "") -> Epoch:
    """Return epochs of the stock library.

    Args:
        case: What is read.
        opener: A name of OPENERS, or "" for the library's own.
        select: Omit the JSON of each sample.
        decoder: "" for its own, "only" for its own of arrays alone; "view" or "map" for one that copies nothing, as a handler
            or by map_dict.
    """
    scheme = "".join(filter(str.isalnum, opener)).lower()
    if opener:
        gopen_schemes[scheme] = OPENERS[opener]  # the library's own table of openers
    urls = [f"{scheme}:{url}" for url in case.urls] if opener else case.urls

    def view(key: str, data: bytes) -> np.ndarray | None:
        return _numbers(data, case.shape) if _is_array(key) else None

    def epoch() -> Iterator[np.ndarray]:
        chosen = webdataset.WebDataset(urls, shardshuffle=False, select_files=_is_array if select else None)
        if decoder == "view":
            chosen = chosen.decode(view, pre=[], post=[]) if select else chosen.decode(view)
        elif decoder == "map":
            chosen = chosen.map_dict(**{"fields.npy": lambda data: _numbers(data, case.shape)})
        else:
            chosen = chosen.decode(only="fields.npy") if decoder == "only" else chosen.decode()
        return (sample["fields.npy"] for sample in chosen)

    return epoch


class _Npy(Dataset):
    """One npy file per sample."""

    def __init__(self, case: Case) -> None:
        self.paths = sorted((case.root / "npy").glob("*.npy"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, sample: int) -> torch.Tensor:
        return torch.from_numpy(np.load(self.paths[sample]))


class _Hdf5(Dataset):
    """One HDF5 file of all samples, contiguous, opened by each worker."""

    def __init__(self, case: Case) -> None:
        self.path = case.root / "fields.h5"
        self.samples = case.samples
        self.fields: Any = None

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, sample: int) -> torch.Tensor:
        if self.fields is None:
            self.fields = h5py.File(self.path)["fields"]
        return torch.from_numpy(self.fields[sample])


def loader(case: Case, kind: type[_Npy] | type[_Hdf5], workers: int) -> Epoch:
    """Return epochs of torch's DataLoader, samples in the order of the files; its workers stay from epoch to epoch."""
    made = DataLoader(kind(case), batch_size=case.batch, num_workers=workers, persistent_workers=workers > 0)
    return lambda: (batch.numpy() for batch in made)


DECODE = "webdataset, decode()"
CHECKED = "ours, checked"
UNCHECKED = "ours, unchecked"
_VIEW: dict[str, Any] = {"select": True, "decoder": "view"}
CONTESTANTS: dict[str, Callable[[Case], Epoch]] = {
    CHECKED: partial(ours, verify=True),
    UNCHECKED: partial(ours, verify=False),
    "ours, checked, first epoch": partial(ours_reopened, verify=True),
    "ours, unchecked, first epoch": partial(ours_reopened, verify=False),
    DECODE: stock,
    "webdataset, decode arrays only": partial(stock, decoder="only"),
    "webdataset, select arrays": partial(stock, select=True),
    "webdataset, no copy": partial(stock, decoder="view"),
    "webdataset, select, no copy": partial(stock, **_VIEW),
    "webdataset, select, map_dict": partial(stock, select=True, decoder="map"),
    **{f"webdataset, select, no copy, {opener}": partial(stock, opener=opener, **_VIEW) for opener in OPENERS},
    "webdataset, select, map_dict, unbuffered": partial(stock, opener="unbuffered", select=True, decoder="map"),
    "webdataset, select, map_dict, blocks of 64 KiB": partial(
        stock, opener="blocks of 64 KiB", select=True, decoder="map"
    ),
    **{f"DataLoader, npy, {workers} workers": partial(loader, kind=_Npy, workers=workers) for workers in (0, 1, 2)},
    **{f"DataLoader, HDF5, {workers} workers": partial(loader, kind=_Hdf5, workers=workers) for workers in (0, 1, 2)},
}
