"""The command `pidscale`: one parser, one error boundary, and a module of this package for each subcommand.

Must not import what a subcommand needs before that subcommand is asked for.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pidscale.app.errors import explain
from pidscale.app.parser import DEFAULTS, parse


def main(words: Sequence[str] | None = None) -> int:
    """Do what a command line asks for.

    A mistake of the user is one line on stderr; a bug keeps its traceback.

    Args:
        words: The words after `pidscale`; those of this process where None.

    Returns:
        The exit status: 0, 2 for a mistake, 130 after Ctrl-C and 143 after SIGTERM. The first of these signals during a phase
        of a run stops it with a checkpoint and a UserError that says so, hence 2 (cluster/phase.py).

    Raises:
        Exception: A bug.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    asked = argparse.Namespace(command="", **DEFAULTS)
    try:
        with _terminable():
            asked = parse(sys.argv[1:] if words is None else words)
            return _carry_out(asked)
    except KeyboardInterrupt as interrupt:
        print(f"interrupted; {asked.interrupted}", file=sys.stderr)
        return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)
    except Exception as error:
        line = explain(error, asked)
        if line is None:
            raise
        sys.stdout.flush()  # so that what was printed before stands before
        print(f"error: {line}", file=sys.stderr)
        return 2


def _carry_out(asked: argparse.Namespace) -> int:
    """Run a subcommand; its exit status. Settings come first: most mistakes are found before torch is imported."""
    if asked.phases is None:
        return importlib.import_module(f"pidscale.app.{asked.module}").run(asked) or 0
    from pidscale.app.compose import settings_from

    asked.settings = settings_from(asked.words, asked.config, asked.phases, asked.config_dir)
    for package in asked.late:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(name=package)
    command = importlib.import_module(f"pidscale.app.{asked.module}")
    from pidscale.pde.own import look_here

    look_here(asked.settings.pde.name)
    command.run(asked.settings)
    return 0


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the body as Ctrl-C does, so that what it holds is released."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    raise SystemExit(main())
