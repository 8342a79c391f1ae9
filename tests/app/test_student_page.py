"""`pidscale show --html`: a page about a student or a teacher, in a real browser, from good and from hostile cards."""

from __future__ import annotations

import base64
import io
import json
import re
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pidscale.app.main import main
from pidscale.compare.tables import MEASURES
from pidscale.figures.galleries import SEEDS, STOPS
from pidscale.generator import artifact
from pidscale.generator.load import load_student
from pidscale.records.check import load_manifest
from pidscale.records.stores.opening import open_store
from tests.app.conftest import Run
from tests.browser import Page, browser, needs_browser
from tests.commands import ROOT
from tests.generator.made import write_generator

DARCY = ROOT / "students" / "darcy"
HOSTILE = "</script><script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">'\"`"
FOLDER = "<img src=x onerror=document.title='ran'>"
PAGES = {"darcy": DARCY, "heat": "heat", "navier_stokes": "navier_stokes", "teacher": "teacher"}
MOST = 3_000_000  # bytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of a student with a report, of one with a parameter, of one with many channels, and of a teacher."""
    made = tmp_path_factory.mktemp("pages")
    write_generator(made / "heat", equation="heat")
    write_generator(made / "navier_stokes", network="fno", equation="navier_stokes")
    write_generator(made / "teacher", "teacher")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        for name, place in PAGES.items():
            assert main(["show", str(place), "--html", f"{name}.html"]) == 0
    return made


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest.fixture
def ask(folder: Path, tmp_path: Path, monkeypatch, capsys):
    """Run a command line here; what it prints on both streams."""
    monkeypatch.chdir(tmp_path)
    for name in ("heat", "teacher"):
        (tmp_path / name).symlink_to(folder / name)

    def run(*words: object, code: int = 0) -> tuple[str, str]:
        assert main(list(map(str, words))) == code
        said, errors = capsys.readouterr()
        assert all(line.startswith("error: ") for line in errors.splitlines()), errors
        return said, errors

    return run


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_small_and_loads_nothing(name: str, folder: Path) -> None:
    text = (folder / f"{name}.html").read_text()
    assert text.startswith("<!doctype html>") and text.endswith("</html>\n") and len(text.encode()) < MOST
    assert (
        not re.search(r"""(?:src|href|srcset)=["'](?!data:)""", text) and "http:" not in text and "https:" not in text
    )
    for part in ("Samples", "Spectra", "Measured", "Use it", "Fields and parameters", "Network and training"):
        assert f"<h2>{part}</h2>" in text
    assert text.count("Its card has no report.") == (name != "darcy") and "A card holds no truths" in text
    frames = [json.loads(found) for found in re.findall(r'<script type="application/json">(.*?)</script>', text)]
    assert [len(found) for found in frames] == ([SEEDS, STOPS] if name == "heat" else [SEEDS])
    tiles = {"darcy": 3, "teacher": 3, "heat": 12, "navier_stokes": 12}[name]  # channels and the residual
    assert len(frames[0][0]["pictures"]) == tiles


def test_a_page_says_what_the_card_says(folder: Path) -> None:
    text = re.sub(r"<[^>]*>", "", (folder / "darcy.html").read_text())
    card = artifact.read_card(DARCY)
    report = card.metrics.report
    for wanted in (
        "Darcy flow: the steady pressure in a porous medium",
        "−∇·(a ∇u) = f",
        f"solution error{report['solution_error']:.3g}",
        f"residual dual{report['residual_dual']:.3g}{report['residual_floor_dual']:.3g}1",
        card.weights_sha256,
        str(card.provenance.data_hash),
        "two_phase",
        "permeabilityinputdimensionless7.514.5",
        "448,850",
        "not recorded in the card",
        f"pidscale.load_student('{DARCY}')".replace("'", "&#x27;"),
    ):
        assert wanted in text, wanted


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (500, True), (360, False)])
@pytest.mark.parametrize("name", PAGES)
def test_a_browser_draws_it_whole_on_any_screen(name: str, width: int, dark: bool, folder: Path, screen: Page) -> None:
    found = screen.open(folder / f"{name}.html", width, dark)
    assert found["missing"] == [] and found["silent"] == 0 and found["images"] > 5 and found["wider"] <= 0
    assert found["dark"] == dark and not screen.errors


