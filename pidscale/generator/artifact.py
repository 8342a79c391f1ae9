"""The files of a consolidated generator, `weights.safetensors` and `card.json`: students and teachers alike.

The card (card.py) holds the size and checksum of the weights and a checksum of its own, since a number edited by hand would
give wrong fields without a word. Knows no ranks.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, isfinite

from pidscale.config import UserError
from pidscale.files import write_atomic
from pidscale.generator.card import REMEDY, Card, Metrics, WeightsFile
from pidscale.plain import not_finite

VERSION = 1
_LARGEST_CARD, _LONGEST = 2**24, 200  # bytes of a card, and characters of a path in a message
WEIGHTS, CARD = "weights.safetensors", "card.json"
TWIN = "student-lambda0"  # folder of the student that was trained beside, without the residual
TEACHER = "teacher"  # folder of a student's teacher within its own, if it has it with it


def write(folder: Path, weights: Mapping[str, Tensor], card: Card) -> None:
    """Write weights and card. The card, written last, makes the folder valid.

    Args:
        folder: The generator's folder.
        weights: By parameter name, in whole shapes.
        card: The card; its entry of the weights is made here.

    Raises:
        UserError: When a weight or a number of the card is not finite; nothing is written then.
        OSError: When the file system refuses.
    """
    _check_finite(folder / CARD, card.to_plain())
    for name, tensor in weights.items():
        if not isfinite(tensor).all():
            raise UserError(f"{folder / WEIGHTS}: {name} is not finite: a run that diverged; nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    data = save({name: tensor.contiguous() for name, tensor in weights.items()})
    write_atomic(folder / WEIGHTS, data)
    _write_card(folder, dataclasses.replace(card, weights=WeightsFile(len(data), hashlib.sha256(data).hexdigest())))


def update_metrics(folder: Path, metrics: Metrics) -> None:
    """Replace the metrics of a card and nothing else."""
    _write_card(folder, dataclasses.replace(read_card(folder), metrics=metrics))


def _write_card(folder: Path, card: Card) -> None:
    plain = {"version": VERSION, **card.to_plain()}
    _check_finite(folder / CARD, plain)
    write_plain(folder, plain)


def write_plain(folder: Path, plain: Mapping[str, Any]) -> None:
    """Write a card's plain values with their checksum, whatever they are. For tests of what a reader refuses."""
    signed = {**plain, "sha256": _own_sha256(plain)}
    write_atomic(folder / CARD, json.dumps(signed, indent=1, sort_keys=True).encode())


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


def read_plain(folder: str | Path) -> dict[str, Any]:
    """Read a card's plain values and check their version and checksum.

    Args:
        folder: The generator's folder.

    Returns:
        The values as JSON has them.

    Raises:
        UserError: When there is no such file, or it is not a card, or its checksum differs.
    """
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
        plain = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({str(error)[:100]}); {REMEDY}") from None
    version = plain.get("version") if isinstance(plain, dict) else None
    if not isinstance(plain, dict) or version != VERSION or isinstance(version, bool):
        raise UserError(f"{path}: version {repr(version)[:40]}: expected {VERSION}; {REMEDY}")
    if "sha256" not in plain:
        raise UserError(f"{path}: 'sha256' is missing; {REMEDY}")
    try:
        own = _own_sha256(plain)
        _check_finite(path, plain)
    except RecursionError:
        raise UserError(f"{path}: nested too deep for a card; {REMEDY}") from None
    if plain["sha256"] != own:
        raise UserError(f"{path}: checksum differs from its contents: edited or damaged; copy the folder again")
    return plain


def read_card(folder: str | Path) -> Card:
    """Read and check a card.

    Args:
        folder: The generator's folder.

    Returns:
        The card.

    Raises:
        UserError: When it is missing or damaged, or a field has a wrong type or range; the line names file and key.
    """
    return Card.from_plain(read_plain(folder), str(Path(folder) / CARD))


def read_weights(folder: str | Path, card: Card) -> dict[str, Tensor]:
    """Read the weights a card names. Raises UserError where the file is missing, truncated or altered."""
    path = Path(folder) / WEIGHTS
    entry = card.weights
    if entry is None:
        raise UserError(f"{path}: the card names no weights; {REMEDY}")
    stated = entry.bytes
    if not _is("is_file", path):
        what = "is a folder, not a file" if path.is_dir() else "missing"
        raise UserError(f"{path}: {what}; the card beside it expects a file of {stated} bytes")
    if (size := _size(path)) != stated:  # before it is read: it may be larger than the memory
        how = "truncated" if size < stated else "longer than what was written"
        raise UserError(f"{path}: {size} bytes where the card says {stated}: {how}; copy it again")
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise UserError(f"{path}: checksum differs from the card: altered or damaged; copy it again")
    try:
        return load(data)
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file ({error})") from None
