"""A run that goes on with another number of ranks, another ZeRO stage and another `space` at each start is the run without.

After each start weights, moments, averages and partners are, as whole tensors, those of the checkpoint to the bit; the losses
follow the unbroken run.
"""

from __future__ import annotations

import json

import pytest
import torch

from pidscale.distill.students import Student
from pidscale.engine.slices import Reader, file_name, in_host_memory, write
from pidscale.parallel.mesh import Mesh
from pidscale.teacher.training import Teacher
from tests import small
from tests.distill.test_loop import live, weights_of
from tests.distill.test_rollout import write_teacher
from tests.ranks import spawn

STEPS = 8
LINKS = ((2, 1, 2, 2), (1, 2, 1, 4), (4, 3, 2, 6), (2, 0, 1, None))  # ranks, stage, space, and the step of the stop
OBJECTIVES = {
    "piddm": {"name": "piddm"},
    "pid": {"name": "pid", "levels": 12},
    "dm": {"name": "dm"},
    "consistency": {"name": "consistency", "levels": 12},
}


def _settings(shards, folder, name, cluster):
    often = {"steps": STEPS, "log_every": 1, "checkpoint_every": 1, "keep": STEPS}
    if name == "teacher":
        return small.settings(shards, folder, teacher=often, cluster=cluster)
    own = {
        "objective": OBJECTIVES[name],
        "teacher": str(folder / "teacher"),
        "physics_from": 0.4,
    }  # two networks from 3 on
    return small.settings(shards, folder, distill=often | own, cluster=cluster)


def _noting(kind, kept):
    """Keep what a network holds after it was restored."""
    plain = kind.restore

    def restore(self, reader):
        plain(self, reader)
        kept.extend(in_host_memory(self.slices(), {}))

    return plain, restore


def _link(rank, world, shards, folder, run, stage, space, stop):
    """Every phase from its last checkpoint to the next stop, on one mesh."""
    mesh = Mesh.over(rank, world, torch.device("cpu"), space)
    cluster = {"workers": world, "zero_stage": stage, "space": space}
    ended = {}
    for name in ("teacher", *OBJECTIVES):
        kept = []
        plain = {kind: _noting(kind, kept) for kind in (Teacher, Student)}
        for kind, (_, restore) in plain.items():
            kind.restore = restore
        settings = _settings(shards, folder, name, cluster)
        phase = "teacher" if name == "teacher" else "distill"
        ended[name] = live(phase, settings, folder / run / name, mesh, stop_at=stop)["ended"]
        for kind, (original, _) in plain.items():
            kind.restore = original
        if kept:
            again = folder / "again" / f"{name}-{world}"
            again.mkdir(parents=True, exist_ok=True)
            write(again / file_name(rank), kept)
    return ended


def _reader(folder, world):
    return Reader.of(folder, [file_name(rank) for rank in range(world)])


def _losses(folder, name):
    """What a phase noted at every step: the loss of a teacher, or the means of students by name."""
    phase = "teacher" if name == "teacher" else "distill"
    found = {}
    for step in range(1, STEPS + 1):
        file = folder / name / "checkpoints" / phase / f"step_{step:08d}" / "state.json"
        state = json.loads(file.read_text())
        means = {"teacher": {"loss": state["loss"]}} if name == "teacher" else state["means"]
        found |= {f"{step} {who} {key}": value for who, one in means.items() for key, value in one.items()}
    return found


@pytest.mark.slow
def test_a_chain_of_meshes_is_one_run(small_shards, tmp_path):
    write_teacher(tmp_path / "teacher", small.settings(small_shards, tmp_path))
    spawn(_link, 1, small_shards, tmp_path, "whole", 1, 1, None, timeout=600)
    before = None
    for world, stage, space, stop in LINKS:
        for ended in spawn(_link, world, small_shards, tmp_path, "chain", stage, space, stop, timeout=600):
            assert all(isinstance(one, dict) if stop is None else f"step {stop}" in one for one in ended.values())
        for name in ("teacher", *OBJECTIVES) if before else ():
            phase = "teacher" if name == "teacher" else "distill"
            folder = tmp_path / "chain" / name / "checkpoints" / phase / f"step_{before[3]:08d}"
            saved = _reader(folder, before[0]).wholes()
            loaded = _reader(tmp_path / "again" / f"{name}-{world}", world).wholes()
            assert saved.keys() == loaded.keys(), (name, world)
            wrong = [key for key in saved if not torch.equal(saved[key], loaded[key])]
            assert not wrong, (name, world, wrong[:3])
        before = world, stage, space, stop
    for name in ("teacher", *OBJECTIVES):
        whole, chain = (_losses(tmp_path / run, name) for run in ("whole", "chain"))
        assert chain == pytest.approx(whole, rel=1e-6), name
        made = "teacher" if name == "teacher" else "student"
        first, second = (weights_of(tmp_path / run / name / made) for run in ("whole", "chain"))
        apart = sum(float((first[n] - second[n]).square().sum()) for n in first)
        assert apart**0.5 < 1e-5 * sum(float(one.square().sum()) for one in first.values()) ** 0.5, name
