"""What shows how a run goes: pictures, curves and their layout as TensorBoard reads them, and the progress line.

tests/distill/test_loop.py holds the pictures of resumed runs against those of unbroken ones, on two ranks.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pidscale.config import Settings, TrainSettings
from pidscale.dataset.problem import open_problem
from pidscale.distill import loop as distill_loop
from pidscale.distill import results
from pidscale.engine.window import TileWindow
from pidscale.figures.progress import progress_picture
from pidscale.generator.load import load_student
from pidscale.meter import Board, StepTimer
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.parallel.split import Cut
from pidscale.pde.base import Samples
from pidscale.run.monitor import LAYOUT, METRICS, Monitor, ResidualBounds, residual_bounds
from pidscale.run.pictures import Pictures
from pidscale.run.reporting import Reporter
from pidscale.teacher import evaluation
from pidscale.teacher import loop as teacher_loop
from tests import small
from tests.commands import ROOT
from tests.ranks import spawn

PHASES = {"teacher": teacher_loop, "distill": distill_loop}
STUDENTS = ("student", "student-lambda0")
NOTE = re.compile(r"loss \d\.\d{4}(, residual (\S+) \(truth (\S+), null 1\))?")


def events_of(folder: Path) -> EventAccumulator:
    """All events of a board."""
    events = EventAccumulator(str(folder), {"images": 0, "scalars": 0})
    events.Reload()
    return events


# ---- when, and beside what


@pytest.mark.parametrize(
    ("steps", "pictures"), [(1000, 10), (1109, 10), (12, 10), (7, 10), (100, 1), (100, 0), (30, 30)]
)
def test_pictures_are_spread_over_a_run(steps: int, pictures: int) -> None:
    unused: Any = None
    monitor = Monitor(unused, unused, unused, TrainSettings(steps=steps, pictures=pictures), StepTimer())
    due = [done for done in range(1, steps + 1) if monitor.due(done)]
    assert len(due) == max(0, min(steps, pictures) - 1)  # and one at the end, in any case
    places = [0, *due, steps]
    assert max(b - a for a, b in itertools.pairwise(places)) <= -(-steps // max(1, pictures))


def test_a_line_has_the_residual_beside_truth_and_null_solution() -> None:
    bounds = ResidualBounds({"l2": 5.6e-6, "dual": 4.2e-7}, {"l2": 1.0, "dual": 1.0, "boundary": 0.0})
    assert bounds.note(0.01234, 0.0712) == "loss 0.0123, residual 0.071 (truth 4.2e-07, null 1)"
    assert bounds.note(0.01234, None) == "loss 0.0123"
    assert bounds.note(float("inf"), float("nan")).startswith("loss not finite, residual not finite (truth")
    assert bounds.lines("a/") == {
        "a/floor_l2": 5.6e-6,
        "a/floor_dual": 4.2e-7,
        "a/null_l2": 1.0,
        "a/null_dual": 1.0,
        "a/null_boundary": 0.0,
    }


def test_the_bounds_are_those_of_the_set(heat_shards: Path, tmp_path: Path) -> None:
    settings = small.settings(heat_shards, tmp_path)
    problem = open_problem(settings.pde, settings.data)
    bounds = residual_bounds(problem, Window(problem.grid), Mesh())
    assert bounds.floor["dual"] < 1e-3 * bounds.null["dual"] and 0.1 < bounds.null["l2"] < 10


# ---- the picture


def _sets(world: int, rank: int) -> tuple[Any, Window, dict[str, Samples]]:
    """A student's samples and fields that are far from it, the rows of a rank."""
    student = load_student(ROOT / "students" / "darcy")
    rows = student.grid.shape[0]
    window = Window(student.grid)
    if world > 1:
        cut = Cut.even(rows, world) if world == 2 else Cut((0, 5, 21, rows))
        window = TileWindow(student.grid, cut, Mesh.over(rank, world, torch.device("cpu"), world).space)
    fields = student.join(student.sample(3, seed=1))
    other = torch.stack([fields[:, 0], fields[:, 1].flip(0)], dim=1)  # with the pressures of other samples
    sets = {"student": fields, "other": other, "wrong": 1.3 * fields}
    return student, window, {name: Samples(window.crop(one), torch.zeros(3, 0)) for name, one in sets.items()}


