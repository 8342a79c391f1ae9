"""`pidscale export`: write a student as a program. Needs the base installation only, and `pidscale[onnx]` for ONNX."""

from __future__ import annotations

import argparse

from pidscale.app.files import check_target
from pidscale.app.opening import open_generator
from pidscale.config import UserError
from pidscale.generator.programs import ENDINGS, write_program
from pidscale.generator.student import Student
from pidscale.plain import size_text


def run(asked: argparse.Namespace) -> None:
    """Write the program and print what it takes.

    Args:
        asked: Parsed arguments.

    Raises:
        UserError: When the folder holds no student, the file has another ending or cannot be written, or cannot hold it.
    """
    if asked.out.suffix not in ENDINGS:
        raise UserError(f"--out={asked.out}: expected a name that ends in {' or '.join(ENDINGS)}")
    check_target("--out", asked.out, asked.out.suffix)
    generator = open_generator(asked)
    if not isinstance(generator, Student):
        raise UserError(f"{asked.student}: a teacher, which is no single call; name a student")
    write_program(generator, asked.out)
    shape = " x ".join(map(str, generator.shape))
    varying = generator.pde.varying
    params = f", and params [B, {len(varying)}]: {', '.join(varying)}" if varying else ""
    print(f"{asked.out}: {size_text(asked.out.stat().st_size)}; takes standard normal noise [B, {shape}]{params}")
    channels = ", ".join(generator.channels)
    print(f"  returns fields [B, {shape}] behind {generator.head} solver steps; channels {channels}")
