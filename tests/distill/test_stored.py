"""Endpoints as a shard set: bit by bit what the teacher makes, whole or by rows, and refused where they do not belong."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch

from pidscale.config import UserError
from pidscale.dataset.problem import open_problem
from pidscale.distill.endpoints.buffer import EndpointBuffer
from pidscale.distill.endpoints.make import check_endpoint_set, make_endpoint_set
from pidscale.distill.endpoints.rollout import open_rollout, open_teacher
from pidscale.distill.endpoints.stored import needed, open_set
from pidscale.distill.preflight import announcement, cost_line, teacher_share
from pidscale.inspect.verify import verify
from tests import small
from tests.distill.test_rollout import write_teacher

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(small_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("endpoints")
    write_teacher(folder / "teacher", small.settings(small_shards, folder))
    make_endpoint_set(chosen(small_shards, folder), folder, parallel=False)
    return folder


def chosen(shards, folder, **distill):
    own = {"teacher": str(folder / "teacher"), "endpoints": str(folder / "endpoints"), "source": "shards"}
    return small.settings(shards, folder, data={"path": str(shards), "samples_per_shard": 7}, distill=own | distill)


def rollout_of(settings, folder, rows=None):
    problem = open_problem(settings.pde, settings.data)
    return open_rollout(settings, open_teacher(settings, folder, problem, CPU), rows)


def test_a_set_holds_what_the_teacher_makes(small_shards, folder):
    settings = chosen(small_shards, folder)
    rollout = rollout_of(settings, folder)
    there, count = open_set(settings, rollout, settings.data), needed(settings)
    assert len(there.shards) == count and there.shards.counts == [8] * (count // 8)  # whole chunks of 2, at least 7
    for counters in (torch.arange(8), torch.tensor([40, 41, 2, 3])):
        read, made = there.endpoints(counters), rollout.endpoints(counters)
        assert torch.equal(read.fields_BCYX, made.fields_BCYX) and torch.equal(read.checksums, made.checksums)
        assert torch.equal(read.params_BP, made.params_BP) and torch.equal(read.counters, made.counters)
    floor = there.shards.manifest.truth_residual["train"]
    assert 0 < floor["dual"] < floor["max_dual"]  # of the endpoints in physical units


def test_a_driver_keeps_its_threads_whatever_a_worker_has(small_shards, folder, tmp_path):
    """Threads of the teacher are those of its tasks: 64 in a driver of two cores would slow down all that it does later."""
    before = torch.get_num_threads()
    plain = chosen(small_shards, folder, endpoints=str(tmp_path / "set"))
    settings = dataclasses.replace(plain, cluster=dataclasses.replace(plain.cluster, cpus_per_worker=7))
    check_endpoint_set(settings, folder)
    make_endpoint_set(settings, folder, parallel=False)
    assert torch.get_num_threads() == before


def test_a_rank_reads_its_rows_alone(small_shards, folder):
    settings, rows = chosen(small_shards, folder), slice(0, 8)
    there = open_set(settings, rollout_of(settings, folder, rows), settings.data)
    part, whole = there.endpoints(torch.arange(4)), rollout_of(settings, folder).endpoints(torch.arange(4))
    assert torch.equal(part.fields_BCYX, whole.fields_BCYX[:, :, rows])
    tile = there.rollout.eps(torch.arange(4))
    assert tile.shape == (4, 2, 8, 16) and not torch.equal(part.checksums, whole.checksums)


@pytest.mark.parametrize("rows", [None, slice(0, 8)])
def test_endpoints_of_other_noise_are_refused_by_their_number(small_shards, folder, rows):
    """Whoever reads some rows alone finds it out too."""
    settings = chosen(small_shards, folder)
    there = open_set(settings, rollout_of(settings, folder, rows), settings.data)
    other = dataclasses.replace(there, rollout=dataclasses.replace(there.rollout, seed=1))
    with pytest.raises(UserError, match=r"sample 4 is not of this run's noise"):
        other.endpoints(torch.arange(4, 8))
    assert torch.equal(there.endpoints(torch.arange(4, 8)).counters, torch.arange(4, 8))


def test_as_many_are_made_as_the_run_asks_for(small_shards, folder):
    for change in ({}, {"steps": 40, "reuse": 3, "buffer_rows": 4}, {"reuse": 1}):
        settings = chosen(small_shards, folder, **change)
        d, seen = settings.distill, 0
        buffer = EndpointBuffer(
            d.buffer_rows, d.reuse, d.global_batch, 0, d.global_batch, settings.run.seed, lambda counters: counters
        )
        for step in range(d.steps):
            seen = max(seen, int(buffer.take(step)[-1]) + 1)
        assert needed(settings) == seen


REFUSED = {
    "another solver": ({"solver": "euler"}, "endpoints of solver 'heun', this run wants 'euler'"),
    "other steps": ({"solver_steps": 5, "scale_steps": 5}, "endpoints of steps 3, this run wants 5"),
    "another precision": ({"teacher_precision": "bf16"}, "endpoints of precision 'fp32', this run wants 'bf16'"),
    "too few": ({"steps": 100}, r"\d+ endpoints, this run uses \d+; make them with `pidscale make-endpoints`"),
    "none named": ({"endpoints": None}, r"distill\.endpoints=null"),
    "no set there": ({"endpoints": "nowhere"}, r"distill\.endpoints=nowhere: no finished set.*make-endpoints"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_set_that_does_not_fit_is_one_line(small_shards, folder, case):
    change, words = REFUSED[case]
    settings = chosen(small_shards, folder, **change)
    with pytest.raises(UserError, match=words) as error:
        open_set(settings, rollout_of(settings, folder), settings.data)
    assert "\n" not in str(error.value)


def test_other_sets_are_distinguished(small_shards, folder, tmp_path):
    settings = chosen(small_shards, folder, endpoints=str(small_shards))
    with pytest.raises(UserError, match="holds no endpoints of a teacher"):
        open_set(settings, rollout_of(settings, folder), settings.data)
    with pytest.raises(UserError, match=r"endpoints of a teacher.*distill\.endpoints"):
        open_problem(settings.pde, small.settings(folder / "endpoints", tmp_path).data)
    write_teacher(tmp_path / "teacher", small.settings(small_shards, tmp_path), seed=1)
    other = chosen(small_shards, folder, teacher=str(tmp_path / "teacher"))
    with pytest.raises(UserError, match="endpoints of teacher"):
        open_set(other, rollout_of(other, tmp_path), other.data)
    with pytest.raises(UserError, match=r"another request.*distill\.endpoints"):
        make_endpoint_set(other, tmp_path, parallel=False)
    with pytest.raises(UserError, match=r"distill\.objective\.name=pid: takes no endpoints"):
        make_endpoint_set(
            chosen(small_shards, folder, objective={"name": "pid"}, source="inline"), folder, parallel=False
        )
    with pytest.raises(UserError, match=r"distill\.endpoints=s3://.*a set is made in a folder"):
        make_endpoint_set(chosen(small_shards, folder, endpoints="s3://bucket/set"), folder, parallel=False)


def test_a_set_that_was_cut_short_is_finished_to_the_same_bytes(small_shards, folder, tmp_path):
    shutil.copytree(folder / "endpoints", tmp_path / "endpoints")
    before = {path.name: path.read_bytes() for path in (tmp_path / "endpoints").iterdir() if path.is_file()}
    (tmp_path / "endpoints" / "manifest.json").unlink()
    (tmp_path / "endpoints" / "train-00002.tar").write_bytes(b"half a tar")
    heard = []
    settings = chosen(small_shards, folder, endpoints=str(tmp_path / "endpoints"))
    make_endpoint_set(settings, folder, lambda done, total: heard.append((done, total)), parallel=False)
    after = {path.name: path.read_bytes() for path in (tmp_path / "endpoints").iterdir() if path.is_file()}
    assert after == before and heard[-1][0] == heard[-1][1] == needed(settings)
    make_endpoint_set(settings, folder, lambda done, total: heard.clear(), parallel=False)
    assert heard  # nothing was left to do


def test_the_set_passes_as_what_it_is(folder):
    """Every byte is checked; its residuals are left, and the reason is said."""
    report = verify(folder / "endpoints")
    assert report.findings == [] and report.samples > 0
    assert any("units of their teacher's model" in note for note in report.notes)


def test_the_cost_model_is_said(small_shards, folder):
    d = chosen(small_shards, folder, solver="heun", solver_steps=18, reuse=7, control=False).distill
    assert teacher_share(d) == pytest.approx(5 / 9)  # K = 35, K / R = 5, beside 4
    assert teacher_share(chosen(small_shards, folder, solver="euler", solver_steps=8, reuse=1).distill) == 0.5
    line = cost_line(small.settings(small_shards, folder, distill={"control": False}).distill, 24, 2**20)
    assert "K=5 teacher calls, R=2 uses" in line and "38% of the work" in line and "24 at a time (24.0 MiB)" in line
    assert "distill.reuse=12 or more would make it 10%" in line  # 5 / 12 beside 4
    assert "read from" in cost_line(chosen(small_shards, folder).distill, 24, 2**20)


def test_a_distillation_says_what_it_will_do(small_shards, folder):
    settings = chosen(small_shards, folder)
    weights, cost = announcement(settings, rollout_of(settings, folder), (2, 16, 16))
    assert "the residual weighs" in weights and "read from" in cost
    idle = chosen(small_shards, folder, source="inline")
    assert "distill.endpoints is not read" in list(announcement(idle, rollout_of(idle, folder), (2, 16, 16)))[1]
    other = chosen(small_shards, folder, solver_steps=7)
    with pytest.raises(UserError, match="steps 3, this run wants 7"):
        list(announcement(other, rollout_of(other, folder), (2, 16, 16)))
