"""Students on the hub: uploaded and downloaded by the hub's own client, and refusals in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

import pidscale
from pidscale.generator.artifact import CARD, WEIGHTS, read_card
from pidscale.generator.hub import local, push
from pidscale.generator.model_card import text_of
from tests.app.conftest import run_without
from tests.generator.known import refused
from tests.generator.made import write_generator
from tests.hub import TOKEN, Hub, running
from tests.scripts import ROOT

DARCY = ROOT / "students" / "darcy"
SEVERAL = """
import json, sys, time, pidscale
for call in json.loads(sys.argv[1]):
    begun = time.monotonic()
    try:
        getattr(pidscale, call[0])(*call[1], **call[2])
        print("done")
    except pidscale.UserError as error:
        print(error)
    assert time.monotonic() - begun < 20
"""
Call = tuple[str, list[str], dict[str, object]]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running() as hub:
        yield hub


def lines(environment: dict[str, str], folder: Path, *calls: Call) -> list[str]:
    """Call functions of the package in a process of its own, since the hub's client reads its environment once."""
    command = [sys.executable, "-c", SEVERAL, json.dumps(calls)]
    environment = environment | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == len(calls), done.stdout + done.stderr
    return done.stdout.splitlines()


def load(name: str, **named: object) -> Call:
    return "load_student", [name], named


def pidscale_in(folder: Path, environment: dict[str, str], *words: str) -> str:
    command = [sys.executable, "-m", "pidscale", *words]
    environment = environment | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_student_that_was_pushed_is_loaded_by_its_name(hub: Hub, tmp_path: Path) -> None:
    environment = hub.environment(tmp_path / "home")
    said = pidscale_in(tmp_path, environment, "push", str(DARCY), "org/darcy", "--license", "apache-2.0")
    assert said.startswith(f"uploaded: http://127.0.0.1:{hub.port}/org/darcy/commit/")
    files = hub.commits["org/darcy"][-1]
    assert set(files) == {".gitattributes", "README.md", CARD, WEIGHTS}
    assert all(files[name] == (DARCY / name).read_bytes() for name in (CARD, WEIGHTS))
    _, header, page = files["README.md"].decode().split("---\n", 2)
    assert yaml.safe_load(header)["license"] == "apache-2.0" and 'load_student("org/darcy")' in page
    hub.commits["org/darcy"][-1]["code.py"] = b"raise SystemExit\n"

    words = ["--student", "org/darcy", "-n", "3", "--seed", "2", "--out", "fields.npz"]
    anyone = hub.environment(tmp_path / "other", token=None)
    pidscale_in(tmp_path, anyone, "sample", *words)
    wanted = pidscale.load_student(DARCY).sample(3, seed=2)
    with np.load(tmp_path / "fields.npz") as found:
        assert all(np.allclose(found[name], values, rtol=1e-5, atol=1e-7) for name, values in wanted.items())
    assert not any("code.py" in path or "README" in path for path in hub.asked if "resolve" in path)
    count = len(hub.asked)
    said, line = lines(anyone | {"HF_HUB_OFFLINE": "1"}, tmp_path, load("org/darcy"), load("org/x"))
    assert (
        said == "done"
        and "HF_HUB_OFFLINE is set, so that only whole copies in the cache of this machine are used" in line
    )
    assert len(hub.asked) == count


def test_a_later_push_keeps_the_page_and_removes_what_the_student_has_no_more(hub: Hub, tmp_path: Path) -> None:
    teacher = write_generator(tmp_path / "student" / "teacher", "teacher")
    student = write_generator(tmp_path / "student", teacher=teacher)
    environment = hub.environment(tmp_path / "home")
    named = {"private": True}
    assert lines(environment, tmp_path, ("push", [str(student), "org/two"], named)) == ["done"]
    assert hub.private == {"org/two"}
    first = hub.commits["org/two"][-1]
    assert {f"teacher/{CARD}", f"teacher/{WEIGHTS}"} < set(first) and "license" not in first["README.md"].decode()
    first["README.md"] = b"written by hand"
    shutil.rmtree(teacher)
    write_generator(student, seed=1)
    calls = [("push", [str(student), "org/two"], {}), ("push", [str(student), "org/two"], {"new_readme": True})]
    *done, line = lines(environment, tmp_path, *calls, ("push", [str(student), "other/x"], {}))
    assert done == ["done", "done"]
    assert line.startswith("other/x: not uploaded: no permission (403); log in") and TOKEN not in line
    _, _, second, third = hub.commits["org/two"]
    assert set(second) == set(third) == {".gitattributes", "README.md", CARD, WEIGHTS}
    assert second[WEIGHTS] == (student / WEIGHTS).read_bytes() != first[WEIGHTS]
    assert second["README.md"] == b"written by hand" and b"load_student" in third["README.md"]
    hub.commits["org/two"].pop(0)
    before = load("org/two", revision="first", teacher="org/two")
    said = lines(hub.environment(tmp_path / "other"), tmp_path, load("org/two", revision="first"), before)
    assert said[0] == "done" and said[1].startswith("org/two, downloaded from the hub: ")
    assert "holds a student, expected a teacher" in said[1]


