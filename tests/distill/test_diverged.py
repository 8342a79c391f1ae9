"""Distillations that diverge end with one line and publish nothing: student, control and critic, by skips or by samples."""

from __future__ import annotations

import math

from pidscale.config import UserError
from pidscale.distill import loop
from pidscale.distill.students import Student
from pidscale.generator.artifact import read_card
from pidscale.parallel.mesh import Mesh
from pidscale.run.reporting import Reporter
from tests import small
from tests.distill.test_rollout import write_teacher
from tests.ranks import spawn

WILD = {"lr": 1e8, "warmup": 0, "clip": 0.0, "steps": 30, "max_skips": 4, "checkpoint_every": 3}


def attempt(shards, folder, **values):
    """One attempt of a distillation: its line, or None where students were published; and what it said."""
    said = []
    reporter = Reporter(lambda done, total, note: said.append(note), said.append)
    own = {"teacher": str(folder.parent / "teacher"), **values}
    settings = small.settings(shards, folder.parent, distill=own, cluster={"workers": 1})
    try:
        loop.train(settings, folder, Mesh(), reporter)
    except UserError as error:
        return str(error), said
    return None, said


def _lives(rank, world, shards, root):
    found = {name: attempt(shards, root / "row", **WILD) for name in ("row", "again")}
    found["critic"] = attempt(shards, root / "critic", **WILD | {"objective": {"name": "dm"}, "control": False})
    found["end"] = attempt(shards, root / "end", **WILD | {"steps": 3, "checkpoint_every": 50})

    whole = Student.gradients

    def poisoned(self, batch, timer):
        if batch.step == 10:
            batch.eps_BCYX[0, 0, 3, 3] = math.nan
        whole(self, batch, timer)

    Student.gradients = poisoned  # a fault from outside, in the last steps that the card's means are of
    found["once"] = attempt(shards, root / "once", log_every=4)
    return found


def test_nothing_diverged_is_published(small_shards, tmp_path):
    write_teacher(tmp_path / "teacher", small.settings(small_shards, tmp_path))
    (found,) = spawn(_lives, 1, small_shards, tmp_path, timeout=550)
    line = found["row"][0]
    assert line.startswith("distill: student") and "skipped 4 steps in a row" in line and "distill.lr=1e+08" in line
    assert found["again"][0] == line
    assert "skipped 4 steps in a row" in found["critic"][0] or "so nothing is published" in found["critic"][0]
    assert "so nothing is published" in found["end"][0]
    for name in ("row", "critic", "end"):
        assert not any((tmp_path / name / made).exists() for made in ("student", "student-lambda0"))
        assert not any("nan" in one.split("endpoints")[0] for one in [found[name][0], *found[name][1]])
        assert list((tmp_path / name).glob("checkpoints/distill/*.tmp")) == []

    line, said = found["once"]
    assert line is None
    skips = [one for one in said if "skipped so far" in one]
    assert len(skips) == 2 and all("1 step skipped so far, the last at step 11" in one for one in skips)
    for name in ("student", "student-lambda0"):
        metrics = read_card(tmp_path / "once" / name).metrics.to_plain()
        assert metrics["loss"] > 0 and all(math.isfinite(value) for value in metrics.values())
