"""`pidscale show`: describe a generator or a shard set, and write a page about a generator.

Needs the base installation only, except for pictures and pages.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pidscale.app.card_text import card_lines
from pidscale.app.files import check_target
from pidscale.app.opening import import_equation
from pidscale.config import UserError
from pidscale.figures.png import write_png
from pidscale.files import write_atomic
from pidscale.generator.artifact import CARD, read_card
from pidscale.generator.generator import Generator
from pidscale.generator.load import load_generator
from pidscale.inspect.show import describe_set
from pidscale.ops.grid import Grid
from pidscale.paths import expanded, is_address
from pidscale.pde import stored_pde
from pidscale.pde.base import Pde, Samples
from pidscale.pde.own import NotImported
from pidscale.plain import printable, size_text
from pidscale.records.check import load_manifest
from pidscale.records.manifest import Manifest
from pidscale.records.stores.base import Store
from pidscale.records.stores.opening import open_store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pidscale.app.student_page import Truths

_DRAWN = 4  # number of samples in a picture
_MANIFEST = "manifest.json"


def run(asked: argparse.Namespace) -> None:
    """Print a description of the contents of a folder, and write a page about a generator if one is requested.

    Args:
        asked: Parsed arguments: `path` and `equation`; `out` for a shard set; `html` and `data` for a generator.

    Raises:
        UserError: When the folder holds neither a generator nor a shard set, or is damaged, or a file cannot be written.
    """
    path = asked.path if is_address(asked.path) else expanded(asked.path, "FOLDER")
    folder = Path(path)
    if asked.data is not None and asked.html is None:
        raise UserError(f"--data={asked.data}: only a page shows truths; add --html")
    if is_address(path) or (folder / _MANIFEST).is_file():
        if asked.html is not None:
            raise UserError(f"--html: a page is about a student or a teacher, and {path} holds a shard set; give --out")
        import_equation(asked.equation)
        show_set(path, asked.equation, asked.out)
        return
    if folder.is_dir() and not (folder / CARD).exists():
        raise UserError(
            f"{path or repr('')}: holds neither {CARD}, as a generator does, nor {_MANIFEST}, as a shard set does; name a "
            "folder such as runs/demo/student"
        )
    if asked.out is not None:
        raise UserError(
            f"--out={asked.out}: only a shard set is drawn, and {path} holds a generator; omit --out, or draw its samples "
            "with pidscale sample --picture or a page with --html"
        )
    card = read_card(folder)
    if asked.equation not in (None, card.equation.name):
        raise UserError(f"{path}: a {card.kind} of {card.equation.name}, not of {asked.equation}; name another folder")
    lines = [f"  {subject:<11} {text}" for subject, text in card_lines(card.to_plain())]
    described = printable("\n".join([f"{path}: {card.kind}", *lines]))
    written = None if asked.html is None else _write_page(path, asked)
    print("\n".join([described, *([] if written is None else [written])]))


# ---- the page of a generator


def _write_page(path: str, asked: argparse.Namespace) -> str:
    """Write the page of a generator, and return a line about it. Imports matplotlib."""
    target = Path(f"{Path(path).resolve().name}.html") if asked.html is True else asked.html
    check_target("--html", target, ".html")
    from pidscale.app.student_page import Shown, page_of

    start = time.perf_counter()
    import_equation(asked.equation)
    generator = load_generator(path)
    shown = Shown(path, generator, None if asked.data is None else _truths(asked.data, generator))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            page = page_of(shown)
        except UserError as error:  # of its samples, which may be no numbers
            raise UserError(f"{path}: its samples cannot be shown: {error}") from None
    try:
        write_atomic(target, page.encode())
    except OSError as error:
        raise UserError(f"--html={target}: {error.strerror}; name a file that can be written") from None
    lines = [f"warning: {text}" for text in dict.fromkeys(str(one.message) for one in caught)]
    seconds = time.perf_counter() - start
    return printable(
        "\n".join([*lines, f"  page        {target}, {size_text(len(page.encode()))}, made in {seconds:.1f} s"])
    )


def _truths(path: str, generator: Generator) -> Truths:
    """Return held-out truths of a shard set, which has to be of the generator's equation and grid."""
    from pidscale.app.student_page import SPECTRUM_SAMPLES, Truths

    store = open_store(path if is_address(path) else expanded(path, "--data"))
    manifest = load_manifest(store)
    card = generator.card.to_plain()
    made = {"name": manifest.equation, "params": dict(manifest.params)}
    if (made, dict(manifest.grid)) != (card["equation"], card["grid"]) or "endpoints" in manifest.request:
        raise UserError(
            f"--data={path}: not a set of {generator.pde.name} with the parameters and the grid of this {card['kind']}; name "
            "the set that it was trained on"
        )
    split = "test" if "test" in manifest.splits else "train"
    samples = _first_samples(store, split, generator.pde, SPECTRUM_SAMPLES)
    is_own = manifest.data_hash == generator.card.provenance.data_hash
    return Truths(samples, path, split, is_own)


# ---- shard sets


def show_set(path: str, equation: str | None, picture: Path | None) -> None:
    """Print the description of a shard set, and draw a few samples if a picture is requested.

    A set of a custom equation that has not been imported is not drawn; a line states this.

    Args:
        path: Folder or address of the set.
        equation: Expected equation of the set; None for any equation.
        picture: PNG file to write; None for no picture.

    Raises:
        UserError: When the set cannot be read or is of another equation, or the picture cannot be written.
    """
    if picture is not None and picture.suffix != ".png":
        raise UserError(f"--out={picture}: expected a name that ends in .png")
    store = open_store(path)
    manifest = load_manifest(store)
    if equation not in (None, manifest.equation):
        raise UserError(f"{path}: a set of {manifest.equation}, not of {equation}; name another set")
    print("\n".join(describe_set(manifest, path.rstrip("/"))))
    if picture is None:
        return
    try:
        pde = stored_pde(store.where(_MANIFEST), manifest.equation, manifest.params)
    except NotImported as error:
        print(f"note: no picture: {error}")
        return
    write_png(picture, _picture(store, manifest, pde))
    print(f"  picture    {picture}")


def _picture(store: Store, manifest: Manifest, pde: Pde) -> Figure:
    """Return a picture of the first samples of the train split. Imports matplotlib."""
    from pidscale.figures.fields import field_figure

    samples = _first_samples(store, "train", pde, _DRAWN)
    return field_figure(pde, Grid.from_description(manifest.grid), {"train": samples}, len(samples.fields))


def _first_samples(store: Store, split: str, pde: Pde, count: int) -> Samples:
    """Return the first samples of a split."""
    from pidscale.records.read import ShardSet  # needs a package that the base installation lacks

    shards = ShardSet(store, split)
    ids = range(min(count, len(shards)))
    return Samples(torch.from_numpy(shards.read(ids)), torch.from_numpy(shards.params(ids, pde.varying)))
