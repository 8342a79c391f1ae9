"""Float32 islands switch rounding off, and restore every setting afterwards."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from pidscale.precision import float32_island

CPU = torch.device("cpu")
NAMES = ("cuda.matmul", "cudnn.conv", "mkldnn.matmul", "mkldnn.conv")


def precisions() -> list[str]:
    return [operator.attrgetter(name)(torch.backends).fp32_precision for name in NAMES]


@pytest.fixture
def flags() -> Iterator[None]:
    yield
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")
    for name, usual in zip(NAMES, ("none", "tf32", "none", "none"), strict=True):
        operator.attrgetter(name)(torch.backends).fp32_precision = usual


def test_autocast_is_off_inside_and_restored_afterwards() -> None:
    a = torch.randn(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with float32_island(CPU):
            assert (a @ a).dtype == torch.float32
        assert (a @ a).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch warns where there is no GPU
@pytest.mark.parametrize(("convolutions", "products"), [(True, False), (False, True)])
def test_tf32_is_off_inside_and_restored_afterwards(flags: None, convolutions: bool, products: bool) -> None:
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.backends.cuda.matmul.allow_tf32 = products
    before = precisions()
    with pytest.raises(KeyError), float32_island(torch.device("cuda")):
        assert not {"tf32", "bf16"} & set(precisions())
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
        raise KeyError
    assert precisions() == before
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (convolutions, products)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_precision_of_products_is_restored(flags: None, precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    before = precisions()
    with float32_island(torch.device("cuda")):
        assert not {"tf32", "bf16"} & set(precisions())
    assert torch.get_float32_matmul_precision() == precision and precisions() == before


def test_a_caller_may_set_precisions_one_by_one(flags: None) -> None:
    torch.backends.cuda.matmul.fp32_precision = (
        "tf32"  # after this, torch does not report the precision of all products
    )
    before = precisions()
    with float32_island(CPU):
        assert not {"tf32", "bf16"} & set(precisions())
    assert precisions() == before


def test_products_on_a_cpu_are_not_rounded(flags: None) -> None:
    """A process may ask for products in bf16 with `torch.set_float32_matmul_precision`, where the CPU has them."""
    for name in ("matmul", "conv"):
        getattr(torch.backends.mkldnn, name).fp32_precision = "bf16"
    a = torch.randn(256, 256)
    image = torch.randn(2, 8, 32, 32)
    kernel = torch.randn(8, 8, 3, 3)
    with float32_island(CPU):
        exact = a @ a, functional.conv2d(image, kernel)
        assert precisions()[2:] == ["ieee", "ieee"]
    assert precisions()[2:] == ["bf16", "bf16"]
    assert (exact[0] - a.double() @ a.double()).abs().max() < 1e-3
    assert (exact[1] - functional.conv2d(image.double(), kernel.double())).abs().max() < 1e-3


def test_overlapping_threads_restore_the_settings_of_the_process(flags: None) -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    entered = threading.Event()
    first_left = threading.Event()
    seen: list[str] = []

    def outlasts() -> None:
        with float32_island(CPU):
            entered.set()
            first_left.wait(30)
            seen.append(torch.backends.mkldnn.matmul.fp32_precision)

    other = threading.Thread(target=outlasts)
    with float32_island(CPU):
        other.start()
        entered.wait(30)
    first_left.set()
    other.join(30)
    assert seen == ["ieee"] and torch.backends.mkldnn.matmul.fp32_precision == "bf16"
