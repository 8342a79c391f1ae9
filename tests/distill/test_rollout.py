"""Endpoints depend on their counters alone: not on how many are made at once, nor in which company."""

from __future__ import annotations

import pytest
import torch

from pidscale.config import UserError
from pidscale.dataset.problem import open_problem
from pidscale.diffusion.noise import EdmNoise
from pidscale.diffusion.solvers import integrate
from pidscale.distill.endpoints.endpoint import checksum
from pidscale.distill.endpoints.rollout import Rollout, open_teacher
from pidscale.engine.consolidate import publish
from pidscale.generator.card import Card, Metrics, Provenance
from pidscale.generator.load import load_teacher
from pidscale.models import build_denoiser
from pidscale.teacher.training import describe
from tests import small


def write_teacher(folder, settings, seed=0, kind="teacher"):
    """An untrained teacher with every weight moved, so that its endpoints are no mere noise."""
    problem = open_problem(settings.pde, settings.data)
    torch.manual_seed(seed)
    model = build_denoiser(describe(settings, problem))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    card = Card.of(
        kind,
        problem.pde,
        grid=problem.grid,
        normaliser=problem.normaliser,
        architecture=describe(settings, problem),
        noise=EdmNoise(),
        provenance=Provenance(seed=seed),
        metrics=Metrics(1.0),
    )
    publish(folder, dict(model.state_dict()), card)
    return folder


@pytest.fixture(scope="module")
def teacher(small_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rollout")
    return load_teacher(write_teacher(folder / "teacher", small.settings(small_shards, folder)))


def test_the_same_bits_in_any_company(teacher):
    rollout = Rollout(teacher, "heun", 3, 2, seed=0)
    counters = torch.tensor([0, 1, 2, 3, 2**41, 2**41 + 1])
    whole = rollout.endpoints(counters)
    assert torch.equal(whole.counters, counters) and torch.isfinite(whole.fields_BCYX).all()
    for first in (0, 2, 4):
        part = rollout.endpoints(counters[first : first + 2])
        assert torch.equal(part.fields_BCYX, whole.fields_BCYX[first : first + 2])
        assert torch.equal(part.checksums, whole.checksums[first : first + 2])
    mixed = rollout.endpoints(counters[[4, 5, 0, 1]])
    assert torch.equal(mixed.fields_BCYX, whole.fields_BCYX[[4, 5, 0, 1]])
    assert len({tuple(field.flatten()[:4].tolist()) for field in whole.fields_BCYX}) == len(counters)


def test_an_endpoint_is_what_the_solver_makes_of_its_noise(teacher):
    for solver in ("heun", "euler"):
        rollout = Rollout(teacher, solver, 4, 2, seed=3)
        found = rollout.endpoints(torch.arange(2))
        with torch.no_grad():
            expected = integrate(teacher.denoiser, rollout.eps(torch.arange(2)), teacher.noise.levels(4), solver)
        assert torch.equal(found.fields_BCYX, expected)
    other = Rollout(teacher, "heun", 4, 2, seed=4).endpoints(torch.arange(2))
    assert not torch.equal(other.fields_BCYX, Rollout(teacher, "heun", 4, 2, 3).endpoints(torch.arange(2)).fields_BCYX)
    scale = Rollout(teacher, "heun", 4, 2, 3, "distill/scale")
    assert not torch.equal(scale.eps(torch.arange(2)), rollout.eps(torch.arange(2)))


def test_calls_of_another_size_agree_to_rounding(teacher):
    counters = torch.arange(8)
    fields = [Rollout(teacher, "dpm2m", 6, chunk, seed=0).endpoints(counters).fields_BCYX for chunk in (1, 2, 4, 8)]
    for other in fields[1:]:
        assert float((other - fields[0]).norm() / fields[0].norm()) < 1e-5


def test_checksums_tell_noise_apart(teacher):
    eps = Rollout(teacher, "heun", 3, 2, seed=0).eps(torch.arange(64))
    assert len(set(checksum(eps).tolist())) == 64
    assert torch.equal(checksum(eps), checksum(eps.clone(memory_format=torch.channels_last)))
    changed = eps.clone()
    changed[5, 1, 2, 3] = torch.nextafter(changed[5, 1, 2, 3], torch.tensor(9.0))
    assert (checksum(changed) != checksum(eps)).nonzero().flatten().tolist() == [5]


def test_a_part_of_a_chunk_is_the_same_part_of_the_whole(teacher):
    rollout = Rollout(teacher, "heun", 3, 4, seed=0)
    whole = rollout.endpoints(torch.arange(12))
    for first, last in ((0, 3), (3, 9), (5, 7), (11, 12)):
        part = rollout.endpoints(torch.arange(first, last))
        assert part.counters.tolist() == list(range(first, last))
        assert torch.equal(part.fields_BCYX, whole.fields_BCYX[first:last])
        assert torch.equal(part.checksums, whole.checksums[first:last])
        assert torch.equal(part.params_BP, whole.params_BP[first:last])


def test_a_teacher_that_does_not_fit_is_refused(small_shards, tmp_path):
    cpu = torch.device("cpu")
    settings = small.settings(small_shards, tmp_path)
    problem = open_problem(settings.pde, settings.data)
    with pytest.raises(UserError, match=r"no teacher there.*distill\.teacher"):
        open_teacher(settings, tmp_path, problem, cpu)
    write_teacher(tmp_path / "student", settings, kind="student")
    named = small.settings(small_shards, tmp_path, distill={"teacher": str(tmp_path / "student")})
    with pytest.raises(UserError, match=r"holds a student.*distill\.teacher"):
        open_teacher(named, tmp_path, problem, cpu)
    write_teacher(tmp_path / "teacher", settings)
    assert open_teacher(settings, tmp_path, problem, cpu).card.kind == "teacher"
    other = small.make_shards(tmp_path / "darcy20", points=20)
    elsewhere = small.settings(other, tmp_path, pde={"points": 20})
    with pytest.raises(UserError, match=r"teacher of grid .*distill\.teacher"):
        open_teacher(elsewhere, tmp_path, open_problem(elsewhere.pde, elsewhere.data), cpu)
    smooth = small.make_shards(tmp_path / "smooth", variant="log_normal")
    elsewhere = small.settings(smooth, tmp_path, pde={"params": {"variant": "log_normal"}})
    with pytest.raises(UserError, match=r"log_normal.*distill\.teacher"):
        open_teacher(elsewhere, tmp_path, open_problem(elsewhere.pde, elsewhere.data), cpu)
