"""The picture of a training: samples from the same noise and their residual maps, drawn often and therefore cheaply.

One image of tiles with a few words, where a figure has an axis for each sample. The colours of a residual mean the same in
all pictures, so that those of different steps can be compared. Knows no files and no ranks; pillow and matplotlib's colours
are imported by the first picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pidscale.figures.fields import RESIDUAL
from pidscale.pde.base import Pde, shown_channels

POINTS = 128  # points along a side of a tile; larger fields are subsampled
FAINT = 0.01  # residuals below this, relative to the equation's scale, are nearly white
_TILE = 64  # pixels along the longer side of a tile, at least
_GAP = 3  # pixels between tiles
_LEFT, _RIGHT = 92, 64  # pixels for words, and for a colour bar and its numbers
_BAR = 10  # pixels across a colour bar
_FONT = 10

Layers = Mapping[str, np.ndarray]
"""What is drawn of a set of samples: channels and the residual by name, [n, y, x] each."""


@dataclass(frozen=True)
class _Scale:
    """The colours of a row.

    Attributes:
        colours: Name of the colour map.
        ticks: Values that are written beside its bar.
        low: Value of the first colour.
        high: Value of the last colour.
        faint: For a scale that is symmetric and logarithmic, the size below which it is linear; 0 for a linear scale.
    """

    colours: str
    ticks: tuple[float, ...]
    low: float
    high: float
    faint: float = 0.0

    def places(self, values: np.ndarray) -> np.ndarray:
        """Return where values lie on the scale, from 0 to 1."""
        if self.faint:
            places = 0.5 + 0.5 * np.sign(values) * np.log1p(np.abs(values) / self.faint) / np.log1p(
                self.high / self.faint
            )
        else:
            places = (values - self.low) / max(self.high - self.low, 1e-30)
        clipped: np.ndarray = np.clip(places, 0, 1)
        return clipped

    def colour(self, places: np.ndarray) -> np.ndarray:
        """Return the colours of places, uint8 [..., 3]."""
        from matplotlib import colormaps

        found: np.ndarray = colormaps[self.colours](places, bytes=True)
        return found[..., :3]


def progress_picture(pde: Pde, shown: Mapping[str, Layers]) -> np.ndarray:
    """Draw sets of samples: a row of tiles for each channel and set, then for the residual of each set.

    The colour scale of a channel is that of the first set, the truth. That of residuals runs from -1 to 1 and is logarithmic;
    each of their tiles has its root mean square.

    Args:
        pde: The equation.
        shown: What is drawn of each set, by its label.

    Returns:
        The picture, uint8 [Y, X, 3].
    """
    from PIL import Image, ImageDraw, ImageFont

    names = [pde.channels[i].name for i in shown_channels(pde)] + [RESIDUAL]
    rows = [(name, label) for name in names for label in shown]
    truth = next(iter(shown.values()))
    count = max(len(layers[RESIDUAL]) for layers in shown.values())
    sides = truth[names[0]].shape[1:]
    factor = max(1, -(-_TILE // max(sides)))
    height, width = (factor * side + _GAP for side in sides)
    right = _LEFT + count * width
    canvas = np.full((len(rows) * height + _GAP, right + _RIGHT, 3), 255, dtype=np.uint8)
    words: list[tuple[float, float, str, str]] = []  # place, text, and which of its points is there
    bar = np.linspace(1, 0, height - _GAP)[:, None].repeat(_BAR, axis=1)
    for place, (name, label) in enumerate(rows):
        top = _GAP + place * height
        scale = _scale(name, truth[name])
        values = shown[label][name]
        _put(canvas, top, right, scale.colour(bar))
        for column, tile in enumerate(scale.colour(scale.places(values))):
            large = tile[::-1].repeat(factor, axis=0).repeat(factor, axis=1)
            lost = (height - _GAP - large.shape[0]) // 2  # some residuals have no points on an edge
            _put(canvas, top + lost, _LEFT + column * width + (width - _GAP - large.shape[1]) // 2, large)
            if name == RESIDUAL:
                size = float(np.sqrt(np.mean(np.square(values[column]))))
                words.append((_LEFT + column * width + 3, top + 2, f"{size:.2g}", "la"))
        words += [(_LEFT - 5, top + height / 2 + shift, text, "rm") for shift, text in ((-6, name), (6, label))]
        for at, tick in zip(scale.places(np.array(scale.ticks)).clip(0.06, 0.94), scale.ticks, strict=True):
            words.append((right + _BAR + 3, top + float(1 - at) * (height - _GAP), f"{tick:.3g}", "lm"))
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(_FONT)
    for x, y, text, anchor in words:  # with a white edge, since some stand on dark tiles
        pen.text((x, y), text, (0, 0, 0), font, anchor, stroke_width=1, stroke_fill=(255, 255, 255))
    return np.array(picture)


def _scale(name: str, truth: np.ndarray) -> _Scale:
    if name == RESIDUAL:
        return _Scale("RdBu_r", (-1.0, 0.0, 1.0), -1.0, 1.0, FAINT)
    low, high = float(truth.min()), float(truth.max())
    return _Scale("viridis", (low, high), low, high)


def _put(canvas: np.ndarray, top: int, left: int, part: np.ndarray) -> None:
    canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
