"""The command `pidscale`: one parser, one error boundary, and a module of this package for each subcommand.

Must not import the dependencies of a subcommand before that subcommand is selected.
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
    """Run the command line.

    A mistake of the user prints one line on stderr; a bug raises its exception with a traceback.

    Args:
        words: Words after `pidscale`. Default: those of this process.

    Returns:
        The exit status: 0 on success, 2 for a mistake, 130 after Ctrl-C, 143 after SIGTERM. During a phase of a run, the
        first of these signals stops it with a checkpoint and a UserError that says so, hence 2 (cluster/phase.py).

    Raises:
        Exception: When a bug occurs.
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
        sys.stdout.flush()  # keeps the order of stdout and stderr
        print(f"error: {line}", file=sys.stderr)
        return 2


def _carry_out(asked: argparse.Namespace) -> int:
    """Run a subcommand and return its exit status. Settings are checked first, so that most mistakes need no torch import."""
    if asked.phases is None:
        return importlib.import_module(f"pidscale.app.{asked.module}").run(asked) or 0
    from pidscale.app.compose import settings_from

    asked.settings = settings_from(asked.words, asked.config, asked.phases, asked.config_dir)
    for package in asked.late:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(name=package)
    command = importlib.import_module(f"pidscale.app.{asked.module}")
    from pidscale.meter import log_seconds
    from pidscale.pde.own import look_here

    log_seconds()  # a wrong value is an error here, and not in the thread that shows the progress
    look_here(asked.settings.pde.name)
    command.run(asked.settings)
    return 0


@contextmanager
def _terminable() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM while the body runs, as for Ctrl-C, so that resources are released."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    raise SystemExit(main())
