"""The README of a generator on the Hugging Face hub, made of its card. Knows no files and no ranks."""

from __future__ import annotations

from typing import Any

from pidscale.generator.card import Card, Kind
from pidscale.plain import printable

_FIGURES = {
    "solution_error": "relative error of the solution",
    "residual_dual": "residual of the equation, dual norm",
    "residual_l2": "residual of the equation, l2 norm",
    "swd_excess": "sliced Wasserstein distance to truths beyond that of other truths",
}
"""Figures of a report that a model card shows."""


def text_of(card: Card, repository: str, license: str | None) -> str:
    """Return the model card of a student or a teacher: metadata for the hub, and a page for people. Needs huggingface_hub.

    Args:
        card: Its card.
        repository: Name of the repository, `org/name`.
        license: License of the weights, as the hub names it; None to name none.

    Returns:
        Markdown behind a header of YAML.
    """
    from huggingface_hub import EvalResult, ModelCardData

    name = repository.partition("/")[2]
    grid = " x ".join(map(str, card.grid.shape))
    tags = ["pidscale", "physics", "partial-differential-equations", card.equation.name, str(card.kind)]
    results = [
        EvalResult(
            task_type="unconditional-generation",
            dataset_type=card.equation.name,
            dataset_name=f"{card.equation.name}, {grid} points",
            metric_type=key,
            metric_name=text,
            metric_value=value,
        )
        for key, text, value in _measured(card)
    ]
    data = ModelCardData(
        license=license, library_name="pidscale", tags=tags, model_name=name, eval_results=results or None
    )
    return f"---\n{data.to_yaml()}\n---\n\n{printable(_page(card, repository, grid))}"


def _measured(card: Card) -> list[tuple[str, str, float]]:
    """Return key, words and value of each figure that the card has."""
    found = card.metrics.report or card.metrics.further
    return [(key, text, found[key]) for key, text in _FIGURES.items() if isinstance(found.get(key), (int, float))]


def _pairs(values: Any) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items()) or "none"


def _page(card: Card, repository: str, grid: str) -> str:
    """Return the page for people."""
    load = "load_student" if card.kind is Kind.STUDENT else "load_teacher"
    calls = "one network call" if card.kind is Kind.STUDENT else "several network calls"
    head = f", behind which {card.head} solver steps of the equation correct its solution" if card.head else ""
    channels = "\n".join(f"| {channel.name} | {channel.role} | {channel.unit} |" for channel in card.channels)
    figures = "\n".join(f"| {text} | {value:.3g} |" for _, text, value in _measured(card))
    measured = f"\n## Measured\n\n| figure | value |\n|---|---|\n{figures}\n" if figures else ""
    origin = card.provenance
    trained = _pairs(
        {
            key: value
            for key, value in (
                ("objective", origin.objective),
                ("steps", origin.steps),
                ("seed", origin.seed),
                ("data_hash", origin.data_hash),
            )
            if value is not None
        }
    )
    return f"""# {repository.partition("/")[2]}

A {card.kind} of {card.equation.name} on {grid} points. It makes all fields of the equation by {calls}{head}.

```python
import pidscale  # pip install 'pidscale[hub]'

{card.kind} = pidscale.{load}("{repository}")
fields = {card.kind}.sample(n=16, seed=0)  # physical units, [16, {", ".join(map(str, card.grid.shape))}] for each channel
print({card.kind}.residual(fields))
```

| channel | role | unit |
|---|---|---|
{channels}

- Parameters of the equation: {_pairs(card.equation.params)}
- Training: {trained}
- Files: `card.json` (everything that is needed to build the network, with checksums) and `weights.safetensors`
{measured}"""
