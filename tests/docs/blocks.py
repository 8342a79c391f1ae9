"""The pages of the checkout, and what is in their fenced blocks: commands, Python, output, files. Runs nothing.

A block says what it is by its language:

bash       commands, run in the order of the page, in one shell
console    commands behind `$ `, each with what it prints
python     run in the order of the page, in one process; with title="PATH", an excerpt of that file
text       directly behind a block that is run: what that prints, the last command of it if it has several; else a drawing
diff       a change of the checkout, which is made
ipython    cells of a notebook, which are read
yaml, json are read; yaml with title="DIR/GROUP/NAME.yaml" is a file that the reader writes, with settings that compose
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MENU = ROOT / "docs" / "site" / "mkdocs.yml"
PATTERNS = (
    "*.md",
    "docs/**/*.md",
    "pidscale/**/*.md",
    "shards/*.md",
    "students/*.md",
    "benchmarks/**/*.md",
    "launch/**/*.md",
)
RUN = ("bash", "console", "python")
LANGUAGES = (*RUN, "text", "diff", "ipython", "yaml", "json", "csv", "markdown", "html", "mermaid")
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
UNFINISHED = re.compile("unexpected (EOF|end of file)|delimited by end-of-file")
TITLE = re.compile(r'title="([^"]+)"')
COMMAND = re.compile(
    r"^\s*(\$ |(\.venv/bin/)?(pidscale|python3?|make|pip|ray|git|ruff|pytest|sbatch|kubectl|docker|aws|source|export|cp) )",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: Path of the page within the checkout.
        line: Line of the page on which the block begins.
        language: First word behind the fence.
        title: The file that the block is of, or "".
        text: What it holds, without indentation of the block.
        output: Whether it is the output of the block before it.
        shown: The output that the page shows, None if it shows none.
    """

    page: str
    line: int
    language: str
    title: str
    text: str
    output: bool = False
    shown: str | None = None

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command of a page, and the output that the page shows, None if it shows none."""

    page: str
    line: int
    text: str
    shown: str | None = field(default=None, compare=False)

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return f"{self.page}:{self.line}"


def pages(root: Path = ROOT) -> list[str]:
    """Return all pages in the order of the site's menu, in which a reader meets them."""
    names = [str(path.relative_to(root)) for pattern in PATTERNS for path in sorted(root.glob(pattern))]
    menu = re.findall(r"^ +- (.*\.md|EQUATIONS)$|Equations: (EQUATIONS)$", MENU.read_text(), re.MULTILINE)
    order = ["docs/equations/" if "EQUATIONS" in found else found[0] for found in menu]
    position = {
        name: next((n for n, start in enumerate(order) if name.startswith(start)), len(order)) for name in names
    }
    return sorted(dict.fromkeys(names), key=lambda name: (position[name], name))


def blocks(page: str, root: Path = ROOT) -> list[Block]:
    """Return the blocks of a page; output is marked as such."""
    text = (root / page).read_text()
    found: list[Block] = []
    end = 0
    for match in FENCE.finditer(text):
        language, _, rest = match["info"].strip().partition(" ")
        title = TITLE.search(rest)
        lines = [line.removeprefix(match["indent"]) for line in match["text"].splitlines(keepends=True)]
        line = text.count("\n", 0, match.start()) + 1
        block = Block(page, line, language, title[1] if title else "", "".join(lines))
        between = text[end : match.start()].strip()
        if found and language == "text" and not between and found[-1].language in ("bash", "python"):
            block = replace(block, output=True)
        found.append(block)
        end = match.end()
    return found


def problems(page: str, root: Path = ROOT) -> list[str]:
    """Return what is wrong with the blocks of a page before any of them is run, each with its place."""
    if _of_notebook(page, root):
        return []
    wrong = []
    fences = re.findall(r"^ *```", (root / page).read_text(), re.MULTILINE)
    found = blocks(page, root)
    if len(fences) != 2 * len(found):
        wrong.append(f"{page}: a block does not end, or its fences are not indented alike")
    for block in found:
        if block.language not in LANGUAGES:
            named = f"the language {block.language!r} is unknown" if block.language else "a block without a language"
            wrong.append(f"{block.place}: {named}; write one of {', '.join(LANGUAGES)}")
        elif block.language in ("text", "markdown") and not block.output and COMMAND.search(block.text):
            wrong.append(f"{block.place}: commands in a block of {block.language}; write bash or console")
        elif block.language == "console" and not block.text.startswith("$ "):
            wrong.append(f"{block.place}: a block of console begins with `$ ` and a command")
        elif block.language == "python" and block.title and not _excerpt(block, root):
            wrong.append(f"{block.place}: no excerpt of {block.title}: these lines are not in it")
        elif block.language in ("bash", "console"):
            wrong += [f"{one.place}: {said}" for one in commands(block) if (said := _refusal(one.text))]
    return wrong


def _of_notebook(page: str, root: Path) -> bool:
    """Whether a page was made by running the notebook beside it."""
    return (root / page).with_suffix(".ipynb").is_file()


def _excerpt(block: Block, root: Path) -> bool:
    """Whether the lines of a block are in its file, at any indentation."""
    file = root / block.title
    plain = [re.sub(r"\s+", " ", text).strip() for text in (block.text, file.read_text() if file.is_file() else "")]
    return plain[0] in plain[1]


def commands(block: Block) -> Iterator[Command]:
    """Yield the commands of a block of bash or console in their order."""
    lines = block.text.splitlines()
    at = 0
    while at < len(lines):
        words = lines[at].removeprefix("$ ")
        if not words.strip() or words.lstrip().startswith("#"):
            at += 1
            continue
        first = at
        at += 1
        while _unfinished(words) and at < len(lines):
            words += f"\n{lines[at].removeprefix('> ') if block.language == 'console' else lines[at]}"
            at += 1
        shown = None
        if block.language == "console":
            until = next((n for n in range(at, len(lines)) if lines[n].startswith("$ ")), len(lines))
            shown = "\n".join(lines[at:until]).strip("\n") or None
            at = until
        yield Command(block.page, block.line + 1 + first, words, shown)


def _unfinished(words: str) -> bool:
    """Whether bash needs a further line to run this."""
    return words.endswith("\\") or UNFINISHED.search(_refusal(words)) is not None


@cache
def _refusal(words: str) -> str:
    """Return what bash says of a command that it cannot parse, or ""."""
    return subprocess.run(
        ["bash", "-n"],
        input=f"{words}\n",
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LC_ALL": "C"},
    ).stderr.strip()


def steps(page: str, root: Path = ROOT) -> list[Command | Block]:
    """Return what is done with a page, in its order: commands, and blocks of Python, changes and files."""
    found: list[Command | Block] = []
    for block in [] if _of_notebook(page, root) else blocks(page, root):
        if block.output:
            found[-1] = replace(found[-1], shown=block.text.strip("\n"))
        elif block.language in ("bash", "console"):
            found += commands(block)
        elif block.language in ("python", "diff", "yaml", "json"):
            found.append(block)
    return found