def _drawn(rank: int, world: int, folder: Path) -> dict[str, dict[str, float]]:
    _, window, sets = _sets(world, rank)
    settings = small.settings(folder / "shards", folder)
    settings = replace(settings, pde=replace(settings.pde, points=32))
    board = Board(folder / str(world) if rank == 0 else None)
    pictures = Pictures(open_problem(settings.pde, settings.data), window, torch.device("cpu"), board)
    found = pictures.draw(sets, 7)
    pictures.draw({"broken": sets["student"]._replace(fields=sets["student"].fields * float("nan"))}, 8)
    board.close()
    return found


def test_ranks_that_share_fields_draw_the_picture_of_one_process(tmp_path: Path) -> None:
    small.make_shards(tmp_path / "shards", 32)
    whole = _drawn(0, 1, tmp_path)
    (picture,) = events_of(tmp_path / "1").Images("fields")  # none of values that are not finite
    assert picture.step == 7 and picture.encoded_image_string.startswith(b"\x89PNG")
    assert whole["student"]["dual"] < 0.1 * whole["other"]["dual"]
    for world in (2, 3):
        ranks = spawn(_drawn, world, tmp_path)
        for found in ranks:
            for label, norms in found.items():
                assert norms == pytest.approx(whole[label], rel=1e-4, abs=1e-7), (world, label)
        (split,) = events_of(tmp_path / str(world)).Images("fields")
        assert split.encoded_image_string == picture.encoded_image_string, world


def test_a_small_residual_is_pale_and_the_colours_mean_the_same_in_every_picture() -> None:
    student, _, _ = _sets(1, 0)
    values = np.linspace(0, 1, 3 * 32 * 32, dtype=np.float32).reshape(3, 32, 32)

    def tile(residual: float, other: float) -> np.ndarray:
        shown = {}
        for label, size in (("truth", other), ("student", residual)):
            channels = {channel.name: values for channel in student.pde.channels}
            shown[label] = channels | {"residual": np.full((3, 30, 30), size, dtype=np.float32)}
        picture = progress_picture(student.pde, shown)
        return picture[-20, 130]  # in the last row of tiles, that of the student's residual

    assert np.array_equal(tile(0.3, 0.0), tile(0.3, 50.0)) and np.array_equal(tile(2.0, 0.0), tile(90.0, 0.0))
    pale, faint, strong = (int(tile(size, 0.0).min()) for size in (1e-5, 0.02, 0.5))
    assert pale > 240 and pale > faint > strong


# ---- real runs


class Unlucky(Exception):
    """A failure at the very end of a phase."""


def _state() -> tuple[Any, ...]:
    """The state of every generator that a library may draw from."""
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


def _watch(module: Any, kept: list[bool]) -> None:
    """Note whether a module's pictures leave all random states alone."""
    plain = module.picture

    def picture(*given: Any) -> Any:
        before = _state()
        found = plain(*given)
        kept.append(before == _state())
        return found

    module.picture = picture


