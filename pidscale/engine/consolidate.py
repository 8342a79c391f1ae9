"""From whole weights to the folder of a consolidated generator. The artifact owns its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pidscale.engine.disk import in_one_line
from pidscale.generator import artifact
from pidscale.generator.card import Card


def publish(folder: Path, weights: Mapping[str, Tensor], card: Card) -> None:
    """Write the folder of a generator. Only the first rank calls it.

    A full disk, and a weight or a number of the card that is not finite, are a UserError.

    Args:
        folder: The folder.
        weights: Whole tensors by parameter name.
        card: The card.
    """
    size = sum(one.nbytes for one in weights.values())
    after = "the same command goes on from the last checkpoint"
    with in_one_line(folder, "the finished weights", size, after):
        artifact.write(folder, weights, card)
