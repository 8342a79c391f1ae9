"""Float32 islands switch off what rounds, and leave everything as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pidscale.ops.precision import float32_island


@pytest.fixture
def flags() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_autocast_is_off_inside_and_on_again_behind() -> None:
    a = torch.randn(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with float32_island(torch.device("cpu")):
            assert (a @ a).dtype == torch.float32
        assert (a @ a).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch says so where there is no GPU
@pytest.mark.parametrize(("convolutions", "products"), [(True, False), (False, True)])
def test_tf32_is_off_inside_and_as_before_behind(flags: None, convolutions: bool, products: bool) -> None:
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products
    with pytest.raises(KeyError), float32_island(torch.device("cuda")):
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
        raise KeyError
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (convolutions, products)