def tile(screen: Page, number: int) -> tuple[np.ndarray, str]:
    """What a tile shows, as numbers of its colours with the first row at the bottom, and its description."""
    source, alt = screen.value(
        f"(() => {{ const t = document.querySelectorAll('img.tile')[{number}]; return [t.src, t.alt]; }})()"
    )
    with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as picture:
        assert picture.mode == "P"
        return np.asarray(picture)[::-1].astype(float), alt


@needs_browser
def test_arrow_keys_move_the_slider_to_the_sample_of_that_seed(folder: Path, screen: Page) -> None:
    screen.open(folder / "darcy.html")
    student = load_student(DARCY)
    fields = [student.sample(1, seed=seed)["pressure"][0].numpy() for seed in range(SEEDS)]
    low, high = min(map(np.min, fields)), max(map(np.max, fields))
    screen.value("document.querySelector('input').focus()")
    for seed, key, code in ((0, "Home", 36), (1, "ArrowRight", 39), (2, "ArrowRight", 39), (SEEDS - 1, "End", 35)):
        screen.press(key, code)
        shown, alt = tile(screen, 1)
        assert np.abs(shown - 255 * (fields[seed] - low) / (high - low)).max() <= 0.51, seed
        assert alt.startswith(f"pressure of seed {seed}, from ")
        residual = student.residual(student.sample(1, seed=seed))
        caption = f"seed {seed}; residual l2 {float(residual['l2']):.2g}, dual {float(residual['dual']):.2g}"
        assert screen.value("document.querySelector('output').textContent") == caption
        assert screen.value("document.querySelector('input').ariaValueText") == caption


@needs_browser
def test_a_slider_over_a_parameter_changes_that_alone(folder: Path, screen: Page) -> None:
    screen.open(folder / "heat.html", 500)
    before, _ = tile(screen, 0)
    screen.value("document.querySelectorAll('input')[1].focus()")
    screen.press("End", 35)
    said = screen.value("document.querySelectorAll('output')[1].textContent")
    assert said.startswith("seed 0, diffusivity 0.005; residual l2 ")
    student = load_student(folder / "heat")
    wanted = student.sample(1, seed=0, params={"diffusivity": 0.005})["temperature_00"][0].numpy()
    shown, _ = tile(screen, 12)
    assert np.corrcoef(shown.ravel(), wanted.ravel())[0, 1] > 0.999
    assert np.array_equal(tile(screen, 0)[0], before)  # the other slider has not been moved


@needs_browser
def test_measures_are_sorted_and_copied(folder: Path, screen: Page) -> None:
    screen.open(folder / "darcy.html")
    table = (
        "[...document.querySelectorAll('.table')].find(t => t.querySelector('p').textContent.startsWith('Measures'))"
    )
    report = artifact.read_card(DARCY).metrics.report
    known = {title.text: report[key] for key, title in MEASURES.items() if report.get(key) is not None}
    screen.click(f"{table}.querySelectorAll('th button')[1]")
    screen.click(f"{table}.querySelector('button')")
    head, *lines = [line.split("\t") for line in screen.clipboard().split("\n")]
    assert head == ["measure", "this student", "truth", "null solution", "what it is"]
    assert [float(line[1]) for line in lines] == sorted(known.values())
    assert {line[0]: float(line[1]) for line in lines} == known
    assert next(line for line in lines if line[0] == "residual l2")[2:4] == [str(report["residual_floor"]), "1.0"]


@needs_browser
def test_the_lines_that_are_copied_run(folder: Path, screen: Page, capsys: pytest.CaptureFixture[str]) -> None:
    screen.open(folder / "darcy.html")
    screen.click("document.querySelector('.code > button')")
    names: dict[str, Any] = {}
    exec(compile(screen.clipboard(), "copied", "exec"), names)
    assert set(names["fields"]) == {"permeability", "pressure"} and names["fields"]["pressure"].shape == (16, 32, 32)


