"""The site of the docs: built without a warning, whole, and drawn by a real browser without an error."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from tests.commands import ROOT

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
BUILD = ROOT / "docs" / "site" / "build.py"
SHOWN = ("index.html", "docs/reference.html", "docs/demo.html", "docs/equations/darcy.html", "docs/tasks_measured.html")
SCRIPT = b"""<script>addEventListener("load", () => setTimeout(() => {
  const body = document.body, images = [...document.images];
  body.dataset.missing = images.filter(i => !i.naturalWidth).map(i => i.src).join();
  body.dataset.images = images.length;
  body.dataset.wider = document.documentElement.scrollWidth - innerWidth;
  body.dataset.dark = getComputedStyle(body).backgroundColor;
}, 500))</script></body>"""


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
    assert build.build(tmp_path / "site") != 0
    assert not (tmp_path / "site").exists()


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """A server of the site on this machine, whose pages say what the browser has found."""

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            path = site / self.path.split("?")[0].lstrip("/")
            if path.suffix != ".html":
                return super().do_GET()
            page = path.read_bytes().replace(b"</body>", SCRIPT)
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *of: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(BROWSER is None, reason="needs chromium, which nothing else of pidscale needs")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 500)])
def test_a_browser_draws_pages_whole_on_any_screen(scheme: str, width: int, address: str, tmp_path: Path) -> None:
    """No error in the console, no missing picture, and tables scroll within a narrow page. 500 is Chromium's least width."""
    assert BROWSER is not None
    grounds = set()
    for page in SHOWN:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        options += [
            "--disable-component-update",
            "--disable-sync",
            "--virtual-time-budget=5000",
            f"--window-size={width},900",
        ]
        options += ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
        options += [f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"]
        command = [BROWSER, *options, "--dump-dom", f"{address}/{page}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        found = re.search(r"<body[^>]*>", done.stdout)
        assert found is not None, done.stderr[-2000:]
        data = dict(re.findall(r'data-(\w+)="([^"]*)"', found[0]))
        assert data["missing"] == "" and int(data["wider"]) <= 0, (page, data)
        errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line and not line.startswith("[INFO")]
        assert not [line for line in errors if re.search(r"error|fail|uncaught", line, re.IGNORECASE)], errors
        grounds.add(data["dark"])
    (ground,) = grounds
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 384) == (scheme == "dark")
