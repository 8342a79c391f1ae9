"""Float32 islands: code whose results are not rounded to bf16 or TF32, whatever its caller has set. Knows no ranks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

FLOAT32_BYTES = 4


class _Products:
    """`torch.set_float32_matmul_precision` as an attribute: "medium" means TF32 on a GPU and bf16 on a CPU."""

    @property
    def precision(self) -> str:
        """One of `highest`, `high` and `medium`."""
        return torch.get_float32_matmul_precision()

    @precision.setter
    def precision(self, value: str) -> None:
        torch.set_float32_matmul_precision(value)


Setting = tuple[Any, str, Any]
"""Object with the setting, name of its attribute, and the value with which nothing is rounded."""
# torch has two ways to set the precision of a GPU, and raises an error in a process that uses both
_CPU: list[Setting] = [(getattr(torch.backends.mkldnn, kind), "fp32_precision", "ieee") for kind in ("matmul", "conv")]
_OLD_WAY: list[Setting] = [(torch.backends.cudnn, "allow_tf32", False), (_Products(), "precision", "highest")]
_NEW_WAY: list[Setting] = [
    (torch.backends.cudnn.conv, "fp32_precision", "ieee"),  # type: ignore[attr-defined]  # set at run time
    (torch.backends.cuda.matmul, "fp32_precision", "ieee"),
]


class _Exact:
    """float32 products and convolutions without rounding to fewer bits, while any thread is inside.

    The settings belong to the whole process: the first thread that enters changes them and the last one that leaves restores
    them, so that overlapping threads neither round nor restore each other's values.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[Setting] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                try:
                    self._set([*_OLD_WAY, *_CPU])
                except RuntimeError:  # the caller uses the new way
                    self._set([*_NEW_WAY, *_CPU])
            self._inside += 1

    def _set(self, settings: list[Setting]) -> None:
        """Remember the values of the settings and set those that do not round."""
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
    """Return float64 values unchanged, and any others as float32."""
    return values if values.dtype == torch.float64 else values.float()


@contextmanager
def float32_island(device: torch.device) -> Iterator[None]:
    """Run the body without autocast and without rounding of float32 in convolutions and matrix products.

    The settings are restored afterwards. A compiler that traces this context switches autocast off only, an exporter nothing:
    the precision of their products is decided where the code runs.

    Args:
        device: Device whose autocast is switched off.

    Yields:
        Nothing; it is used in a `with` statement.
    """
    if torch.compiler.is_exporting():
        yield
        return
    with torch.autocast(device_type=device.type, enabled=False):
        if torch.compiler.is_compiling():
            yield
            return
        with _exact:
            yield
