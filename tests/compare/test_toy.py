"""A method that is defined in this file alone runs through the comparison like any other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from pidscale.compare.contender import Contender
from pidscale.compare.questions import question, reference
from pidscale.compare.run import Comparison, open_generators
from pidscale.config import UserError
from pidscale.dataset.problem import open_problem
from pidscale.generator.generator import Generator
from pidscale.methods.base import Question, ask
from pidscale.methods.controls import Smooth
from pidscale.methods.one_call import OneCall
from pidscale.pde.base import Samples
from tests.generator.made import write_generator
from tests.small import settings


@dataclass(frozen=True)
class Average:
    """The mean of the fields of a noise and of its negative.

    Attributes:
        sign: Sign of the second noise.
        source: What it is.
        takes: Kinds of generators that it can ask.
        answers: Kinds of questions that it answers.
    """

    sign: float = -1.0
    source: ClassVar[str] = "antithetic noise"
    takes: ClassVar[frozenset[str]] = frozenset({"student"})
    answers: ClassVar[frozenset[str]] = frozenset({"sample"})

    def run(self, generator: Generator, asked: Question) -> Samples:
        """Generate both fields and return their mean."""
        both = [generator.generate_physical(factor * asked.eps_NCYX, asked.params_NP) for factor in (1.0, self.sign)]
        return Samples(torch.stack(both).mean(dim=0), asked.params_NP)


@pytest.fixture(scope="module")
def comparison(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    root = tmp_path_factory.mktemp("toy")
    s = settings(small_shards, root, evaluate={"samples": 6, "batch": 4, "teacher_steps": [2]})
    problem = open_problem(s.pde, s.data)
    write_generator(root / "run" / "teacher", "teacher", normaliser=problem.normaliser)
    write_generator(root / "run" / "student", normaliser=problem.normaliser, teacher=root / "run" / "teacher")
    generators = open_generators(s, problem, torch.device("cpu"))
    against = reference(s, problem)
    return Comparison(question(s, generators["teacher"], against.truth), generators, against, 4)


def test_a_new_method_has_a_row_like_any_other(comparison: Comparison) -> None:
    own = comparison.measure(Contender("average", "student", Average()))
    plain = comparison.measure(Contender("student", "student", OneCall()))
    assert own.keys() == plain.keys() and own["trained"] == "student"
    assert own["asked"] == {"method": "Average", "sign": -1.0} and plain["asked"] == {"method": "one_call"}
    assert own["nfe"] == 2 * plain["nfe"] == 2 and own["gradients"] == own["residuals"] == 0
    assert own["variance_ratio"]["pressure"] < plain["variance_ratio"]["pressure"]
    same = comparison.measure(Contender("the same", "student", Average(1.0)))
    assert same["residual_l2"] == pytest.approx(plain["residual_l2"], rel=1e-5)


def test_a_finish_does_not_ask_the_generator_again(comparison: Comparison) -> None:
    smooth = comparison.measure(Contender("average+smooth3", "student", Average(), Smooth(3)))
    rough = comparison.measure(Contender("average", "student", Average()))
    assert smooth["nfe"] == rough["nfe"] == 2 and smooth["residual_l2"] < rough["residual_l2"]
    assert smooth["asked"]["finish"] == "smooth" and comparison.samples.keys() >= {"average", "average+smooth3"}


def test_a_new_method_refuses_other_generators(comparison: Comparison) -> None:
    with pytest.raises(UserError, match="Average: takes student, not a generator of kind teacher"):
        ask(Average(), comparison.generators["teacher"], comparison.question, 4)
