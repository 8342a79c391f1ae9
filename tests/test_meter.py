"""Timer sections, the TensorBoard file and the progress line."""

from __future__ import annotations

import io
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from pidscale.config import UserError
from pidscale.meter import LOG_SECONDS, Board, ProgressLine, StepTimer, rates


def test_sections_add_up_and_start_again_at_zero() -> None:
    timer = StepTimer()
    for seconds in (0.02, 0.01):
        with timer.section("teacher"):
            time.sleep(seconds)
    with timer.section("student"):
        pass
    parts = timer.take()
    assert 0.03 <= parts["teacher"] < 0.5 and 0 <= parts["student"] < parts["teacher"]
    assert timer.take() == {}
    with timer.section("wait"):
        time.sleep(0.01)
    later = timer.take()
    assert timer.share("wait") == pytest.approx(later["wait"] / (later["wait"] + sum(parts.values())))
    scalars = rates([parts | later], 4, 2.0, 8)
    assert scalars["time/wait"] == later["wait"] / 4 and scalars["time/wait_share"] == later["wait"] / 2.0
    assert scalars["train/fields_per_second"] == 16 and rates([parts], 4, 2.0, 8, "teacher")["time/wait_share"] > 0
    assert not any(name.startswith("slowest") for name in scalars)


def test_the_slowest_rank_is_named() -> None:
    scalars = rates([{"wait": 0.5, "network": 1.0}, {"wait": 0.0, "network": 3.0}, {"wait": 2.0}], 2, 4.0, 8)
    assert scalars["time/network"] == 0.5 and scalars["slowest/network"] == 1.5 and scalars["slowest/network_rank"] == 1
    assert scalars["slowest/wait"] == 1.0 and scalars["slowest/wait_rank"] == 2
    assert scalars["time/wait_share"] == 0.125 and scalars["slowest/wait_share"] == 0.5


def test_a_section_waits_for_the_device() -> None:
    timer = StepTimer(synchronise=lambda: time.sleep(0.03))
    with timer.section("step"):
        pass
    assert timer.take()["step"] >= 0.03


def test_a_board_contains_what_was_written(tmp_path: Path) -> None:
    board = Board(tmp_path)
    for step in (1, 2):
        board.scalars({"loss": 0.5 * step, "lr": 1e-3}, step)
    board.image("fields", np.full((4, 6, 3), 200, dtype=np.uint8), 2)
    board.text("plan", "one\ntwo")
    board.layout({"losses": {"all": ["loss"]}})
    board.hparams({"lr": 0.1, "steps": [1, 2]}, ["loss"])
    board.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5), (2, 1.0)]
    assert (events.Images("fields")[0].width, events.Images("fields")[0].height) == (6, 4)
    assert events.Tags()["scalars"] == ["loss", "lr"]  # the table of hyperparameters adds no curve of its own
    text = next(t for t in events.Tags()["tensors"] if t.startswith("plan"))
    assert events.Tensors(text)[0].tensor_proto.string_val[0] == b"    one\n    two"
    layout = layout_pb2.Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert [(c.title, [(one.title, list(one.multiline.tag)) for one in c.chart]) for c in layout.category] == [
        ("losses", [("all", ["loss"])])
    ]
    start = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert dict(HParamsPluginData.FromString(start).session_start_info.hparams)["lr"].number_value == 0.1


@pytest.mark.parametrize("harm", ["deleted", "a file in its place"])
def test_a_board_that_cannot_be_written_is_reported_once(tmp_path: Path, harm: str) -> None:
    reported: list[str] = []
    folder = tmp_path / "tb"
    if harm == "a file in its place":
        folder.write_text("mine")
    board = Board(folder, 0, reported.append)
    if harm == "deleted":
        board.scalars({"loss": 1.0}, 1)
        board.flush()
        shutil.rmtree(folder)
    for step in range(2, 40):
        board.scalars({"loss": 1.0}, step)
        board.flush()
    board.image("fields", np.zeros((2, 2, 3), dtype=np.uint8), 1)
    board.text("plan", "one")
    board.layout({"losses": {"all": ["loss"]}})
    board.hparams({"lr": 0.1}, ["loss"])
    board.close()
    (line,) = reported
    assert line.startswith(f"warning: {folder}: ") and "training goes on" in line and "\n" not in line


