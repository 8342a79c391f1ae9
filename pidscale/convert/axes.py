"""Which dim of an array is which axis: as asked, as the layout or the names of its dims say, or by its shape.

Letters: N samples, T times, S components, Y and X places. Must not know channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pidscale.config import UserError
from pidscale.convert.layouts.source import DIMS, Array
from pidscale.convert.request import Asked


def axes_of(array: Array, target: str, slots: int, asked: Asked, path: Path) -> str:
    """The letters of an array's dims, "" where nothing says them. target: the axes that a sample has; slots: channels.

    UserError where the names that the file gives its dims contradict what is asked, or leave their order open.
    """
    given, dims = asked.axes.get(array.name), array.said.dims
    known = [_letter(name) for name in dims]
    if given:
        pairs = zip(dims, known, given, strict=False)  # a name for an axis that the equation lacks says nothing
        wrong = [f"{dim} is {own}" for dim, own, letter in pairs if own != letter and own in tuple("N" + target)]
        if wrong and not asked.force:
            raise UserError(
                f"axes.{array.name}={given}: {path} calls the dims of '{array.name}' ({', '.join(dims)}), where "
                f"{' and '.join(wrong)}; leave axes.{array.name} away, or set force=true if the file is wrong"
            )
        return given
    if array.axes:
        return array.axes
    guess = _guessed(array.shape, target, slots)
    if not any(known) or (guess and all(own in ("", letter) for own, letter in zip(known, guess, strict=True))):
        return guess
    filled = _filled(known, array.shape, target)
    if filled is None:
        raise UserError(
            f"{path}: array '{array.name}' {list(array.shape)} has dims called ({', '.join(name or '?' for name in dims)}), "
            f"expected some for [{', '.join('N' + target)}]; set axes.{array.name} to the letters of its dims (N T S Y X)"
        )
    return filled


def _letter(name: str) -> str:
    """The axis that a dim of this name is, "" where the name does not say."""
    return next((letter for letter, names in DIMS.items() if name.lower() in names), "")


def _filled(known: Sequence[str], shape: tuple[int, ...], target: str) -> str | None:
    """The letters of all dims: the axes that no name claims, in their order, for the dims whose names say nothing."""
    letters = list(known)
    named = [letter for letter in letters if letter]
    if len(set(named)) < len(named):
        return None
    left = [axis for axis in "N" + target if axis not in letters]
    open_dims = [i for i, letter in enumerate(letters) if not letter]
    if len(open_dims) == len(left) + 1 and "S" not in letters:  # one that is only there in name
        single = [i for i in open_dims if shape[i] == 1]
        if not single:
            return None
        letters[single[0]] = "S"
        open_dims.remove(single[0])
    if len(open_dims) != len(left):
        return None
    for i, axis in zip(open_dims, left, strict=True):
        letters[i] = axis
    return "".join(letters)


def _guessed(shape: tuple[int, ...], target: str, slots: int) -> str:
    """Axes of an array that does not say: samples first, components after times or last, where their number fits."""
    plain = "N" + target
    if len(shape) == len(plain):
        return plain
    if len(shape) != len(plain) + 1:
        return ""
    place = 2 if target == "TYX" else 1
    if shape[place] in (1, slots):
        return plain[:place] + "S" + plain[place:]
    return plain + "S" if shape[-1] in (1, slots) else ""
