"""Samples of a generator as galleries of a page: a slider over seeds, and one over each parameter that differs among samples.

All of them are drawn beforehand, as tiles of one pixel a point. Knows no files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from pidscale.figures.embedded import ColourScale
from pidscale.figures.fields import residual_map
from pidscale.generator.generator import Teacher
from pidscale.generator.student import Student
from pidscale.ops.window import Window
from pidscale.page.html import Frame, Html, gallery, joined, number_text, tag
from pidscale.pde.base import Samples, shown_channels

SEEDS = 12
STOPS = 7  # of the slider over a parameter, at even distances over its range
MOST_TILES = 12  # channels of a picture with a slider over seeds
FEW_TILES = 3  # and over a parameter
_PIXELS = 1_400_000  # of all tiles; a pixel takes a byte or less, and a third more in a page


@dataclass(frozen=True)
class _Sample:
    """A sample with what is said of it.

    Attributes:
        name: What it is, for the description of its pictures.
        caption: Its parameters and residuals.
        fields: Joint physical field [C, Y, X].
        residual: Map of its residual [y, x].
    """

    name: str
    caption: str
    fields: np.ndarray
    residual: np.ndarray


class Galleries:
    """The galleries of a generator.

    Args:
        generator: A student or a teacher.
    """

    def __init__(self, generator: Student | Teacher) -> None:
        self.generator = generator
        self.ranges = {name: ends for name, ends in generator.pde.varying.items() if ends[0] < ends[1]}

    @cached_property
    def _of_seeds(self) -> list[_Sample]:
        return [self._sample(f"seed {seed}", seed) for seed in range(SEEDS)]

    @cached_property
    def _of_parameters(self) -> dict[str, list[_Sample]]:
        """Samples of seed 0 by the parameter that they differ in; the others are in the middle of their ranges."""
        middle = {name: sum(ends) / 2 for name, ends in self.generator.pde.varying.items()}
        return {
            name: [
                self._sample(f"{name} {value:.3g}", 0, middle | {name: value}) for value in np.linspace(*ends, STOPS)
            ]
            for name, ends in self.ranges.items()
        }

    def _sample(self, name: str, seed: int, params: Mapping[str, float] | None = None) -> _Sample:
        pde = self.generator.pde
        drawn = self.generator.sample(1, seed=seed, params=params)
        norms = self.generator.residual(drawn)
        own = [f"{one} {float(drawn[one]):.3g}" for one in pde.varying]
        shown = ", ".join(f"{norm} {float(norms[norm]):.2g}" for norm in ("l2", "dual"))
        head = [f"seed {seed}", *own] if own else [name]
        joint = torch.stack([drawn[channel] for channel in self.generator.channels], dim=1)
        values = [drawn[one].double() for one in pde.varying]
        samples = Samples(joint, torch.stack(values, dim=1) if values else joint.new_zeros(1, 0))
        with torch.no_grad():
            residual = residual_map(pde, Window(self.generator.grid), samples)[0]
        return _Sample(name, f"{', '.join(head)}; residual {shown}", joint[0].numpy(), residual.float().numpy())

    @cached_property
    def _scales(self) -> tuple[list[ColourScale], ColourScale]:
        """The scale of each channel, and that of residuals, over all galleries."""
        all_samples = [*self._of_seeds, *(one for own in self._of_parameters.values() for one in own)]
        count = len(self.generator.channels)
        channels = [ColourScale.over(one.fields[c] for one in all_samples) for c in range(count)]
        return channels, ColourScale.of_residuals(one.residual for one in all_samples)

    @property
    def stride(self) -> int:
        """Every how many points of a grid there is one in a picture: 1, unless the page would become too large."""
        count = len(self.generator.channels)
        tiles = SEEDS * (min(count, MOST_TILES) + 1) + len(self.ranges) * STOPS * (min(count, FEW_TILES) + 1)
        return max(1, math.ceil(math.sqrt(tiles * math.prod(self.generator.grid.shape) / _PIXELS)))

    def over_seeds(self) -> Html:
        """Return the gallery of samples of the first seeds."""
        return self._gallery("Seed", self._of_seeds, MOST_TILES, "seed")

    def over_parameters(self) -> Iterator[tuple[str, Html]]:
        """Yield the name of each parameter, and the gallery of samples that differ in it alone."""
        for number, (name, samples) in enumerate(self._of_parameters.items()):
            yield name, self._gallery(name, samples, FEW_TILES, f"parameter{number}")

    def _gallery(self, label: str, samples: list[_Sample], most: int, name: str) -> Html:
        channels = shown_channels(self.generator.pde, most)
        scales, of_residual = self._scales
        known = self.generator.card.channels
        tiles = [(_title(known[c].name, known[c].role, known[c].unit), scales[c].bar()) for c in channels]
        over = "of the equation" if of_residual.low < 0 else "rms over times"
        tiles.append((_title("residual", over), of_residual.bar()))

        def pictures(one: _Sample) -> Iterator[tuple[str, str]]:
            layers = [(known[c].name, one.fields[c], scales[c]) for c in channels]
            for title, field, scale in [*layers, ("residual", one.residual, of_residual)]:
                ends = f"from {number_text(float(field.min()))} to {number_text(float(field.max()))}"
                yield scale.tile(field[:: self.stride, :: self.stride]), f"{title} of {one.name}, {ends}"

        frames = [Frame(one.caption, tuple(pictures(one))) for one in samples]
        return gallery(label, frames, tiles, name)


def _title(name: str, about: str, unit: str = "1") -> Html:
    return joined([tag("b", name), " ", tag("small", about if unit == "1" else f"{about}, {unit}")])