def _lives(rank: int, world: int, drawn: Settings, bare: Settings) -> dict[str, Any]:
    """Both phases with pictures, each failing once when its results are published, and both without."""
    notes: dict[str, list[str]] = {"teacher": [], "distill": []}
    kept: list[bool] = []
    for settings in (drawn, bare):
        run = Path(settings.run.folder) / settings.run.name
        run.mkdir(parents=True)
        if settings is drawn:
            for module in (evaluation, results):
                _watch(module, kept)
        for phase, loop in PHASES.items():
            name = "_publish" if phase == "teacher" else "publish_student"
            plain = getattr(loop, name)
            reporter = Reporter(lambda done, total, note: notes[phase].append(note) if settings is drawn else None)  # noqa: B023

            def fails(*given: Any) -> None:
                raise Unlucky

            if settings is drawn:
                setattr(loop, name, fails)
                with pytest.raises(Unlucky):
                    loop.train(settings, run, Mesh(rank, world), reporter)
                setattr(loop, name, plain)
                time.sleep(1.1)  # event files are named and ordered by the second
            loop.train(settings, run, Mesh(rank, world), reporter)
    return {"notes": notes, "kept": kept}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Two runs of the same settings, `drawn` with pictures and `bare` without, and what `_lives` returned."""
    root = tmp_path_factory.mktemp("watched")
    shards = small.make_shards(root / "shards")
    course = {"steps": 20, "checkpoint_every": 8, "log_every": 5}
    teacher = course | {"evaluate_every": 10}
    distill = course | {"physics_from": 0.5}

    def of(name: str, pictures: int) -> Settings:
        own = {"pictures": pictures}
        run = {"folder": str(root / "runs"), "name": name}
        return small.settings(shards, root, "fno", teacher=teacher | own, distill=distill | own, run=run)

    (found,) = spawn(_lives, 1, of("drawn", 10), of("bare", 0), timeout=300)
    yield root / "runs", found


def test_pictures_change_no_bit_and_draw_no_random_number(runs: tuple[Path, dict[str, Any]]) -> None:
    root, found = runs
    assert len(found["kept"]) >= 18 and all(found["kept"])
    for name in ("teacher", *STUDENTS):
        first, second = (load_file(root / run / name / "weights.safetensors") for run in ("drawn", "bare"))
        assert first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first), name


def test_a_board_has_every_picture_once_and_no_name_twice(runs: tuple[Path, dict[str, Any]]) -> None:
    """Also of phases whose last attempt had nothing left to do but to publish."""
    root, _ = runs
    for phase in PHASES:
        events = events_of(root / "drawn" / "tb" / phase)
        pictures = events.Images("fields")
        assert [one.step for one in pictures] == list(range(2, 21, 2)), phase
        assert len({one.encoded_image_string for one in pictures}) == 10
        assert [one.step for one in events_of(root / "bare" / "tb" / phase).Images("fields")] == [20]
        for tag in events.Tags()["scalars"]:
            steps = [point.step for point in events.Scalars(tag)]
            assert steps == sorted(set(steps)) and steps[0] > 0, (phase, tag, steps)
    students = events_of(root / "drawn" / "tb" / "distill")
    assert not {f"student/{name}" for name in ("loss", "match", "l2", "dual", "boundary")} & set(
        students.Tags()["scalars"]
    )
    for norm in ("l2", "dual"):
        null = students.Scalars(f"student/null_{norm}")
        assert (
            len({point.value for point in null}) == 1
            and null[0].value > 100 * students.Scalars(f"student/floor_{norm}")[0].value
        )
        for student in STUDENTS:  # the control comes with the physics
            points = students.Scalars(f"{student}/pictured_{norm}")
            assert [point.step for point in points] == list(range(2 if student == "student" else 12, 21, 2))


def test_each_line_has_the_residual_as_soon_as_there_is_one(runs: tuple[Path, dict[str, Any]]) -> None:
    root, found = runs
    for phase in PHASES:
        read = [NOTE.fullmatch(note) for note in found["notes"][phase]]
        assert len(read) >= 4 and all(match is not None and match[1] is not None for match in read), found["notes"][
            phase
        ]
    last = float(found["notes"]["teacher"][-1].split("residual ")[1].split()[0])
    assert last == pytest.approx(
        events_of(root / "drawn" / "tb" / "teacher").Scalars("residual/dual")[-1].value, rel=0.06
    )


# ---- TensorBoard itself


@pytest.fixture(scope="module")
def address(runs: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """TensorBoard's own server of both runs on this machine."""
    log = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs[0]), "--host", "127.0.0.1", "--port", "0"]
    with log.open("w") as out:
        server = subprocess.Popen(
            [*command, "--load_fast=false"], stdout=out, stderr=out, env=os.environ | {"NO_COLOR": "1"}
        )
    try:
        until = time.monotonic() + 120
        found = None
        while found is None or len(ask(found, "runs")) < 4:
            assert server.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.2)
            said = re.search(r"at (http://127\.0\.0\.1:\d+)/", log.read_text())
            found = said and said[1]
        yield found
    finally:
        server.kill()
        server.wait()


