"""The page of a student or a teacher: its card, samples and measures in one HTML file that loads nothing from elsewhere.

Everything is drawn beforehand. Needs matplotlib.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pidscale import __version__
from pidscale.app.card_text import card_lines, join, pairs, value_text
from pidscale.app.docstrings import attribute_meanings
from pidscale.app.formula import formula, typeset
from pidscale.compare.tables import MEASURES
from pidscale.figures.embedded import html_panels
from pidscale.figures.galleries import SEEDS, Galleries
from pidscale.figures.report import spectrum_figures
from pidscale.generator.generator import TEACHER_STEPS, Teacher
from pidscale.generator.student import Student
from pidscale.page.html import Html, facts, joined, lines_to_copy, note, number_text, page, pair, prose, table, tag
from pidscale.pde.base import Samples
from pidscale.pde.own import is_own
from pidscale.pde.words import words
from pidscale.plain import size_text
from pidscale.records.json_checks import is_number

SPECTRUM_SAMPLES = 32
_MOST = 40  # unchecked entries of a card, and
_LONGEST = 400  # characters of each, that a page shows
_FLOORS = {  # measures of the report that have a value for the truth, and for a null solution
    "residual_l2": ("residual_floor", "residual_trivial"),
    "residual_dual": ("residual_floor_dual", "residual_trivial_dual"),
    "swd": ("swd_floor", ""),
    "feature_distance": ("feature_floor", ""),
}
_SHOWN_ELSEWHERE = {  # of what a card says of its origin
    *(
        "weights",
        "endpoints",
        "gradient_to",
        "huber",
        "power",
        "steps",
        "seed",
        "objective",
        "data_hash",
        "teacher",
        "scales",
    ),
    *("residual_floor", "licence", "license"),
}


@dataclass(frozen=True)
class Truths:
    """Held-out fields of a shard set.

    Attributes:
        samples: The fields, in physical units.
        path: Folder or address of the set, as its user writes it.
        split: The split that they are from.
        is_own: Whether the generator was trained on this set.
    """

    samples: Samples
    path: str
    split: str
    is_own: bool


@dataclass(frozen=True)
class Shown:
    """What a page shows.

    Attributes:
        path: Folder of the generator, as its user writes it.
        generator: A student or a teacher.
        truths: Fields beside which its spectra are drawn; None if no shard set is named.
    """

    path: str
    generator: Student | Teacher
    truths: Truths | None = None

    @property
    def plain(self) -> dict[str, Any]:
        """The card as plain JSON values."""
        return self.generator.card.to_plain()

    @property
    def report(self) -> Mapping[str, Any]:
        """The generator's row of the last report; empty before the first one."""
        return self.generator.card.metrics.report


def page_of(shown: Shown) -> str:
    """Return the page in HTML."""
    kind = str(shown.generator.card.kind)
    about = words(shown.generator.pde)
    return page(
        f"pidscale: {shown.generator.pde.name}, a {kind}",
        tag("p", tag("b", shown.path), f", a {kind} of {shown.generator.pde.name}", class_="note"),
        tag("h1", about.title.removesuffix(".")),
        tag("div", *map(formula, about.formula), class_="formula") if about.formula else None,
        _symbols(about.symbols),
        _paragraphs(about.rest),
        _key_figures(shown),
        *_samples(shown),
        *_loading(shown),
        *_spectra(shown),
        *_measured(shown),
        tag("h2", "Fields and parameters"),
        pair(_channels(shown), _parameters(shown)),
        tag("h2", "Network and training"),
        pair(*_facts(shown)),
        note(f"Written by pidscale {__version__}. This page loads nothing from elsewhere."),
    )


def _symbols(symbols: tuple[tuple[str, str], ...]) -> Html | None:
    parts = [part for symbol, meaning in symbols for part in (tag("dt", typeset(symbol)), tag("dd", prose(meaning)))]
    return tag("dl", *parts) if parts else None


def _paragraphs(blocks: tuple[str, ...]) -> Html | None:
    """Return the rest of what an equation says, folded."""
    if not blocks:
        return None
    parts = [
        tag("div", *map(formula, block.splitlines()), class_="formula")
        if block.startswith("  ")
        else tag("p", prose(block))
        for block in blocks
    ]
    return tag("details", tag("summary", "Residual, data and sources of the equation"), *parts)


def _key_figures(shown: Shown) -> Html:
    """Return what matters most, each with what it is."""
    card = shown.generator.card
    report = shown.report
    steps = f"{card.head} solver steps behind it" if card.head else "no solver steps behind it"
    calls = (1, f"network call, {steps}")
    if isinstance(shown.generator, Teacher):
        calls = (2 * TEACHER_STEPS - 1, f"network calls ({TEACHER_STEPS} Heun steps), {steps}")
    figures: list[tuple[object, str]] = [calls]
    for key in ("solution_error", "residual_dual", "swd_excess", "ms_per_sample"):
        if is_number(report.get(key)):
            figures.append((number_text(report[key]), MEASURES[key].text))
    if card.metrics.train_seconds is not None:
        figures.append((_duration(card.metrics.train_seconds), "of training in all"))
    if card.weights is not None:
        figures.append((size_text(card.weights.bytes), f"of weights, {_count(shown.generator):,} parameters"))
    return tag("ul", *(tag("li", tag("b", value), tag("small", what)) for value, what in figures), class_="key")


