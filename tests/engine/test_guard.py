"""Skipped steps are counted and end a run; weights and metrics that are not finite are neither kept nor published."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from pidscale.config import TeacherSettings, UserError
from pidscale.engine.ema import Ema
from pidscale.engine.guard import Guard, shown
from pidscale.engine.shelf import FolderShelf
from pidscale.engine.zero import Zero, ZeroSettings
from pidscale.parallel.mesh import Mesh
from tests.engine.test_ema import Odd
from tests.ranks import spawn
from tests.sealed import seal

BAD = [(math.nan, False), (math.inf, False), (0.0, True)]  # norm of the gradient, and whether the step was taken


@pytest.fixture
def said() -> list[str]:
    return []


def guard(root: Any, said: list[str], mesh: Mesh | None = None, **values: Any) -> Guard:
    return Guard("teacher", TeacherSettings(**values), FolderShelf(root), mesh or Mesh(), said.append)


@pytest.mark.parametrize("norm, applied", BAD)
def test_too_many_skipped_steps_in_a_row_end_the_run_with_one_line(tmp_path, said, norm, applied):
    one = guard(tmp_path, said, max_skips=3, steps=50, lr=1e6, clip=0.0)
    for step in (0, 1, 3, 4, 6, 7):  # two in a row, three times
        one.step("teacher", step, norm, applied)
        if step in (1, 4, 7):
            one.step("teacher", step + 1, 1.0, True)
    one.step("teacher", 9, norm, applied)
    one.step("teacher", 10, norm, applied)
    with pytest.raises(UserError) as error:
        one.step("teacher", 11, norm, applied)
    text = str(error.value)
    assert "skipped 3 steps in a row, the last at step 12 of 50" in text and "\n" not in text
    assert "teacher.lr=1e+06" in text and "teacher.clip=1 (now 0)" in text and "no checkpoint was written" in text
    assert "nan" not in text and " inf" not in text


def test_the_line_names_the_checkpoint_that_stays_and_only_new_remedies(tmp_path, said):
    seal(tmp_path, 7)
    with pytest.raises(UserError, match=rf"the checkpoint of step 7 stays in {tmp_path}; other values need") as error:
        guard(tmp_path, said, max_skips=1).step("teacher", 8, math.nan, False)
    assert "clip" not in str(error.value)


def test_the_line_waits_for_the_checkpoint_that_is_being_written(tmp_path, said):
    late = Guard(
        "teacher", TeacherSettings(max_skips=1), FolderShelf(tmp_path), Mesh(), said.append, lambda: seal(tmp_path, 9)
    )
    with pytest.raises(UserError, match="the checkpoint of step 9 stays"):
        late.step("teacher", 8, math.nan, False)


def test_many_skipped_steps_make_few_warnings_on_the_first_rank(tmp_path, said):
    one = guard(tmp_path, said)
    other = guard(tmp_path, said, Mesh(1, 2))
    for step in range(200):
        for rank in (one, other):
            rank.step("student", step, math.nan if step % 2 else 1.0, step % 2 == 0)
    assert [line.split(": ")[2].split(" ")[0] for line in said] == ["1", "2", "4", "8", "16", "32", "64"]
    assert "student: 64 steps skipped so far, the last at step 128: its gradient is not finite" in said[-1]
    assert one.total == other.total == 100


def test_each_network_has_its_own_count_that_goes_on_after_a_restart(tmp_path, said):
    one = guard(tmp_path, said, max_skips=4)
    for step in range(3):
        one.step("student", step, math.nan, False)
        one.step("student's critic", step, 1.0, True)
    again = guard(tmp_path, said, max_skips=4)
    again.restore({"skipped": one.state()})
    assert again.total == 3
    again.step("student's critic", 3, math.nan, False)
    with pytest.raises(UserError, match="student skipped 4 steps in a row, the last at step 4"):
        again.step("student", 3, math.nan, False)
    again.restore({"train_seconds": 1.0})  # an old checkpoint without counts
    assert again.total == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_not_kept(tmp_path, said, value):
    module = nn.Linear(3, 2)
    ema = Ema(module, 0, Mesh(), 0.1)
    guard(tmp_path, said).weights(5, [], [ema])
    with torch.no_grad():
        module.weight[1, 2] = value
    ema.update(0)
    with pytest.raises(UserError, match="weights are not finite at step 5 of 1000, so none are written"):
        guard(tmp_path, said).weights(5, [], [ema])


@pytest.mark.parametrize(
    "numbers, sizes, words",
    [
        ({"loss": math.nan}, {}, "loss is not a finite number"),
        ({"student": {"match": 1.0, "l2": math.inf}}, {}, "student.l2 is not a finite number"),
        ({"loss": 1.0}, {"student-lambda0": math.nan}, "the size of samples of student-lambda0 is not a finite number"),
        ({"loss": 1.0}, {"student": 2.5e4}, "samples of student are 2.5e.04 times as large as data"),
    ],
)
def test_a_result_of_a_diverged_run_is_not_published(tmp_path, said, numbers, sizes, words):
    with pytest.raises(UserError, match=f"{words} after step 1000, so nothing is published"):
        guard(tmp_path, said).result(numbers, sizes)


def test_a_finite_result_passes(tmp_path, said):
    guard(tmp_path, said).result({"loss": 0.5, "count": 3, "none": None}, {"student": 1.1})
    assert said == []


def test_a_loss_that_is_not_finite_is_shown_in_words():
    assert [shown(v) for v in (0.25, math.nan, math.inf, None)] == [
        "0.2500",
        "not finite",
        "not finite",
        "unknown, no step was taken",
    ]


def _with_poison(rank, world, folder):
    """Steps at every stage while new memory is full of NaN, as memory that was used before may be."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    mesh = Mesh(rank, world)
    for stage in (0, 1, 2, 3):
        section = {"zero_optimization": {"stage3_param_persistence_threshold": 10}} if stage == 3 else {}
        zero = Zero(Odd(), ZeroSettings(stage, 1, 1, 0.5, section), mesh)
        ema = Ema(zero.module, stage, mesh, 0.3)
        for step in range(2):
            zero.backward(zero(torch.tensor(0.5)) / world)
            assert zero.step(0.1)[1]
            ema.update(step)
        guard(folder, [], mesh).weights(2, [zero], [ema])
        if mesh.first:
            ema.pieces["values.one"][0] = math.nan
        with pytest.raises(UserError, match="weights are not finite at step 2"):
            guard(folder, [], mesh).weights(2, [zero], [ema])


def test_what_fills_up_the_pieces_of_a_parameter_is_not_looked_at(tmp_path):
    """Three ranks share parameters of 1 and 7 values: DeepSpeed never writes to the rest of the last pieces."""
    spawn(_with_poison, 3, tmp_path)
