"""Pictures for those who work in Python or a notebook: of fields, and of answers. Needs matplotlib. Knows no files.

A figure that is the last value of a cell is shown; `figure.savefig("fields.png")` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pidscale.caller import sheltered
from pidscale.config import UserError
from pidscale.figures.answer import answer_figure, layers
from pidscale.figures.fields import field_figure
from pidscale.figures.png import figure_class
from pidscale.generator.arguments import as_int, check_found, params_beside
from pidscale.generator.generator import Generator
from pidscale.generator.tasks.likeliest import Answer
from pidscale.generator.tasks.observations import observe
from pidscale.generator.tasks.posterior import Posterior
from pidscale.pde.base import Samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pidscale.generator.tasks.readings import Readings


@sheltered
def draw_fields(
    generator: Generator,
    fields: Mapping[str, Any],
    count: int = 4,
    channels: Sequence[str] = (),
    own_scales: bool = False,
) -> Figure:
    """Draw samples, a row for each channel, and their relative residual, 1 of which is the scale of the equation.

    Args:
        generator: A student or teacher of the equation, on the grid of the fields.
        fields: Channels [n, Y, X] and varying parameters [n] by name, as `sample` returns them; or several of these by name,
            which are drawn below each other. A channel has the colour scale of the first of them.
        count: Largest number of samples that are drawn.
        channels: The channels that are drawn, and `residual`; empty for the residual and at most four channels.
        own_scales: Whether each row has a colour scale of its own.

    Returns:
        The figure.

    Raises:
        UserError: When fields, count or channels are wrong, or matplotlib is missing.
    """
    _check_drawing("draw_fields", generator)
    count = as_int("count", count, 1)
    known = (*generator.channels, "residual")
    for name in channels:
        if name not in known:
            raise UserError(f"channels: {name!r} is none of {', '.join(known)}")
    if not isinstance(fields, Mapping) or not fields:
        raise UserError(f"fields: a {type(fields).__name__}, expected what sample returns, or several of these by name")
    several = all(isinstance(one, Mapping) for one in fields.values())
    sets = {}
    for label, one in (fields if several else {"": fields}).items():
        joint = generator.join(one, f"fields[{label!r}]" if several else "fields").detach().cpu()
        params = params_beside(generator.pde, one, len(joint))
        sets[str(label)] = Samples(joint, params)
    most = max(len(samples.fields) for samples in sets.values())
    return field_figure(generator.pde, generator.grid, sets, min(count, most), channels, own_scales)


@sheltered
def draw_answer(
    generator: Generator,
    answer: Answer | Posterior,
    values: Any = None,
    mask: Any = None,
    readings: Sequence[Readings] = (),
    truth: Mapping[str, Any] | None = None,
    number: int = 0,
) -> Figure:
    """Draw an answer, or mean, spread and one sample of a posterior, with what was known. Few known points are dots.

    Args:
        generator: The student that was asked.
        answer: What it returned.
        values: The known values, by channel, as they were given; None for none.
        mask: Where they are known, as it was given.
        readings: The readings, as they were given.
        truth: The true fields [n, Y, X] by channel, if they are known.
        number: Number of the observation that is drawn.

    Returns:
        The figure.

    Raises:
        UserError: When an argument is wrong, or matplotlib is missing.
    """
    _check_drawing("draw_answer", generator)
    if not isinstance(answer, (Answer, Posterior)):
        raise UserError(f"answer: a {type(answer).__name__}, expected what reconstruct or posterior returns")
    found = answer.mean if isinstance(answer, Posterior) else answer.fields
    check_found("answer", found, generator.channels, generator.grid.shape)
    number = as_int("number", number, 0, len(found[generator.channels[0]]) - 1)
    known = None
    if values is not None or readings:
        known = observe(generator, "reconstruct", values, mask, readings=readings)
    true = None if truth is None else generator.split(generator.join(truth, "truth").detach().cpu())
    if true is not None and number >= len(true[generator.channels[0]]):
        raise UserError(f"truth: {len(true[generator.channels[0]])} fields, but number={number} is drawn")
    return answer_figure(layers(generator, known, answer, true, number), generator.grid)


def _check_drawing(name: str, generator: Any) -> None:
    """Refuse to draw without matplotlib, and without a generator."""
    figure_class(name, "which draws")
    if not isinstance(generator, Generator):
        raise UserError(f"generator: a {type(generator).__name__}, expected what load_student returns")
