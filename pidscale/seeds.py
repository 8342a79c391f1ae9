"""Random draws of data, noise and order, as pure functions of (run seed, stream, counter, place in the field).

Two draws are made elsewhere: initial weights by torch, after `torch.manual_seed(run.seed)`, and the pauses between two
attempts of a remote store (records/stores/remote.py), which change no result.

The counter-based generator Philox 4x32-10 (Salmon et al., SC 2011) runs in integer arithmetic, and the Box-Muller transform
uses only operations that IEEE 754 rounds correctly (+, -, *, /, sqrt). The bits are thus the same on every device, with every
library version, for every batch size and for every way to split the work.

Knows no ranks and no fields: a caller that holds only some rows asks for those rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

ROW_BLOCK = 16  # rows that are drawn together: for a part of a block, the whole block is drawn and cropped
_DRAWN_TOGETHER = 2**22  # values, so that drawing much noise takes little more memory than the noise
_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57  # multipliers of Philox
_W0, _W1 = 0x9E3779B9, 0xBB67AE85  # its Weyl constants
_LOG = [2.0 / (2 * k + 1) for k in range(9)]  # log m = sum of 2 s^(2k+1) / (2k+1) with s = (m - 1) / (m + 1)
_SIN = [(-1.0) ** k / math.factorial(2 * k + 1) for k in range(8)]
_COS = [(-1.0) ** k / math.factorial(2 * k) for k in range(8)]


def stream_key(seed: int, stream: str) -> tuple[int, int]:
    """Return the two 32-bit keys of Philox for a run seed and a stream name."""
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def _multiply(constant: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """Return the high and the low 32 bits of a product of 32-bit numbers."""
    product = word * constant  # wraps modulo 2^64, which leaves both halves correct
    return (product >> 32) & _MASK, product & _MASK


def philox(key: tuple[int, int], c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor) -> tuple[Tensor, ...]:
    """Return the random words of Philox 4x32-10.

    Args:
        key: The two keys of `stream_key`.
        c0: First word of each counter, int64 with values below 2^32.
        c1: Second word, in the same shape.
        c2: Third word, in the same shape.
        c3: Fourth word, in the same shape.

    Returns:
        Four tensors of 32-bit words, int64 in the shape of the counters.
    """
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(_M0, c0)
        high1, low1 = _multiply(_M1, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


def _horner(coefficients: Sequence[float], z: Tensor) -> Tensor:
    """Return the polynomial of z with these coefficients, the constant one first."""
    total = torch.full_like(z, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total.mul_(z).add_(c)
    return total


def _log(u: Tensor) -> Tensor:
    """Return the natural logarithm of u in (0, 1] to 1e-11, by correctly rounded operations."""
    mantissa, exponent = torch.frexp(u)
    small = mantissa < math.sqrt(0.5)
    mantissa = torch.where(small, mantissa * 2, mantissa)
    power = exponent.to(torch.float64) - small.to(torch.float64)
    s = (mantissa - 1) / (mantissa + 1)
    return s * _horner(_LOG, s * s) + power * math.log(2.0)


def _box_muller(words0: Tensor, words1: Tensor) -> tuple[Tensor, Tensor]:
    """Return two standard normal numbers, float64, for each pair of 32-bit words."""
    radius = torch.sqrt(_log((words0.to(torch.float64) + 0.5) * 2.0**-32) * -2.0)
    quadrant = words1 >> 30
    x = ((words1 & 0x3FFFFFFF).to(torch.float64) * 2.0**-30 - 0.5) * (math.pi / 2)
    z = x * x
    sine = x * _horner(_SIN, z)
    cosine = _horner(_COS, z)
    odd = (quadrant & 1) == 1
    upper = (quadrant >> 1) == 1
    first = torch.where(odd, -sine, cosine)
    second = torch.where(odd, cosine, sine)
    sign = torch.where(upper, -1.0, 1.0).to(torch.float64)
    return radius * first * sign, radius * second * sign


def _counter_words(counters: Tensor | Sequence[int] | np.ndarray, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Return the low and the high 32 bits of counters."""
    n = torch.as_tensor(counters, dtype=torch.int64, device=device)
    return n & _MASK, (n >> 32) & _MASK


