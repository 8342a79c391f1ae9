"""The format of a shard set, version 1: what its files are called and how its samples are numbered.

    <root>/manifest.json            describes the whole set; written last, and a set without it does not count
    <root>/train-00000.tar          samples: KEY.fields.npy (float32 [C, Y, X]) and KEY.json
    <root>/train-00000.index.json   byte offsets, checksums and parameters of the samples in that shard

shards/README.md describes the format in words. Must not know equations, ranks or torch.
"""

from __future__ import annotations

VERSION = 1
ROW_BLOCK = 16  # rows of one channel under one checksum; the last block of a field may be shorter
DTYPE = "float32"  # little-endian
MOST_SAMPLES = 10**8  # of a split: keys have 8 digits


def shard_name(split: str, number: int) -> str:
    """Return the file name of a shard, such as train-00000.tar."""
    return f"{split}-{number:05d}.tar"


def index_name(shard: str) -> str:
    """Return the file name of a shard's index, such as train-00000.index.json."""
    return shard.removesuffix(".tar") + ".index.json"


def sample_key(number: int) -> str:
    """Return the key of a sample: its number in the split with leading zeros."""
    return f"{number:08d}"
