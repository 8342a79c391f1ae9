"""Pictures in Python and notebooks: coordinates, units, sensors where they are, and shown without pyplot."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pidscale
from pidscale.config import UserError
from pidscale.figures.answer import layers
from pidscale.figures.fields import titled
from pidscale.generator.generator import Fields
from pidscale.generator.student import Student
from pidscale.generator.tasks.readings import means, points, slopes
from pidscale.pde.base import Channel
from tests.commands import ROOT

PLACES = [[0.31, 0.52], [0.7, 0.114]]  # y, x: between grid points
QUICK = {"starts": 1, "steps": 4, "field_steps": 4}


@pytest.fixture(scope="module")
def student() -> Student:
    return pidscale.load_student(ROOT / "students" / "darcy")


@pytest.fixture(scope="module")
def fields(student: Student) -> Fields:
    return student.sample(n=3, seed=0)


def images(figure: Any) -> list[Any]:
    return [axis.images[0] for axis in figure.axes if axis.images and not axis.get_label().startswith("<colorbar")]


def test_a_row_for_each_channel_and_set_and_coordinates_at_its_sides(student: Student, fields: Fields) -> None:
    figure = pidscale.draw_fields(student, {"student": fields, "null": student.null(fields)}, count=2)
    assert len(images(figure)) == 3 * 2 * 2
    assert [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()] == [
        *("permeability\nstudent", "permeability\nnull", "pressure\nstudent", "pressure\nnull"),
        *("relative residual\nstudent", "relative residual\nnull"),
    ]
    left, *_, last = (axis for axis in figure.axes if axis.images)
    assert [one.get_text() for one in left.get_yticklabels()] == ["0", "y = 1"]
    assert [one.get_text() for one in last.get_xticklabels()] == ["0", "x = 1"]
    np.testing.assert_array_equal(images(figure)[0].get_array(), fields["permeability"][0])


def test_sets_may_be_called_by_numbers(student: Student, fields: Fields) -> None:
    figure = pidscale.draw_fields(student, {0: fields, 4: fields}, 1, ["pressure"])
    assert [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()] == ["pressure\n0", "pressure\n4"]


def test_the_scale_of_a_residual_is_shared_unless_each_row_has_its_own(student: Student, fields: Fields) -> None:
    sets = {"student": fields, "null": student.null(fields)}
    shared = [one.get_clim()[1] for one in images(pidscale.draw_fields(student, sets, 1, ["residual"]))]
    own = [one.get_clim()[1] for one in images(pidscale.draw_fields(student, sets, 1, ["residual"], own_scales=True))]
    assert shared == pytest.approx([1, 1], rel=1e-3)
    assert own[1] == pytest.approx(1, rel=1e-3) and own[0] < 0.2


def test_a_channel_is_titled_with_its_unit() -> None:
    assert titled(Channel("pressure", "1", "solution")) == "pressure"
    assert titled(Channel("head", "m", "solution")) == "head [m]"


def test_rows_that_are_times_are_labelled_so() -> None:
    burgers = pidscale.load_student(ROOT / "students" / "burgers")
    figure = pidscale.draw_fields(burgers, burgers.sample(1))
    assert [one.get_text() for one in figure.axes[0].get_yticklabels()] == ["0", "t = 1"]


def test_each_of_many_channels_can_be_asked_for() -> None:
    flow = pidscale.load_student(ROOT / "students" / "navier_stokes")
    fields = flow.sample(1)
    (image,) = images(
        pidscale.draw_fields(flow, fields, channels=["vorticity_01"])
    )  # one that is left out of the usual
    np.testing.assert_array_equal(image.get_array(), fields["vorticity_01"][0])


def test_sensors_are_dots_where_they_are(student: Student, fields: Fields) -> None:
    readings = [points(student, "pressure", PLACES, [0.0107, 0.0027]), means(student, "pressure", [[0.5] * 4], [0.009])]
    readings.append(slopes(student, "pressure", [[0.9, 0.5]], "y", [-0.027], sigma=1e-3))  # a slope is no value: no dot
    known = {"permeability": torch.full((32, 32), torch.nan)}
    known["permeability"][8, 31] = 12.0
    answer = student.reconstruct(known, readings=readings, **QUICK)
    truth = {name: values[:1] for name, values in fields.items()}
    figure = pidscale.draw_answer(student, answer, known, readings=readings, truth=truth)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == [f"{name}: {what}" for name in student.channels for what in ("truth", "known", "answer")]
    dots = [axis.collections[0] for axis in figure.axes if axis.get_title().endswith("known")]
    np.testing.assert_allclose(dots[0].get_offsets(), [[1.0, 8 / 31]], atol=1e-6)
    np.testing.assert_allclose(dots[1].get_offsets(), [[x, y] for y, x in [*PLACES, (0.5, 0.5)]], atol=1e-6)
    np.testing.assert_allclose(dots[1].get_array(), [0.0107, 0.0027, 0.009], rtol=1e-6)


def test_a_posterior_has_mean_spread_and_a_sample_and_what_nobody_read_says_so(student: Student) -> None:
    readings = [points(student, "pressure", PLACES, [0.0107, 0.0027])]
    draws = student.posterior("reconstruct", count=2, readings=readings, steps=3)
    figure = pidscale.draw_answer(student, draws, readings=readings)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title().startswith("pressure")]
    assert titles == [f"pressure: {what}" for what in ("known", "mean", "spread", "one sample")]
    assert [one.get_text() for one in figure.axes[0].texts] == ["nothing"]


def test_many_known_points_are_a_picture(student: Student, fields: Fields) -> None:
    answer = student.forward(fields["permeability"])
    (row, _) = layers(student, student._observed("forward", fields["permeability"], None, None), answer, number=2)
    assert torch.equal(row.panels["known"], fields["permeability"][2]) and not len(row.sensors_M3)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_the_mode_of_the_caller_does_not_matter(student: Student, mode: Any) -> None:
    with mode():
        own = student.sample(n=1, seed=0)
        pidscale.draw_fields(student, {"sample": own, "truth": student.truths(1), "null": student.null(own)})


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"fields": None}, "fields: a NoneType"),
        ({"count": 0}, "count=0"),
        ({"channels": ["presure"]}, "channels: 'presure' is none of permeability, pressure, residual"),
        ({"fields": {"pressure": torch.zeros(1, 32, 32)}}, "fields: channel 'permeability' is missing"),
        ({"fields": {4: {}}}, "fields[4]: channel 'permeability' is missing"),
        (
            {"fields": {"a": dict.fromkeys(("permeability", "pressure"), torch.zeros(1, 5, 32))}},
            "fields['a']['permeability']: shape (1, 5, 32)",
        ),
    ],
)
def test_mistakes_are_one_line(student: Student, fields: Fields, given: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError) as caught:
        pidscale.draw_fields(student, **({"fields": fields} | given))
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_an_answer_that_does_not_fit_is_one_line(student: Student, fields: Fields) -> None:
    answer = student.forward(fields["permeability"][:2])
    burgers = pidscale.load_student(ROOT / "students" / "burgers")
    one = {name: values[:1] for name, values in fields.items()}
    cases: list[tuple[str, Any, Any, dict[str, Any]]] = [
        ("number=2", student, answer, {"number": 2}),
        ("answer: a dict, expected what reconstruct or posterior returns", student, fields, {}),
        ("answer: found by another generator", burgers, answer, {}),
        ("truth: 1 fields, but number=1", student, answer, {"truth": one, "number": 1}),
        ("truth: a int, expected a dict", student, answer, {"truth": 3}),
        ("truth: channel 'pressure' is missing", student, answer, {"truth": {"permeability": one["permeability"]}}),
        (
            r"truth\['permeability'\]: holds",
            student,
            answer,
            {"truth": dict.fromkeys(one, torch.full((1, 32, 32), math.nan))},
        ),
        ("generator: a NoneType", None, answer, {}),
    ]
    for part, generator, given, how in cases:
        with pytest.raises(UserError, match=part):
            pidscale.draw_answer(generator, given, **how)


def test_a_residual_without_the_points_of_the_edge_is_drawn_inside_the_same_axes(
    student: Student, fields: Fields
) -> None:
    pressure, residual = images(pidscale.draw_fields(student, fields, 1, ["pressure", "residual"]))
    assert residual.get_array().shape == (30, 30) and pressure.get_array().shape == (32, 32)
    assert residual.axes.get_xlim() == pytest.approx(pressure.axes.get_xlim())
    assert residual.get_extent() == pytest.approx([0.5 / 31, 30.5 / 31] * 2)
    assert [float(at) for at in residual.axes.get_xticks()] == [0.0, 1.0]


def test_a_kernel_that_never_imported_pyplot_gets_a_picture(tmp_path: Path) -> None:
    """IPython draws figures of matplotlib itself only once pyplot is there."""
    code = """
import sys, pidscale
from IPython.core.formatters import DisplayFormatter
student = pidscale.load_student(sys.argv[1])
figure = pidscale.draw_fields(student, student.sample(1))
data, _ = DisplayFormatter().format(figure)
assert data["image/png"].startswith(b"\\x89PNG") and "matplotlib.pyplot" not in sys.modules
"""
    command = [sys.executable, "-W", "error", "-c", code, str(ROOT / "students" / "darcy")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["matplotlib"] = None
import pidscale
try:
    pidscale.draw_fields(pidscale.load_student(sys.argv[1]), {})
except pidscale.UserError as error:
    print(error)
"""
    command = [sys.executable, "-c", code, str(ROOT / "students" / "darcy")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == "draw_fields: pictures need matplotlib; pip install matplotlib, which draws\n", done.stderr
