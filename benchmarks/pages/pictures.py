"""Three samples of each equation as docs/equations/NAME.png: python -m benchmarks.pages.pictures [NAME ...]"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.report import RESULTS
from pidscale.pde import PDES, build_pde
from pidscale.pde.base import Pde, shown_channels, truths

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = 3


def picture(pde: Pde, points: int) -> Figure:
    """Return samples side by side: all channels, or of many frames four."""
    samples = truths(pde, 0, range(SAMPLES), pde.grid(points))
    shown = shown_channels(pde)
    figure = Figure(figsize=(2.2 * SAMPLES + 0.9, 2.0 * len(shown)), layout="constrained")
    for line, channel in zip(figure.subplots(len(shown), SAMPLES, squeeze=False), shown, strict=True):
        fields = samples.fields[:, channel].numpy()
        for axis, field in zip(line, fields, strict=True):
            image = axis.imshow(field, vmin=fields.min(), vmax=fields.max(), cmap="viridis", origin="lower")
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(pde.channels[channel].name)
        figure.colorbar(image, ax=list(line), shrink=0.9, aspect=14).ax.tick_params(labelsize=7)
    figure.set_dpi(55)
    return figure


def main() -> None:
    """Draw the equations that are named, or all, on the points that benchmarks.proofs.residuals took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="*", help=f"any of {', '.join(sorted(PDES))}")
    names = parser.parse_args().name or sorted(PDES)
    for row in json.loads((ROOT / RESULTS / "residuals.json").read_text())["rows"]:
        if row["pde"] in names:
            canvas = FigureCanvasAgg(picture(build_pde(row["pde"]), row["points"]))
            canvas.print_png(str(ROOT / f"docs/equations/{row['pde']}.png"), metadata={"Software": None})


if __name__ == "__main__":
    main()
