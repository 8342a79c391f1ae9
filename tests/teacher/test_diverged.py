"""Teachers that diverge end with one line and publish nothing; one whose steps were skipped once is as good as any."""

from __future__ import annotations

import json
import math

import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pidscale.config import UserError
from pidscale.parallel.mesh import Mesh
from pidscale.records.feed import Feed
from pidscale.run.reporting import Reporter
from pidscale.teacher import loop
from tests import small
from tests.ranks import spawn

WILD = {"lr": 1e30, "clip": 0.0, "warmup": 0, "log_every": 2, "checkpoint_every": 3}


def attempt(shards, folder, **values):
    """One attempt of a teacher: its line, or None where it was published; and what it said."""
    said = []
    reporter = Reporter(lambda done, total, note: said.append(note), said.append)
    settings = small.settings(shards, folder.parent, teacher=values, cluster={"workers": 1})
    try:
        loop.train(settings, folder, Mesh(), reporter)
    except UserError as error:
        return str(error), said
    return None, said


def _lives(rank, world, shards, root):
    found = {name: attempt(shards, root / "row", **WILD, steps=30, max_skips=5) for name in ("row", "again")}
    found["end"] = attempt(shards, root / "end", **WILD, steps=4)
    large = {"lr": 30.0, "warmup": 0, "steps": 12, "log_every": 4, "checkpoint_every": 50}
    found["large"] = attempt(shards, root / "large", **large)

    whole = Feed.batch

    def poisoned(self, step):
        batch = whole(self, step)
        if step == 10:
            batch.fields_BCYX[0, 0, 3, 3] = math.nan
        return batch

    Feed.batch = poisoned  # a fault from outside: values that no reader has seen
    found["once"] = attempt(shards, root / "once", steps=12, log_every=4, checkpoint_every=5)
    return found


def test_nothing_diverged_is_published(small_shards, tmp_path):
    (found,) = spawn(_lives, 1, small_shards, tmp_path, timeout=550)
    line, said = found["row"]
    assert "teacher: teacher skipped 5 steps in a row, the last at step 6 of 30: its gradient is not finite" in line
    assert "teacher.lr=1e+30" in line and "the checkpoint of step 3 stays" in line and "\n" not in line
    assert [one for one in said if one.startswith("warning")] == [
        f"warning: teacher: {counted} skipped so far, the last at step {step}: its gradient is not finite; "
        "teacher.max_skips=5 in a row end the run"
        for counted, step in (("1 step", 2), ("2 steps", 3), ("4 steps", 5))
    ]
    assert found["again"][0] == line  # from the checkpoint, with the skips before it
    assert "residual_l2 is not a finite number after step 4, so nothing is published" in found["end"][0]
    assert "so nothing is published" in found["large"][0]  # finite, and larger than any field
    for name in ("row", "end", "large"):
        assert not (tmp_path / name / "teacher").exists()
        assert not any("nan" in one or " inf" in one for one in [found[name][0], *found[name][1]])
    assert (tmp_path / "row" / "checkpoints" / "teacher" / "step_00000003" / "manifest.json").exists()
    events = EventAccumulator(str(tmp_path / "end" / "tb" / "teacher"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/skipped")] == [(2, 1.0), (4, 3.0)]

    line, said = found["once"]
    assert line is None and [one for one in said if "skipped" in one] == [
        "warning: teacher: 1 step skipped so far, the last at step 11: its gradient is not finite; teacher.max_skips=20 in a "
        "row end the run"
    ]
    assert all(one.startswith("loss 0.") or one.startswith("loss 1.") for one in said if one.startswith("loss"))
    text = (tmp_path / "once" / "teacher" / "card.json").read_text()
    assert all(math.isfinite(v) for k, v in json.loads(text)["metrics"].items() if k.startswith("residual"))
    weights = load_file(tmp_path / "once" / "teacher" / "weights.safetensors")
    assert all(torch.isfinite(w).all() for w in weights.values())