# ---- hostile and unusual cards


def hostile(place: Path) -> Path:
    """A student whose card has text for HTML wherever a card is not checked, and values of wrong types in its report."""
    write_generator(place, equation="heat")
    card = artifact.read_plain(place)
    for channel in card["channels"]:
        channel["unit"] = channel["role"] = HOSTILE
    card["provenance"] |= {
        "teacher": HOSTILE,
        "objective": HOSTILE,
        "licence": HOSTILE,
        "weights": [HOSTILE],
        "endpoints": 3,
    }
    card["provenance"] |= {HOSTILE: HOSTILE, "deep": {HOSTILE: [HOSTILE, {HOSTILE: None}]}, "long": "x" * 10**6}
    card["provenance"] |= {f"key{number}": number for number in range(500)}
    report = dict.fromkeys(MEASURES, HOSTILE) | {"swd": 10**400, "mmse": True, "smse": [1], "nfe": {HOSTILE: HOSTILE}}
    report |= {
        "variance_ratio": {HOSTILE: HOSTILE, "temperature_00": HOSTILE},
        "swd_by_channel": HOSTILE,
        "seeds": HOSTILE,
    }
    card["metrics"] = {"report": report, HOSTILE: HOSTILE}
    artifact.write_plain(place, card)
    return place


@needs_browser
def test_a_hostile_card_is_shown_and_runs_nothing(ask, screen: Page, tmp_path: Path) -> None:
    place = hostile(tmp_path / FOLDER)
    said, _ = ask("show", place.name, "--html", "page.html")
    assert said.splitlines()[0] == f"{FOLDER}: student"
    text = (tmp_path / "page.html").read_text()
    assert (
        len(text.encode()) < MOST and text.count("<script") == 3
    )  # two sliders' pictures, and the script of all pages
    for width in (1280, 500):
        found = screen.open(tmp_path / "page.html", width)
        assert screen.value("document.title") == "pidscale: heat, a student" and not screen.errors
        assert found["missing"] == [] and found["wider"] <= 0
    assert screen.value("document.body.textContent").count(HOSTILE) > 20
    ask("show", place.name)  # and in a terminal


def test_a_student_that_makes_no_fields_is_one_line(ask, tmp_path: Path) -> None:
    place = write_generator(tmp_path / "broken", equation="heat")
    card = artifact.read_plain(place)
    card["normaliser"]["std"] = [1e25] * len(card["channels"])
    artifact.write_plain(place, card)
    _, errors = ask("show", "broken", "--html", code=2)
    assert (
        errors.startswith("error: broken: its samples cannot be shown: fields: too large") and errors.count("\n") == 1
    )
    assert not (tmp_path / "broken.html").exists()


def test_an_equation_of_ones_own_is_named_and_speaks_for_itself(ask, tmp_path: Path, monkeypatch) -> None:
    shutil.copy(ROOT / "docs" / "examples" / "fisher.py", tmp_path)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        write_generator(tmp_path / "own", equation="fisher:Fisher")
        ask("show", "own", "--html", "--equation", "fisher:Fisher")
    text = re.sub(r"<[^>]*>", "", (tmp_path / "own.html").read_text())
    assert "import fisher  # its equation\n" in text and "--student own --equation fisher:Fisher -n 16" in text
    title = (tmp_path / "fisher.py").read_text().split('"""')[1].splitlines()[0]
    assert title.removesuffix(".").replace("'", "&#x27;") in text
    sys.modules.pop("fisher")
    _, errors = ask("show", "own", "--html", code=2)
    assert errors.count("\n") == 1 and "--equation fisher:Fisher" in errors


# ---- truths of a shard set


