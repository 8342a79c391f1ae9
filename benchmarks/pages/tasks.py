"""docs/tasks_measured.md, from the rows of benchmarks.studies.tasks."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import groups, number, table
from benchmarks.report import Row
from benchmarks.studies.measure import COLUMNS, NOISE, SHARE, TUNED
from benchmarks.studies.tasks import DIRECT, HEAD, STARTS, STEPS, TASKS

APART = ("pde", "seed", "task", "method", "n", "first", "machine", "draws")  # keys that have no column of numbers


HEADED, CONTROL = f"student+head-{HEAD}", f"control+head-{HEAD}"
DEFAULT = f"{HEADED}+field"  # what a finished student answers unless a setting says otherwise
PAIRS = {  # what a column of verdicts says of one method and another
    "the student beats the mean field": ("student", "mean field"),
    "the student beats direct search": ("student", "direct"),
    f"with {HEAD} solver steps it is as near as without": (HEADED, "student"),
    "with them it beats the control with them": (HEADED, CONTROL),
    "with them and over the field it is as near as without both": (DEFAULT, "student"),
    "and as direct search": (DEFAULT, "direct"),
    "from a start network and over the field it beats the student": ("start+field", "student"),
    "and direct search": ("start+field", "direct"),
}


def lost(rows: list[Row], one: str, other: str, may_equal: bool) -> dict[str, dict[str, int]]:
    """Return for each task of one equation the channels in which a method errs more than another, and for how many seeds."""
    found: dict[str, dict[str, int]] = {task: {} for task in TASKS}
    for own in groups(rows, "seed").values():
        for task in TASKS:
            by_method = {row["method"]: row for row in own if row["task"] == task}
            for key, error in by_method[one].items():
                than = by_method[other].get(key)
                if key.startswith(("error_", "misclassified")) and (error > than if may_equal else error >= than):
                    channel = key.removeprefix("error_")
                    found[task][channel] = found[task].get(channel, 0) + 1
    return found


def behind(rows: list[Row]) -> list[str]:
    """Return where a student's answer by default errs more than its first search or direct search, in means over seeds."""
    values: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in rows:
        for key, value in row.items():
            if key.startswith(("error_", "misclassified")):
                place = row["pde"], row["task"], key.removeprefix("error_")
                values.setdefault(place, {}).setdefault(row["method"], []).append(value)
    found = []
    for (pde, task, channel), errors in values.items():
        means = {method: sum(own) / len(own) for method, own in errors.items()}
        own = means.get("solver" if task == "forward" else DEFAULT)
        best = min(("student", "direct"), key=lambda name: means[name])
        if own is not None and own > means[best]:
            than = {"student": "its first search without solver steps", "direct": "direct search"}[best]
            found.append(f"{pde} `{task}`, {channel}: {own:.3g}, and {means[best]:.3g} by {than}")
    return found


def _verdicts(rows: list[Row]) -> str:
    """The table of what holds for every seed, and where not."""
    methods = {row["method"] for row in rows}
    pairs = {head: pair for head, pair in PAIRS.items() if methods.issuperset(pair)}
    found = {head: lost(rows, *pair, may_equal=pair[0] in (HEADED, DEFAULT)) for head, pair in pairs.items()}
    seeds = len(groups(rows, "seed"))

    def cell(where: dict[str, int]) -> str:
        several = seeds > 1
        words = [f"{channel} ({count} of {seeds} seeds)" if several else channel for channel, count in where.items()]
        return f"not in {' and '.join(words)}" if words else "yes"

    lines = [[task, *(cell(one[task]) for one in found.values())] for task in TASKS]
    return table(["task", *pairs], lines)


def _section(pde: str, rows: list[Row]) -> str:
    """The table of one equation, means over seeds, and what it shows."""
    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in APART]
    lines = []
    for task, own in groups(rows, "task").items():
        for method, same in groups(own, "method").items():
            means = [sum(row[key] for row in same) / len(same) if key in same[0] else "" for key in keys]
            lines.append([task, method, *map(number, means)])
    heads = ["task", "method", *(key.replace("_", " ") for key in keys)]
    first = rows[0]["first"]
    fields = f"test fields {first} to {first + rows[0]['n'] - 1}"
    seeds = list(groups(rows, "seed"))
    of = (
        f"student of seed {seeds[0]}"
        if len(seeds) == 1
        else f"means over students of seeds {', '.join(map(str, seeds))}"
    )
    title = f"## {pde}, {fields}, {of}; {rows[0]['machine']}"
    return f"{title}\n\n{table(heads, lines)}\n\n{_verdicts(rows)}"


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    drawn = next(row["n"] for row in result["rows"] if row["method"] == "posterior")
    worse = behind(result["rows"])
    short = f"Not in: {'; '.join(worse)}." if worse else "There is no exception."
    body = "\n\n".join(_section(pde, rows) for pde, rows in groups(result["rows"], "pde").items())
    return f"""# Tasks, measured

What a finished student answers, the row `{DEFAULT}` or, where all inputs are known, `solver`, errs at most as much as
its first search without solver steps and as direct search, in means over seeds.
{short}

`python -m benchmarks.studies.tasks`. `forward` knows the inputs, `inverse` the solution, `reconstruct` {SHARE:.0%} of the
points of all channels, `noisy` the same with noise of {NOISE:.0%} of each channel's deviation, `columns` {COLUMNS} columns.
*error*: relative L2 distance to the truth over what is not known; *misclassified*: share of cells of a two-phase permeability
in the wrong phase; *coverage*: share of truths inside the 90 % interval (0.9 is right); *crps*: in the channel's unit, lower
is better. The student searches {STARTS} starts of {STEPS} evaluations each, direct search {DIRECT} evaluations of the field,
which cost far less; rows without `+field` have no second search (`field_steps=0`). By default a search has more starts
and more evaluations than here. The rows `posterior` are those of the
first {drawn} fields alone, others of all. One core.
[tasks.md](tasks.md) explains what is minimised.

Where the equation alone decides the answer, as it does with its inputs known, direct search is a solver of the equation and
comes as near as that allows, and a student as near as the fields that it makes. Where much is left open, the student knows
what fields look like and direct search does not.

How closely noiseless readings are met (1 % of a channel's deviation for a few points, 3 % for whole fields) was chosen among
four values on the test fields 0 to {TUNED - 1}, by the errors of seed 0's students in `reconstruct`, `inverse` and `forward`:
that flatters a student there. It changes nothing in `noisy`, whose sigma is given. Times were taken beside other work.

{body}
"""
