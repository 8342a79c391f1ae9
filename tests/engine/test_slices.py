"""Slices of tensors by name: what ranks write, any number of ranks reads, in any ranges, and safetensors reads as well."""

from __future__ import annotations

import hashlib
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from pidscale.config import UserError
from pidscale.engine import slices
from pidscale.engine.slices import Reader, Slice, below, file_name, in_host_memory, share, shared_out, write
from tests.sealed import reader_of, whole


@given(numel=st.integers(0, 1000), world=st.integers(1, 70))
def test_shares_cover_a_tensor_once_and_in_order(numel, world):
    bounds = [share(numel, rank, world) for rank in range(world)]
    assert bounds[0][0] == 0 and bounds[-1][1] == numel
    assert all(start <= stop for start, stop in bounds)
    assert all(first[1] == second[0] for first, second in itertools.pairwise(bounds))
    assert max(stop - start for start, stop in bounds) == math.ceil(numel / world)


def tensors():
    draw = torch.Generator().manual_seed(0)
    return {
        "matrix": torch.randn(5, 7, generator=draw),
        "scalar": torch.tensor(3.5),
        "one": torch.tensor([2.0]),
        "half": torch.randn(9, generator=draw).bfloat16(),
        "count": torch.arange(11),
        "double": torch.randn(3, 2, generator=draw, dtype=torch.float64),
        "none": torch.zeros(0, 4),
    }


def written(folder, world):
    """The tensors, shared out over the files of some ranks."""
    for rank in range(world):
        parts = [shared_out(name, tensor, rank, world) for name, tensor in tensors().items()]
        size, digest = write(folder / file_name(rank), parts)
        data = (folder / file_name(rank)).read_bytes()
        assert (size, digest) == (len(data), hashlib.sha256(data).hexdigest())
    return Reader.of(folder, [file_name(rank) for rank in range(world)])


@pytest.mark.parametrize("world", [1, 2, 3, 12])
def test_what_ranks_write_is_read_whole_and_in_every_range(tmp_path, world):
    reader = written(tmp_path, world)
    assert reader.wholes().keys() == tensors().keys()
    for name, tensor in tensors().items():
        found = reader.whole(name)
        assert found.shape == tensor.shape and torch.equal(found, tensor), name
        assert found.dtype == tensor.dtype or not tensor.numel()
    flat = tensors()["matrix"].flatten()
    for start in range(36):
        for stop in range(start, 36):
            assert torch.equal(reader.read("matrix", start, stop), flat[start:stop])


def test_a_file_is_plain_safetensors(tmp_path):
    written(tmp_path, 2)
    first, second = (load_file(tmp_path / file_name(rank)) for rank in range(2))
    joined = torch.cat([first["matrix"], second["matrix"]])
    assert torch.equal(joined, tensors()["matrix"].flatten())


def test_ranges_are_taken_from_slices_of_any_bounds(tmp_path):
    """As stages 1 and 2 cut them: anywhere, in any order of files."""
    flat = torch.arange(20.0)
    for rank, (start, stop) in enumerate([(13, 20), (0, 4), (4, 13)]):
        write(tmp_path / file_name(rank), [Slice("w", (4, 5), start, flat[start:stop])])
    reader = Reader.of(tmp_path, [file_name(rank) for rank in range(3)])
    assert torch.equal(reader.whole("w"), flat.reshape(4, 5))
    assert reader.read("w", 3, 14).tolist() == list(range(3, 14))
    hole = Reader.of(tmp_path, [file_name(0), file_name(1)])
    assert hole.read("w", 1, 4).tolist() == [1, 2, 3]
    with pytest.raises(UserError, match="holds no values 4 to 14 of w"):
        hole.read("w", 3, 14)


def test_names_below_a_prefix_are_found_there(tmp_path):
    parts = [*below("student", below("average", [whole("w", torch.ones(3))])), whole("averages", torch.zeros(1))]
    write(tmp_path / file_name(0), parts)
    reader = Reader.of(tmp_path, [file_name(0)])
    own = reader.below("student")
    assert own.below("average").wholes().keys() == {"w"} and own.below("average").whole("w").sum() == 3
    assert own.holds("average/") and not own.holds("averages") and reader.holds("averages")
    with pytest.raises(UserError, match=rf"{tmp_path}: holds no .* of student/average/v, .* choose another run\.name"):
        own.below("average").whole("v")


def test_two_slices_of_one_name_are_a_mistake(tmp_path):
    with pytest.raises(ValueError, match="one name"):
        write(tmp_path / "file", [whole("w", torch.ones(3)), whole("w", torch.ones(3))])


def test_a_copy_does_not_follow_and_its_memory_is_used_again():
    values = torch.arange(6.0)
    buffers = {}
    first = in_host_memory([whole("w", values)], buffers)
    kept = buffers["w"].data_ptr()
    values += 1
    assert first[0].held.tolist() == list(range(6))
    second = in_host_memory([whole("w", values)], buffers)
    assert second[0].held.tolist() == list(range(1, 7)) and buffers["w"].data_ptr() == kept
    in_host_memory([whole("w", torch.zeros(7))], buffers)
    assert buffers["w"].shape == (7,)


def test_large_tensors_are_written_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(slices, "_BLOCK", 16)
    values = torch.arange(103.0)
    assert torch.equal(reader_of(tmp_path, {"w": values}).whole("w"), values)


@pytest.mark.parametrize("data", [b"", b"\x10" + b"\0" * 7, b"{}" * 20])
def test_a_file_that_is_none_of_slices_is_named(tmp_path, data):
    (tmp_path / file_name(0)).write_bytes(data)
    with pytest.raises(UserError, match=r"rank-00000\.safetensors: cannot be read"):
        Reader.of(tmp_path, [file_name(0)])
    with pytest.raises(UserError, match=r"rank-00001\.safetensors: cannot be read"):
        Reader.of(tmp_path, [file_name(1)])
