"""`pidscale runs`: list the runs of a folder. Needs the base installation only."""

from __future__ import annotations

import argparse
from pathlib import Path

from pidscale.config import UserError
from pidscale.inspect.runs import describe_runs, runs_json
from pidscale.paths import expanded, is_address


def run(asked: argparse.Namespace) -> None:
    """Print a table of the runs in a folder, or JSON.

    Args:
        asked: Parsed arguments: `folder` and `json`.

    Raises:
        UserError: When there is no such folder or no run in it, or it is an address.
    """
    if is_address(asked.folder):
        raise UserError(f"FOLDER={asked.folder}: an object store is not listed; name a folder of this host")
    root = Path(expanded(asked.folder, "FOLDER"))
    print(runs_json(root) if asked.json else "\n".join(describe_runs(root)))
