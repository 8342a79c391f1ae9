"""Which axis each dim of an array is: from the arguments, the layout, the names of the dims, or the shape.

Letters: N samples, T time, S components, Y and X space. Must not know channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pidscale.config import UserError
from pidscale.convert.layouts.source import DIM_NAMES, Array
from pidscale.convert.request import ConversionRequest


def find_axes(array: Array, sample_axes: str, components: int, request: ConversionRequest, path: Path) -> str:
    """Find the axes of an array.

    Args:
        array: An array of the file.
        sample_axes: The axes of one sample: "YX", "TYX" or "TX".
        components: The number of components that the equation needs.
        request: The arguments of the conversion.
        path: The file, for messages.

    Returns:
        One letter for each dim, or an empty string if nothing determines them.

    Raises:
        UserError: The names of the dims in the file contradict the arguments, or do not determine the order of axes.
    """
    given = request.axes.get(array.name)
    dims = array.attributes.dims
    known = [_letter(name) for name in dims]
    if given:
        pairs = zip(dims, known, given, strict=False)  # the name of an axis that the equation lacks has no meaning here
        wrong = [f"{dim} is {own}" for dim, own, letter in pairs if own != letter and own in tuple("N" + sample_axes)]
        if wrong and not request.force:
            raise UserError(
                f"axes.{array.name}={given}: {path} names the dims of '{array.name}' ({', '.join(dims)}), where "
                f"{' and '.join(wrong)}; omit axes.{array.name}, or set force=true if the file is wrong"
            )
        return given
    if array.axes:
        return array.axes
    guess = _guess_from_shape(array.shape, sample_axes, components)
    if not any(known) or (guess and all(own in ("", letter) for own, letter in zip(known, guess, strict=True))):
        return guess
    completed = _complete(known, array.shape, sample_axes)
    if completed is None:
        raise UserError(
            f"{path}: array '{array.name}' {list(array.shape)} has dims named ({', '.join(name or '?' for name in dims)}), "
            f"expected [{', '.join('N' + sample_axes)}]; set axes.{array.name} to the letters of its dims (N T S Y X)"
        )
    return completed


def _letter(name: str) -> str:
    """Return the axis that a dim with this name is, empty if the name does not say."""
    return next((letter for letter, names in DIM_NAMES.items() if name.lower() in names), "")


def _complete(known: Sequence[str], shape: tuple[int, ...], sample_axes: str) -> str | None:
    """Give the dims without a known name the axes that are left, in order; None if that is not possible."""
    letters = list(known)
    named = [letter for letter in letters if letter]
    if len(set(named)) < len(named):
        return None
    left = [axis for axis in "N" + sample_axes if axis not in letters]
    open_dims = [i for i, letter in enumerate(letters) if not letter]
    if len(open_dims) == len(left) + 1 and "S" not in letters:  # one dim of length 1 is the component axis
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


def _guess_from_shape(shape: tuple[int, ...], sample_axes: str, components: int) -> str:
    """Guess the axes: samples first, components after time or last, where their number fits; empty if nothing fits."""
    plain = "N" + sample_axes
    if len(shape) == len(plain):
        return plain
    if len(shape) != len(plain) + 1:
        return ""
    place = 2 if sample_axes == "TYX" else 1
    if shape[place] in (1, components):
        return plain[:place] + "S" + plain[place:]
    return plain + "S" if shape[-1] in (1, components) else ""
