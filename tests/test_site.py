"""The site of the docs: built without a warning, whole, and drawn by a real browser without an error."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from tests.browser import Page, browser, needs_browser
from tests.commands import ROOT

BUILD = ROOT / "docs" / "site" / "build.py"
SHOWN = ("index.html", "students/index.html", "students/darcy.html", "docs/reference.html", "docs/method.html")
SHOWN += ("docs/equations/darcy.html", "docs/tasks_measured.html")


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """The script that builds the site, as a module."""
    spec = importlib.util.spec_from_file_location("site_build", BUILD)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it."""
    out = tmp_path_factory.mktemp("built") / "site"
    done = subprocess.run([sys.executable, str(BUILD), str(out)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "No issues found" in done.stderr, done.stdout + done.stderr
    return out


def test_every_page_of_the_checkout_is_in_the_site_and_in_its_menu(site: Path, build: ModuleType) -> None:
    pages = [path.relative_to(ROOT) for pattern in build.PAGES for path in ROOT.glob(pattern)]
    menu = build.config()
    for page in pages:
        name = "index.html" if page.name == "README.md" else f"{page.stem}.html"
        assert (site / page.with_name(name)).is_file(), page
        assert f"- {page}\n" in menu, page
    assert len(pages) > 40


def test_links_to_pages_have_their_titles(site: Path) -> None:
    home = (site / "index.html").read_text()
    assert re.search(r'<a href="docs/metrics.html">[A-Z][^<.]+</a>', home) and not re.search(r">[\w/]+\.md</a>", home)


def test_the_reference_has_the_methods_of_a_student_and_the_search_finds_them(site: Path) -> None:
    reference = (site / "docs" / "reference.html").read_text()
    for name in ("load_student", "Student.sample", "Student.reconstruct", "Answer", "readings.points"):
        assert re.search(rf'id="pidscale\.[\w.]*{re.escape(name)}"', reference), name
    assert "reconstruct" in (site / "search.json").read_text()


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link)[^>]*\s(?:src|href)="(https?:)?//([^"/]*)', page.read_text())
        assert not loaded, page


@pytest.mark.parametrize("text", ["[dead](nowhere.md)", "[dead](tasks.md#nothing)", "![dead](nowhere.png)"])
def test_a_dead_link_is_an_error(text: str, build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gather = build.gather

    def damaged(pages: Path) -> None:
        gather(pages)
        page = pages / "docs" / "zoo.md"
        page.write_text(page.read_text() + f"\n{text}\n")

    monkeypatch.setattr(build, "gather", damaged)
    monkeypatch.setattr(build, "show_student", lambda folder: None)
    assert build.build(tmp_path / "site") != 0
    assert not (tmp_path / "site").exists()


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """A server of the site on this machine."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *of: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as one:
        yield one


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (500, True)])
@pytest.mark.parametrize("page", SHOWN)
def test_a_browser_draws_pages_whole_on_any_screen(
    page: str, width: int, dark: bool, address: str, screen: Page
) -> None:
    """No error in the console, no missing picture, and tables scroll within a narrow page."""
    found = screen.open(f"{address}/{page}", width, dark)
    assert found["missing"] == [] and found["wider"] <= 0 and found["dark"] == dark and not screen.errors
