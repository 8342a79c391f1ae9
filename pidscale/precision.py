"""Float32 islands: where a result must not be rounded to bf16 or TF32, whatever surrounds it. Knows no ranks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

FLOAT32_BYTES = 4


class _Products:
    """`torch.set_float32_matmul_precision`, as an attribute: "medium" means TF32 on a GPU and bf16 on a CPU."""

    @property
    def precision(self) -> str:
        """`highest`, `high` or `medium`."""
        return torch.get_float32_matmul_precision()

    @precision.setter
    def precision(self, value: str) -> None:
        torch.set_float32_matmul_precision(value)


Setting = tuple[Any, str, Any]
"""Whose it is, its name, and the value of it that does not round."""
# torch takes a process that uses both of its ways to set a GPU's precision for mistaken, and says so with an error
_CPU: list[Setting] = [(getattr(torch.backends.mkldnn, kind), "fp32_precision", "ieee") for kind in ("matmul", "conv")]
_OLD_WAY: list[Setting] = [(torch.backends.cudnn, "allow_tf32", False), (_Products(), "precision", "highest")]
_NEW_WAY: list[Setting] = [
    (torch.backends.cudnn.conv, "fp32_precision", "ieee"),  # type: ignore[attr-defined]  # set at run time
    (torch.backends.cuda.matmul, "fp32_precision", "ieee"),
]


class _Exact:
    """float32 products and convolutions without rounding to fewer bits, as long as any thread is inside.

    The settings are of the whole process: the first thread to come holds them and the last one to leave gives them back, so
    that threads which overlap neither round nor leave another's value behind.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._before: list[Setting] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                try:
                    self._hold([*_OLD_WAY, *_CPU])
                except RuntimeError:  # the caller has taken the new way
                    self._hold([*_NEW_WAY, *_CPU])
            self._inside += 1

    def _hold(self, settings: list[Setting]) -> None:
        self._before = [(owner, name, getattr(owner, name)) for owner, name, _ in settings]
        for owner, name, exact in settings:
            setattr(owner, name, exact)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for owner, name, value in self._before:
                    setattr(owner, name, value)


_exact = _Exact()


def float32_or_better(values: Tensor) -> Tensor:
    """float64 as it is, anything else as float32."""
    return values if values.dtype == torch.float64 else values.float()


@contextmanager
def float32_island(device: torch.device) -> Iterator[None]:
    """Autocast off, and no rounding of float32 in convolutions and matrix products; all as before afterwards.

    A compiler that traces this sees autocast alone: what its products round to is decided where it is run.
    """
    with torch.autocast(device_type=device.type, enabled=False):
        if torch.compiler.is_compiling():
            yield
            return
        with _exact:
            yield
