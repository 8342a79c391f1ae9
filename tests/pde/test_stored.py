"""An equation that a file names imports nothing: manifests, requests and cards next to a module that reports its import."""

from __future__ import annotations

import ast
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pidscale.app.main import main
from pidscale.config import DataSettings, PdeSettings, UserError
from pidscale.dataset.problem import open_problem
from pidscale.generator import artifact
from pidscale.generator.load import load_student
from pidscale.pde import build_pde, stored_pde
from pidscale.records.check import load_manifest
from tests.generator.made import write_generator
from tests.scripts import ROOT, finish, start

RAN, NAME = "payload-ran", "opt_einsum:Thing"  # torch imports a module of that name from wherever Python finds one
PAYLOAD = f"open({RAN!r}, 'w').close()\nraise SystemExit('payload')\n"


@pytest.fixture
def fetched(tmp_path: Path, small_shards: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the current folder: a set as it might be downloaded, with the module that manifest and request name."""
    folder = shutil.copytree(small_shards, tmp_path / "set")
    (folder / "opt_einsum.py").write_text(PAYLOAD)
    manifest = load_manifest(folder)
    asked = {**manifest.request, "equation": NAME}
    (folder / "manifest.json").write_text(json.dumps(replace(manifest, equation=NAME, request=asked).to_json()))
    (folder / "request.json").write_text(json.dumps(asked))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))  # so that it could be imported
    monkeypatch.delitem(sys.modules, "opt_einsum", raising=False)
    yield folder
    assert not (folder / RAN).exists()


def test_inspecting_a_downloaded_set_runs_no_code_from_it(fetched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shards", "show", "."]) == 0 and main(["shards", "verify", "."]) == 0
    said = capsys.readouterr().out
    assert "note: no picture" in said and "`import opt_einsum` first" in said and "--equation" in said
    assert "  channel    permeability" in said
    assert "note: residuals not checked" in said and "64 samples" in said and " 0 findings" in said
    (fetched / "train-00000.index.json").unlink()
    assert main(["shards", "repair-index", "."]) == 0
    (fetched / "manifest.json").unlink()
    assert main(["shards", "verify", "."]) == 2  # the command that finishes a set follows from its request
    assert "`pidscale make-shards` and the settings that began it" in capsys.readouterr().err


def test_using_a_downloaded_set_or_student_runs_no_code_from_it(
    fetched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="made for equation 'opt_einsum:Thing', but the run is of 'darcy'"):
        open_problem(PdeSettings("darcy", points=16), DataSettings(path="."))
    folder = write_generator(fetched / "student")
    card = artifact.read_plain(folder)
    card["equation"]["name"] = NAME
    artifact.write_plain(folder, card)
    with pytest.raises(UserError, match="no file decides what is imported"):
        load_student(folder)
    (fetched / "known.npy").write_bytes(b"")
    assert main(["solve", "forward", "--student", "student", "--input", "known.npy", "--out", "answer.npz"]) == 2
    said = capsys.readouterr().err
    assert "no file decides what is imported" in said and said.count("\n") == 1


def test_a_script_does_not_import_from_the_current_folder(fetched: Path) -> None:
    log = fetched / "said.log"
    said, errors = finish(start("shards", ["verify", "."], log), log, timeout=120)
    assert "note: residuals not checked" in said and not errors


@pytest.mark.parametrize(
    "name",
    [
        "nowhere:Thing",
        "this:Thing",  # a module of Python that prints when it is imported
        "os:Thing",  # imported, without such a class
        ".relative:Thing",
        "pidscale:load_student",  # imported when the attribute is read
        ":",
    ],
)
def test_a_stored_name_that_is_not_imported_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UserError, match=r"card\.json: its equation .* no file decides what is imported") as raised:
        stored_pde("card.json", name, {})
    assert "\n" not in str(raised.value) and "this" not in sys.modules


@pytest.mark.parametrize(
    "name, params", [(["darcy"], {}), (None, {}), ("darcy", [1]), ("euler", {}), ("darcy", {"low": 1e400})]
)
def test_a_stored_equation_that_cannot_be_built_is_refused_in_one_line(name: object, params: object) -> None:
    with pytest.raises(UserError, match=r"^card\.json: equation ") as raised:
        stored_pde("card.json", name, params)
    assert "\n" not in str(raised.value)


def test_only_names_from_users_are_given_to_build_pde() -> None:
    """Names from files go to stored_pde; build_pde is called with names from settings or from a user only."""
    given = {"pde.name", "pde_settings.name", "settings.pde.name", "equation", "name"}
    for file in [*(ROOT / "pidscale").rglob("*.py"), *(ROOT / "launch").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            called = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
            if called == "build_pde":
                assert ast.unparse(node.args[0]) in given, f"{file}:{node.lineno}: a stored name is for stored_pde"
            # main.py, compare.py: modules of subcommands that the parser knows; objective_settings.py: the room of a section
            may_import = file.name in ("own.py", "main.py", "compare.py", "objective_settings.py")
            assert called not in ("import_module", "__import__") or may_import, f"{file}:{node.lineno}"
    assert build_pde("darcy") == stored_pde("card.json", "darcy", build_pde("darcy").params_dict())
