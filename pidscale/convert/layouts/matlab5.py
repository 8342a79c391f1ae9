"""Reader of MATLAB files before v7.3 (level 5): real numeric and logical variables; everything else in them is ignored.

This reader exists because scipy's crashes the process on some damaged files. A file is a header of 128 bytes followed by
elements (type, size in bytes, data padded to 8). A variable is an element that contains elements: flags, dims, name, values;
it is often compressed. Source: "MAT-File Level 5 File Format", MathWorks. Must not know equations.
"""

from __future__ import annotations

import math
import mmap
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pidscale.convert.layouts.faults import file_errors
from pidscale.convert.layouts.source import Array, Source, build_source, memory_array

# types of numbers by the type of an element, and by the class of a variable
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
# types of elements
_MATRIX = 14
_COMPRESSED = 15
# flags of a variable
_LOGICAL = 0x200
_COMPLEX = 0x800


def open_matlab5(path: Path) -> Source:
    """Open variables by name, in MATLAB's order of axes. Those that are not compressed are mapped and read in parts."""
    with file_errors(path, "mat5"), open(path, "rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        order = {b"IM": "<", b"MI": ">"}[bytes(data[126:128])]
        found: dict[str, Array] = {}
        for kind, body in _elements(data[128:], order):
            inner = memoryview(zlib.decompress(body)) if kind == _COMPRESSED else None
            parts = _elements(inner, order) if inner is not None else iter([(kind, body)])
            for matrix in (body for kind, body in parts if kind == _MATRIX):
                array = _variable(matrix, order)
                if array is not None:
                    found[array.name] = array
    return build_source(path, "mat5", found)


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield type and body of each element in a range of bytes. Raises ValueError if one is longer than the bytes left."""
    at = 0
    while at + 8 <= len(data):
        first, size = (int(v) for v in np.frombuffer(data[at : at + 8], f"{order}u4"))
        start = at + 8
        if first >> 16:  # a small element: up to four bytes, in the tag itself
            size = first >> 16
            first &= 0xFFFF
            start = at + 4
        if start + size > len(data) or (start == at + 4 and size > 4):
            raise ValueError(f"an element of {size} bytes, where {len(data) - start} bytes are left")
        yield first, data[start : start + size]
        at = start + size if first == _COMPRESSED else at + 8 + (-(-size // 8) * 8 if start == at + 8 else 0)
    if at < len(data):
        raise ValueError(f"{len(data) - at} bytes after the last element")


def _variable(matrix: memoryview, order: str) -> Array | None:
    """Return one variable, None if it is not a real array of numbers."""
    parts = _elements(matrix, order)
    (_, flags), (_, dims), (_, name) = (next(parts) for _ in range(3))
    word = int(np.frombuffer(flags[:4], f"{order}u4")[0])
    if word & 0xFF not in _CLASSES or word & _COMPLEX:
        return None
    shape = tuple(int(n) for n in np.frombuffer(dims, f"{order}i4"))
    kind, body = next(parts)
    values = np.frombuffer(body, order + _STORED[kind])
    if min(shape) < 0 or values.size != math.prod(shape):
        raise ValueError(f"{values.size} values for a variable of shape {list(shape)}")
    dtype = np.dtype(bool if word & _LOGICAL else _CLASSES[word & 0xFF])
    array = memory_array(bytes(name).decode("ascii"), values.reshape(shape, order="F"))
    return Array(array.name, shape, dtype, lambda index: array.read(index).astype(dtype))
