"""Slices of flattened tensors by name: what one rank writes of a checkpoint, and what any number of ranks reads back.

Every rank writes one safetensors file, which holds 1-D tensors and says in its metadata what they are slices of:

    rank-00000.safetensors    {"slices": {NAME: {"shape": [...], "offset": ...}}}, and a tensor for each NAME

The slices of all ranks cover a tensor, whatever the world size, so that a reader takes any range of it from the files that
hold it. Knows no networks and no messages.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pidscale.config import UserError

_BLOCK = 2**24  # bytes that are hashed and written at a time, while they are in the processor's cache
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Slice:
    """A range of a flattened tensor that one rank holds.

    Attributes:
        name: Name of the tensor, unique in a checkpoint.
        shape: Shape of the whole tensor.
        offset: Where the range begins in the flattened tensor.
        held: The values of the range, 1-D.
    """

    name: str
    shape: tuple[int, ...]
    offset: int
    held: Tensor


def share(numel: int, rank: int, world: int) -> tuple[int, int]:
    """Return the bounds of the range that a rank writes of a tensor that all ranks hold; the last ranges may be empty."""
    size = -(-numel // world)
    return min(numel, rank * size), min(numel, (rank + 1) * size)


def shared_out(name: str, tensor: Tensor, rank: int, world: int) -> Slice:
    """Return the slice that a rank writes of a tensor that all ranks hold.

    Args:
        name: Name of the tensor.
        tensor: All of it.
        rank: The rank.
        world: The number of ranks.

    Returns:
        The slice, a view if the tensor is contiguous.
    """
    start, stop = share(tensor.numel(), rank, world)
    return Slice(name, tuple(tensor.shape), start, tensor.detach().reshape(-1)[start:stop])


def below(prefix: str, slices: Iterable[Slice]) -> list[Slice]:
    """Return the slices under the names PREFIX/NAME, as `Reader.below` finds them again."""
    return [replace(one, name=f"{prefix}/{one.name}") for one in slices]


def file_name(rank: int) -> str:
    """Return the name of a rank's file."""
    return f"rank-{rank:05d}.safetensors"


def in_host_memory(slices: Iterable[Slice], buffers: dict[str, Tensor]) -> list[Slice]:
    """Copy slices into host memory, so that training may go on while they are written.

    Args:
        slices: The slices, on any device.
        buffers: Buffers of earlier copies by name, used again where they fit; new ones are added. Those for slices on a GPU
            are pinned.

    Returns:
        The copies, which are valid until the next call with these buffers.
    """
    copies = []
    devices = set()
    for one in slices:
        buffer = buffers.get(one.name)
        if buffer is None or buffer.shape != one.held.shape or buffer.dtype != one.held.dtype:
            pinned = one.held.device.type == "cuda"
            buffer = torch.empty(one.held.shape, dtype=one.held.dtype, pin_memory=pinned)
            buffers[one.name] = buffer
        buffer.copy_(one.held, non_blocking=True)
        devices.add(one.held.device)
        copies.append(replace(one, held=buffer))
    for device in devices:
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()
    return copies


def write(path: Path, slices: Iterable[Slice]) -> tuple[int, str]:
    """Write a file of slices and make it durable by fsync; its checksum is computed on the way, without reading it again.

    Args:
        path: The file.
        slices: The slices, in host memory.

    Returns:
        The bytes of the file, and its SHA-256 in hex.

    Raises:
        ValueError: Two slices have one name.
    """
    ordered = sorted(slices, key=lambda one: -one.held.element_size())  # so that every tensor is aligned
    if len({one.name for one in ordered}) < len(ordered):
        raise ValueError(f"{path}: two slices have one name")
    digest = hashlib.sha256()
    total = 0
    with path.open("wb") as file:
        for block in _blocks(ordered):
            digest.update(block)
            total += file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return total, digest.hexdigest()


