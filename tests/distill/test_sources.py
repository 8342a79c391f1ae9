"""Every source of endpoints gives the same student; every objective trains, stops and goes on to the same bits.

On two ranks, in spawned processes; the source that needs Ray is in tests/test_cluster.py.
"""

from __future__ import annotations

import pytest
import torch

from pidscale.config import UserError
from pidscale.diffusion.solvers import one_step
from pidscale.distill.endpoints.make import make_endpoint_set
from pidscale.distill.objectives import open_objective
from pidscale.generator.load import load_student, load_teacher
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from tests import small
from tests.distill.test_loop import live, weights_of
from tests.distill.test_rollout import write_teacher
from tests.ranks import spawn

STUDENTS = ("student", "student-lambda0")
RESIDUALS = {"l2", "dual", "boundary"}
OBJECTIVES = {
    "pid": ({"objective": {"name": "pid", "levels": 20}}, {"loss", "trajectory"}),
    "dm": ({"objective": {"name": "dm"}, "source": "thread"}, {"loss", "score", "match", "critic"}),
    "consistency": ({"objective": {"name": "consistency", "levels": 6}}, {"loss", "consistency"}),
    "boot": ({"objective": {"name": "boot", "levels": 6}}, {"loss", "bootstrap", "top"}),
    "shortcut": ({"objective": {"name": "shortcut", "solver_steps": 4}}, {"loss", "halving"}),
    "progressive": ({"objective": {"name": "progressive", "solver_steps": 8}}, {"loss", "halving"}),
    "scratch": ({"start": "scratch"}, {"loss", "match"}),
    "several": ({"objective": {"name": "dm", "call_levels": [1.0, 0.3]}}, {"loss", "score", "match", "critic"}),
    "dm-alone": ({"objective": {"name": "dm", "match": 0.0}, "control": False}, {"loss", "score", "critic"}),
}


def _own(folder):
    return {"teacher": str(folder / "teacher"), "checkpoint_every": 100, "endpoints": str(folder / "endpoints")}


@pytest.fixture(scope="module")
def taught(small_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    write_teacher(folder / "teacher", small.settings(small_shards, folder))
    return folder


def _sources(rank, world, shards, folder):
    mesh, found = Mesh(rank, world), {}
    for source in ("inline", "thread", "shards"):
        settings = small.settings(shards, folder, distill=_own(folder) | {"source": source})
        found[source] = live("distill", settings, folder / source, mesh)
    broken = small.settings(shards, folder, distill=_own(folder) | {"source": "thread"})
    found["stopped"] = live("distill", broken, folder / "broken", mesh, stop_at=6)
    found["again"] = live("distill", settings, folder / "broken", mesh)  # from shards
    return found


@pytest.mark.slow
def test_every_source_gives_the_same_student(small_shards, taught):
    settings = small.settings(small_shards, taught, distill=_own(taught))
    make_endpoint_set(settings, taught, parallel=False)
    for found in spawn(_sources, 2, small_shards, taught, timeout=300):
        curves = [found[name]["ended"] for name in ("inline", "thread", "shards", "again")]
        assert all(curve == curves[0] for curve in curves) and "stopped at step 6" in found["stopped"]["ended"]
    for name in STUDENTS:
        first = weights_of(taught / "inline" / name)
        for run in ("thread", "shards", "broken"):
            other = weights_of(taught / run / name)
            assert all(torch.equal(first[n], other[n]) for n in first), (run, name)


def _objectives(rank, world, shards, folder):
    mesh, found = Mesh(rank, world), {}
    for name, (change, _) in OBJECTIVES.items():
        own = _own(folder) | change | {"physics_from": 0.25, "physics_ramp": 0.5}
        settings = small.settings(shards, folder, distill=own)
        found[name] = live("distill", settings, folder / name, mesh)
        live("distill", settings, folder / f"{name}-broken", mesh, stop_at=6)
        found[f"{name} again"] = live("distill", settings, folder / f"{name}-broken", mesh)
    return found


@pytest.mark.slow
def test_every_objective_stops_and_goes_on_to_the_same_bits(small_shards, taught):
    for found in spawn(_objectives, 2, small_shards, taught, timeout=420):
        for name, (change, parts) in OBJECTIVES.items():
            assert set(found[name]["ended"]["student"]) == parts | RESIDUALS
            assert found[f"{name} again"]["ended"] == found[name]["ended"]
            if change.get("control", True):
                assert set(found[name]["ended"]["student-lambda0"]) == parts
    teacher = weights_of(taught / "teacher")
    for name, (change, _) in OBJECTIVES.items():
        for which in STUDENTS if change.get("control", True) else STUDENTS[:1]:
            whole, again = (weights_of(taught / run / which) for run in (name, f"{name}-broken"))
            assert all(torch.equal(whole[n], again[n]) for n in whole), (name, which)
            assert any(not torch.equal(whole[n], teacher[n]) for n in whole)


def test_the_network_of_a_student_of_the_flow_is_given_the_lowest_level(small_shards, taught):
    """In its own process: as whoever was handed the student does it."""
    student = load_student(taught / "pid" / "student")
    assert student.card.network_level == 0.002 and student.card.provenance.further["endpoints"] == {}
    assert student.card.provenance.objective == "pid" and torch.isfinite(student.sample(2)["pressure"]).all()
    eps = student.eps(range(2), 0)
    at_top = one_step(student.conditioned_on(torch.zeros(2, 0)), eps, student.noise.sigma_max)
    assert not torch.equal(student.generate(eps, torch.zeros(2, 0)), at_top)  # its network is given the lowest level
    assert load_student(taught / "dm" / "student").card.network_level is None


def test_a_student_of_several_calls_makes_them_itself(small_shards, taught):
    student = load_student(taught / "several" / "student")
    assert student.card.call_levels == (1.0, 0.3) and student.teacher is None
    fields = {calls: student.sample(2, nfe=calls)["pressure"] for calls in (1, 2, 3)}
    assert not torch.equal(fields[1], fields[2]) and not torch.equal(fields[2], fields[3])
    with pytest.raises(UserError, match="nfe=4: needs the teacher"):
        student.sample(2, nfe=4)
    settings = small.settings(
        small_shards, taught, distill=_own(taught) | {"objective": {"name": "dm", "call_levels": [1e5]}}
    )
    teacher = load_teacher(taught / "teacher")
    with pytest.raises(UserError, match=r"call_levels=\[100000\.0\]: above the highest level of the teacher, 80"):
        open_objective(settings, teacher, Window(teacher.grid))
