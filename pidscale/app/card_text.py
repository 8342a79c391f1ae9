"""A generator's card as text, one line a subject: for a terminal and for a page. Knows no files.

Parts of a card are kept unchecked (generator/card.py), so that they may be of any type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from pidscale.plain import size_text
from pidscale.records.json_checks import is_number


def card_lines(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a card says, as pairs of a subject and a line."""
    grid, network, noise, weights = card["grid"], card["architecture"], card["noise"], card["weights"]
    origin = card["provenance"]
    residual = join(pairs(origin.get("weights", {})))
    how = pairs(origin, only=("start", "gradient_to", "huber", "power"))
    lines = [
        ("equation", join([card["equation"]["name"], *pairs(card["equation"]["params"])])),
        (
            "grid",
            f"{grid['kind']}, {_times(grid['shape'])} points, extent {_times(grid['extent'])}, {grid['boundary']}",
        ),
        *(("channel", line) for line in _channels(card["channels"])),
        ("network", join([network["kind"], *pairs(network, but=("kind",))])),
        ("weights", f"{size_text(weights['bytes'])}, SHA-256 {weights['sha256']}"),
        ("noise", join([noise["kind"], *pairs(noise, but=("kind",))])),
        ("constraints", join(card.get("constraints", ()))),
        ("head", f"{card['head']} solver steps behind every field" if card.get("head") else ""),
        ("objective", join([origin.get("objective", ""), *how])),
        ("endpoints", join(pairs(origin.get("endpoints", {})))),
        ("residual", residual and f"weights {residual}"),
        ("training", _training(origin, card["metrics"])),
        *(("measured", line) for line in _measured(card["metrics"])),
    ]
    return [(subject, text) for subject, text in lines if text]


def _channels(channels: Sequence[Mapping[str, str]]) -> Iterable[str]:
    """Yield a line for each group of consecutive channels that differ only in their names."""
    for (unit, role), run in groupby(channels, key=lambda channel: (channel["unit"], channel["role"])):
        names = [channel["name"] for channel in run]
        shown = f"{names[0]} to {names[-1]} ({len(names)})" if len(names) > 2 else ", ".join(names)
        yield f"{shown} [{unit}], {role}"


def _training(origin: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    parts = [f"{origin['steps']} steps"] if "steps" in origin else []
    parts += [f"{metrics['train_seconds']:.0f} s"] if "train_seconds" in metrics else []
    return join([*parts, *pairs(origin, only=("seed", "run"))])


def _measured(metrics: Mapping[str, Any]) -> Iterable[str]:
    """Yield the figures of the report, or those of the end of training if there is no report."""
    report = metrics.get("report", metrics)
    names = {
        "residual l2": "residual_l2",
        "dual": "residual_dual",
        "boundary": "boundary_rms" if "boundary_rms" in report else "residual_boundary",
        "solution error": "solution_error",
        "SWD excess": "swd_excess",
    }
    yield join(f"{name} {_short(report[key])}" for name, key in names.items() if report.get(key) is not None)
    if "nfe" in report:
        parts = [f"calls {value_text(report['nfe'])}"]
        parts += [f"{_short(report['ms_per_sample'])} ms a sample"] if "ms_per_sample" in report else []
        parts += [f"{value_text(report['n_samples'])} samples"] if "n_samples" in report else []
        yield join(parts)


def _short(value: Any) -> str:
    return f"{value:.3g}" if is_number(value) else value_text(value)


def pairs(values: Any, only: Sequence[str] | None = None, but: Sequence[str] = ()) -> list[str]:
    """Return the entries of a mapping as text, in order.

    Args:
        values: The mapping; anything else has no entries.
        only: Keys of the entries; None for all.
        but: Keys of entries to omit.

    Returns:
        `key=value` for each entry.
    """
    known = values if isinstance(values, Mapping) else {}
    keys = [key for key in (known if only is None else only) if key in known and key not in but]
    return [f"{key}={value_text(known[key])}" for key in keys]


def value_text(value: Any) -> str:
    """Return a value of any JSON type as short text."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(value_text, value))}]"
    if isinstance(value, Mapping):
        return join(pairs(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _times(numbers: Sequence[float]) -> str:
    return " x ".join(map(value_text, numbers))


def join(parts: Iterable[str]) -> str:
    """Return the parts that are not empty, with commas between."""
    return ", ".join(part for part in parts if part)
