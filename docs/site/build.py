"""The site: README, docs and the other pages of the checkout as one, with a reference from docstrings.

python docs/site/build.py [FOLDER]        by default site/

Pages keep their places below a temporary folder, so that their links lead where they do in the checkout. A link to a file
that is no page becomes plain text. A warning, such as one of a dead link, is an error. Nothing is loaded from a network.
The page of a student is as `pidscale show --html` writes it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGES = (
    "*.md",
    "docs/*.md",
    "docs/equations/*.md",
    "docs/notebooks/*.md",
    "students/*.md",
    "shards/*.md",
    "pidscale/*/*.md",
)
PICTURES = ("docs/*.png", "docs/*.svg", "docs/equations/*.png", "docs/notebooks/*.png")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def gather(pages: Path) -> None:
    """Copy all pages and pictures to a folder, and write the page of the reference."""
    files = {path for pattern in (*PAGES, *PICTURES) for path in ROOT.glob(pattern)}
    for path in sorted(files):
        copy = pages / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            copy.write_text(_linked(path, files))
        else:
            shutil.copy(path, copy)
    shutil.copy(HERE / "reference.md", pages / "docs" / "reference.md")


def show_student(folder: Path, name: str = "darcy") -> None:
    """Write the page of a student, and a link to it at the end of the page about all of them."""
    command = [sys.executable, "-m", "pidscale", "show", f"students/{name}", "--html", str(folder / f"{name}.html")]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    with open(folder / "README.md", "a") as page:
        page.write(f"\n[The page of {name}]({name}.html), as `pidscale show students/{name} --html` writes it.\n")


def _linked(page: Path, files: set[Path]) -> str:
    """Return the text of a page in which only pages and pictures are linked; titles stand for the names of pages."""

    def keep(found: re.Match[str]) -> str:
        target = (page.parent / found[3]).resolve()
        if target in files and found[2].endswith(".md"):
            return f"[{_title(target)}]({found[3]}{found[4] or ''})"
        if re.match(r"[a-z]+:", found[3]) or target in files:
            return found[0]
        folder = target / "README.md"
        return found[0].replace(found[3], f"{found[3].rstrip('/')}/README.md") if folder in files else found[2]

    return LINK.sub(keep, page.read_text())


def _title(page: Path) -> str:
    """Return the title of a page."""
    return page.read_text().partition("# ")[2].partition("\n")[0]


def missing_pictures(pages: Path) -> list[str]:
    """Return the pictures that pages show and that are not there, which Zensical does not look for."""
    return [
        f"{page.relative_to(pages)}: {found[3]}: no such picture"
        for page in sorted(pages.rglob("*.md"))
        for found in LINK.finditer(page.read_text())
        if found[1] and not (page.parent / found[3]).exists()
    ]


def config() -> str:
    """Return the configuration, with the pages of all equations."""
    equations = sorted(path.name for path in (ROOT / "docs" / "equations").glob("*.md") if path.name != "README.md")
    lines = "".join(f"\n      - docs/equations/{name}" for name in ["README.md", *equations])
    return (HERE / "mkdocs.yml").read_text().replace(" EQUATIONS\n", f"{lines}\n")


def build(out: Path) -> int:
    """Build the site, and return an exit status."""
    with tempfile.TemporaryDirectory() as folder:
        gather(Path(folder) / "pages")
        if missing := missing_pictures(Path(folder) / "pages"):
            print(*missing, sep="\n", file=sys.stderr)
            return 1
        show_student(Path(folder) / "pages" / "students")
        path = Path(folder) / "mkdocs.yml"
        path.write_text(config())
        command = [sys.executable, "-m", "zensical", "build", "--strict", "-f", str(path)]
        done = subprocess.run(command, cwd=folder, env={**os.environ, "PIDSCALE_ROOT": str(ROOT)}, check=False)
        if done.returncode == 0:
            shutil.rmtree(out, ignore_errors=True)
            shutil.move(Path(folder) / "site", out)
        return done.returncode


if __name__ == "__main__":
    raise SystemExit(build(Path(sys.argv[1] if len(sys.argv) > 1 else "site")))
