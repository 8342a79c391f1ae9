"""Teachers of every kind of noise, UNet and FNO, and students of them, from shards to samples."""

from __future__ import annotations

import itertools

import pytest
import torch

from pidscale.config import NOISES
from pidscale.diffusion.noise import KINDS
from pidscale.generator.load import load_student, load_teacher
from pidscale.parallel.mesh import Mesh
from tests import small
from tests.distill.test_loop import live
from tests.ranks import spawn

NETWORKS = {"edm": "fno", "vp": "unet", "subvp": "fno", "flow": "unet"}  # a flow predicts another thing than the rest
OBJECTIVES = ("piddm", "pid")


def _train(rank, world, shards, folder):
    found = {}
    for kind in NOISES:
        own = {"teacher": {"steps": 4, "noise": kind, "checkpoint_every": 100}}
        settings = small.settings(shards, folder, NETWORKS[kind], **own)
        found[kind] = live("teacher", settings, folder / kind, Mesh(rank, world))["ended"]
        for objective in OBJECTIVES:
            distill = {"teacher": str(folder / kind / "teacher"), "objective": {"name": objective}}
            settings = small.settings(
                shards,
                folder,
                NETWORKS[kind],
                **own,
                distill=distill | {"control": False, "steps": 3, "checkpoint_every": 100},
            )
            found[kind, objective] = live("distill", settings, folder / f"{kind}-{objective}", Mesh(rank, world))[
                "ended"
            ]
    return found


@pytest.fixture(scope="module")
def trained(small_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    return folder, spawn(_train, 1, small_shards, folder, timeout=300)[0]


def test_every_kind_trains_and_distils(trained):
    folder, found = trained
    for kind, objective in itertools.product(NOISES, OBJECTIVES):
        assert isinstance(found[kind], dict) and set(found[kind, objective]) == {"student"}
        student, teacher = (
            load_student(folder / f"{kind}-{objective}" / "student"),
            load_teacher(folder / kind / "teacher"),
        )
        assert type(student.noise) is KINDS[kind] and student.noise == teacher.noise
        assert student.card.architecture == teacher.card.architecture
        assert ("prediction" in student.card.architecture) == (kind == "flow")
        for one in (student.sample(2), teacher.sample(2, steps=3)):
            assert all(torch.isfinite(field).all() for field in one.values())


def test_a_teacher_of_a_kind_is_loaded_as_what_it_is(trained):
    """Each network is asked with its own preconditioning: D at a low level is near its input, whatever the kind."""
    folder, _ = trained
    for kind in NOISES:
        teacher = load_teacher(folder / kind / "teacher")
        x = 0.5 * torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(0))
        clean = teacher.conditioned_on(torch.zeros(2, 0))(x, torch.full((2,), 1e-3))
        assert float((clean - x).abs().max()) < 0.05, kind
        assert teacher.noise.describe()["kind"] == kind == teacher.card.noise.kind
