"""What the tests of observations know of fields of a small Darcy student, and how a refusal looks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pidscale.config import UserError

A, U = np.full((6, 6), 3.0), np.linspace(0, 0.01, 36).reshape(6, 6)
MASK = np.eye(6, dtype=bool)
NAN = np.where(MASK, U, np.nan)


def refused(call: Callable[[], object]) -> str:
    """The one line that a call is refused with."""
    with pytest.raises(UserError) as raised:
        call()
    text = str(raised.value)
    assert "\n" not in text
    return text
