"""A shell and a Python that run one command after another, as a reader's terminal does; each in a group of its own."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

MARK = "<docs-check>"
_END = re.compile(rf"\n?{MARK} (\d+)\n")
_PYTHON = f"""
import contextlib, io, json, sys, traceback, types
module = sys.modules["page"] = types.ModuleType("page")  # where dataclasses look
for line in sys.stdin:
    place, text = json.loads(line)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            exec(compile(text, place, "exec"), vars(module))
        status = 3 if errors.getvalue() else 0
    except BaseException:
        traceback.print_exc(file=errors)
        status = 1
    print(errors.getvalue(), end="")
    print("\\n{MARK}", status, flush=True)
"""


class Ended(Exception):
    """A command took longer than it may, or its process has ended; with what it had printed."""


class Session:
    """A process that takes commands from a pipe."""

    def __init__(self, words: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            words,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ask(self, text: str, seconds: float) -> tuple[int, str]:
        """Send a text; return the exit status and what was printed. Raises Ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()
        printed = b""
        until = time.monotonic() + seconds
        while not (found := _END.search(printed.decode(errors="replace"))):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))
            more = os.read(self.process.stdout.fileno(), 2**16) if ready else b""
            if not more:
                self.close()
                why = "has ended the shell" if ready else f"takes longer than {seconds:.0f} s"
                raise Ended(f"{why}; it printed\n{printed.decode(errors='replace')[-3000:]}")
            printed += more
        return int(found[1]), printed.decode(errors="replace")[: found.start()]

    def close(self) -> None:
        """End the process with what it has started and not detached."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Shell(Session):
    """One bash; variables and an activated environment stay."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__(["bash", "--noprofile", "--norc"], folder, environment)

    def run(self, command: str, seconds: float) -> tuple[int, str]:
        """Run a command; return its exit status and its output."""
        return self.ask(f"{{ {command}\n}} </dev/null\nprintf '\\n{MARK} %d\\n' $?\n", seconds)

    def background(self, command: str, log: Path) -> int:
        """Start a command that does not end; return the number of its process."""
        status, printed = self.ask(f"{{ exec {command}\n}} </dev/null >{log} 2>&1 & printf '%d\\n{MARK} 0\\n' $!\n", 60)
        assert status == 0
        return int(printed.split()[-1])


class Python(Session):
    """One Python; names of a block are known to the next. Status 3: a block has written to stderr, a warning for example."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__([sys.executable, "-u", "-c", _PYTHON], folder, environment)

    def run(self, place: str, text: str, seconds: float) -> tuple[int, str]:
        """Run a block; return 0 if it ended well, and what it printed."""
        return self.ask(f"{json.dumps([place, text])}\n", seconds)