def test_a_resumed_board_discards_later_events(tmp_path: Path) -> None:
    first = Board(tmp_path)
    for step in range(1, 6):
        first.scalars({"loss": 1.0}, step)
    first.close()
    time.sleep(1.1)  # event files are named and ordered by the second
    second = Board(tmp_path, first_step=3)
    second.scalars({"loss": 2.0}, 4)
    second.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0)]
    time.sleep(1.1)
    third = Board(tmp_path)  # killed before its first checkpoint, so all steps are repeated
    third.scalars({"loss": 3.0}, 1)
    third.close()
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 3.0)]


def test_results_of_a_step_that_are_there_are_not_written_again(tmp_path: Path) -> None:
    """Of an attempt that failed between the last checkpoint and the end of its results."""
    first = Board(tmp_path)
    first.scalars({"loss": 1.0, "residual": 2.0}, 5)
    first.image("fields", np.zeros((2, 2, 3), dtype=np.uint8), 5)
    first.close()
    time.sleep(1.1)  # event files are named and ordered by the second
    second = Board(tmp_path, first_step=5)
    second.keep(5)
    second.scalars({"residual": 2.0, "dual": 3.0}, 5)
    for step in (5, 6):
        second.image("fields", np.ones((2, 2, 3), dtype=np.uint8), step)
    second.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found == {"loss": [(5, 1.0)], "residual": [(5, 2.0)], "dual": [(5, 3.0)]}
    assert [e.step for e in events.Images("fields")] == [5, 6]


def test_ranks_without_a_board_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    board = Board(None)
    board.scalars({"loss": 1.0}, 1)
    board.image("fields", np.zeros((2, 2, 3), dtype=np.uint8), 1)
    board.text("plan", "x")
    board.layout({})
    board.hparams({}, [])
    board.keep(1)
    board.close()
    assert list(tmp_path.iterdir()) == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_has_few_lines_and_always_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    out = io.StringIO()
    line = ProgressLine("teacher", 100, out, every=15.0)
    for done in range(0, 101):
        line.show(done, f"loss {done}")
        now[0] += 1.0
    line.close()
    lines = out.getvalue().splitlines()
    assert len(lines) == 8 and "\r" not in out.getvalue()  # 0, 15, .. 90 and 100
    assert lines[0].startswith("teacher [........................] 0/100 ETA --:--")
    assert lines[2] == "teacher [#######.................] 30/100 1.0/s ETA 01:10 loss 30"
    assert lines[-1] == "teacher [########################] 100/100 1.0/s ETA 00:00 loss 100"


def test_the_last_step_is_shown_again_with_another_note() -> None:
    out = io.StringIO()
    line = ProgressLine("teacher", 4, out, every=0.0)
    for done, note in ((2, "loss 1"), (2, "loss 2"), (4, "loss 3"), (4, "loss 3"), (4, "loss 3, residual 2")):
        line.show(done, note)
    assert [text.split("ETA ")[1].split(" ", 1)[1] for text in out.getvalue().splitlines()] == [
        "loss 1",
        "loss 3",
        "loss 3, residual 2",
    ]


def test_the_environment_says_how_often_a_log_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOG_SECONDS, "0.5")
    assert ProgressLine("teacher", 100, io.StringIO()).every == 0.5
    monkeypatch.delenv(LOG_SECONDS)
    assert ProgressLine("teacher", 100, io.StringIO()).every == 15.0
    for wrong in ("often", "-1", "nan", "inf", ""):
        monkeypatch.setenv(LOG_SECONDS, wrong)
        with pytest.raises(UserError, match=f"{LOG_SECONDS}={wrong}: expected a number of seconds"):
            ProgressLine("teacher", 100, io.StringIO())


def test_the_rate_of_a_resumed_run_counts_its_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [500.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    out = Terminal()
    line = ProgressLine("student", 1000, out)
    line.show(900)
    now[0] = 510.0
    line.show(950)
    line.show(950)  # shown already
    line.close()
    assert out.getvalue().count("\r") == 2 and "950/1000 5.0/s ETA 00:10" in out.getvalue()
    assert out.getvalue().endswith("\n")
