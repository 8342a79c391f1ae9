"""The files of a consolidated generator, a student or a teacher: `weights.safetensors` and `card.json`.

The card (card.py) holds the size and the checksum of the weights, and a checksum of its own: a number edited by hand would
otherwise give wrong fields without any error. Knows no ranks.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, isfinite

from pidscale.config import UserError
from pidscale.files import write_atomic
from pidscale.generator.card import Card, Metrics, WeightsFile
from pidscale.generator.section import REMEDY
from pidscale.paths import is_address
from pidscale.plain import nested_too_deeply, not_finite

VERSION = 1
WEIGHTS = "weights.safetensors"
CARD = "card.json"
CONTROL = "student-lambda0"  # folder of the control: the student trained without the residual
TEACHER = "teacher"  # folder of a run's teacher, and of the teacher that a student's folder may carry
_LARGEST_CARD = 2**24  # bytes
_LONGEST_PATH = 200  # characters of a path that a message shows


def write(folder: Path, weights: Mapping[str, Tensor], card: Card) -> None:
    """Write weights and card. The card is written last and makes the folder valid.

    A file that cannot be written raises an OSError that names it.

    Args:
        folder: Folder of the generator; created if missing.
        weights: Whole tensors by parameter name.
        card: The card. Its attribute `weights` is set here.

    Raises:
        UserError: When a weight or a number of the card is not finite; nothing is written then.
    """
    _check_finite(folder / CARD, card.to_plain())
    for name, tensor in weights.items():
        if not isfinite(tensor).all():
            raise UserError(f"{folder / WEIGHTS}: {name} is not finite: the run diverged; nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    data = save({name: tensor.contiguous() for name, tensor in weights.items()})
    write_atomic(folder / WEIGHTS, data)
    _write_card(folder, dataclasses.replace(card, weights=WeightsFile(len(data), hashlib.sha256(data).hexdigest())))


def update_metrics(folder: Path, metrics: Metrics) -> None:
    """Replace the metrics in the card of a folder and keep everything else."""
    _write_card(folder, dataclasses.replace(read_card(folder), metrics=metrics))


def _write_card(folder: Path, card: Card) -> None:
    plain = {"version": VERSION, **card.to_plain()}
    _check_finite(folder / CARD, plain)
    write_plain(folder, plain)


def write_plain(folder: Path, plain: Mapping[str, Any]) -> None:
    """Write any JSON values as a card, with a valid checksum and without other checks."""
    signed = {**plain, "sha256": _own_sha256(plain)}
    write_atomic(folder / CARD, json.dumps(signed, indent=1, sort_keys=True).encode())


def _check_finite(path: Path, card: Mapping[str, Any]) -> None:
    """Raise UserError if a number of a card is not finite, which only a diverged run produces."""
    wrong = list(not_finite(card))
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(
            f"{path}: {wrong[0]}{more} is not a finite number: the run diverged; train again with a lower learning rate "
            "(lr), or with clip=1"
        )


def _own_sha256(card: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a card's values without the checksum itself, independent of layout and order of keys."""
    bare = {key: value for key, value in card.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(bare, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _is(test: Callable[[Path], bool], path: Path) -> bool:
    """Return whether a test (`Path.is_dir`, `Path.is_file`) holds; it fails for a path that is too long for the system."""
    try:
        return test(path)
    except PermissionError as error:
        raise _unreadable(path, error) from None
    except (OSError, ValueError):
        return False


def _unreadable(path: Path, error: OSError) -> UserError:
    """Return the error of a path that the system does not let us read."""
    return UserError(f"{path}: {error.strerror or error}; check the file, its permissions and the disk it is on")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from None


def _read(path: Path) -> bytes:
    """Return the bytes of a file. Raises UserError if the system does not let us read them."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def read_plain(folder: str | Path) -> dict[str, Any]:
    """Read the JSON values of a card and check their version and checksum.

    Args:
        folder: Folder of the generator.

    Returns:
        The JSON values.

    Raises:
        UserError: When the file is missing, is not a card, or does not match its checksum.
    """
    if is_address(folder):
        raise UserError(
            f"{folder}: an address of a store, expected a folder of this machine; download the folder first"
        )
    path = Path(folder) / CARD
    if not str(folder) or not _is(Path.is_dir, Path(folder)):
        what = "a file; expected the folder of" if _is(Path.is_file, Path(folder)) else "no such folder; expected"
        named = str(folder) if len(str(folder)) <= _LONGEST_PATH else f"{str(folder)[:_LONGEST_PATH]}..."
        raise UserError(f"{named or repr('')}: {what} a consolidated generator with {CARD} and {WEIGHTS}")
    if not _is(Path.is_file, path):
        shown = path if path.parent.name else path.absolute()
        raise UserError(f"{shown}: missing; the folder holds no consolidated generator, or an unfinished one")
    if (size := _size(path)) > _LARGEST_CARD:
        raise UserError(f"{path}: {size} bytes, expected a card of a few thousand; {REMEDY}")
    try:
        plain = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({str(error)[:100]}); {REMEDY}") from None
    version = plain.get("version") if isinstance(plain, dict) else None
    if not isinstance(plain, dict) or version != VERSION or isinstance(version, bool):
        raise UserError(f"{path}: version {repr(version)[:40]}, expected {VERSION}; {REMEDY}")
    if "sha256" not in plain:
        raise UserError(f"{path}: 'sha256' is missing; {REMEDY}")
    if nested_too_deeply(plain):
        raise UserError(f"{path}: nested too deeply for a card; {REMEDY}")
    _check_finite(path, plain)
    if plain["sha256"] != _own_sha256(plain):
        raise UserError(f"{path}: its checksum does not match its contents: edited or damaged; {REMEDY}")
    return plain


def read_card(folder: str | Path) -> Card:
    """Read and check a card.

    A missing or damaged card, or a field of a wrong type or range, raises a UserError that names the file and the key.

    Args:
        folder: Folder of the generator.

    Returns:
        The card.
    """
    return Card.from_plain(read_plain(folder), str(Path(folder) / CARD))


class NamesWeights(Protocol):
    """A card that names its file of weights."""

    @property
    def weights(self) -> WeightsFile | None:
        """The file; None if there is none."""


def check_weights(folder: str | Path, card: NamesWeights) -> Path:
    """Check that the weights that a card names are there, without reading them.

    Args:
        folder: Folder of the generator.
        card: Its card.

    Returns:
        The path of their file.

    Raises:
        UserError: When the file is missing, or is not of the size that the card states.
    """
    path = Path(folder) / WEIGHTS
    entry = card.weights
    if entry is None:
        raise UserError(f"{path}: the card names no weights; {REMEDY}")
    if not _is(Path.is_file, path):
        what = "is a folder, not a file" if path.is_dir() else "missing"
        raise UserError(f"{path}: {what}; the card expects a file of {entry.bytes} bytes; {REMEDY}")
    if (size := _size(path)) != entry.bytes:  # checked before reading: the file may be larger than the memory
        how = "truncated" if size < entry.bytes else "longer than the file that was written"
        raise UserError(f"{path}: {size} bytes, the card says {entry.bytes}: {how}; copy it again")
    return path


def read_weights(folder: str | Path, card: NamesWeights) -> dict[str, Tensor]:
    """Read the weights that a card names.

    Args:
        folder: Folder of the generator.
        card: Its card.

    Returns:
        Tensors by parameter name.

    Raises:
        UserError: When the file is missing, truncated or altered.
    """
    path = check_weights(folder, card)
    data = _read(path)
    if card.weights is None or hashlib.sha256(data).hexdigest() != card.weights.sha256:
        raise UserError(f"{path}: its checksum is not the one in the card: altered or damaged; copy it again")
    try:
        return load(data)
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file ({error})") from None
