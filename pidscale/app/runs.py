"""`pidscale runs`: list the runs of a folder. Needs the base installation only."""

from __future__ import annotations

import argparse
from pathlib import Path

from pidscale.config import UserError
from pidscale.inspect.runs import describe_runs
from pidscale.paths import expanded, is_address


def run(asked: argparse.Namespace) -> None:
    """Print a table of the runs in a folder.

    Args:
        asked: Parsed arguments: `folder`.

    Raises:
        UserError: When there is no such folder or no run in it, or it is an address.
    """
    if is_address(asked.folder):
        raise UserError(f"FOLDER={asked.folder}: an object store is not listed; name a folder of this host")
    print("\n".join(describe_runs(Path(expanded(asked.folder, "FOLDER")))))
