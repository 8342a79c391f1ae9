"""Links of pages lead somewhere, and messages that a page quotes exist. tests/docs/ runs what pages show."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.commands import ROOT
from tests.docs.blocks import pages

FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def slug(heading: str) -> str:
    """The name of a heading in a link."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def headings(page: Path) -> set[str]:
    return {slug(line.lstrip("#")) for line in FENCE.sub("", page.read_text()).splitlines() if line.startswith("#")}


def place(page: Path) -> Path:
    """The folder that the links of a page lead from: docs/site/build.py puts the reference beside the pages of docs/."""
    return page.parents[1] if page.parent == ROOT / "docs" / "site" else page.parent


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    dead = []
    links = 0
    for page in map(ROOT.joinpath, pages()):
        for link in LINK.findall(FENCE.sub("", page.read_text())):
            if re.match(r"[a-z]+:", link):
                continue
            links += 1
            path, _, anchor = link.partition("#")
            target = place(page) / path if path else page
            if not target.exists() or (anchor and anchor not in headings(target)):
                dead.append(f"{page.relative_to(ROOT)}: {link}")
    assert not dead and links > 100


def templates() -> list[str]:
    """Every text of the package and of its scripts, with NUL for what an f-string fills in."""
    found = []
    for file in [*ROOT.glob("pidscale/**/*.py"), *ROOT.glob("launch/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [str(one.value) if isinstance(one, ast.Constant) else "\0" for one in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def quoted(page: str) -> list[str]:
    """The messages in the first column of the tables headed "message"."""
    rows = re.findall(r"^\| message \|.*?\n((?:\|.*\n)+)", page, re.MULTILINE)
    return [
        message
        for row in "".join(rows).splitlines()
        if not row.startswith("|---")
        for message in re.findall(r"`([^`]+)`", row.split(" | ")[0])
    ]


def test_the_messages_that_troubleshooting_quotes_are_in_the_source() -> None:
    """Each as one text of the source, in which anything may stand for "..."."""
    messages = quoted((ROOT / "docs" / "troubleshooting.md").read_text())
    texts = templates()
    stale = []
    for message in messages:
        assert len(message.replace("...", "").strip()) > 8, f"{message!r} would be found anywhere"
        pattern = re.compile(".*".join(map(re.escape, message.split("..."))), re.DOTALL)
        if not any(pattern.search(text) for text in texts):
            stale.append(message)
    assert not stale and len(messages) > 30
