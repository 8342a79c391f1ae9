"""`pidscale show`: describe a generator or a shard set. Needs the base installation only, except for pictures."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pidscale.app.opening import import_equation
from pidscale.config import UserError
from pidscale.figures.png import write_png
from pidscale.generator.artifact import CARD, read_card
from pidscale.inspect.show import describe_set
from pidscale.paths import expanded, is_address
from pidscale.pde import stored_pde
from pidscale.pde.base import Pde
from pidscale.pde.own import NotImported
from pidscale.plain import printable, size_text
from pidscale.records.check import load_manifest
from pidscale.records.manifest import Manifest
from pidscale.records.stores.base import Store
from pidscale.records.stores.opening import open_store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWN = 4  # number of samples in a picture
_MANIFEST = "manifest.json"


def run(asked: argparse.Namespace) -> None:
    """Print a description of the contents of a folder.

    Args:
        asked: Parsed arguments: `path`, and for a shard set `equation` and `out`.

    Raises:
        UserError: When the folder holds neither a generator nor a shard set, or is damaged.
    """
    path = asked.path if is_address(asked.path) else expanded(asked.path, "FOLDER")
    folder = Path(path)
    if is_address(path) or (folder / _MANIFEST).is_file():
        import_equation(asked.equation)
        show_set(path, asked.equation, asked.out)
        return
    if folder.is_dir() and not (folder / CARD).exists():
        raise UserError(
            f"{path}: holds neither {CARD}, as a generator does, nor {_MANIFEST}, as a shard set does; name a folder "
            "such as runs/demo/student"
        )
    if asked.out is not None:
        raise UserError(
            f"--out={asked.out}: only a shard set is drawn, and {path} holds a generator; omit --out, or draw its samples "
            "with pidscale sample --picture"
        )
    card = read_card(folder)
    print(printable("\n".join([f"{path}: {card.kind}", *_describe_card(card.to_plain())])))


def _describe_card(card: Mapping[str, Any]) -> list[str]:
    """Return the description of a card, one line per subject."""
    grid, network, noise, weights = card["grid"], card["architecture"], card["noise"], card["weights"]
    origin = card["provenance"]
    residual = _join(_pairs(origin.get("weights", {})))
    how = _pairs(origin, only=("start", "gradient_to", "huber", "power"))
    lines = [
        ("equation", _join([card["equation"]["name"], *_pairs(card["equation"]["params"])])),
        (
            "grid",
            f"{grid['kind']}, {_times(grid['shape'])} points, extent {_times(grid['extent'])}, {grid['boundary']}",
        ),
        *(("channel", line) for line in _channels(card["channels"])),
        ("network", _join([network["kind"], *_pairs(network, but=("kind",))])),
        ("weights", f"{size_text(weights['bytes'])}, SHA-256 {weights['sha256']}"),
        ("noise", _join([noise["kind"], *_pairs(noise, but=("kind",))])),
        ("constraints", _join(card.get("constraints", ()))),
        ("head", f"{card['head']} solver steps behind every field" if card.get("head") else ""),
        ("objective", _join([origin.get("objective", ""), *how])),
        ("endpoints", _join(_pairs(origin.get("endpoints", {})))),
        ("residual", residual and f"weights {residual}"),
        ("training", _training(origin, card["metrics"])),
        *(("measured", line) for line in _measured(card["metrics"])),
    ]
    return [f"  {subject:<11} {text}" for subject, text in lines if text]


def _channels(channels: Sequence[Mapping[str, str]]) -> Iterable[str]:
    """Yield a line for each group of consecutive channels that differ only in their names."""
    for (unit, role), run in groupby(channels, key=lambda channel: (channel["unit"], channel["role"])):
        names = [channel["name"] for channel in run]
        shown = f"{names[0]} to {names[-1]} ({len(names)})" if len(names) > 2 else ", ".join(names)
        yield f"{shown} [{unit}], {role}"


def _training(origin: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    parts = [f"{origin['steps']} steps"] if "steps" in origin else []
    parts += [f"{metrics['train_seconds']:.0f} s"] if "train_seconds" in metrics else []
    return _join([*parts, *_pairs(origin, only=("seed", "run"))])


def _measured(metrics: Mapping[str, Any]) -> Iterable[str]:
    """Yield the figures of the report, or those of the end of training if there is no report."""
    report = metrics.get("report", metrics)
    names = {
        "residual l2": "residual_l2",
        "dual": "residual_dual",
        "boundary": "boundary_rms" if "boundary_rms" in report else "residual_boundary",
        "solution error": "solution_error",
        "SWD excess": "swd_excess",
    }
    yield _join(f"{name} {report[key]:.3g}" for name, key in names.items() if report.get(key) is not None)
    if "nfe" in report:
        yield f"calls {report['nfe']}, {report['ms_per_sample']:.3g} ms a sample, {report['n_samples']} samples"


def _pairs(values: Mapping[str, Any], only: Sequence[str] | None = None, but: Sequence[str] = ()) -> list[str]:
    """Return `key=value` for the entries of a mapping, in order."""
    keys = [key for key in (values if only is None else only) if key in values and key not in but]
    return [f"{key}={_value(values[key])}" for key in keys]


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_value, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _times(numbers: Sequence[float]) -> str:
    return " x ".join(map(_value, numbers))


def _join(parts: Iterable[str]) -> str:
    return ", ".join(part for part in parts if part)


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
    import torch

    from pidscale.figures.fields import field_figure
    from pidscale.ops.grid import Grid
    from pidscale.pde.base import Samples
    from pidscale.records.read import ShardSet

    grid = Grid.from_description(manifest.grid)
    shards = ShardSet(store, "train")
    ids = range(min(_DRAWN, len(shards)))
    samples = Samples(torch.from_numpy(shards.read(ids)), torch.from_numpy(shards.params(ids, pde.varying)))
    return field_figure(pde, grid, {"train": samples}, len(ids))
