"""Fields of three equations that the tests of conversion write as other programs would."""

import pytest

from pidscale.ops.grid import Grid
from tests.convert import foreign
from tests.convert.foreign import BURGERS, DARCY, WAVE


@pytest.fixture(scope="module")
def darcy():
    return foreign.truths(DARCY, DARCY.grid(9), 5)


@pytest.fixture(scope="module")
def wave():
    return foreign.truths(WAVE, WAVE.grid(8), 4)


@pytest.fixture(scope="module")
def burgers():
    return foreign.truths(BURGERS, Grid((5, 16), (1.0, 1.0), "strip", "periodic"), 4)[:, 0]
