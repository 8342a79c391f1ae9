"""Benchmarks as commands: tests run them as a reader would, and look at the rows that they leave."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def run_module(name: str, *arguments: str, code: int = 0) -> str:
    """Run `python -m benchmarks.NAME` at the root of the checkout, and return what it printed."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def measured(name: str, file: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Run a benchmark, and return the rows and meta that it left in a file."""
    run_module(name, *arguments, "--json", str(file), code=code)
    result: dict[str, Any] = json.loads(file.read_text())
    assert {"machine", "versions"} <= set(result["meta"])
    return result


def committed(name: str) -> dict[str, Any]:
    """Return the figures of a benchmark that README and docs quote."""
    result: dict[str, Any] = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
    return result
