"""`pidscale compare`: compose and check its settings. The work itself is in comparison.py, which imports torch and Ray."""

from __future__ import annotations

import argparse
import importlib

from pidscale.app.compose import comparison_from


def run(asked: argparse.Namespace) -> int:
    """Carry out a comparison.

    Args:
        asked: Arguments of the command line.

    Returns:
        The exit status: 0, or 2 if a cell failed.
    """
    comparison = comparison_from(asked.words, asked.config_dir)
    status: int = importlib.import_module("pidscale.app.comparison").carry_out(comparison)
    return status