def test_what_the_hub_refuses_is_one_line(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    student = str(write_generator(tmp_path / "made"))
    hub.commits |= {"org/its-private": [{}], "org/its-gated": [{}], "org/empty": [{"config.json": b"{}"}]}
    damaged = {CARD: (DARCY / CARD).read_bytes(), WEIGHTS: (DARCY / WEIGHTS).read_bytes()[:-9]}
    hub.commits["org/damaged"] = [damaged]
    wanted: list[tuple[Call, str]] = [
        (
            load("org/x@main"),
            "org/x@main: no such folder; a revision of org/x is named by revision='main' (--revision)",
        ),
        (load("hf://org/x"), "hf://org/x: an address of the hub; write its ORG/NAME alone"),
        (
            load("org/nothing"),
            "org/nothing: no such folder, and not from the hub: there is no such repository, or it is",
        ),
        (
            load("org/its-private"),
            "there is no such repository, or it is private; check the name, or log in with `hf auth",
        ),
        (
            load("org/its-gated"),
            "the repository is gated; ask for access on its page, then log in with `hf auth login`",
        ),
        (
            load("org/empty"),
            f"org/empty: the repository of the hub has no {CARD}, so it holds no generator of pidscale",
        ),
        (load("org/empty", revision="x"), "there is no revision 'x'; name a branch, a tag or a commit"),
        (load("org/damaged"), "org/damaged, downloaded from the hub: "),
        (
            load("org/its-broken"),
            "org/its-broken: no such folder, and not from the hub: the hub answered with an error (",
        ),
        (load("org/a..b"), "not the name of a repository"),
        (load("runs/studnet"), "runs/studnet: no such folder; expected a consolidated generator"),
        (load(student, revision="x"), "revision='x': belongs to a repository ORG/NAME of the hub, but "),
        (
            ("push", [student, "org/x"], {}),
            "org/x: not uploaded: no permission (401); log in with `hf auth login`, or set ",
        ),
        (("push", [student, "org"], {}), "org: expected the name of a repository of the hub, ORG/NAME"),
        (("push", [student, "org/x"], {"license": " "}), "license: is empty; name one as the hub does"),
        (("push", ["runs", "org/x"], {}), f"runs/{CARD}: missing; the folder holds no consolidated generator"),
    ]
    said = lines(hub.environment(tmp_path / "home", token=None), tmp_path, *(call for call, _ in wanted))
    assert not [(line, part) for line, (_, part) in zip(said, wanted, strict=True) if part not in line]
    assert "org/x" not in hub.commits


def test_a_hub_that_is_out_of_reach_is_one_line(hub: Hub, tmp_path: Path) -> None:
    student = str(write_generator(tmp_path / "made"))
    away = hub.environment(tmp_path / "home") | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    for line in lines(away, tmp_path, load("org/x"), ("push", [student, "org/x"], {})):
        assert "the hub cannot be reached; check the network (" in line


def test_without_the_client_a_line_says_what_to_install(tmp_path: Path) -> None:
    student = write_generator(tmp_path / "made")
    code = f"""
import pidscale
for call in (lambda: pidscale.load_student("org/x"), lambda: pidscale.push({str(student)!r}, "org/x")):
    try:
        call()
    except pidscale.UserError as error:
        print(error)
print(len(pidscale.load_student({str(student)!r}).sample(1)))
"""
    found = run_without(["huggingface_hub"], code, tmp_path)
    assert found.returncode == 0, found.stderr
    asked, sent, samples = found.stdout.splitlines()
    assert asked.startswith("org/x: no such folder; if it is a repository of the hub") and samples == "2"
    assert all("pip install 'pidscale[hub]'" in line for line in (asked, sent))


@pytest.mark.parametrize("name", ["darcy", "poisson", "burgers", "navier_stokes"])
def test_the_page_of_a_student_has_what_its_card_says(name: str) -> None:
    card = read_card(ROOT / "students" / name)
    page = text_of(card, "org/it", None)
    header = yaml.safe_load(page.split("---\n")[1])
    assert header["library_name"] == "pidscale" and {"pidscale", card.equation.name, "student"} <= set(header["tags"])
    (model,) = header["model-index"]
    values = {one["type"]: one["value"] for one in model["results"][0]["metrics"]}
    assert values["residual_dual"] == card.metrics.report["residual_dual"]
    for channel in card.channels:
        assert f"| {channel.name} | {channel.role} | {channel.unit} |" in page
    (code,) = [block.split("```")[0] for block in page.split("```python\n")[1:]]
    assert name != "darcy" or not exec(code.replace('"org/it"', repr(str(ROOT / "students" / name))), {})


def test_a_path_stays_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "a/b/c", "./a/b", str(tmp_path / "a"), ".."):
        with local(name) as folder:
            assert folder == name
    assert "org/x y: expected the name of a repository" in refused(lambda: push(DARCY, "org/x y"))
