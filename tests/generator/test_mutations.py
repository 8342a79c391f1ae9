"""A card with a valid checksum and wrong contents gives an error of one line, or a generator of finite fields."""

from __future__ import annotations

import copy
import math
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pidscale.config import UserError
from pidscale.diffusion.noise import FlowNoise
from pidscale.generator import artifact
from pidscale.generator.load import load_generator
from tests.generator.made import write_generator

MUTATIONS = 1000
LONGEST = 300
SECONDS = 2.0
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        "",
        "x",
        "80",
        "nan",
        "\x1b[31m",
        "é" * 300,
        [],
        {},
        [1],
        [[1, 2], [3]],
        {"a": 1},
        {"name": None},
    ),
    *(
        0,
        1,
        -1,
        2,
        3,
        16,
        17,
        255,
        2**31,
        2**63,
        10**30,
        10**400,
        -(10**20),
        0.0,
        -0.0,
        0.5,
        1e-300,
        5e-324,
        1e300,
        -1e300,
    ),
    *(
        1.5,
        16.0,
        80,
        1e15,
        1e16,
        [0, 0],
        [16, 16],
        [17, 16],
        [8, 8],
        [1.0, 1.0],
        [1e300, 1e-300],
        ["a", "b"],
        [None, None],
    ),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("mutations")
    return [
        write_generator(root / "student"),
        write_generator(root / "heat", network="fno", equation="heat"),
        write_generator(root / "teacher", "teacher"),
        write_generator(root / "flow", "teacher", noise=FlowNoise()),
    ]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a card."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, one in inside for place in places(one, (*path, key))]


def mutated(card: dict[str, Any], rng: random.Random) -> tuple[dict[str, Any], str]:
    """Return a card with one value changed, and a description of the change."""
    changed = copy.deepcopy(card)
    path = rng.choice(places(changed))
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    old = parent[path[-1]]
    ways = ["value"] * 6 + ["missing", "sign", "scale", "list", "extra"]
    way = rng.choice(ways)
    is_number = isinstance(old, (int, float)) and not isinstance(old, bool)
    if way == "missing":
        del parent[path[-1]]
    elif way == "sign" and is_number:
        parent[path[-1]] = -old
    elif way == "scale" and is_number:
        parent[path[-1]] = old * rng.choice([2, 10, 0.1, 1e9, 1e-9])
    elif way == "list":
        parent[path[-1]] = [old, old]
    elif way == "extra" and isinstance(old, dict):
        old["further"] = rng.choice(VALUES)
    else:
        parent[path[-1]] = rng.choice(VALUES)
    return (
        changed,
        f"{'.'.join(map(str, path))}: {way}, now {str(parent.get(path[-1]) if isinstance(parent, dict) else parent)[:80]}",
    )


def outcome(folder: Path) -> str:
    """Return `sampled`, or the error of a generator that is refused."""
    try:
        generator = load_generator(folder)
        fields = generator.sample(2, seed=1)
    except UserError as error:
        return str(error)
    for name in generator.channels:
        assert fields[name].shape == (2, *generator.grid.shape) and fields[name].dtype == torch.float32
        assert torch.isfinite(fields[name]).all(), name
    return "sampled"


def test_a_mutated_card_is_one_line_or_a_generator(folders: list[Path], tmp_path: Path) -> None:
    rng = random.Random(11)
    copies = [shutil.copytree(folder, tmp_path / folder.name) for folder in folders]
    cards = [artifact.read_plain(folder) for folder in folders]
    refused = 0
    for number in range(MUTATIONS):
        which = number % len(folders)
        card, what = mutated(cards[which], rng)
        artifact.write_plain(copies[which], card)
        began = time.process_time()  # of this process alone, on a busy machine
        try:
            found = outcome(copies[which])
        except Exception as error:
            raise AssertionError(f"mutation {number} of {folders[which].name}: {what}") from error
        if found != "sampled":
            refused += 1
            line = found.replace(str(tmp_path), "")
            assert "\n" not in found and len(line) <= LONGEST and line.isprintable(), (what, found)
            assert time.process_time() - began < SECONDS, what
    assert refused > MUTATIONS / 2


def test_numbers_that_are_not_finite_are_named(folders: list[Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders[0], tmp_path / "student")
    card = artifact.read_plain(folder)
    for value in (math.nan, math.inf, -math.inf):
        card["metrics"] = {"train_seconds": value}
        artifact.write_plain(folder, card)
        assert "train_seconds is not a finite number" in outcome(folder)
