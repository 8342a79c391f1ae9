"""Known values of fields of a small Darcy student, for tests of observations, and the line of a refused call."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pidscale.config import UserError

A = np.full((6, 6), 3.0)
U = np.linspace(0, 0.01, 36).reshape(6, 6)
MASK = np.eye(6, dtype=bool)
NAN = np.where(MASK, U, np.nan)


def refused(call: Callable[[], object]) -> str:
    """Return the one line that a call is refused with."""
    with pytest.raises(UserError) as raised:
        call()
    text = str(raised.value)
    assert "\n" not in text
    return text
