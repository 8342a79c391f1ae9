"""Sets of one sample or a few can be converted, verified and trained on, and no message contains a nan."""

import math

import numpy as np
import pytest
import torch

from pidscale.convert.quality import measure_quality
from pidscale.convert.request import parse_request
from pidscale.convert.summary import summary_lines
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
from tests.convert.foreign import converted, has, npz, refused


def test_strongest_mode_of_few_fields():
    fields = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 2, 4, 4)))
    assert strongest_mode(fields[:1]) == 0.0 == strongest_mode(fields[:1].repeat(4, 1, 1, 1))
    assert strongest_mode(fields[:2]) == pytest.approx(float((fields[0] - fields[1]).norm()) / 2)
    middle = torch.stack([torch.zeros(2, 4, 4).double(), fields[0], -fields[0]])  # the first field is the mean of all
    assert strongest_mode(middle) == pytest.approx(float(fields[0].norm()) * math.sqrt(2 / 3))
    assert schedule_for("edm", 0.0, 32).sigma_max == 80.0


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_converted_set_of_few_samples_can_train(tmp_path, count):
    fields = foreign.truths(foreign.DARCY, foreign.DARCY.grid(small.POINTS), count)
    path = npz(tmp_path, a=fields[:, 0], u=fields[:, 1])
    out = tmp_path / "darcy"
    if count == 1:
        has(refused(path), "has 1 distinct sample,", "set test=0 to train on all")
    done = converted(path, out, test=0)
    quality = measure_quality(out, done.manifest, done.pde, done.grid)
    request = parse_request([f"source={path}", f"out={out}"])
    report = "\n".join(summary_lines(request, done, quality))
    assert "nan" not in report.replace(str(tmp_path), "") and "warning" not in report
    _check_trains(out, tmp_path)


@pytest.mark.parametrize("equation", ["darcy", "heat"])
def test_a_made_set_of_one_sample_can_train(tmp_path, equation):
    pde = build_pde(equation, small.HEAT["params"] if equation == "heat" else {})
    out = tmp_path / equation
    make_shard_set(pde, out, {"train": 1, "test": 1}, grid=pde.grid(small.POINTS), seed=3, parallel=False)
    _check_trains(out, tmp_path)


def _check_trains(root, folder):
    """Assert that a teacher's schedule is finite, the set verifies, and the normaliser inverts."""
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
