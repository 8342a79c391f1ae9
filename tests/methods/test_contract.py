"""What holds for every method: its cost is counted, and its samples do not depend on the batch."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from pidscale.config import UserError
from pidscale.diffusion.noise import EdmNoise
from pidscale.generator.generator import Generator
from pidscale.generator.tasks.observations import observe
from pidscale.methods import FINISHES, METHODS, base
from pidscale.methods.base import Question, apply_finish, ask, counting
from pidscale.methods.controls import Shuffled, Smooth, SolveInput
from pidscale.pde.base import Samples
from pidscale.pde.residuals import residual_squares
from tests.methods.gaussians import GRID, PDE, question, student, teacher

FAST: dict[str, dict[str, Any]] = {
    "few_calls": {"calls": 3},
    "refine": {"steps": 4},
    "latent_search": {"steps": 5, "starts": 2},
    "probability_flow": {"steps": 6},
    "eci": {"steps": 6, "mix": 2},
    "direct": {"steps": 6},
}
CALLS: dict[str, tuple[float, float]] = {  # least and most, by the table in methods/README.md
    "one_call": (1, 1),
    "few_calls": (3, 3),
    "refine": (3, 6),
    "latent_search": (3, 11),
    "probability_flow": (11, 11),
    "eci": (12, 12),
}
GRADIENTS = {"refine": (1, 4), "latent_search": (2, 10)}
CASES = [(name, task) for name, kind in METHODS.items() for task in sorted(kind.answers)]


def generator_for(name: str) -> Generator:
    takes = METHODS[name].takes
    if not takes or "student" in takes:
        return student()
    return teacher(None if "teacher:flow" in takes else EdmNoise())


def asked(task: str) -> Question:
    """Return a question of five samples; for a task, with an observation of each."""
    plain = question()
    if task == "sample":
        return plain
    known = student().sample(len(plain), seed=2)
    mask = torch.arange(64).reshape(8, 8) % 5 == 0
    values: dict[str, Any] = {"forward": {"source": known["source"]}, "inverse": {"solution": known["solution"]}}
    observation = observe(student(), task, values.get(task, known), mask if task == "reconstruct" else None)
    return dataclasses.replace(plain, task=task, known=observation)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_samples_do_not_depend_on_the_batch_and_costs_are_counted(name: str, task: str) -> None:
    method = METHODS[name](**FAST.get(name, {}))
    generator = generator_for(name)
    whole = ask(method, generator, asked(task), batch=5)
    assert whole.samples.fields.shape == (5, 2, 8, 8) and whole.samples.fields.isfinite().all()
    least, most = CALLS.get(name, (0, 0))
    assert least <= whole.cost.calls <= most and whole.cost.seconds > 0
    low, high = GRADIENTS.get(name, (0, 0))
    assert low <= whole.cost.gradients <= high
    assert (whole.cost.residuals > 0) == (name in ("refine", "latent_search", "direct", "mean_field"))
    if name != "shuffled":  # needs all truths at once
        parts = ask(method, generator, asked(task), batch=2)
        torch.testing.assert_close(parts.samples.fields, whole.samples.fields, rtol=2e-3, atol=2e-4)
        assert least <= parts.cost.calls <= most


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_a_value_with_a_source_and_a_row_in_the_table(name: str) -> None:
    kind = METHODS[name]
    assert kind() == kind() and hash(kind()) == hash(kind()) and kind.source and kind.answers
    table = (Path(base.__file__).parent / "README.md").read_text()
    (row,) = re.findall(rf"^\| `{name}[`(].*$", table, re.MULTILINE)
    for answer in kind.answers:
        assert answer in row
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind().source = "other"


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if kind.takes])
def test_a_wrong_generator_and_a_wrong_question_are_one_line(name: str) -> None:
    method = METHODS[name]()
    wrong = teacher(EdmNoise()) if "student" in method.takes or "teacher:flow" in method.takes else student()
    for generator, task, words in (
        (wrong, min(method.answers), "not a generator of kind"),
        (generator_for(name), "divination", "does not answer 'divination'"),
    ):
        with pytest.raises(UserError, match=words) as error:
            ask(method, generator, question(task=task), 5)
        assert "\n" not in str(error.value)


def test_counters_do_not_change_results() -> None:
    plain = student()
    eps = plain.eps(range(3), 0)
    params = plain.params(range(3), 0)
    with counting(plain) as (counted, tally):
        assert torch.equal(counted.generate_physical(eps, params), plain.generate_physical(eps, params))
        assert counted.pde.name == "poisson" and isinstance(counted.pde, type(plain.pde))
        fields = counted.differentiable(eps.requires_grad_(), params)
        assert tally.calls == 6 and tally.gradients == 0
        found = residual_squares(counted.pde, GRID, fields, params)
        assert torch.equal(found["l2"], residual_squares(PDE, GRID, fields, params)["l2"]) and tally.residuals == 3
        found["l2"].sum().backward()
        assert tally.gradients == 3


def test_finishes_call_no_network() -> None:
    outcome = ask(METHODS["one_call"](), student(), question(), 5)
    for kind in FINISHES.values():
        done = apply_finish(kind(), student(), outcome)
        assert done.cost.calls == 1 and done.cost.seconds > outcome.cost.seconds
        assert done.samples.fields.shape == outcome.samples.fields.shape
    smooth = apply_finish(Smooth(3), student(), outcome).samples
    solved = apply_finish(SolveInput(), student(), outcome).samples
    for samples in (smooth, solved):
        assert torch.equal(samples.fields[:, 0], outcome.samples.fields[:, 0])  # inputs do not change
    residuals = [residual_squares(PDE, GRID, one.fields, one.params)["l2"] for one in (outcome.samples, smooth, solved)]
    assert (residuals[1] < residuals[0]).all() and residuals[2].max() < 1e-6


def test_controls_are_made_from_truths() -> None:
    plain = question()
    truth, trivial, shuffled = (
        ask(METHODS[name](), student(), plain, 5).samples for name in ("truth", "trivial", "shuffled")
    )
    assert plain.truth is not None and torch.equal(truth.fields, plain.truth.fields)
    assert torch.equal(trivial.fields[:, 0], truth.fields[:, 0]) and trivial.fields[:, 1].abs().max() == 0
    assert torch.equal(shuffled.fields[:, 1], truth.fields[:, 1].roll(1, dims=0))
    with pytest.raises(UserError, match="held-out truths"):
        ask(Shuffled(), student(), dataclasses.replace(plain, truth=None), 5)
    assert isinstance(truth, Samples)
