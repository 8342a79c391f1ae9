"""JSON for every reader: no NaN, no infinities."""

from __future__ import annotations

import json
import math

import pytest

from pidscale.plain import finite, json_text, nested_too_deeply, not_finite, size_texts

VALUE = {"a": math.nan, "b": [1.0, math.inf, {"c": -math.inf}], "d": (2, "NaN"), "e": None, "f": True, "g": 0.1}


def test_numbers_that_are_not_finite_become_null() -> None:
    assert finite(VALUE) == {"a": None, "b": [1.0, None, {"c": None}], "d": [2, "NaN"], "e": None, "f": True, "g": 0.1}

    def refuse(word: str) -> None:
        raise AssertionError(word)

    assert json.loads(json_text(VALUE, indent=1), parse_constant=refuse) == finite(VALUE)


@pytest.mark.parametrize("good", [{}, 1.5, "nan", [1, 2.0], {"a": {"b": None}}])
def test_finite_values_are_written_unchanged(good: object) -> None:
    assert json_text(good, sort_keys=True) == json.dumps(good, sort_keys=True)
    assert list(not_finite(good)) == []


def test_numbers_that_are_not_finite_are_named() -> None:
    assert list(not_finite(VALUE)) == ["a", "b.1", "b.2.c"]


def test_values_nested_deeper_than_any_file_are_found_whatever_the_limit_of_recursion() -> None:
    for levels, deep in ((63, False), (64, False), (65, True), (200, True), (5000, True)):
        value: object = [1.5, {"key": "text"}]
        for _ in range(levels - 2):
            value = {"key": [], "text": "text", "part": value} if levels % 2 else [value, "text"]
        assert nested_too_deeply(value) == deep, levels
    assert not any(nested_too_deeply(value) for value in ({}, [], "text", b"text", 1.5, None))


def test_sizes_that_differ_look_different() -> None:
    assert size_texts(3 * 2**30, 2**30) == ("3.0 GiB", "1.0 GiB")
    assert size_texts(3 * 2**30 + 2**20, 3 * 2**30) == ("3.001 GiB", "3.000 GiB")
    assert size_texts(2**40 + 1, 2**40)[0] != size_texts(2**40 + 1, 2**40)[1]
    assert size_texts(1536, 1536) == ("1.5 KiB", "1.5 KiB")