def _count(generator: Student | Teacher) -> int:
    return sum(values.numel() for values in generator.denoiser.parameters())


def _duration(seconds: float) -> str:
    """Return seconds for a reader."""
    for most, unit, text in ((120, 1, "s"), (7200, 60, "min")):
        if seconds < most:
            return f"{seconds / unit:.3g} {text}"
    return f"{seconds / 3600:.3g} h"


def _loading(shown: Shown) -> Iterator[Html]:
    """Yield how the generator is loaded and asked."""
    kind = str(shown.generator.card.kind)
    pde = shown.generator.pde
    height, width = shown.generator.grid.shape
    names = ", ".join(_few(shown.generator.channels))
    lines = ["import pidscale", ""]
    if is_own(pde.name):
        lines.insert(1, f"import {pde.name.partition(':')[0]}  # its equation")
    lines += [
        f"{kind} = pidscale.load_{kind}({shown.path!r})",
        f"fields = {kind}.sample(n=16, seed=0)  # {names}: [16, {height}, {width}] each, in physical units",
    ]
    for name, (low, high) in pde.varying.items():
        chosen = f"fields = {kind}.sample(n=16, seed=0, params={{{name!r}: {(low + high) / 2:.3g}}})"
        lines.append(f"{chosen}  # from {low:g} to {high:g}; drawn otherwise")
    lines.append(f'{kind}.residual(fields)["dual"]  # [16], relative to the scale of the equation')
    where = shlex.quote(shown.path)
    own = f" --equation {shlex.quote(pde.name)}" if is_own(pde.name) else ""
    yield tag("h2", "Use it")
    yield lines_to_copy("\n".join(lines))
    yield lines_to_copy(f"pidscale sample --student {where}{own} -n 16 --out fields.npz --picture fields.png")
    yield note("An installation without extras is enough for both, but for the picture: torch, numpy and safetensors.")


def _few(names: Sequence[str]) -> list[str]:
    """Return names, the first and the last of many."""
    return list(names) if len(names) < 4 else [names[0], "...", names[-1]]


def _samples(shown: Shown) -> Iterator[Html]:
    galleries = Galleries(shown.generator)
    strip = shown.generator.grid.kind == "strip"
    places = "time runs upwards" if strip else "x runs to the right, y upwards"
    every = "" if galleries.stride == 1 else f", of which one in {galleries.stride} is drawn along each side"
    side = " x ".join(map(str, shown.generator.grid.shape))
    kind = shown.generator.card.kind
    yield tag("h2", "Samples")
    yield note(
        f"{SEEDS} seeds, `{kind}.sample(1, seed=...)` each: a square is one of the {side} points{every}; {places}. A channel "
        "has one scale for all samples on this page. Residuals are relative to the equation's own scale: a null solution "
        "has about 1. Next to the slider are those of the whole sample: root mean square (l2) and H⁻¹ norm (dual)."
    )
    yield galleries.over_seeds()
    for name, gallery in galleries.over_parameters():
        others = "; other parameters are in the middle of their ranges" if len(shown.generator.pde.varying) > 1 else ""
        yield tag("h3", f"The same noise with another {name}")
        yield note(f"Seed 0{others}.")
        yield gallery


def _spectra(shown: Shown) -> Iterator[Html]:
    generator = shown.generator
    drawn = generator.sample(SPECTRUM_SAMPLES, seed=0)
    joint = torch.stack([drawn[name] for name in generator.channels], dim=1)
    sets = {} if shown.truths is None else {"truths": shown.truths.samples}
    sets |= {"samples": Samples(joint, joint.new_zeros(len(joint), 0))}
    yield tag("h2", "Spectra")
    yield html_panels(
        spectrum_figures(generator.pde, generator.normaliser, sets), f"Spectrum of {{}}: {', '.join(sets)}"
    )
    yield note(f"Mean power of {SPECTRUM_SAMPLES} samples by wave number, about their mean. {_about_truths(shown)}")


def _about_truths(shown: Shown) -> str:
    """Return where the truths beside the samples are from, or why there are none."""
    truths = shown.truths
    if truths is None:
        return (
            "A card holds no truths, so there are none to compare with: `pidscale show ... --html --data SHARDS` reads "
            "those of a shard set."
        )
    own = "it was trained on" if truths.is_own else "of its equation and grid, but not the one it was trained on"
    return f"Truths: {len(truths.samples.fields)} of the split {truths.split} of {truths.path}, the set {own}."


