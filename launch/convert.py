"""Convert a file of other people's data: python launch/convert.py source=FILE out=FOLDER pde=NAME (docs/converting.md)"""

from __future__ import annotations

import sys

from entry import interruptible, one_line, settings_from

from pidscale.config import UserError
from pidscale.convert.convert import convert
from pidscale.convert.quality import measure_quality
from pidscale.convert.request import ConversionRequest, parse_request, split_words
from pidscale.convert.summary import StageProgress, summary_lines
from pidscale.pde.own import look_here
from pidscale.plain import printable


def main(words: list[str]) -> None:
    """Convert, and say what the set is worth."""
    ours, theirs = split_words(words)
    request = parse_request(ours)
    named = {word.split("=")[0] for word in theirs}
    if "pde" not in named:
        raise UserError("pde=: missing; say which equation the file is of: pde=darcy, or another of docs/equations")
    if "pde.points" in named:
        raise UserError("pde.points: the file has its own grid; omit pde.points")
    settings = settings_from(theirs, phases=())
    look_here(settings.pde.name)
    converted = convert(request, settings.pde.name, settings.pde.params, progress=StageProgress())
    quality = measure_quality(request.out, converted.manifest, converted.pde, converted.grid)
    print(printable("\n".join(summary_lines(request, converted, quality))))


if __name__ == "__main__":
    try:
        if {"-h", "--help"} & set(sys.argv[1:]):
            print(f"{__doc__}\n\n{ConversionRequest.__doc__}")
        else:
            with interruptible("the same command goes on from what is there"):
                main(sys.argv[1:])
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    except (MemoryError, OSError) as error:
        print(f"error: {one_line(error)}; see source and out, or give a file that fits into memory", file=sys.stderr)
        raise SystemExit(2) from None
