"""`pidscale push`: upload a student or a teacher to the Hugging Face hub. Needs `pidscale[hub]`."""

from __future__ import annotations

import argparse

from pidscale.generator.hub import push


def run(asked: argparse.Namespace) -> None:
    """Upload the folder and print where it is.

    Args:
        asked: Parsed arguments.
    """
    address = push(asked.student, asked.repository, asked.license, asked.private, asked.new_readme)
    print(f"uploaded: {address}")
