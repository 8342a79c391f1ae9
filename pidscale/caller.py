"""Shelter from the state of the caller: modes of torch that must not reach a result or a cache. Knows no fields and no ranks.

The caller of the library may have switched on inference mode or autocast, or set another default device. A public function is
`sheltered` from these, so that its result does not depend on them. What outlives a call is built by `kept`, so that no cached
value depends on who asked for it first. There is no shelter from the default dtype, which all threads share: code that makes
a tensor names its dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar, cast

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes

from pidscale.precision import float32_island

Given = ParamSpec("Given")
Result = TypeVar("Result")
CPU = torch.device("cpu")


@contextmanager
def shelter() -> Iterator[None]:
    """Run the body without inference mode and autocast, with the CPU as default device and numpy's usual error handling.

    The caller's state is restored afterwards. Gradients are recorded if the caller records them; not under inference mode.
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
    """Return the function, run in a shelter. A compiler that traces it sees the function itself."""

    @wraps(function)
    def inside(*given: Given.args, **named: Given.kwargs) -> Result:
        if torch.compiler.is_compiling():
            return function(*given, **named)
        with shelter():
            return function(*given, **named)

    return inside


def exactly(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Return the function, run in a shelter and without rounding float32 to fewer bits: for measurements."""

    @wraps(function)
    def inside(*given: Given.args, **named: Given.kwargs) -> Result:
        with float32_island(CPU):
            return function(*given, **named)

    return sheltered(inside)


def kept(most: int) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Return a decorator that caches results, built in a shelter, in full precision, without gradients and transforms.

    Args:
        most: Number of results to keep; the one that was used longest ago is dropped first.

    Returns:
        Decorator for a function of hashable arguments.
    """

    def remember(build: Callable[Given, Result]) -> Callable[Given, Result]:
        def built(*given: Given.args, **named: Given.kwargs) -> Result:
            with torch._C._DisableFuncTorch():  # a transform of torch.func would put its own tensors into the cache
                return torch.no_grad()(exactly(build))(*given, **named)

        cached = cast(Callable[Given, Result], lru_cache(maxsize=most)(wraps(build)(built)))

        @wraps(cached)
        def inside(*given: Given.args, **named: Given.kwargs) -> Result:
            if not torch.compiler.is_exporting():
                return cached(*given, **named)
            # real tensors, which become constants of the program and outlive the exporter
            with torch._C.DisableTorchFunction(), _disable_current_modes():
                return cached(*given, **named)

        return inside

    return remember
