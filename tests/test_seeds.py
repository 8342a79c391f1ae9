"""Random draws: the published generator, the same bits however they are asked for, and normal numbers."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pidscale import seeds

PUBLISHED = [  # Random123 1.14, kat_vectors: philox4x32 10; counter, key, result
    ([0, 0, 0, 0], (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ([0xFFFFFFFF] * 4, (0xFFFFFFFF, 0xFFFFFFFF), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), PUBLISHED)
def test_philox_returns_the_published_words(counter: list[int], key: tuple[int, int], expected: str) -> None:
    words = seeds.philox(key, *(torch.tensor([c]) for c in counter))
    assert " ".join(f"{int(word):08x}" for word in words) == expected


def test_the_bits_never_change() -> None:
    """Runs are resumed and reports repeated from these bits: another checksum would break every existing run."""
    fields = seeds.normal(7, "pin", [0, 1, 2**32 + 5, 2**62], (2, 33, 19))
    uniforms = seeds.uniform(7, "pin", [0, 3], 5)
    assert fields.dtype == torch.float32 and fields.shape == (4, 2, 33, 19)
    assert _sha(fields) == "163f53d3630a813345e423f62ece4fbd55baf696a3721d74dcd13abb3bf0c28e"
    assert _sha(uniforms) == "d617fe1869aa7741597506c1dd6d0dd0578db91742f8f51a29d6a98dca8a01ca"
    assert seeds.permutation(3, "s", 1, 10).tolist() == [8, 3, 6, 1, 0, 4, 2, 5, 7, 9]


def _sha(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def test_normals_are_the_box_muller_transform_of_philox() -> None:
    """The correctly rounded logarithm, sine and cosine against numpy's, on the words of one block of rows."""
    width = 13
    counter = 2**32 + 9
    quads = torch.arange(seeds.ROW_BLOCK * width // 4)
    place = [torch.full_like(quads, value) for value in (counter % 2**32, counter >> 32, (1 << 20) + 1)]
    words = [w.numpy().astype(np.float64) for w in seeds.philox(seeds.stream_key(5, "s"), *place, quads)]
    normals = []
    for radius_word, angle_word in ((words[0], words[1]), (words[2], words[3])):
        radius = np.sqrt(-2 * np.log((radius_word + 0.5) / 2**32))
        angle = np.pi * 2 * angle_word / 2**32 - np.pi / 4  # angles count from the middle of a quadrant
        normals += [radius * np.cos(angle), radius * np.sin(angle)]
    expected = np.stack(normals, axis=-1).reshape(seeds.ROW_BLOCK, width)
    drawn = seeds.normal(5, "s", [counter], (2, 2 * seeds.ROW_BLOCK, width))[0, 1, seeds.ROW_BLOCK :]
    np.testing.assert_allclose(drawn.numpy(), expected, rtol=2e-7, atol=1e-10)


@given(data=st.data(), height=st.integers(1, 70), width=st.integers(1, 21), channels=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_rows_drawn_alone_equal_those_of_the_whole_field(
    data: st.DataObject, height: int, width: int, channels: int
) -> None:
    first = data.draw(st.integers(0, height - 1))
    last = data.draw(st.integers(first + 1, height))
    whole = seeds.normal(1, "rows", [3, 8], (channels, height, width))
    part = seeds.normal(1, "rows", [3, 8], (channels, height, width), rows=slice(first, last))
    assert torch.equal(part, whole[:, :, first:last])


def test_a_sample_does_not_depend_on_its_batch_nor_on_the_number_of_channels() -> None:
    batch = seeds.normal(1, "batch", [4, 2**40, 0], (2, 18, 5))
    for place, counter in enumerate([4, 2**40, 0]):
        assert torch.equal(seeds.normal(1, "batch", [counter], (2, 18, 5))[0], batch[place])
    assert torch.equal(seeds.normal(1, "batch", torch.tensor([4]), (1, 18, 5))[0], batch[0, :1])
    assert torch.equal(seeds.uniform(1, "batch", [4, 9], 7)[1, :3], seeds.uniform(1, "batch", [9], 3)[0])


def test_numbers_are_standard_normal() -> None:
    drawn = seeds.normal(2, "law", range(8), (2, 96, 96)).numpy().astype(np.float64)
    flat = drawn.ravel()
    n = flat.size
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        spread = np.sqrt(np.mean(stats.norm.rvs(size=200000, random_state=0) ** (2 * power)) / n)
        assert abs(np.mean(flat**power) - moment) < 4 * spread, f"moment {power}"
    assert np.abs(flat).max() > 4.2  # the tail is not cut off


def test_neighbours_in_any_direction_are_independent() -> None:
    drawn = seeds.normal(2, "law", range(8), (2, 96, 96)).double()
    pairs = {
        "x": (drawn[..., 1:], drawn[..., :-1]),
        "y": (drawn[..., 1:, :], drawn[..., :-1, :]),
        "row block": (drawn[:, :, 16:], drawn[:, :, :-16]),
        "channel": (drawn[:, :1], drawn[:, 1:]),
        "counter": (drawn[1:], drawn[:-1]),
        "counter + 2^32": (drawn, seeds.normal(2, "law", range(2**32, 2**32 + 8), (2, 96, 96)).double()),
        "seed": (drawn, seeds.normal(3, "law", range(8), (2, 96, 96)).double()),
        "stream": (drawn, seeds.normal(2, "other", range(8), (2, 96, 96)).double()),
    }
    for name, (a, b) in pairs.items():
        for f in (lambda v: v, lambda v: v.square() - 1):
            correlation = float((f(a) * f(b)).mean() / (f(a).std() * f(b).std()))
            assert abs(correlation) < 4.5 / a.numel() ** 0.5, name


def test_uniform_numbers_fill_the_open_interval() -> None:
    drawn = seeds.uniform(0, "u", range(4000), 5)
    assert drawn.dtype == torch.float64 and drawn.min() > 0 and drawn.max() < 1
    assert stats.kstest(drawn.numpy().ravel(), "uniform").pvalue > 1e-3


def test_each_epoch_has_its_own_permutation() -> None:
    orders = [seeds.permutation(0, "order", epoch, 1000) for epoch in range(3)]
    for order in orders:
        assert np.array_equal(np.sort(order), np.arange(1000))
        assert (order == np.arange(1000)).sum() < 10
    assert all((a == b).mean() < 0.02 for a, b in [(orders[0], orders[1]), (orders[1], orders[2])])
    assert np.array_equal(orders[1], seeds.permutation(0, "order", 1, 1000))
    assert not np.array_equal(orders[1], seeds.permutation(1, "order", 1, 1000))


def test_drawing_many_fields_takes_little_more_memory_than_they_do(monkeypatch):
    """Each value takes some 40 bytes while it is drawn: 1536 fields of 512 x 512 points would take 27 GiB."""
    whole = seeds.normal(3, "x", range(5, 12), (2, 20, 24), slice(3, 17))
    monkeypatch.setattr(seeds, "_DRAWN_TOGETHER", 2 * 14 * 24 * 2)  # two samples
    drawn = []
    plain = seeds._normal

    def counted(seed, stream, counters, *others):
        drawn.append(len(counters))
        return plain(seed, stream, counters, *others)

    monkeypatch.setattr(seeds, "_normal", counted)
    for counters in (range(5, 12), list(range(5, 12)), torch.arange(5, 12)):
        assert torch.equal(seeds.normal(3, "x", counters, (2, 20, 24), slice(3, 17)), whole)
    assert drawn == [2, 2, 2, 1] * 3
    monkeypatch.setattr(seeds, "_DRAWN_TOGETHER", 1)
    assert torch.equal(seeds.normal(3, "x", range(5, 12), (2, 20, 24), slice(3, 17)), whole)
