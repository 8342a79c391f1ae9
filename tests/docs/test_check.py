"""Every block of a page says what it is, the quick ones run as a reader would run them, and a page that is wrong fails.

`make docs-check` runs the others too.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from pidscale.app.parser import _tree
from tests.commands import ROOT
from tests.docs import plan
from tests.docs.__main__ import every_command
from tests.docs.blocks import FENCE, Command, pages, problems, steps
from tests.docs.checkout import checkout
from tests.docs.reader import Page, Reader
from tests.docs.shown import difference

# ---- blocks


def test_every_block_of_every_page_says_what_it_is_and_every_rule_meets_a_command() -> None:
    assert not [line for page in pages() for line in problems(page)]
    assert not plan.unmet(every_command())
    assert len(every_command()) > 60


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("```\npidscale runs\n```\n", "page.md:1: a block without a language"),
        ("```sh\npidscale runs\n```\n", "page.md:1: the language 'sh' is unknown"),
        ("Words.\n\n```text\n$ pidscale runs\n```\n", "page.md:3: commands in a block of text"),
        ("```console\npidscale runs\n```\n", "page.md:1: a block of console begins with `$ `"),
        ('```python title="docs/examples/fisher.py"\nx = 1\n```\n', "page.md:1: no excerpt of docs/examples/fisher.py"),
        ("```bash\npidscale runs\n", "page.md: a block does not end"),
        ("```bash\ngit clone <this one> && cd a\npidscale runs\n```\n", "page.md:2: bash: line 1: syntax error near"),
    ],
)
def test_a_block_that_cannot_be_checked_is_named(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text)
    (line,) = problems("page.md", tmp_path)
    assert words in line


def test_commands_within_sentences_and_their_options_exist() -> None:
    (kinds,) = (action.choices for action in _tree()._actions if isinstance(action, argparse._SubParsersAction))
    unknown = []
    spans = 0
    for page in pages():
        for span in re.findall(r"`(?:\.venv/bin/)?pidscale ([a-z][^`]*)`", FENCE.sub("", (ROOT / page).read_text())):
            spans += 1
            name = span.split()[0]
            known = kinds[name].format_help() if name in kinds else ""
            unknown += [f"{page}: `pidscale {span}`"] * (not known)
            unknown += [
                f"{page}: {option} of {name}" for option in re.findall(r"--[a-z][a-z-]*", span) if option not in known
            ]
    assert not unknown and spans > 30


def test_commands_have_all_of_their_lines_and_what_the_page_shows_of_them(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        "```bash\n# a remark\nls \\\n  -l\ncat >a <<END\nb\nEND\n```\n```text\nnothing\n```\n"
        "```console\n$ echo 'a\n> b'\na\nb\n$ ls\n```\n- an item\n\n  ```bash\n  cd x\n  ```\n"
    )
    found = [(step.line, step.text, step.shown) for step in steps("page.md", tmp_path) if isinstance(step, Command)]
    assert found[:2] == [(3, "ls \\\n  -l", None), (5, "cat >a <<END\nb\nEND", "nothing")]
    assert found[2:] == [(13, "echo 'a\nb'", "a\nb"), (17, "ls", None), (22, "cd x", None)]


# ---- output


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("4 samples: l2 0.0214\n...\npicture: a.png", "4 samples: l2  0.02138\nx\ny\npicture: a.png\n"),
        ("done in 3.2 s, 80 samples/s, 12 MiB", "done in 41 s, 7.25 samples/s, 9.1 MiB"),
        ("hash ...2e", "hash 0f2e"),
        ("...", "anything"),
        ("last", "1/4 \r4/4 \rlast"),
    ],
)
def test_outputs_that_agree(shown: str, printed: str) -> None:
    assert difference(shown, printed) is None


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("l2 0.0214", "l2 0.0233"),
        ("4 samples", "5 samples"),
        ("darcy32", "darcy64"),
        ("a\nc", "a\nb\nc"),
        ("a", "a\nb"),
        ("a\nb", "a"),
        ("a\n...\nc", "a\nb"),
    ],
)
def test_outputs_that_differ(shown: str, printed: str) -> None:
    assert difference(shown, printed)


def test_numbers_of_a_command_with_smaller_settings_may_be_others_but_not_its_words() -> None:
    assert difference("40 steps", "4 steps", free=True) is None
    assert difference("40 steps", "4 rounds", free=True)


# ---- pages


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(checkout(tmp_path_factory.mktemp("checkout")), tell=lambda *_: None)


def wrong(page: Page) -> str:
    return "\n".join(page.wrong)


QUICK = [page for page in pages() if any(map(plan.quick, steps(page)))]
SLOW = ("docs/head.md", "docs/tasks.md")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else []) for page in QUICK]
)
def test_the_quick_commands_and_the_python_of_a_page_run_in_its_order(page: str, reader: Reader) -> None:
    done = reader.read(page, plan.quick)
    assert done.ran and not done.wrong, wrong(done)


SHOWN = "students/darcy: 4 samples of darcy; root mean square residual: l2 0.0214"


@pytest.mark.parametrize(
    ("words", "others", "said"),
    [
        ("sample --student", "sampel --student", "invalid choice: 'sampel'"),
        ("l2 0.0214", "l2 0.0314", SHOWN),
        ("picture: fields.png\n", "", "it prints more"),
    ],
)
def test_a_page_with_a_wrong_command_or_a_changed_output_fails(
    words: str, others: str, said: str, reader: Reader, tmp_path: Path
) -> None:
    text = (ROOT / "README.md").read_text()
    assert words in text
    (tmp_path / "README.md").write_text(text.replace(words, others))
    done = reader.read("README.md", lambda step: isinstance(step, Command) and "--picture" in step.text, tmp_path)
    assert done.ran == 1 and "README.md:19: " in wrong(done) and said in wrong(done)


def test_python_that_fails_or_warns_is_named_with_its_line(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        "```python\nx = 1\n```\n```python\nprint(x + 1)\n```\n```text\n3\n```\n"
        "```python\nimport warnings\nwarnings.warn('old')\n```\n```python\ny\n```\n"
    )
    done = reader.read("page.md", root=tmp_path)
    assert [line.split(": ")[0] for line in done.wrong] == ["page.md:4", "page.md:10", "page.md:14"], wrong(done)


def test_a_file_of_settings_that_does_not_compose_is_named(reader: Reader, tmp_path: Path) -> None:
    block = '```yaml title="mine/model/own.yaml"\n{}: {}\n```\n'
    (tmp_path / "good.md").write_text(block.format("kind", "fno"))
    (tmp_path / "bad.md").write_text(block.format("knd", "fno"))
    assert not reader.read("good.md", root=tmp_path).wrong
    assert "knd" in wrong(reader.read("bad.md", root=tmp_path))
