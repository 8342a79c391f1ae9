"""A run that goes on with another number of ranks, another ZeRO stage and another `space` at each start is the run without.

After each start weights, moments, averages and partners are, as whole tensors, those of the checkpoint to the bit; the losses
follow the unbroken run.
"""

from __future__ import annotations

import pytest
import torch

from pidscale.distill import loop as distill_loop
from pidscale.distill.students import Student
from pidscale.engine.slices import Reader, file_name, in_host_memory, write
from pidscale.parallel.mesh import Mesh
from pidscale.teacher.training import Teacher
from tests import small
from tests.distill.test_loop import live, weights_of
from tests.distill.test_rollout import write_teacher
from tests.ranks import spawn

STEPS = 8
LINKS = ((2, 1, 2, 2), (1, 2, 1, 4), (3, 3, 1, 6), (2, 0, 2, None))  # ranks, stage, space, and the step of the stop
OBJECTIVES = {
    "piddm": {"name": "piddm"},
    "dm": {"name": "dm"},
}  # a buffer and a control; a critic with its own optimiser
NAMES = ("teacher", *OBJECTIVES)


def _settings(shards, folder, name, cluster):
    seldom = {"steps": STEPS, "log_every": 2, "checkpoint_every": 100}
    if name == "teacher":
        return small.settings(shards, folder, teacher=seldom, cluster=cluster)
    own = {"objective": OBJECTIVES[name], "teacher": str(folder / "teacher"), "control": False}
    if name == "piddm":
        own |= {"control": True, "physics_from": 0.4}  # two students from step 3 on
    return small.settings(shards, folder, distill=seldom | own, cluster=cluster)


def _note(patch, kept, losses):
    """Keep what networks hold after they were restored, and the losses of all steps; draw no pictures."""
    for kind in (Teacher, Student):

        def restore(self, reader, plain=kind.restore):
            plain(self, reader)
            kept.extend(in_host_memory(self.slices(), {}))

        patch.setattr(kind, "restore", restore)
    gradients, take_means = Teacher.gradients, Student.take_means

    def summed(self, step, *others):
        share = gradients(self, step, *others)
        losses[f"{step} teacher"] = float(self.mesh.sum(share))
        return share

    def taken(self):
        means = take_means(self)
        number = sum(key.split()[0] == self.name for key in losses)
        losses.update({f"{self.name} {key} {number}": value for key, value in means.items()})
        return means

    patch.setattr(Teacher, "gradients", summed)
    patch.setattr(Student, "take_means", taken)
    patch.setattr(distill_loop, "picture", lambda *_: {})


def _link(rank, world, shards, folder, run, stage, space, stop):
    """Every phase from its last checkpoint to the next stop, on one mesh: how it ended, and its losses."""
    mesh = Mesh.over(rank, world, torch.device("cpu"), space)
    cluster = {"workers": world, "zero_stage": stage, "space": space}
    found = {}
    for name in NAMES:
        kept, losses = [], {}
        with pytest.MonkeyPatch.context() as patch:
            _note(patch, kept, losses)
            phase = "teacher" if name == "teacher" else "distill"
            settings = _settings(shards, folder, name, cluster)
            found[name] = live(phase, settings, folder / run / name, mesh, stop_at=stop)["ended"], losses
        if kept:
            again = folder / "again" / f"{name}-{stage}"
            again.mkdir(parents=True, exist_ok=True)
            write(again / file_name(rank), kept)
    return found


def _wholes(folder, world):
    return Reader.of(folder, [file_name(rank) for rank in range(world)]).wholes()


def _check_loaded(folder, name, link, before):
    """What a link has loaded is what the one before has written."""
    phase = "teacher" if name == "teacher" else "distill"
    saved = _wholes(folder / "chain" / name / "checkpoints" / phase / f"step_{before[3]:08d}", before[0])
    loaded = _wholes(folder / "again" / f"{name}-{link[1]}", link[0])
    assert saved.keys() == loaded.keys(), (name, link)
    assert not [key for key in saved if not torch.equal(saved[key], loaded[key])], (name, link)


@pytest.mark.slow
def test_a_chain_of_meshes_is_one_run(small_shards, tmp_path):
    write_teacher(tmp_path / "teacher", small.settings(small_shards, tmp_path))
    whole = spawn(_link, 1, small_shards, tmp_path, "whole", 1, 1, None, timeout=900)[0]
    chain = {name: [] for name in NAMES}
    for number, link in enumerate(LINKS):
        world, stage, space, stop = link
        ranks = spawn(_link, world, small_shards, tmp_path, "chain", stage, space, stop, timeout=900)
        for name in NAMES:
            for found in ranks:
                ended, losses = found[name]
                assert isinstance(ended, dict) if stop is None else f"stopped at step {stop}" in ended
                assert losses == ranks[0][name][1]
            chain[name] += losses.values()
            if number:
                _check_loaded(tmp_path, name, link, LINKS[number - 1])
    for name in NAMES:
        wanted = list(whole[name][1].values())
        assert len(chain[name]) == len(wanted) >= STEPS // 2, name
        # the absolute bound: a consistency loss of 2e-3 is the square of a difference of nearly equal fields of size 0.5
        assert chain[name] == pytest.approx(wanted, rel=1e-6, abs=1e-8), name
        made = "teacher" if name == "teacher" else "student"
        first, second = (weights_of(tmp_path / run / name / made) for run in ("whole", "chain"))
        apart = sum(float((first[n] - second[n]).square().sum()) for n in first)
        assert apart**0.5 < 1e-5 * sum(float(one.square().sum()) for one in first.values()) ** 0.5, name