def normal(
    seed: int,
    stream: str,
    counters: Tensor | Sequence[int] | np.ndarray,
    shape: tuple[int, int, int],
    rows: slice | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw standard normal fields.

    Args:
        seed: Seed of the run.
        stream: Name of the random stream.
        counters: Counter of each of B samples, 0 <= n < 2^63.
        shape: Shape (C, Y, X) of the whole field.
        rows: Rows to return; None returns all. A row has the same numbers whichever rows it is drawn with.
        device: Device of the result.

    Returns:
        Fields, float32 [B, C, y, X].
    """
    first, last, _ = (rows or slice(0, shape[1])).indices(shape[1])
    together = max(1, _DRAWN_TOGETHER // (shape[0] * max(1, last - first) * shape[2]))
    if len(counters) <= together:
        return _normal(seed, stream, counters, shape, first, last, device)
    found = torch.empty(len(counters), shape[0], last - first, shape[2], device=device)
    for start in range(0, len(counters), together):
        part = slice(start, start + together)
        found[part] = _normal(seed, stream, counters[part], shape, first, last, device)
    return found


def _normal(
    seed: int,
    stream: str,
    counters: Tensor | Sequence[int] | np.ndarray,
    shape: tuple[int, int, int],
    first: int,
    last: int,
    device: torch.device | str,
) -> Tensor:
    """Draw rows `first` to `last` (exclusive) of samples at once, which takes some 40 bytes for each value."""
    channels, _, width = shape
    block0 = first // ROW_BLOCK
    block1 = -(-last // ROW_BLOCK)
    low, high = _counter_words(counters, device)
    quads = -(-ROW_BLOCK * width // 4)
    place = torch.arange(quads, device=device, dtype=torch.int64)
    block = torch.arange(block0, block1, device=device, dtype=torch.int64)
    channel = torch.arange(channels, device=device, dtype=torch.int64) << 20
    c2 = channel[:, None] + block[None, :]
    size = (low.numel(), channels, block1 - block0, quads)
    words = philox(
        stream_key(seed, stream),
        low[:, None, None, None].expand(size),
        high[:, None, None, None].expand(size),
        c2[None, :, :, None].expand(size),
        place.expand(size),
    )
    normals = torch.stack([*_box_muller(words[0], words[1]), *_box_muller(words[2], words[3])], dim=-1)
    field = normals.flatten(3)[..., : ROW_BLOCK * width].to(torch.float32)
    field = field.reshape(low.numel(), channels, (block1 - block0) * ROW_BLOCK, width)
    start = first - block0 * ROW_BLOCK
    return field[:, :, start : start + last - first].contiguous()


def uniform(
    seed: int,
    stream: str,
    counters: Tensor | Sequence[int] | np.ndarray,
    count: int = 1,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw uniform numbers in (0, 1).

    Args:
        seed: Seed of the run.
        stream: Name of the random stream.
        counters: Counter of each of B samples, 0 <= n < 2^63.
        count: Numbers to draw for each sample.
        device: Device of the result.

    Returns:
        Numbers, float64 [B, count].
    """
    low, high = _counter_words(counters, device)
    size = (low.numel(), -(-count // 4))
    place = torch.arange(size[1], device=device, dtype=torch.int64)
    words = philox(
        stream_key(seed, stream),
        low[:, None].expand(size),
        high[:, None].expand(size),
        torch.zeros(size, device=device, dtype=torch.int64),
        place[None, :].expand(size),
    )
    return (torch.stack(words, dim=-1).flatten(1)[:, :count].to(torch.float64) + 0.5) * 2.0**-32


def permutation(seed: int, stream: str, epoch: int, n: int) -> np.ndarray:
    """Return a random permutation.

    Args:
        seed: Seed of the run.
        stream: Name of the random stream.
        epoch: Number of the permutation in the stream.
        n: Number of elements.

    Returns:
        A permutation of range(n), int64 [n].
    """
    place = torch.arange(n, dtype=torch.int64, device="cpu")
    low, high = _counter_words([epoch], "cpu")
    words = philox(stream_key(seed, stream), place & _MASK, place >> 32, low.expand(n), high.expand(n))
    keys = (words[0].numpy().astype(np.uint64) << np.uint64(32)) | words[1].numpy().astype(np.uint64)
    return np.argsort(keys, kind="stable").astype(np.int64)
