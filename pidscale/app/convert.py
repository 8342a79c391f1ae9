"""`pidscale convert`: make a shard set from files of other people's data (docs/converting.md)."""

from __future__ import annotations

import argparse

from pidscale.app.compose import settings_from
from pidscale.config import UserError
from pidscale.convert.convert import convert
from pidscale.convert.quality import measure_quality
from pidscale.convert.request import parse_request, split_words
from pidscale.convert.summary import StageProgress, summary_lines
from pidscale.pde.own import look_here
from pidscale.plain import printable


def run(asked: argparse.Namespace) -> None:
    """Convert files, and print the residuals of the resulting set.

    Args:
        asked: Parsed arguments `words` and `config_dir`.

    Raises:
        UserError: When an argument is wrong, or the files cannot be converted.
    """
    about_files, about_equation = split_words(asked.words)
    request = parse_request(about_files)
    given = {word.split("=")[0] for word in about_equation}
    if "pde" not in given:
        raise UserError("pde=: missing; name the equation of the data: pde=darcy, or another of docs/equations")
    if "pde.points" in given:
        raise UserError("pde.points: the file has its own grid; omit this setting")
    settings = settings_from(about_equation, phases=(), config_dir=asked.config_dir)
    look_here(settings.pde.name)
    converted = convert(request, settings.pde.name, settings.pde.params, progress=StageProgress())
    quality = measure_quality(request.out, converted.manifest, converted.pde, converted.grid)
    print(printable("\n".join(summary_lines(request, converted, quality))))
