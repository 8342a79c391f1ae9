"""The training field that agrees best with what is known: what memory alone is worth. Knows no files and no ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pidscale.config import UserError
from pidscale.generator.generator import Generator
from pidscale.methods.base import Question
from pidscale.methods.search import TASKS
from pidscale.pde.base import Samples


@dataclass(frozen=True)
class Nearest:
    """Answer with the training field of the least squared distance at the known values, in units of the model.

    Parameters that are known do not count; the answer's own are those of the field.
    """

    source: ClassVar[str] = "nearest neighbour"
    takes: ClassVar[frozenset[str]] = frozenset()
    answers: ClassVar[frozenset[str]] = TASKS

    def run(self, generator: Generator, question: Question) -> Samples:
        """Return the nearest field for each observation. A question without training fields raises a UserError."""
        assert question.known is not None
        if question.training is None:
            raise UserError("Nearest: needs training fields, which the question does not have")
        encode = generator.normaliser.encode
        stored = encode(question.training.fields).flatten(1).double()
        values = encode(question.known.values_NCYX.cpu().float()).flatten(1).double()
        known = question.known.known_NCYX.cpu().flatten(1).double()
        values = values.nan_to_num() * known
        # |M (x - x')|^2 without the part that is the same for all fields
        distance = known @ stored.square().T - 2 * values @ stored.T
        best = distance.argmin(dim=1)
        return Samples(question.training.fields[best], question.training.params[best])