def test_spectra_of_truths_are_drawn_beside_those_of_samples(ask, small_shards: Path, tmp_path: Path) -> None:
    write_generator(tmp_path / "student")
    said, _ = ask("show", "student", "--html", "--data", small_shards)
    assert re.search(r"page        student\.html, \d+\.\d KiB, made in \d+\.\d s", said.splitlines()[-1])
    text = (tmp_path / "student.html").read_text()
    assert f"Truths: 16 of the split test of {small_shards}, the set of its equation and grid, but not the one" in text
    card = artifact.read_plain(tmp_path / "student")
    card["provenance"]["data_hash"] = load_manifest(open_store(str(small_shards))).data_hash
    artifact.write_plain(tmp_path / "student", card)
    ask("show", "student", "--html", "--data", small_shards)
    again = (tmp_path / "student.html").read_text()
    assert f"Truths: 16 of the split test of {small_shards}, the set it was trained on." in again
    _, errors = ask("show", "heat", "--html", "--data", small_shards, code=2)
    assert errors.count("\n") == 1 and f"--data={small_shards}: not a set of heat with the parameters" in errors


# ---- mistakes


def test_a_mistake_is_one_line_and_writes_nothing(ask, small_shards: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for words, part in (
        (["heat", "--html", "folder.html"], "--html=folder.html: is a folder; name a file in it"),
        (["heat", "--html", "nowhere/x.html"], "--html=nowhere/x.html: no folder nowhere; make it first"),
        (["heat", "--html", "/proc/x.html"], "--html=/proc/x.html: "),
        (["heat", "--html", "x.htm"], "--html=x.htm: expected a name that ends in .html"),
        (["heat", "--html", "s3://bucket/x.html"], "--html"),
        (["--html", "heat"], "the following arguments are required: FOLDER"),
        (["empty", "--html"], "empty: holds neither card.json"),
        (["nowhere", "--html"], "nowhere: no such folder"),
        ([small_shards, "--html"], "--html: a page is about a student or a teacher, and"),
        (["heat", "--data", small_shards], f"--data={small_shards}: only a page shows truths; add --html"),
        (["heat", "--html", "--data", "nowhere"], "nowhere"),
        (["heat", "--html", "--data", "empty"], "empty"),
        (["heat", "--html", "--equation", "darcy"], "heat: a student of heat, not of darcy"),
        (["heat", "--equation", "darcy"], "heat: a student of heat, not of darcy"),
    ):
        _, errors = ask("show", *words, code=2)
        assert errors.count("\n") == 1 and part in errors, errors
        assert sorted(tmp_path.rglob("*")) == before, words


def test_a_network_that_makes_no_samples_has_no_page(ask, tmp_path: Path) -> None:
    write_generator(tmp_path / "direct", "regression")
    assert ask("show", "direct")[0].startswith("direct: regression")
    _, errors = ask("show", "direct", "--html", code=2)
    assert (
        errors.count("\n") == 1 and "direct: holds a regression" in errors and not (tmp_path / "direct.html").exists()
    )


def test_a_page_is_replaced_as_a_whole_or_not_at_all(ask, tmp_path: Path) -> None:
    (tmp_path / "heat.html").write_text("the page of before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # a real failure, in the middle of the file
    try:
        _, errors = ask("show", "heat", "--html", code=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert errors == "error: --html=heat.html: File too large; name a file that can be written\n"
    assert (tmp_path / "heat.html").read_text() == "the page of before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heat", "heat.html", "teacher"]
    ask("show", "heat/", "--html")
    assert (tmp_path / "heat.html").read_text().startswith("<!doctype html>")


def test_without_matplotlib_a_page_is_one_line_and_the_text_is_there(base_only: Run, tmp_path: Path) -> None:
    shutil.copytree(DARCY, tmp_path / "darcy")
    found = base_only("show", "darcy", "--html")
    assert found.returncode == 2 and found.stderr.count("\n") == 1 and not (tmp_path / "darcy.html").exists()
    assert "pidscale show: the package matplotlib is not installed; run `pip install 'pidscale[train]'`" in found.stderr
    found = base_only("show", "darcy")
    assert found.returncode == 0 and not found.stderr and "solution error 0.000505" in found.stdout
