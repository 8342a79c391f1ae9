"""The one owner of a consolidated generator's files, `weights.safetensors` and `card.json`: students and teachers alike.

The card holds all that is needed to build and to use the network: kind, equation, grid, channels and units, normaliser,
architecture, noise schedule, provenance and metrics, the size and checksum of the weights, and a checksum of its own: a
number edited by hand would give wrong fields without a word. Knows no ranks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, isfinite

from pidscale.config import UserError
from pidscale.plain import json_text, not_finite

VERSION = 1
_LARGEST_CARD, _LONGEST = 2**24, 200  # bytes of a card, and characters of a path in a message
KINDS = ("student", "teacher")
WEIGHTS, CARD = "weights.safetensors", "card.json"
CONTROL = "student-lambda0"  # folder of the student that was trained beside, without the residual
TEACHER = "teacher"  # folder of a student's teacher within its own, if it has it with it
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
    "sha256": str,
}


def replace(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all. Raises OSError that names the file; nothing of it is then left."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error


def write(folder: Path, weights: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write weights (by parameter name, whole shapes) and card; the card, written last, makes the folder valid."""
    _check_finite(folder / CARD, card)
    for name, tensor in weights.items():
        if not isfinite(tensor).all():
            raise UserError(f"{folder / WEIGHTS}: {name} is not finite: a run that diverged; nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    data = save({name: tensor.contiguous() for name, tensor in weights.items()})
    replace(folder / WEIGHTS, data)
    entry = {"file": WEIGHTS, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    _write_card(folder, {"version": VERSION, **card, "weights": entry})


def update_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Replace the metrics of a card, all else untouched."""
    _write_card(folder, {**read_card(folder), "metrics": dict(metrics)})


def _write_card(folder: Path, card: Mapping[str, Any]) -> None:
    _check_finite(folder / CARD, card)
    whole = {**card, "sha256": _own_sha256(card)}
    replace(folder / CARD, json_text(whole, indent=1, sort_keys=True).encode())


def _check_finite(path: Path, card: Mapping[str, Any]) -> None:
    """Raise UserError where a number of a card is not finite: no run that went well has one."""
    wrong = list(not_finite(card))
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(
            f"{path}: {wrong[0]}{more} is not a finite number: a run that diverged; train again with a lower rate (lr), or "
            "with clip=1"
        )


def _own_sha256(card: Mapping[str, Any]) -> str:
    """Checksum of a card's contents without the checksum itself, in a form that layout and key order do not change."""
    bare = {key: value for key, value in card.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(bare, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _is(kind: str, path: Path) -> bool:
    """Whether a path is a folder (`is_dir`) or a file (`is_file`); one that is too long for the system is neither."""
    try:
        return bool(getattr(path, kind)())
    except PermissionError as error:
        raise _unreadable(path, error) from None
    except (OSError, ValueError):
        return False


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: {error.strerror or error}; check the file, its permissions and the disk it is on")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from None


def _read(path: Path) -> bytes:
    """The bytes of a file. Raises UserError where the system does not give them."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def read_card(folder: str | Path) -> dict[str, Any]:
    """Read and check a card. Raises UserError that names the file and the key."""
    path = Path(folder) / CARD
    if not str(folder) or not _is("is_dir", Path(folder)):
        what = "a file; expected the folder of" if _is("is_file", Path(folder)) else "no such folder; expected"
        shown = str(folder) if len(str(folder)) <= _LONGEST else f"{str(folder)[:_LONGEST]}..."
        raise UserError(f"{shown or repr('')}: {what} a consolidated generator with {CARD} and {WEIGHTS}")
    if not _is("is_file", path):
        raise UserError(f"{path}: missing; this is no consolidated generator, or it was not finished")
    if (size := _size(path)) > _LARGEST_CARD:
        raise UserError(f"{path}: {size} bytes, where a card has some thousands; copy the folder again")
    try:
        card = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); copy the folder again from where it was made") from None
    if not isinstance(card, dict) or card.get("version") != VERSION:
        raise UserError(
            f"{path}: version {card.get('version') if isinstance(card, dict) else None!r}: expected {VERSION}"
        )
    for key, kind in _KEYS.items():
        if not isinstance(card.get(key), kind):
            raise UserError(
                f"{path}: key {key!r} is missing or is no {kind.__name__}; copy the folder again or make it anew"
            )
    if card["kind"] not in KINDS:
        raise UserError(f"{path}: kind {card['kind']!r}: expected one of {', '.join(KINDS)}")
    if card["sha256"] != _own_sha256(card):
        raise UserError(f"{path}: checksum differs from its contents: edited or damaged; copy the folder again")
    _check_finite(path, card)
    return card


def read_weights(folder: str | Path, card: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the weights a card names. Raises UserError where the file is missing, truncated or altered."""
    path = Path(folder) / WEIGHTS
    entry = card["weights"]
    stated = entry.get("bytes")
    if not _is("is_file", path):
        what = "is a folder, not a file" if path.is_dir() else "missing"
        raise UserError(f"{path}: {what}; the card beside it expects a file of {stated} bytes")
    if (size := _size(path)) != stated:  # before it is read: it may be larger than the memory
        how = "truncated" if isinstance(stated, int) and size < stated else "longer than what was written"
        raise UserError(f"{path}: {size} bytes where the card says {stated}: {how}; copy it again")
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != entry.get("sha256"):
        raise UserError(f"{path}: checksum differs from the card: altered or damaged; copy it again")
    try:
        return load(data)
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file ({error})") from None
