"""One page for each equation: what it says, three samples, and what its residual tells apart.

python -m benchmarks.pages [--out docs/equations] [--residuals benchmarks/results/residuals.json]

The words are the docstring of its file, the figures those that benchmarks.residuals wrote.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pidscale.pde import PDES, build_pde
from pidscale.pde.base import Pde, shown_channels, truths
from pidscale.pde.evolution import Evolution

SAMPLES = 3
SCORES = {
    "floor64": "truth, as the generator makes it",
    "floor32": "truth, as shards store it",
    "trivial": "null solution of the same input",
    "shuffled": "solution of another input",
    "mean_field": "mean of the truths",
    "noise": "truth with one part in a thousand of white noise",
    "wrong_parameter": "truth of another parameter",
}


def picture(pde: Pde, points: int) -> Figure:
    """Three samples side by side: all channels, or of many frames four."""
    samples, shown = truths(pde, 0, range(SAMPLES), pde.grid(points)), shown_channels(pde)
    figure = Figure(figsize=(2.2 * SAMPLES + 0.9, 2.0 * len(shown)), layout="constrained")
    for line, channel in zip(figure.subplots(len(shown), SAMPLES, squeeze=False), shown, strict=True):
        fields = samples.fields[:, channel].numpy()
        for axis, field in zip(line, fields, strict=True):
            image = axis.imshow(field, vmin=fields.min(), vmax=fields.max(), cmap="viridis", origin="lower")
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(pde.channels[channel].name)
        figure.colorbar(image, ax=list(line), shrink=0.9, aspect=14).ax.tick_params(labelsize=7)
    return figure


def _number(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:.2g}"


def _parameters(pde: Pde) -> list[str]:
    lines = ["| parameter | default |", "|---|---|"]
    lines += [f"| `pde.params.{name}` | `{value}` |" for name, value in pde.params_dict().items()]
    if pde.varying:
        ranges = [f"`{name}` from {low:g} to {high:g}" for name, (low, high) in pde.varying.items()]
        lines += ["", f"Of each sample its own, and told to teacher and student: {', '.join(ranges)}."]
    if pde.constraints:
        lines += ["", f"Hard constraints: `'distill.constraints=[{','.join(pde.constraints)}]'`."]
    return lines


def page(name: str, row: dict[str, Any]) -> str:
    """The page of an equation as markdown. row: of benchmarks.residuals."""
    pde = build_pde(name)
    module = importlib.import_module(type(pde).__module__)
    title, _, words = inspect.getdoc(module).partition("\n")  # type: ignore[union-attr]
    words = words.strip("\n").replace("\nKnows no files, no models and no ranks.", "")
    words = words.replace(" Knows no files, no models and no ranks.", "")
    order = f"{_number(row['order'])} in l2, {_number(row['order_dual'])} in dual; the scheme states "
    exact = "exact: the residual has no truncation"
    grid = pde.grid(row["points"])
    channels = [pde.channels[i] for i in shown_channels(pde)]
    fields = ", ".join(f"`{c.name}` ({c.role})" for c in channels) + (", ..." if len(pde.channels) > 4 else "")
    lines = [
        f"# {name}",
        "",
        f"{title}",
        "",
        words,
        "",
        f"![three samples]({name}.png)",
        "",
        f"Fields: {fields}; {len(pde.channels)} in all, on a grid of kind `{grid.kind}`, boundary `{grid.boundary}`.",
        "",
        "| field | l2 | dual |\n|---|---|---|\n"
        + "\n".join(f"| {text} | {_number(row[k])} | {_number(row[f'{k}_dual'])} |" for k, text in SCORES.items()),
        "",
        f"At {row['points']} points, {row['samples']} samples, relative to the scale {row['scale']:.3g}. Order observed: "
        + (exact if row["order"] is None else f"{order}{row['expected_order']:g}")
        + f". {row['samples_per_second']:.2g} residuals a second on one core. Source: benchmarks/results/residuals.json.",
        "",
        *_parameters(pde),
        "",
        f"```bash\npython launch/make_shards.py pde={name} data.path=shards/{name} data.train=4096\n```",
    ]
    return "\n".join(lines) + "\n"


def contents() -> str:
    """The page that leads to the others, as markdown: what each equation says, what varies in it, and its fields."""
    lines = ["| equation | what it says | differs from sample to sample | fields |", "|---|---|---|---|"]
    for name in sorted(PDES):
        pde = build_pde(name)
        said = inspect.getdoc(importlib.import_module(type(pde).__module__)).split("\n")[0]  # type: ignore[union-attr]
        varying = ", ".join(f"`{one}`" for one in pde.varying) or "-"
        frames = f"; {pde.frames} frames" if isinstance(pde, Evolution) else ""
        names = pde.species if isinstance(pde, Evolution) else [channel.name for channel in pde.channels]
        fields = ", ".join(f"`{one}`" for one in names) + frames
        lines.append(f"| [{name}]({name}.md) | {said} | {varying} | {fields} |")
    return "\n".join(["# Equations", "", "Written by `python -m benchmarks.pages`.", "", *lines]) + "\n"


def main() -> None:
    """Write every page and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/equations"))
    parser.add_argument("--residuals", type=Path, default=Path("benchmarks/results/residuals.json"))
    arguments = parser.parse_args()
    rows = {row["pde"]: row for row in json.loads(arguments.residuals.read_text())["rows"]}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in sorted(PDES):
        (arguments.out / f"{name}.md").write_text(page(name, rows[name]))
        figure = picture(build_pde(name), rows[name]["points"])
        figure.set_dpi(55)
        canvas = FigureCanvasAgg(figure)
        canvas.print_png(str(arguments.out / f"{name}.png"), metadata={"Software": None})
    (arguments.out / "README.md").write_text(contents())


if __name__ == "__main__":
    main()