def _measured(shown: Shown) -> Iterator[Html]:
    """Yield the tables of the report, if the card has one."""
    report = shown.report
    kind = str(shown.generator.card.kind)
    yield tag("h2", "Measured")
    if not report:
        yield note(
            f"Its card has no report. `pidscale evaluate` measures a run, and writes the row of its {kind} into the card."
        )
        return
    rows = []
    for key, title in MEASURES.items():
        if report.get(key) is not None:
            beside = [report.get(one) for one in _FLOORS.get(key, ("", ""))]
            rows.append([title.text, *map(_known, (report[key], *beside)), tag("small", title.meaning)])
    titles = ["measure", f"this {kind}", "truth", "null solution", "what it is"]
    yield table(titles, rows, "Measures of its last report")
    by_channel = [report.get(key) for key in ("variance_ratio", "swd_by_channel")]
    found = [one if isinstance(one, Mapping) else {} for one in by_channel]
    channels = [name for name in shown.generator.channels if any(name in one for one in found)]
    if channels:
        titles = ["channel", "variance, relative to the truth", "SWD"]
        rows = [[name, *(_known(one.get(name)) for one in found)] for name in channels]
        yield pair(table(titles, rows, "By channel"))
    seeds = f", seeds {_text(report['seeds'])}" if "seeds" in report else ""
    count = _text(report.get("n_samples", "unknown"))
    yield note(
        f"Samples: {count}, against as many held-out truths{seeds}. Lower is better, but for a variance, which is best at 1."
    )


def _known(value: Any) -> Any:
    """Return a value of a report for a table; a card may hold anything here."""
    return value if value is None or is_number(value) else _text(value)


def _text(value: Any) -> str:
    """Return an unchecked value of a card as text that is not too long."""
    text = value_text(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _channels(shown: Shown) -> Html:
    card = shown.generator.card
    rows = [
        [tag("b", one.name), one.role, "dimensionless" if one.unit == "1" else one.unit, mean, std]
        for one, mean, std in zip(card.channels, card.normaliser.mean, card.normaliser.std, strict=True)
    ]
    return table(
        ["field", "role", "unit", "mean", "deviation"],
        rows,
        "Fields, and their mean and deviation in the training data",
    )


def _parameters(shown: Shown) -> Html:
    pde = shown.generator.pde
    known = attribute_meanings(type(getattr(pde, "params", None)))
    rows: list[list[Any]] = []
    for name, (low, high) in pde.varying.items():
        rows.append([tag("b", name), f"{low:g} to {high:g}", prose(known.get(name, "Differs from sample to sample."))])
    for name, value in pde.params_dict().items():
        rows.append([tag("b", name), _known(value), prose(known.get(name, ""))])
    return table(["parameter", "value", "meaning"], rows, "Parameters") if rows else Html("")


def _facts(shown: Shown) -> Iterator[Html]:
    """Yield the tables of what the card says of network, training and origin."""
    card = shown.generator.card
    plain = shown.plain
    lines = dict(card_lines(plain))
    origin = plain["provenance"]
    shape = " x ".join(map(str, shown.generator.shape))
    network: dict[str, Any] = {name: lines.get(name) for name in ("grid", "network", "noise", "constraints", "head")}
    network["head"] = network["head"] or "none"
    network |= {
        "parameters": f"{_count(shown.generator):,}",
        "takes": f"standard normal noise [n, {shape}]",
    }
    if card.weights is not None:
        network["weights"] = joined([f"{size_text(card.weights.bytes)}, ", _hash(card.weights.sha256)])
    yield facts("Network", network)
    training: dict[str, Any] = {name: lines.get(name) for name in ("objective", "endpoints", "residual", "training")}
    if card.metrics.train_seconds is not None:
        included = " with its teacher and its endpoints" if isinstance(shown.generator, Student) else ""
        training["cost"] = f"{_duration(card.metrics.train_seconds)}{included}"
    if card.metrics.wait_share is not None:
        training["waiting"] = f"{card.metrics.wait_share:.1%} of the time of its steps, for data or endpoints"
    training["residual scales"] = join(pairs(origin.get("scales", {})))
    training["residual of the truths"] = card.provenance.residual_floor
    origins: dict[str, Any] = {
        "training data": _hash(card.provenance.data_hash),
        "teacher": _hash(card.provenance.teacher),
    }
    further = [name for name in origin if name not in _SHOWN_ELSEWHERE][:_MOST]
    origins |= {name[:_LONGEST]: _text(origin[name]) for name in further}
    origins["licence"] = _text(origin.get("licence", origin.get("license", "not recorded in the card")))
    yield tag("div", facts("Training", training), facts("Origin", origins))


def _hash(sha256: str | None) -> Html | None:
    return None if sha256 is None else joined(["SHA-256 ", tag("code", sha256)])
