"""A user's own equation that does not work is refused in one line, before anything is written."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pidscale.config import UserError
from pidscale.make.make import make_shard_set
from pidscale.pde.heat import Heat
from pidscale.pde.terms import Term
from pidscale.records.check import check_set

GRID = Heat.from_params({}).grid(8)
SIGNS = torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(4, 1, 1)  # of frames; the first is the input


def own(**parts):
    """Return a user's own equation: heat with some methods replaced."""
    made = type("Own", (Heat,), parts).from_params({"frames": 4})
    return replace(made, name="mine:Own")


def make(pde, root, train=3):
    return make_shard_set(pde, root, {"train": train}, grid=GRID, seed=0, samples_per_shard=2, parallel=False)


def fail(*arguments, **named):
    raise ValueError("two\nlines")


def residual(change):
    def changed(self, window, fields, params=None):
        return {"interior": change(Heat.residual(self, window, fields, params)["interior"])}

    return changed


def sampled(change):
    return lambda self, seed, counter, grid: change(*Heat.sample(self, seed, counter, grid))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"sample": fail}, "sample 0 failed (ValueError: two lines)"),
        ({"integrate": fail}, "sample 0 failed (ValueError: two lines)"),
        ({"sample": sampled(lambda fields, params: (fields[1:], params))}, "shape (3, 8, 8), expected (4, 8, 8)"),
        ({"sample": sampled(lambda fields, params: (fields, {}))}, "KeyError: 'diffusivity'"),
        ({"sample": sampled(lambda fields, params: (fields, params | {"a": np.zeros(2)}))}, "TypeError"),
        ({"residual": fail}, "residual failed (ValueError: two lines)"),
        ({"interval_residual": fail}, "residual failed (ValueError: two lines)"),
        ({"dual_square": fail}, "residual failed (ValueError: two lines)"),
        ({"residual": lambda self, window, fields, params=None: {}}, "KeyError: 'interior'"),
        ({"residual": residual(lambda t: Term(t.values.mean(0, keepdim=True), t.scale))}, "expected (2, 3, 1, 8, 8)"),
        ({"residual": residual(lambda t: Term(t.values[:, 1:], t.scale))}, "shape (2, 2, 1, 8, 8) for 2 samples"),
        ({"residual": residual(lambda t: Term(t.values.detach(), t.scale))}, "carries no gradient"),
        ({"correct": fail}, "correct failed (ValueError: two lines)"),
        (
            {"correct": lambda self, window, fields, params, steps: fields[:, 1:]},
            "shape (2, 3, 8, 8), expected (2, 4, 8, 8)",
        ),
        ({"correct": lambda self, window, fields, params, steps: fields.detach()}, "carry no gradient"),
        ({"correct": lambda self, window, fields, params, steps: 1.1 * fields}, "it changes inputs"),
        ({"correct": lambda self, window, fields, params, steps: fields * SIGNS}, "a step leaves a truth of residual"),
    ],
)
def test_an_equation_that_fails_is_refused_in_one_line_and_leaves_no_files(tmp_path, parts, words):
    with pytest.raises(UserError) as raised:
        make(own(**parts), tmp_path / "set")
    line = str(raised.value)
    assert line.startswith("pde.name='mine:Own': ") and words in line and "\n" not in line
    assert not list(tmp_path.iterdir())


def test_a_sample_that_fails_later_is_named(tmp_path):
    def sample(self, seed, counter, grid):
        return Heat.sample(self, seed, counter, grid) if counter < 2 else fail()

    with pytest.raises(UserError, match=r"pde\.name='mine:Own': its sample 2 failed \(ValueError: two lines\)"):
        make(own(sample=sample), tmp_path / "set")
    assert not (tmp_path / "set" / "manifest.json").exists()


def test_a_set_of_an_equation_that_works_is_made(tmp_path):
    check_set(make(own(), tmp_path / "set"), tmp_path / "set")


def test_an_exception_of_the_librarys_own_equation_is_passed_on(tmp_path):
    with pytest.raises(ValueError, match="two"):
        make(replace(own(sample=fail), name="heat"), tmp_path / "set")
