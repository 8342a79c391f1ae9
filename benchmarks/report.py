"""What every benchmark shares: where its figures and its page go, and which machine made them."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pidscale.plain import json_text


def options(doc: str | None, name: str, page: str | None = None) -> argparse.ArgumentParser:
    """A parser that knows --json, benchmarks/results/`name`.json unless told, and --page where there is one."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path(f"benchmarks/results/{name}.json"))
    if page:
        parser.add_argument("--page", type=Path, default=Path(page))
    return parser


def save(path: Path, result: dict[str, Any]) -> None:
    """Write the figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json_text(result, indent=1) + "\n")


def finish(arguments: argparse.Namespace, result: dict[str, Any], page: Callable[[dict[str, Any]], str]) -> None:
    """Write the figures and their page, and print the page."""
    save(arguments.json, result)
    text = page(result)
    arguments.page.write_text(text)
    print(text)


def table(heads: list[str], lines: Iterable[list[str]]) -> str:
    """A table in Markdown."""
    rows = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return "\n".join([*rows, *(f"| {' | '.join(line)} |" for line in lines)])


def processor() -> str:
    """The processor's name and how many of them."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} cores of {names[0]}" if names else platform.processor() or platform.machine()