def _blocks(slices: Sequence[Slice]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a safetensors file: the length of the header, the header, and the tensors."""
    entries: dict[str, Any] = {}
    end = 0
    for one in slices:
        begin, end = end, end + one.held.nbytes
        entries[one.name] = {
            "dtype": _DTYPES[one.held.dtype],
            "shape": [one.held.numel()],
            "data_offsets": [begin, end],
        }
    places = {one.name: {"shape": list(one.shape), "offset": one.offset} for one in slices}
    text = json.dumps({"__metadata__": {"slices": json.dumps(places)}, **entries}).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for one in slices:
        if one.held.numel():
            data = one.held.contiguous().view(torch.uint8).numpy().data
            for start in range(0, len(data), _BLOCK):
                yield data[start : start + _BLOCK]


@dataclass(frozen=True)
class _Piece:
    """Where a file holds a range of a tensor."""

    start: int
    stop: int
    file: Any


@dataclass(frozen=True)
class Reader:
    """Tensors of a checkpoint by name, read in ranges from the files of all ranks that wrote it.

    Files are mapped, so that a read takes the bytes of its range only.

    Attributes:
        folder: Folder of the files.
        prefix: What the names begin with that this reader leaves out, such as `student/`.
        shapes: Shape of each whole tensor by its full name.
        pieces: Where the files hold the ranges of each tensor.
    """

    folder: Path
    prefix: str = ""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    pieces: dict[str, list[_Piece]] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, files: Iterable[str]) -> Reader:
        """Open files of slices.

        Args:
            folder: Folder of the files.
            files: Their names.

        Returns:
            The reader.

        Raises:
            UserError: A file cannot be read on this host, or is no file of slices.
        """
        reader = cls(folder)
        for name in files:
            try:
                file = safe_open(folder / name, framework="pt")
                places = json.loads(file.metadata()["slices"])
                for key, place in places.items():
                    size = file.get_slice(key).get_shape()[0]
                    reader.shapes[key] = tuple(place["shape"])
                    reader.pieces.setdefault(key, []).append(_Piece(place["offset"], place["offset"] + size, file))
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
                raise UserError(f"{folder / name}: cannot be read as a part of a checkpoint ({error})") from error
        return reader

    def below(self, prefix: str) -> Reader:
        """Return a reader of the tensors that `slices.below` put under a prefix."""
        return replace(self, prefix=f"{self.prefix}{prefix}/")

    def holds(self, start: str) -> bool:
        """Return whether there are tensors whose names begin like this."""
        return any(name.startswith(self.prefix + start) for name in self.shapes)

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """Read a range of a flattened tensor.

        Args:
            name: Name of the tensor.
            start: First value of the range.
            stop: End of the range.

        Returns:
            The values in host memory, 1-D.

        Raises:
            UserError: The files do not hold all of the range.
        """
        found = []
        have = start
        for piece in sorted(self.pieces.get(self.prefix + name, ()), key=lambda piece: piece.start):
            if piece.start <= have < min(stop, piece.stop):
                end = min(stop, piece.stop)
                found.append(piece.file.get_slice(self.prefix + name)[have - piece.start : end - piece.start])
                have = end
        if have < stop or self.prefix + name not in self.shapes:
            raise UserError(
                f"{self.folder}: holds no values {have} to {stop} of {self.prefix}{name}, so it belongs to another network "
                "or objective; choose another run.name"
            )
        return torch.cat(found) if found else torch.empty(0)

    def whole(self, name: str) -> Tensor:
        """Read a tensor in its shape. Raises a UserError if the files do not hold all of it."""
        shape = self.shapes.get(self.prefix + name, (1,))
        return self.read(name, 0, math.prod(shape)).reshape(shape)

    def wholes(self) -> dict[str, Tensor]:
        """Read all tensors below the prefix in their shapes, by name."""
        names = [name.removeprefix(self.prefix) for name in self.shapes if name.startswith(self.prefix)]
        return {name: self.whole(name) for name in names}
