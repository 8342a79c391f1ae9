"""One pass over a set with the stock `webdataset` library, for pipelines of others: tars are read from end to end.

The stock library stops at a truncated tar without an error, and divides the work by shards, so that ranks run out of samples
at different times. Here each rank takes every world-th shard, and samples are counted and checked. Training uses read.py and
feed.py instead, which give every rank the same number of samples and read any rows. Knows bytes; must not know equations,
ranks or torch.
"""

from __future__ import annotations

import io
import math
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from pidscale.config import UserError
from pidscale.records.check import check_sizes, checked_sample, load_manifest, read_index
from pidscale.records.format import sample_key
from pidscale.records.manifest import Manifest, ShardEntry
from pidscale.records.stores.base import SequentialFile, Store
from pidscale.records.stores.opening import open_store
from pidscale.records.write import checksums


def stream_samples(
    root: str | Store, split: str, rank: int = 0, world: int = 1, verify: bool = True
) -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:
    """Yield every sample of this rank's shards in their order.

    A shard that ends early, is damaged or holds other samples than its index raises a UserError that names it.

    Args:
        root: The folder of the set, its address, or its store.
        split: The name of the split.
        rank: The rank, from 0.
        world: The number of ranks.
        verify: Whether to check the checksums of every sample.

    Yields:
        The key, the fields float32 [C, Y, X] in physical units, and the meta of a sample.

    Raises:
        UserError: The set has no such split.
    """
    store = open_store(root)
    manifest = load_manifest(store)
    if split not in manifest.splits:
        has = ", ".join(sorted(manifest.splits))
        raise UserError(f"{store.where('manifest.json')}: no split '{split}'; expected one of {has}")
    check_sizes(store, manifest.splits[split].shards[rank::world])
    first = 0
    for number, entry in enumerate(manifest.splits[split].shards):
        if number % world == rank:
            yield from _stream_shard(store, manifest, entry, first, verify)
        first += entry.samples


def _stream_shard(
    store: Store, manifest: Manifest, entry: ShardEntry, first: int, verify: bool
) -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:
    """Yield the samples of one shard, whose first sample has the number `first`."""
    import webdataset

    where = store.where(entry.name)
    listed = read_index(store, entry)
    room = entry.bytes - 4 * math.prod(manifest.shape)
    count = 0
    file = io.BufferedReader(SequentialFile(store, entry.name, entry.bytes), store.piece)
    files = webdataset.tariterators.tar_file_expander(iter([{"url": where, "stream": file}]))
    try:
        for count, sample in enumerate(webdataset.tariterators.group_by_keys(files), start=1):
            key = sample["__key__"]
            if count > len(listed) or key != sample_key(first + count - 1):
                raise ValueError(f"sample {key} is not the one that its index lists there")
            _, checks, meta = checked_sample(listed[count - 1], key, manifest.shape, room)
            fields = np.load(io.BytesIO(sample["fields.npy"]), allow_pickle=False)
            if fields.dtype != np.dtype("<f4") or fields.shape != manifest.shape or not fields.flags.c_contiguous:
                raise ValueError(f"sample {key} is {fields.dtype} {fields.shape}, expected float32 {manifest.shape}")
            if verify and [int(block, 16) for channel in checksums(fields) for block in channel] != checks:
                raise ValueError(f"sample {key} fails its checksums")
            if not np.isfinite(fields).all():
                raise ValueError(f"sample {key} holds values that are not finite")
            yield key, fields, meta
    except (ValueError, TypeError, KeyError, OSError, tarfile.TarError) as error:
        finding = (
            f"sample {count} has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:160]
        )
        raise UserError(f"{where}: {finding}; restore the file") from None
    if count != len(listed):
        raise UserError(f"{where}: ends after {count} of {len(listed)} samples; restore the file")
