"""The torch state of a caller (inference mode, autocast, default dtype or device) changes no result and stays as it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pidscale.generator.load import load_student
from tests.generator.callers import everything, forget, gradients, state
from tests.generator.made import write_generator


@contextmanager
def held(take: Callable[[], object], give_back: Callable[[], object]) -> Iterator[None]:
    take()
    try:
        yield
    finally:
        give_back()


def default(dtype: torch.dtype) -> AbstractContextManager[None]:
    return held(lambda: torch.set_default_dtype(dtype), lambda: torch.set_default_dtype(torch.float32))


STATES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": lambda: default(torch.float64),
    "bfloat16": lambda: default(torch.bfloat16),
    "meta": lambda: held(lambda: torch.set_default_device("meta"), lambda: torch.set_default_device(None)),
    "device": lambda: torch.device("meta"),
    "deterministic": lambda: held(
        lambda: torch.use_deterministic_algorithms(True), lambda: torch.use_deterministic_algorithms(False)
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("callers")
    write_generator(root / "teacher", "teacher")
    write_generator(root / "darcy", teacher=root / "teacher")
    write_generator(root / "heat", equation="heat")
    return root


@pytest.fixture(scope="module")
def plain(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    forget()
    return everything(folder), gradients(folder)


@pytest.mark.filterwarnings("ignore:.*known values")
@pytest.mark.parametrize(
    "names",  # combined, because none may have an effect
    [
        ("inference_mode", "autocast"),
        ("no_grad", "float64", "deterministic"),
        ("bfloat16", "meta"),
        ("device",),
    ],
    ids=" ".join,
)
def test_the_state_of_a_caller_reaches_no_result_and_no_cache(
    folder: Path, plain: tuple[dict[str, Tensor], dict[str, Tensor]], names: tuple[str, ...]
) -> None:
    forget()
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(STATES[name]())
        before = state()
        under = everything(folder)
        assert state() == before
    assert len(under) > 150
    for found, wanted in zip((under, gradients(folder)), plain, strict=True):
        assert found.keys() == wanted.keys()
        alike = {n for n, v in found.items() if (v.dtype, v.device) == (wanted[n].dtype, wanted[n].device)}
        apart = {n: (v.dtype, v.device) for n, v in found.items() if n not in alike or not torch.equal(v, wanted[n])}
        assert not apart


def test_threads_do_not_affect_each_other(folder: Path) -> None:
    """Threads with different states give what one thread gives alone, and gradients work afterwards."""
    student = load_student(folder / "darcy")
    alone = student.refine(2, steps=4).eps
    forget()
    found: dict[str, Tensor] = {}

    def ask(name: str) -> None:
        with STATES[name]() if name in STATES else ExitStack():
            student.residual(student.sample(2))
            found[name] = student.refine(2, steps=4).eps

    threads = [
        threading.Thread(target=ask, args=(name,)) for name in ("inference_mode", "autocast", "no_grad", "plain")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(found) == 4 and all(torch.equal(eps, alone) for eps in found.values())
    assert torch.equal(student.refine(2, steps=4).eps, alone)


def test_a_residual_ignores_the_matmul_precision_of_the_process(folder: Path) -> None:
    student = load_student(folder / "darcy")
    drawn = student.sample(2)
    exact = student.residual(drawn)
    with held(
        lambda: torch.set_float32_matmul_precision("medium"), lambda: torch.set_float32_matmul_precision("highest")
    ):
        forget()
        rounded = student.residual(drawn)
        assert torch.get_float32_matmul_precision() == "medium"
    assert all(torch.equal(rounded[name], values) for name, values in exact.items())
