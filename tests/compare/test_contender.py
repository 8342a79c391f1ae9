"""The rows of a network with solver steps behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pidscale.compare.contender import headed
from pidscale.methods.controls import Head
from pidscale.methods.one_call import OneCall
from pidscale.pde import build_pde
from tests.methods.gaussians import student


@pytest.mark.parametrize(
    ("equation", "head", "names"),
    [
        ("darcy", 0, ["s+head-4", "s+head-16"]),
        ("darcy", 4, ["s-head0", "s+head-16"]),
        ("poisson", 0, ["s+head"]),  # a step is exact: any number is one
        ("poisson", 4, ["s-head0"]),
    ],
)
def test_a_network_has_a_row_for_each_number_of_steps_that_differs(equation: str, head: int, names: list[str]) -> None:
    generator: Any = replace(student(), pde=build_pde(equation), head=head)
    rows = list(headed("s", generator, OneCall(), [16, 4]))
    assert [row.name for row in rows] == names
    assert all(row.head == 0 and isinstance(row.finish, Head | None) for row in rows)
    assert list(headed("s", generator, OneCall(), [])) == [row for row in rows if row.name == "s-head0"]


def test_a_constraint_that_goes_with_the_head_has_the_network_asked_again() -> None:
    """Fields behind a head have other inputs then, so steps behind the bare fields would be those of another generator."""
    plain = student()
    card = replace(plain.card, constraints=("two_phase",))
    generator: Any = replace(plain, pde=build_pde("darcy"), card=card, head=4)
    rows = list(headed("s", generator, OneCall(), [16, 4]))
    assert [(row.name, row.head, row.finish) for row in rows] == [("s-head0", 0, None), ("s+head-16", 16, None)]
