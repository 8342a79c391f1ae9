"""Reads pages: runs what they hold in their order, and compares what is printed with what they show."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs import plan
from tests.docs.blocks import ROOT, Block, Command, problems, steps
from tests.docs.checkout import Ray, environment
from tests.docs.session import Ended, Python, Shell
from tests.docs.shown import difference

SECONDS = 900.0  # of one command
_ERROR = re.compile(r"^error: ", re.MULTILINE)
_YAML = """
import pathlib, sys, yaml
from pidscale.app.compose import settings_from
file = pathlib.Path(sys.argv[1])
assert yaml.safe_load(file.read_text()), "an empty file"
if len(file.parts) > 2:
    settings_from([f"{file.parent.name}={file.stem}"], phases=(), config_dir=file.parent.parent.absolute())
"""


@dataclass
class Page:
    """What became of a page."""

    name: str
    ran: int = 0
    not_run: list[tuple[str, str]] = field(default_factory=list)
    otherwise: list[tuple[str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Reader:
    """Runs pages in one checkout, one after another."""

    def __init__(self, folder: Path, ray: Ray | None = None, tell: Callable = print) -> None:
        """`folder` is the checkout; `ray` the cluster that commands join; without it, pages are read without Ray."""
        self.folder = folder
        self.ray = ray
        self.tell = tell
        self.made: set[str] = set()

    def read(
        self, page: str, wanted: Callable[[Command | Block], bool] = lambda step: True, root: Path | None = None
    ) -> Page:
        """Run a page, or those of its commands and blocks that are wanted; `root` has the page, by default the checkout."""
        root = root or self.folder
        result = Page(page, wrong=problems(page, root))
        began = time.monotonic()
        todo = [step for step in steps(page, root) if wanted(step)]
        if todo and not result.wrong:
            self._prepare(result, todo)
            session = _Page(self, result)
            try:
                for step in todo:
                    session.do(step)
            except Ended as error:
                result.wrong.append(f"{step.place}: {error}")
            finally:
                session.close()
        result.seconds = time.monotonic() - began
        return result

    def variables(self, page: str) -> dict[str, str]:
        """Return the environment of the shell of a page."""
        own: Mapping[str, str] = {}
        if self.ray is not None and page in plan.OWN_RAY:
            self.ray.close()  # which leaves its CPUs to that of the page
        elif self.ray is not None:
            own = self.ray.variables()
        return environment(self.folder, activated=page not in plan.NOT_ACTIVATED, **own)

    def _prepare(self, result: Page, todo: list[Command | Block]) -> None:
        """Bring what the page takes from pages before it, and files that a reader has."""
        page = result.name
        text = "\n".join(plan.otherwise(step)[0] if isinstance(step, Command) else step.text for step in todo)
        for path, (source, part) in plan.MADE.items():
            if path in text and page != source and not (self.folder / path).exists():
                self.tell(f"{page} uses {path}:")
                found = self.read(
                    source, lambda step, part=part: isinstance(step, Command) and re.search(part, step.text)
                )
                result.wrong += found.wrong
        for where, code in plan.FILES.items():
            if where == page and where not in self.made and any(isinstance(step, Command) for step in todo):
                self.made.add(where)
                variables = self.variables(page) | {"PYTHONPATH": f"{ROOT}"}
                subprocess.run([sys.executable, "-c", code], cwd=self.folder, env=variables, check=True)


class _Page:
    """The shell and the Python of one page."""

    def __init__(self, reader: Reader, result: Page) -> None:
        self.reader = reader
        self.result = result
        self.environment = reader.variables(result.name)
        self.shell: Shell | None = None
        self.python: Python | None = None

    def close(self) -> None:
        for session in (self.shell, self.python):
            if session is not None:
                session.close()

    def do(self, step: Command | Block) -> None:
        """Run a command or a block, and keep what is wrong with it."""
        if isinstance(step, Command) and (why := plan.why_not(step)):
            self.result.not_run.append((step.text, why))
            return
        began = time.monotonic()
        wrong = self._command(step) if isinstance(step, Command) else self._block(step)
        if wrong:
            self.result.wrong.append(f"{step.place}: {wrong}")
        first = step.text.strip().splitlines()[0][:90]
        self.reader.tell(f"{'WRONG' if wrong else '   ok'} {time.monotonic() - began:6.1f} s  {step.place}: {first}")

    def _command(self, command: Command) -> str | None:
        text, why = plan.otherwise(command)
        if why:
            self.result.otherwise.append((text, why))
        self.result.ran += 1
        self.shell = self.shell or Shell(self.reader.folder, self.environment)
        pattern = next((page for name, page in plan.SERVED.items() if name in shlex.split(text, comments=True)), None)
        if pattern is not None:
            return self._served(self.shell, text, pattern)
        status, printed = self.shell.run(text, SECONDS)
        for _ in range(3):
            if plan.AGAIN in printed:
                time.sleep(10)
                status, printed = self.shell.run(text, SECONDS)
        fails = command.shown is not None and _ERROR.search(command.shown) is not None
        if status != (2 if fails else 0) or "Traceback (most recent" in printed:
            return f"`{text}` ends with status {status}\n{printed[-3000:]}"
        if command.shown is not None and (found := difference(command.shown, printed, free=bool(why))):
            return f"`{text}`\n    {found}\n    in all\n{printed[-3000:]}"
        return None

    def _served(self, shell: Shell, text: str, pattern: re.Pattern[str]) -> str | None:
        """Fetch the page that a command serves, then end it as Ctrl-C does."""
        log = self.reader.folder.parent / "served.log"
        log.unlink(missing_ok=True)
        number = shell.background(text, log)
        until = time.monotonic() + 120
        try:
            while not (found := pattern.search(log.read_text() if log.exists() else "")):
                if time.monotonic() > until or not Path(f"/proc/{number}").exists():
                    return f"`{text}` serves no page\n{log.read_text()[-3000:]}"
                time.sleep(0.2)
            with urllib.request.urlopen(found[0], timeout=60) as answer:
                return None if answer.status == 200 and answer.read() else f"`{text}`: {found[0]} shows nothing"
        finally:
            if Path(f"/proc/{number}").exists():
                os.kill(number, signal.SIGTERM)

    def _block(self, block: Block) -> str | None:
        if block.language == "python" and block.title:
            return None  # an excerpt, whose file is compared with it
        self.result.ran += 1
        if block.language == "python":
            self.python = self.python or Python(self.reader.folder, self.environment)
            status, printed = self.python.run(block.place, block.text, SECONDS)
            why = {0: None, 3: "it writes to stderr"}.get(status, "it fails")
            if block.shown is not None and not why:
                why = difference(block.shown, printed)
            return f"{why}\n    in all\n{printed[-3000:]}" if why else None
        if block.language == "diff":
            return self._run("git", "apply", "-", given=block.text)
        name = block.title or f"block.{block.language}"
        file = self.reader.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)
        if block.language == "json":
            return self._run(sys.executable, "-m", "json.tool", name)
        return self._run(sys.executable, "-c", _YAML, name)

    def _run(self, *words: str, given: str = "") -> str | None:
        """Return what a command of the check itself wrote to stderr, if it fails."""
        done = subprocess.run(
            words,
            cwd=self.reader.folder,
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stderr[-3000:] if done.returncode else None
