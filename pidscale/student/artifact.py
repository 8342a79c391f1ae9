"""The one owner of a consolidated generator's files, `weights.safetensors` and `card.json`: students and teachers alike.

The card holds all that is needed to build and to use the network: kind, equation, grid, channels and units, normaliser,
architecture, noise schedule, provenance and metrics, and the size and checksum of the weights. Knows no ranks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pidscale.config import UserError

VERSION = 1
KINDS = ("student", "teacher")
WEIGHTS, CARD = "weights.safetensors", "card.json"
_KEYS = {
    "kind": str,
    "equation": dict,
    "grid": dict,
    "channels": list,
    "normaliser": dict,
    "architecture": dict,
    "noise": dict,
    "provenance": dict,
    "metrics": dict,
    "weights": dict,
}


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def write(folder: Path, weights: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write weights (by parameter name, whole shapes) and card; the card, written last, makes the folder valid."""
    folder.mkdir(parents=True, exist_ok=True)
    data = save({name: tensor.contiguous() for name, tensor in weights.items()})
    _replace(folder / WEIGHTS, data)
    entry = {"file": WEIGHTS, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    whole = {"version": VERSION, **card, "weights": entry}
    _replace(folder / CARD, json.dumps(whole, indent=1, sort_keys=True).encode())


def update_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Replace the metrics of a card, all else untouched."""
    card = read_card(folder)
    _replace(folder / CARD, json.dumps({**card, "metrics": dict(metrics)}, indent=1, sort_keys=True).encode())


def read_card(folder: str | Path) -> dict[str, Any]:
    """Read and check a card. Raises UserError that names the file and the key."""
    path = Path(folder) / CARD
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder; expected a consolidated generator with {CARD} and {WEIGHTS}")
    if not path.is_file():
        raise UserError(f"{path}: missing; this is no consolidated generator, or it was not finished")
    try:
        card = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); copy the folder again from where it was made") from None
    if not isinstance(card, dict) or card.get("version") != VERSION:
        raise UserError(
            f"{path}: version {card.get('version') if isinstance(card, dict) else None!r}: expected {VERSION}"
        )
    for key, kind in _KEYS.items():
        if not isinstance(card.get(key), kind):
            raise UserError(f"{path}: key {key!r} is missing or is no {kind.__name__}; copy the folder again")
    if card["kind"] not in KINDS:
        raise UserError(f"{path}: kind {card['kind']!r}: expected one of {', '.join(KINDS)}")
    return card


def read_weights(folder: str | Path, card: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the weights a card names. Raises UserError where the file is missing, truncated or altered."""
    path = Path(folder) / WEIGHTS
    entry = card["weights"]
    if not path.is_file():
        raise UserError(f"{path}: missing; the card beside it expects {entry.get('bytes')} bytes")
    data = path.read_bytes()
    if len(data) != entry.get("bytes"):
        raise UserError(f"{path}: {len(data)} bytes where the card says {entry.get('bytes')}: truncated; copy it again")
    if hashlib.sha256(data).hexdigest() != entry.get("sha256"):
        raise UserError(f"{path}: checksum differs from the card: altered or damaged; copy it again")
    try:
        return load(data)
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file ({error})") from None