def ask(address: str, route: str, body: Any = None) -> Any:
    """What TensorBoard answers to its page; nothing as long as it is not there yet."""
    data = None if body is None else json.dumps(body).encode()
    headers = {} if data is None else {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/data/{route}", data, headers)
    with suppress(ConnectionError, urllib.error.URLError), urllib.request.urlopen(request) as answer:
        return json.load(answer)
    return []


def test_tensorboard_groups_the_curves(address: str) -> None:
    """The layout as its page gets it, merged from all boards; each chart has curves of one of the phases."""
    layout = ask(address, "plugin/custom_scalars/layout")
    shown = {
        group["title"]: {one["title"]: one["multiline"]["tag"] for one in group["chart"]}
        for group in layout["category"]
    }
    assert shown == {group: {name: list(tags) for name, tags in own.items()} for group, own in LAYOUT.items()}
    seen: dict[str, set[str]] = {}
    for group, charts in shown.items():
        for name, tags in charts.items():
            found = set[str]()
            for phase in PHASES:
                asked = urllib.parse.urlencode(
                    {"run": f"drawn/tb/{phase}", "tag": "|".join(f"({tag})" for tag in tags)}
                )
                answer = ask(address, f"plugin/custom_scalars/scalars?{asked}")
                assert answer["regex_valid"], tags
                found |= answer["tag_to_events"].keys()
            seen[f"{group}: {name}"] = found
    assert [name for name, found in seen.items() if not found] == [
        "time: seconds a step, slowest worker"
    ]  # there is one
    assert seen["residual: teacher, dual"] == {f"residual/{kind}dual" for kind in ("", "pictured_", "floor_", "null_")}
    kinds = {f"student/{kind}_dual" for kind in ("residual", "pictured", "teacher", "floor", "null")}
    assert seen["residual: students, dual"] == kinds | {"student-lambda0/pictured_dual"}
    curves = ask(address, "plugin/scalars/tags")
    named = {tag for phase in PHASES for tag in curves[f"drawn/tb/{phase}"]}
    assert not named - set.union(*seen.values())  # no curve is left out


def test_the_table_of_hyperparameters_has_the_curves_as_metrics(address: str) -> None:
    experiment = ask(address, "plugin/hparams/experiment", {"experimentName": ""})
    metrics = [metric["name"]["tag"] for metric in experiment["metricInfos"]]
    assert tuple(metrics) == METRICS
    names = [one["name"] for one in experiment["hparamInfos"]]
    assert len(names) == len(set(names)) and {"teacher.lr", "distill.weights.dual", "run.seed"} <= set(names)
    assert not set(names) & set(metrics)
    wanted = {
        "startIndex": 0,
        "sliceSize": 10,
        "allowedStatuses": ["STATUS_SUCCESS", "STATUS_UNKNOWN", "STATUS_RUNNING"],
    }
    rows = {"colParams": [{"metric": metric["name"]} for metric in experiment["metricInfos"]]}
    groups = ask(address, "plugin/hparams/session_groups", {"experimentName": "", **wanted, **rows})["sessionGroups"]
    found = {
        m["name"]["tag"] for group in groups for session in group["sessions"] for m in session.get("metricValues", [])
    }
    assert found == set(METRICS)
