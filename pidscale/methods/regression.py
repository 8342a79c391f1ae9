"""A network that was trained to predict the solution, without a generative model. Knows no files and no ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pidscale.generator.generator import Generator
from pidscale.generator.regression import Regression
from pidscale.methods.base import REGRESSION, Question, check_given
from pidscale.pde.base import Samples


@dataclass(frozen=True)
class Predict:
    """Predict the solution by one call of a regression."""

    source: ClassVar[str] = "Li et al., Fourier neural operator, 2021; a UNet in the same way"
    takes: ClassVar[frozenset[str]] = frozenset({REGRESSION})
    answers: ClassVar[frozenset[str]] = frozenset({"forward"})

    def run(self, generator: Generator, question: Question) -> Samples:
        """Predict each solution. An unknown parameter raises a UserError."""
        assert isinstance(generator, Regression) and question.known is not None
        check_given(self, question)
        values = question.known.values_NCYX.nan_to_num()
        return Samples(generator.predict(values.float(), question.params_NP), question.params_NP)
