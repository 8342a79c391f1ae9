"""Sets of one sample, or of a few: they convert, open for training and are looked at, and no message holds a nan."""

import math

import numpy as np
import pytest
import torch

from pidscale.convert.quality import judge
from pidscale.convert.summary import told
from pidscale.dataset.problem import open_problem
from pidscale.diffusion.noise import schedule_for, strongest_mode
from pidscale.inspect.verify import verify
from pidscale.make.make import make_shard_set
from pidscale.parallel.mesh import Mesh
from pidscale.pde import build_pde
from pidscale.records.read import ShardSet
from pidscale.teacher.training import noise_for
from tests import small
from tests.convert import foreign
from tests.convert.foreign import asked_from, converted, has, npz, refused


def test_the_strongest_mode_of_few_fields():
    fields = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 2, 4, 4)))
    assert strongest_mode(fields[:1]) == 0.0 == strongest_mode(fields[:1].repeat(4, 1, 1, 1))
    assert strongest_mode(fields[:2]) == pytest.approx(float((fields[0] - fields[1]).norm()) / 2)
    middle = torch.stack([torch.zeros(2, 4, 4).double(), fields[0], -fields[0]])  # the first is the mean of all
    assert strongest_mode(middle) == pytest.approx(float(fields[0].norm()) * math.sqrt(2 / 3))
    assert schedule_for("edm", 0.0, 32).sigma_max == 80.0


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_file_of_few_samples_becomes_a_set_to_train_on(tmp_path, count):
    fields = foreign.truths(foreign.DARCY, foreign.DARCY.grid(small.POINTS), count)
    path, out = npz(tmp_path, a=fields[:, 0], u=fields[:, 1]), tmp_path / "darcy"
    if count == 1:
        has(refused(path), "has 1 different sample,", "set test=0 to train on all")
    done = converted(path, out, test=0)
    worth = judge(out, done.manifest, done.pde, done.grid)
    report = "\n".join(told(asked_from([f"source={path}", f"out={out}"]), done, worth))
    assert "nan" not in report.replace(str(tmp_path), "") and "warning" not in report
    _trains(out, tmp_path)


@pytest.mark.parametrize("equation", ["darcy", "heat"])
def test_a_made_set_of_one_sample_is_one_to_train_on(tmp_path, equation):
    pde = build_pde(equation, small.HEAT["params"] if equation == "heat" else {})
    out = tmp_path / equation
    make_shard_set(pde, out, {"train": 1, "test": 1}, grid=pde.grid(small.POINTS), seed=3, parallel=False)
    _trains(out, tmp_path)


def _trains(root, folder):
    """The schedule of a teacher is finite, the set verifies, and its units give the sample back."""
    settings = small.settings(root, folder)
    problem = open_problem(settings.pde, settings.data)
    shards = ShardSet(root, "train")
    noise = noise_for(settings, problem, shards, Mesh())
    assert math.isfinite(noise.sigma_max) and noise.sigma_max >= 80
    fields = torch.from_numpy(shards.read([0]))
    x = problem.normaliser.encode(fields)
    torch.testing.assert_close(problem.normaliser.decode(x), fields, rtol=1e-5, atol=1e-5)
    report = verify(root)
    assert not report.findings and not [note for note in report.notes if "nan" in note]
