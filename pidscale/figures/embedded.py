"""Pictures within an HTML page: figures for light and dark, and fields as small tiles of one pixel a point. Knows no files.

Only this needs pillow besides matplotlib; both are imported where a picture is made.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pidscale.page.html import Html, number_text, tag

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DARK = ("#11161c", "#dde4ec", "#566372")  # ground, ink and lines of a dark page, as pidscale/page.py has them


def html_image(figure: Figure, alt: str, wide: bool = False) -> Html:
    """Return a figure as a picture that contains its data, once for light and once for dark screens.

    Args:
        figure: The figure. Its colours are those of dark screens afterwards.
        alt: What is in it, for those who do not see it.
        wide: Whether it scrolls on a narrow screen, where its text would be too small otherwise.

    Returns:
        The picture.
    """
    light = _figure_data(figure)
    _darken(figure)
    dark = tag("source", media="(prefers-color-scheme: dark)", srcset=_figure_data(figure))
    width, _ = figure.get_size_inches() * figure.dpi
    picture = tag("picture", dark, tag("img", src=light, alt=alt, width=round(width)))
    return tag("div", picture, class_="scroll", tabindex=0, role="region", aria_label=alt) if wide else picture


def html_panels(figures: Mapping[str, Figure], alt: str) -> Html:
    """Return figures beside each other, as many as the screen is wide.

    Args:
        figures: Figures by name.
        alt: What is in each, with `{}` for its name.

    Returns:
        The pictures.
    """
    pictures = [html_image(figure, alt.replace("{}", name)) for name, figure in figures.items()]
    return tag("div", *pictures, class_=f"panels of{len(pictures)}")


def _darken(figure: Figure) -> None:
    """Give a figure the colours of a dark page."""
    from matplotlib.legend import Legend
    from matplotlib.text import Text

    ground, ink, line = _DARK
    figure.set_layout_engine("none")  # everything stays where the first drawing has placed it
    figure.set_facecolor(ground)
    for axis in figure.axes:
        axis.set_facecolor(ground)
        axis.tick_params(which="both", colors=ink)
        for spine in axis.spines.values():
            spine.set_edgecolor(line)
    for legend in figure.findobj(Legend):
        legend.get_frame().set(facecolor=ground, edgecolor=line)
    for text in figure.findobj(Text):
        text.set_color(ink)


def _figure_data(figure: Figure) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return _data(buffer.getvalue())


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


@dataclass(frozen=True)
class ColourScale:
    """The colours of a channel.

    Attributes:
        low: Value of the first colour.
        high: Value of the last colour.
        colours: Name of matplotlib's colour map.
    """

    low: float
    high: float
    colours: str = "viridis"

    @classmethod
    def over(cls, fields: Iterable[np.ndarray]) -> ColourScale:
        """Return the scale from the least to the greatest value of fields."""
        ends = [(float(np.min(one)), float(np.max(one))) for one in fields]
        return cls(min(low for low, _ in ends), max(high for _, high in ends))

    @classmethod
    def of_residuals(cls, maps: Iterable[np.ndarray]) -> ColourScale:
        """Return the scale of residual maps, without their largest 2 %: symmetric about 0 unless no value is below it."""
        values = np.concatenate([one.ravel() for one in maps])
        top = float(np.quantile(np.abs(values), 0.98))
        return cls(-top, top, "RdBu_r") if values.min() < 0 else cls(0.0, top, "magma")

    def tile(self, field: np.ndarray) -> str:
        """Return a field [Y, X] as the data of a picture, one pixel a point, the first row at the bottom."""
        return self._png(field[::-1])

    def bar(self) -> Html:
        """Return a colour bar with the values of its ends."""
        ends = [number_text(value) for value in (self.low, self.high)]
        ramp = self._png(np.linspace(self.low, self.high, 64)[None])
        picture = tag("img", src=ramp, alt=f"colours from {ends[0]} to {ends[1]}")
        return tag("div", tag("span", ends[0]), picture, tag("span", ends[1]), class_="bar")

    def _png(self, values: np.ndarray) -> str:
        from matplotlib import colormaps
        from PIL import Image

        span = self.high - self.low
        share = (values - self.low) / span if span > 0 else np.full_like(values, 0.5)
        picture = Image.fromarray(np.clip(np.rint(255 * share), 0, 255).astype(np.uint8), "L")
        picture = Image.frombytes("P", picture.size, picture.tobytes())
        palette = np.rint(255 * colormaps[self.colours](np.arange(256))[:, :3]).astype(np.uint8)
        picture.putpalette(palette.tobytes())
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        return _data(buffer.getvalue())
