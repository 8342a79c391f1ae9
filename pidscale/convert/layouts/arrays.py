"""Readers of npy, npz and `.pt`: names with arrays, no convention. None of them runs code from a file.

npy and `.pt` are mapped and read in parts; npz comes whole into memory. Must not know equations.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch

from pidscale.config import UserError
from pidscale.convert.layouts.faults import readable
from pidscale.convert.layouts.source import Array, Source, in_memory, sorted_out

WHOLE = "data"  # the name of an array in a file that gives it none


def open_npy(path: Path) -> Source:
    """One array, mapped."""
    with readable(path, "npy"):
        return sorted_out(path, "npy", {WHOLE: in_memory(WHOLE, np.load(path, mmap_mode="r", allow_pickle=False))})


def open_npz(path: Path) -> Source:
    """Arrays by name."""
    with readable(path, "npz"), np.load(path, allow_pickle=False) as file:
        return sorted_out(path, "npz", {name: in_memory(name, file[name]) for name in file.files})


_NUMPY = (torch.float16, torch.float32, torch.float64)  # floating point that numpy has too


def open_torch(path: Path) -> Source:
    """Tensors of a dict, or one tensor. UserError for a file that needs code to be loaded."""
    with readable(path, "pt"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong with a file is one line of ours
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            loaded = torch.load(path, map_location="cpu", weights_only=True)  # files older than the zip form
    named = loaded if isinstance(loaded, dict) else {WHOLE: loaded}
    arrays: dict[str, Array] = {}
    for name, value in named.items():
        if isinstance(value, (bool, int, float)):
            arrays[str(name)] = in_memory(str(name), np.asarray(value))
        elif isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_complex():
            with readable(path, "pt"):
                plain = value.detach().resolve_neg()
                plain = plain.float() if plain.is_floating_point() and plain.dtype not in _NUMPY else plain
                arrays[str(name)] = in_memory(str(name), plain.numpy())
    if not arrays:
        raise UserError(f"{path}: holds {type(loaded).__name__}, not tensors by name; save a dict of tensors")
    return sorted_out(path, "pt", arrays)
