"""Going on from a finished teacher: its weights, its units and its levels; what does not fit is refused before anything."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from pidscale.config import UserError
from pidscale.dataset.problem import open_problem
from pidscale.generator import artifact
from pidscale.make.make import make_shard_set
from pidscale.parallel.mesh import Mesh
from pidscale.pde import build_pde
from pidscale.run.reporting import Reporter
from pidscale.teacher import loop
from pidscale.teacher.start import open_start
from tests import small
from tests.distill.test_rollout import write_teacher
from tests.ranks import spawn


def _goes_on(rank, world, shards, other, folder):
    """From one teacher: a step of no length, then some of the usual length on another set."""
    mesh, said = Mesh(rank, world), []
    for name, data, values in (
        ("still", shards, {"steps": 1, "lr": 1e-30}),
        ("on", other, {"steps": 4}),
    ):
        settings = small.settings(data, folder, teacher={"start": str(folder / "first"), **values})
        loop.train(settings, folder / name, mesh, Reporter(say=said.append))
    return said


def test_a_teacher_goes_on_from_another_in_its_units(small_shards, tmp_path):
    other = tmp_path / "darcy16b"
    pde = build_pde("darcy")
    make_shard_set(
        pde, other, {"train": 48, "test": 16}, grid=pde.grid(16), seed=99, samples_per_shard=16, parallel=False
    )
    first = write_teacher(tmp_path / "first", small.settings(small_shards, tmp_path))
    (said,) = spawn(_goes_on, 1, small_shards, other, tmp_path, timeout=550)
    assert len(said) == 2 and all(f"teacher: goes on from {first} (" in line for line in said)
    weights = {
        name: load_file(tmp_path / name / "weights.safetensors") for name in ("first", "still/teacher", "on/teacher")
    }
    began, still, on = weights.values()
    assert all(torch.equal(began[n], still[n]) for n in began)
    assert any(not torch.equal(began[n], on[n]) for n in began)
    cards = {name: json.loads((tmp_path / name / "card.json").read_text()) for name in weights}
    card, start = cards["on/teacher"], cards["first"]
    assert card["provenance"]["start"]["sha256"] == start["weights"]["sha256"]
    assert card["normaliser"] == start["normaliser"] and card["noise"]["sigma_max"] == start["noise"]["sigma_max"]
    own = open_problem(small.settings(other, tmp_path).pde, small.settings(other, tmp_path).data)
    assert list(own.normaliser.mean) != card["normaliser"]["mean"]  # another set, whose units would be others
    assert card["provenance"]["data_hash"] == own.manifest.data_hash
    assert card["metrics"]["train_seconds"] > start["metrics"]["train_seconds"]
    assert str(tmp_path) not in json.dumps(card)


CHANGES = [
    ("fno", {}, {}, "model.kind was 'unet' there and is 'fno' in this run"),
    ("unet", {"width": 16}, {}, r"the network \(model\) was {'width': 8} there and is {'width': 16} in this run"),
    ("unet", {}, {"noise": "vp"}, "teacher.noise was 'edm' there and is 'vp' in this run"),
]


@pytest.mark.parametrize("network, change, teacher, words", CHANGES)
def test_what_does_not_fit_is_refused(small_shards, tmp_path, network, change, teacher, words):
    first = write_teacher(tmp_path / "first", small.settings(small_shards, tmp_path))
    settings = small.settings(small_shards, tmp_path, network, teacher={"start": str(first), **teacher})
    settings = replace(settings, model=replace(settings.model, change=settings.model.change | change))
    with pytest.raises(UserError, match=rf"teacher\.start={first}: {words}") as error:
        open_start(settings, open_problem(settings.pde, settings.data))
    assert "\n" not in str(error.value)


def test_another_equation_a_student_and_other_units_are_refused(small_shards, heat_shards, tmp_path):
    first = write_teacher(tmp_path / "first", small.settings(small_shards, tmp_path))
    student = write_teacher(tmp_path / "student", small.settings(small_shards, tmp_path), kind="student")

    def refused(shards, start, change=lambda problem: problem):
        settings = small.settings(shards, tmp_path, teacher={"start": str(start)})
        with pytest.raises(UserError) as error:
            open_start(settings, change(open_problem(settings.pde, settings.data)))
        return str(error.value)

    assert "pde.name was 'darcy' there and is 'heat' in this run" in refused(heat_shards, first)
    assert "holds a student, expected a teacher" in refused(small_shards, student)
    assert "no such folder" in refused(small_shards, tmp_path / "nowhere")

    def far(problem):
        units = problem.normaliser
        return replace(problem, normaliser=replace(units, std=(units.std[0], 5 * units.std[1])))

    text = refused(small_shards, first, far)
    assert "pressure has mean" in text and "too far for its weights" in text


def test_without_a_start_nothing_is_read_and_it_decides_the_result(small_shards, tmp_path):
    settings = small.settings(small_shards, tmp_path)
    assert open_start(settings, open_problem(settings.pde, settings.data)) is None
    first = write_teacher(tmp_path / "first", settings)
    on = small.settings(small_shards, tmp_path, teacher={"start": str(first)})
    start = open_start(on, open_problem(on.pde, on.data))
    assert start.provenance["sha256"] == artifact.read_card(first).weights_sha256
