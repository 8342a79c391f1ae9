"""docs/equations: a page for each equation and their list.

The words are the docstring of the equation's file, the figures those of benchmarks.proofs.residuals.
"""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import number, source, table
from benchmarks.report import Row
from pidscale.pde import build_pde
from pidscale.pde.base import Pde, shown_channels
from pidscale.pde.evolution import Evolution
from pidscale.pde.words import docstring

SCORES = {
    "floor64": "truth, as the generator makes it",
    "floor32": "truth, as shards store it",
    "trivial": "null solution of the same input",
    "shuffled": "solution of another input",
    "mean_field": "mean of the truths",
    "noise": "truth with one part in a thousand of white noise",
    "wrong_parameter": "truth of another parameter",
}


def _fields(pde: Pde, points: int) -> str:
    grid = pde.grid(points)
    channels = [pde.channels[i] for i in shown_channels(pde)]
    names = ", ".join(f"`{channel.name}` ({channel.role})" for channel in channels)
    more = ", ..." if len(pde.channels) > 4 else ""
    place = f"on a grid of kind `{grid.kind}`, boundary `{grid.boundary}`"
    return f"Fields: {names}{more}; {len(pde.channels)} in all, {place}."


def _measured(row: Row) -> str:
    """What was measured, and the order of the scheme."""
    where = f"At {row['points']} points, {row['samples']} samples, relative to the scale {row['scale']:.3g}."
    if row["order"] is None:
        order = "exact: the residual has no truncation"
    else:
        found = f"{number(row['order'], 2)} in l2, {number(row['order_dual'], 2)} in dual"
        order = f"{found}; the scheme states {row['expected_order']:g}"
    rate = f"{row['samples_per_second']:.2g} residuals a second on one core."
    return f"{where} Order observed: {order}. {rate} {source('residuals')}."


def _parameters(pde: Pde) -> list[str]:
    lines = [[f"`pde.params.{name}`", f"`{value}`"] for name, value in pde.params_dict().items()]
    parts = [table(["parameter", "default"], lines)]
    if pde.varying:
        ranges = [f"`{name}` from {low:g} to {high:g}" for name, (low, high) in pde.varying.items()]
        parts += ["", f"Drawn for each sample, and a condition of teacher and student: {', '.join(ranges)}."]
    if pde.constraints:
        parts += ["", f"Hard constraints: `'distill.constraints=[{','.join(pde.constraints)}]'`."]
    return parts


def equation(row: Row) -> str:
    """Return the page of one equation."""
    name = row["pde"]
    pde = build_pde(name)
    title, words = docstring(pde)
    scores = [[text, number(row[key], 2), number(row[f"{key}_dual"], 2)] for key, text in SCORES.items()]
    parts = [
        f"# {name}",
        title,
        words,
        f"![three samples]({name}.png)",
        _fields(pde, row["points"]),
        table(["field", "l2", "dual"], scores),
        _measured(row),
        "\n".join(_parameters(pde)),
        f"```bash\npidscale make-shards pde={name} data.path=shards/{name} data.train=4096\n```",
    ]
    return "\n\n".join(parts) + "\n"


def page(result: dict[str, Any]) -> str:
    """Return the list of equations: what each says, what varies in it, and its fields."""
    lines = []
    for row in result["rows"]:
        pde = build_pde(row["pde"])
        title, _ = docstring(pde)
        varying = ", ".join(f"`{one}`" for one in pde.varying) or "-"
        frames = f"; {pde.frames} frames" if isinstance(pde, Evolution) else ""
        names = pde.species if isinstance(pde, Evolution) else [channel.name for channel in pde.channels]
        fields = ", ".join(f"`{one}`" for one in names) + frames
        lines.append([f"[{row['pde']}]({row['pde']}.md)", title, varying, fields])
    heads = ["equation", "what it says", "differs from sample to sample", "fields"]
    about = (
        "The equations that come with pidscale. Each page has the equation with its units and boundary, three samples, its\n"
        "parameters, and what its residual tells apart, as `python -m benchmarks.proofs.residuals` measured it.\n"
        "[own_equation.md](../own_equation.md) is about another one."
    )
    return f"# Equations\n\n{about}\n\n{table(heads, lines)}\n"
