"""`%pidscale` and `%%pidscale` in a notebook: the command line, by the Python of the notebook.

`!pidscale` takes whichever pidscale is first on the PATH of the server, if there is one, and a notebook goes on after it
fails. The magic runs this installation, shows the output while the command runs, and fails when the command does.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from typing import IO, Any, TextIO

from pidscale.config import UserError


def register(shell: Any) -> None:
    """Add the magic to a shell of IPython."""

    def pidscale(line: str, cell: str = "") -> None:
        """Run the command `pidscale`: its words are those of the line and, after %%pidscale, of the cell."""
        from IPython.core.error import UsageError

        try:
            run_command(command_words(f"{line}\n{cell}"))
        except UserError as error:
            raise UsageError(str(error)) from None  # which a notebook shows as one line

    shell.register_magic_function(pidscale, "line_cell", "pidscale")


def command_words(text: str) -> list[str]:
    """Return the words of a command: as a shell splits them, on one line or several, `#` to the end of a line ignored.

    Args:
        text: The command, without `pidscale`.

    Returns:
        The words.

    Raises:
        UserError: When a quote is not closed.
    """
    try:
        return shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise UserError(f"%pidscale: {error}; close the quote") from None


def run_command(words: list[str]) -> None:
    """Run a command in a process of its own, and pass on what it prints while it prints it.

    An interrupt of the notebook is handed to the command once, so that a run stops with a checkpoint.

    Args:
        words: The words after `pidscale`.

    Raises:
        UserError: When the command ends with another status than 0, or was interrupted.
    """
    command = [sys.executable, "-m", "pidscale", *words]
    # ray and DeepSpeed look for tools on PATH; a kernel may have been started without the environment that it is in
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "PATH": path},
        start_new_session=True,  # the kernel's interrupt would reach it twice
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        errors = threading.Thread(target=_pass_on, args=(process.stderr, sys.stderr), daemon=True)
        errors.start()
        interrupted = False
        while True:
            try:
                _pass_on(process.stdout, sys.stdout)
                errors.join()
                status = process.wait()
                break
            except KeyboardInterrupt:
                interrupted = True
                process.send_signal(signal.SIGINT)
    name = " ".join(["pidscale", *words[:1]])
    if interrupted:
        raise UserError(f"{name} was interrupted, and ended with status {status}")
    if status:
        raise UserError(f"{name} ended with status {status}")


def _pass_on(source: IO[str], target: TextIO) -> None:
    """Print lines as they come."""
    for line in source:
        target.write(line)
        target.flush()
