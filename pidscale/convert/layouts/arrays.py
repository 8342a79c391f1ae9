"""Readers of npy, npz and `.pt`: named arrays without a convention. None of them runs code from a file.

npy and `.pt` files are mapped and read in parts; npz files are read whole. Must not know equations.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pidscale.config import UserError
from pidscale.convert.layouts.faults import file_errors
from pidscale.convert.layouts.source import Array, Source, build_source, memory_array

ONLY_ARRAY = "data"  # the name of the array of a file that does not name it
_NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)  # floating point types that numpy has too


def open_npy(path: Path) -> Source:
    """Open one array, mapped."""
    with file_errors(path, "npy"):
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        return build_source(path, "npy", {ONLY_ARRAY: memory_array(ONLY_ARRAY, values)})


def open_npz(path: Path) -> Source:
    """Open named arrays."""
    with file_errors(path, "npz"), np.load(path, allow_pickle=False) as file:
        return build_source(path, "npz", {name: memory_array(name, file[name]) for name in file.files})


def open_torch(path: Path) -> Source:
    """Open the tensors and numbers of a dict, or a single tensor.

    Args:
        path: A file that `torch.save` wrote.

    Returns:
        The source.

    Raises:
        UserError: The file needs code to be loaded, is damaged, or holds no tensors by name.
    """
    loaded = _load_torch(path)
    named = loaded if isinstance(loaded, dict) else {ONLY_ARRAY: loaded}
    arrays: dict[str, Array] = {}
    for name, value in named.items():
        if isinstance(value, (bool, int, float)):
            arrays[str(name)] = memory_array(str(name), np.asarray(value))
        elif isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_complex():
            with file_errors(path, "pt"):
                plain = value.detach().resolve_neg()
                plain = plain.float() if plain.is_floating_point() and plain.dtype not in _NUMPY_FLOATS else plain
                arrays[str(name)] = memory_array(str(name), plain.numpy())
    if not arrays:
        raise UserError(f"{path}: holds {type(loaded).__name__}, not tensors by name; save a dict of tensors")
    return build_source(path, "pt", arrays)


def _load_torch(path: Path) -> Any:
    """Load what a file holds without running code, mapped where the file is a zip archive."""
    with file_errors(path, "pt"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a bad file is reported by one line of our own
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)  # a file older than the zip format
