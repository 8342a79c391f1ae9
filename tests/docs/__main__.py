"""python -m tests.docs [--only PAGE ...] [--list]: run all pages, or some; `make docs-check` runs all.

Where the machine allows it (root, and the tools of tests/hosts.py), pages run on a host of their own: its own processes,
network and HOME, so that `ray stop` of a page ends no Ray but its own, and nothing is left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

from tests import s3
from tests.docs import files, plan
from tests.docs.blocks import ROOT, Command, pages, steps
from tests.docs.checkout import Ray, checkout
from tests.docs.reader import Page, Reader
from tests.hosts import LACKING, POSSIBLE, Host, Switch


def every_command() -> list[Command]:
    """Return the commands of all pages."""
    return [step for page in pages() for step in steps(page) if isinstance(step, Command)]


def main(words: list[str]) -> int:
    """Run pages, print what became of them, and return an exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.docs", description="Run every command of the pages.")
    parser.add_argument("--only", nargs="+", metavar="PAGE", default=[], help="these pages alone")
    parser.add_argument("--list", action="store_true", help="print what would be run, and run nothing")
    parser.add_argument("--on-host", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(words)
    known = pages()
    if unknown := [page for page in asked.only if page not in known]:
        parser.error(f"{', '.join(unknown)}: no such page")
    wrong = plan.unmet(every_command())
    if asked.list or wrong:
        print(*(wrong or map(_planned, every_command())), sep="\n")
        return 2 if wrong else 0
    if POSSIBLE and not asked.on_host:
        return _on_a_host(words)
    chosen = [page for page in known if page in (asked.only or known)]
    with tempfile.TemporaryDirectory(prefix="docs-", ignore_cleanup_errors=True) as folder:
        return _read(Path(folder), chosen, on_host=asked.on_host)


def _planned(command: Command) -> str:
    why = plan.why_not(command)
    return f"{command.place}: {'not run, ' + why if why else plan.otherwise(command)[0]}"


def _on_a_host(words: list[str]) -> int:
    """Run this command again on a host of its own; return its exit status."""
    with tempfile.TemporaryDirectory(prefix="host-", ignore_cleanup_errors=True) as folder:
        switch = Switch()
        host = Host("one", Path(folder))
        try:
            switch.plug(host)
            again = [sys.executable, "-u", "-m", "tests.docs", *words, "--on-host"]
            return host.start(*again, log=None, cwd=ROOT).wait()
        finally:
            host.close()
            switch.close()


def _read(folder: Path, chosen: list[str], *, on_host: bool) -> int:
    """Read pages in one checkout; return an exit status."""
    results = []
    with contextlib.ExitStack() as stack:
        if any(page in plan.STORE for page in chosen):
            stack.enter_context(s3.running())  # and its variables are in the environment of all pages
        stack.enter_context(files.hub(folder / "hub"))
        made = checkout(folder)
        ray = stack.enter_context(contextlib.closing(Ray(made)))
        reader = Reader(made, ray)
        for page in chosen:
            if page in plan.ON_A_HOST and not on_host:
                why = f"{LACKING}, so that `ray stop` ends no Ray but its own"
                found = [(step.text, why) for step in steps(page) if isinstance(step, Command)]
                results.append(Page(page, not_run=found))
            else:
                results.append(reader.read(page))
    _report([one for one in results if one.ran or one.not_run or one.wrong])
    return 1 if any(one.wrong for one in results) else 0


def _report(results: list[Page]) -> None:
    """Print what was run otherwise, what was not run, each with its reason, a table, and what is wrong."""
    for title, field in (("run otherwise", "otherwise"), ("not run", "not_run")):
        print(f"\n{title}:")
        for one in results:
            for text, why in getattr(one, field):
                print(f"  {one.name}: {text.strip()}\n    {why}")
    width = max([len(one.name) for one in results], default=8)
    print(f"\n{'page':{width}}  run  not run  wrong  seconds")
    for one in results:
        print(f"{one.name:{width}} {one.ran:4} {len(one.not_run):8} {len(one.wrong):6} {one.seconds:8.0f}")
    total = [sum(len(getattr(one, name)) for one in results) for name in ("not_run", "wrong")]
    seconds = sum(one.seconds for one in results)
    print(f"{'in all':{width}} {sum(one.ran for one in results):4} {total[0]:8} {total[1]:6} {seconds:8.0f}")
    for one in results:
        for line in one.wrong:
            print(f"\nWRONG {line}")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
