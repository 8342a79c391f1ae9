"""Look after a shard set, in a folder or at an address such as s3://bucket/set (shards/README.md)

  python launch/shards.py verify PATH                  check every file, sample and statistic, and residuals of some samples
  python launch/shards.py show PATH [--out FILE.png]   print its card, and draw a few samples (default: last part of PATH.png)
  python launch/shards.py repair-index PATH            write indices that are missing or untrue anew from their tars

--equation NAME says which equation a set is expected to be of. Nothing is imported because a set asks for it: of a set of an
equation of your own (module:Class, here or on PYTHONPATH), verify and show leave out what needs it unless you name it so.
Ends with status 0 if nothing is wrong, 2 otherwise; each finding is one line on stderr.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import NoReturn

from pidscale.config import UserError
from pidscale.convert.summary import StageProgress
from pidscale.files import write_atomic
from pidscale.inspect.show import describe_set
from pidscale.inspect.verify import verify
from pidscale.meter import ProgressLine
from pidscale.paths import is_address, local_path
from pidscale.pde import build_pde, stored_pde
from pidscale.pde.base import Pde
from pidscale.pde.own import NotImported, look_here
from pidscale.plain import printable
from pidscale.records.check import load_manifest
from pidscale.records.manifest import Manifest
from pidscale.records.repair import repair_indices
from pidscale.records.stores.base import Store
from pidscale.records.stores.opening import open_store

_SHOWN = 4  # samples of a picture


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists what can be asked")


def _asked(words: list[str]) -> argparse.Namespace:
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{verify,show,repair-index}")
    for name in ("verify", "show", "repair-index"):
        command = commands.add_parser(name, allow_abbrev=False, description=f"{name}: see launch/shards.py --help")
        command.add_argument("path", metavar="PATH", help="folder or address of a shard set")
        if name != "repair-index":
            command.add_argument(
                "--equation", metavar="NAME", help="what the set is of; module:Class for one of your own"
            )
        if name == "show":
            command.add_argument(
                "--out", metavar="FILE.png", type=local_path("--out"), help="where the picture is written"
            )
    return parser.parse_args(words)


def _verify(path: str, equation: str | None) -> bool:
    """Check a set; whether nothing is wrong."""
    report = verify(path, StageProgress(), equation)
    for note in report.notes:
        print(f"note: {note}")
    _tell(report.findings)
    print(report.summary)
    return not report.findings


def _repair(path: str) -> bool:
    """Write indices; whether all are true now."""
    line: list[ProgressLine] = []

    def progress(done: int, total: int) -> None:
        line[:] = line or [ProgressLine("indices", total)]
        line[0].show(done)

    done = repair_indices(path, progress)
    for one in line:
        one.close()
    for name in done.written:
        print(f"written anew: {Path(path) / name}")
    _tell(done.left)
    print(f"{path}: {done.true} indices were true, {len(done.written)} written anew, {len(done.left)} left")
    return not done.left


def _show(path: str, out: Path | None, equation: str | None) -> None:
    """Print the card of a set and write a picture of a few samples. UserError for what cannot be read or written.

    A set of a user's own equation that he does not name has no picture, and a line says so.
    """
    target = out or Path(
        f"{path.rstrip('/').rsplit('/', 1)[-1] if is_address(path) else Path(path).resolve().name}.png"
    )
    if target.suffix != ".png":
        raise UserError(f"--out={out}: expected a name that ends in .png")
    store = open_store(path)
    manifest = load_manifest(store)
    if equation not in (None, manifest.equation):
        raise UserError(f"{path}: a set of {manifest.equation}, not of {equation}; name another set")
    print("\n".join(describe_set(manifest, path.rstrip("/"))))
    try:
        pde = stored_pde(store.where("manifest.json"), manifest.equation, manifest.params)
    except NotImported as error:
        print(f"note: no picture: {error}")
        return
    picture = _picture(store, manifest, pde)
    try:
        write_atomic(target, picture)
    except OSError as error:
        raise UserError(f"{target}: {error.strerror}; name a file that can be written with --out") from None
    print(f"  picture    {target}")


def _picture(store: Store, manifest: Manifest, pde: Pde) -> bytes:
    """The first samples of the train split as a PNG."""
    import torch

    from pidscale.figures.fields import field_figure
    from pidscale.ops.grid import Grid
    from pidscale.pde.base import Samples
    from pidscale.records.read import ShardSet

    grid = Grid.from_description(manifest.grid)
    shards = ShardSet(store, "train")
    ids = range(min(_SHOWN, len(shards)))
    samples = Samples(torch.from_numpy(shards.read(ids)), torch.from_numpy(shards.params(ids, pde.varying)))
    data = io.BytesIO()
    field_figure(pde, grid, {"train": samples}, len(ids)).savefig(data, format="png", dpi=120)
    return data.getvalue()


def _tell(findings: list[str]) -> None:
    sys.stdout.flush()  # what was said before stands before
    for finding in findings:
        print(f"error: {printable(' '.join(finding.split()))}", file=sys.stderr)


def _do(words: list[str]) -> bool:
    asked = _asked(words)
    if asked.command == "repair-index":
        return _repair(asked.path)
    if asked.equation is not None:
        look_here(asked.equation)
        build_pde(asked.equation)  # imports its module, which a manifest may not
    if asked.command == "verify":
        return _verify(asked.path, asked.equation)
    _show(asked.path, asked.out, asked.equation)
    return True


def main(words: list[str]) -> int:
    """Do what is asked; the exit status."""
    try:
        return 0 if _do(words) else 2
    except UserError as error:
        _tell([str(error)])
    except OSError as error:
        _tell([f"{error.filename or 'shards'}: {error.strerror or error}; check the file and its permissions"])
    return 2


if __name__ == "__main__":
    from entry import interruptible

    with interruptible("the same command begins anew"):
        raise SystemExit(main(sys.argv[1:]))
