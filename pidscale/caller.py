"""The caller's state: what of it may reach a result or a cache, and what may not. Knows no fields, no equations and no ranks.

Whoever calls the library may have inference mode on, or autocast, or another default device. A public function is `sheltered`
from these, so that its result is that of a plain call; and what outlives a call is built by `kept`, so that nothing in a
cache depends on who asked first. The default dtype has no shelter, for it is one for all threads: whatever makes a tensor
in a room that computes names its dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar, cast

import numpy as np
import torch

from pidscale.precision import float32_island

Given = ParamSpec("Given")
Result = TypeVar("Result")
CPU = torch.device("cpu")


@contextmanager
def shelter() -> Iterator[None]:
    """Inference mode and autocast off, the CPU the default device, numpy's usual ways with overflow; as before afterwards.

    Gradients are as the caller has them: none where inference mode was on.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        if torch.get_default_device() != CPU:
            stack.enter_context(CPU)
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        yield


def sheltered(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The function in a shelter. To a compiler that traces it, it is the function itself."""

    @wraps(function)
    def inside(*given: Given.args, **named: Given.kwargs) -> Result:
        if torch.compiler.is_compiling():
            return function(*given, **named)
        with shelter():
            return function(*given, **named)

    return inside


def exactly(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The same without any rounding of float32 to fewer bits: for what is measured."""

    @wraps(function)
    def inside(*given: Given.args, **named: Given.kwargs) -> Result:
        with float32_island(CPU):
            return function(*given, **named)

    return sheltered(inside)


def kept(most: int) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Remember the last `most` results of a function of hashable values, each built as a plain caller would have it."""

    def remember(build: Callable[Given, Result]) -> Callable[Given, Result]:
        return cast(Callable[Given, Result], lru_cache(maxsize=most)(torch.no_grad()(exactly(build))))

    return remember
