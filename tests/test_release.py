"""The files around a release: one version everywhere, a citation and issue forms that their readers accept."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.specifiers import SpecifierSet

import pidscale
from tests.commands import ROOT

SCHEMAS = {
    "citation-file-format": ["CITATION.cff"],
    "github-issue-forms": [f".github/ISSUE_TEMPLATE/{name}.yml" for name in ("bug", "question", "feature")],
    "github-issue-config": [".github/ISSUE_TEMPLATE/config.yml"],
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_that_others_read_follow_their_schema(schema: str) -> None:
    forms = {str(path.relative_to(ROOT)) for path in (ROOT / ".github").rglob("*.yml")}
    assert forms <= {name for names in SCHEMAS.values() for name in names}
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*command, *SCHEMAS[schema]], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest and {project["version"], citation["version"], newest[1]} == {pidscale.__version__}
    assert citation["license"] == project["license"]


def test_pages_name_the_pythons_that_the_package_takes() -> None:
    takes = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    minors = [f"3.{minor}" for minor in range(8, 20) if f"3.{minor}" in takes]
    words = f"Python {', '.join(minors[:-1])} or {minors[-1]}"
    for page in ("README.md", "CONTRIBUTING.md", "Makefile"):
        assert words in (ROOT / page).read_text(), page
    assert f"(3, {minors[0][2:]}) <= v[:2] <= (3, {minors[-1][2:]})" in (ROOT / "Makefile").read_text()
    assert sys.version_info[:2] in [(3, int(minor[2:])) for minor in minors]
