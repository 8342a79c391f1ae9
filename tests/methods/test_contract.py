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
from tests.methods.gaussians import GRID, PDE, question, regression, student, teacher

FAST: dict[str, dict[str, Any]] = {
    "few_calls": {"calls": 3},
    "refine": {"steps": 4},
    "latent_search": {"steps": 5, "starts": 2, "field_steps": 3},
    "probability_flow": {"steps": 6},
    "eci": {"steps": 6, "mix": 2},
    "pcfm": {"steps": 6, "inner": 8, "final": 2},
    "dps": {"steps": 6},
    "diffusion_pde": {"steps": 6},
    "d_flow": {"steps": 4, "iterations": 5},
    "cocogen": {"steps": 6, "after": 3},
    "direct": {"steps": 6},
}
TABLE = (Path(base.__file__).parent / "README.md").read_text()
CASES = [(name, task) for name, kind in METHODS.items() for task in sorted(kind.answers)]


def row(name: str) -> dict[str, str]:
    """Return the row of a method in methods/README.md, cells by column."""
    (found,) = re.findall(rf"^\| `{name}[`(].*$", TABLE, re.MULTILINE)
    (head,) = re.findall(r"^\| method .*$", TABLE, re.MULTILINE)
    columns, cells = ([cell.strip() for cell in line.strip("| ").split("|")] for line in (head, found))
    return dict(zip(columns, cells, strict=True))


def bounds(name: str, column: str, method: Any) -> tuple[float, float]:
    """Return the least and the most of a cost by the table, for the settings of a method.

    Letters stand for settings as the first column says (`refine(steps=N)`), `N S` is a product, `N (heun)` holds where a
    setting is `heun`. `at most N` is from 1 to N.
    """
    letters = {letter: getattr(method, key) for key, letter in re.findall(r"(\w+)=(\w)\b", row(name)["method"])}
    asked = {value for value in vars(method).values() if isinstance(value, str)}
    cell = row(name)[column]
    cases = re.findall(r"([^,()]+) \(([^()]+)\)", cell) or [(cell, "")]
    (formula,) = [one for one, names in cases if not names or asked & set(names.split(", "))]
    product = re.sub(r"(?<=\w) (?=\w)", " * ", formula.strip(", ").removeprefix("at most "))
    most = eval(product, {"__builtins__": {}}, letters)
    return (1 if "at most" in formula else most), most


def generator_for(name: str) -> Generator:
    takes = METHODS[name].takes
    if "regression" in takes:
        return regression()
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
    outcomes = [whole]
    if name != "shuffled":  # needs all truths at once
        parts = ask(method, generator, asked(task), batch=2)
        torch.testing.assert_close(parts.samples.fields, whole.samples.fields, rtol=2e-3, atol=2e-4)
        outcomes.append(parts)
    for outcome in outcomes:
        assert outcome.cost.seconds > 0
        for column, count in (("calls of a sample", "calls"), ("gradients", "gradients"), ("residuals", "residuals")):
            least, most = bounds(name, column, method)
            assert least <= getattr(outcome.cost, count) <= most, column


def test_bounds_are_read_from_the_table() -> None:
    for name, method, column, wanted in (
        ("few_calls", METHODS["few_calls"](3), "calls of a sample", (3, 3)),
        ("refine", METHODS["refine"](4), "calls of a sample", (1, 6)),
        ("latent_search", METHODS["latent_search"](5, 2), "calls of a sample", (1, 11)),
        ("latent_search", METHODS["latent_search"](5, 2), "gradients", (1, 10)),
        ("probability_flow", METHODS["probability_flow"](6), "calls of a sample", (11, 11)),
        ("probability_flow", METHODS["probability_flow"](6, "dpm2m"), "calls of a sample", (6, 6)),
        ("eci", METHODS["eci"](6, 2), "calls of a sample", (12, 12)),
        ("truth", METHODS["truth"](), "residuals", (0, 0)),
    ):
        assert bounds(name, column, method) == wanted, (name, column)


@pytest.mark.parametrize("solver", ["heun", "euler", "dpm2m"])
def test_calls_of_each_solver_are_those_of_the_table(solver: str) -> None:
    method = METHODS["probability_flow"](6, solver)
    calls = ask(method, teacher(EdmNoise()), asked("sample"), batch=5).cost.calls
    assert bounds("probability_flow", "calls of a sample", method) == (calls, calls)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_a_value_with_a_source_and_a_row_in_the_table(name: str) -> None:
    kind = METHODS[name]
    assert kind() == kind() and hash(kind()) == hash(kind()) and kind.source and kind.answers
    assert set(row(name)["answers"].split(", ")) == kind.answers
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind().source = "other"


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if kind.takes])
def test_a_wrong_generator_and_a_wrong_question_are_one_line(name: str) -> None:
    method = METHODS[name]()
    others = [one for one in (student(), teacher(EdmNoise())) if not method.takes & base.kinds_of(one)]
    for generator, task, words in (
        *((other, min(method.answers), "not a generator of kind") for other in others),
        (generator_for(name), "divination", "does not answer 'divination'"),
    ):
        with pytest.raises(UserError, match=words) as error:
            ask(method, generator, question(task=task), 5)
        assert "\n" not in str(error.value)


def test_further_noise_needs_consecutive_counters() -> None:
    plain = question()
    parts = [part.noise(student(), "again") for part in plain.parts(2)]
    assert torch.equal(torch.cat(parts), plain.noise(student(), "again"))
    with pytest.raises(ValueError, match="expected consecutive numbers"):
        dataclasses.replace(plain, counters=plain.counters.flip(0)).noise(student(), "again")


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
