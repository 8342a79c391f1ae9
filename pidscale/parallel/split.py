"""Which rank holds which rows of a field, and how rows move from one cut to another. Knows no physics and no models.

Shapes: tiles are [..., y, X], the rows y of one rank of all rows Y.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pidscale.parallel.mesh import Space, rank_slice


@dataclass(frozen=True)
class Cut:
    """How the rows of a field are divided over the ranks of a space group.

    Attributes:
        ends: Rank r holds the rows from ends[r] to ends[r + 1]; the first end is 0, the last one the number of rows.
    """

    ends: tuple[int, ...]

    @classmethod
    def even(cls, rows: int, parts: int, unit: int = 1) -> Cut:
        """Divide rows as evenly as multiples of `unit` rows allow.

        Args:
            rows: The number of rows.
            parts: The number of ranks.
            unit: What the rows of every rank are a multiple of.

        Returns:
            The cut.

        Raises:
            ValueError: The number of rows is not a multiple of `unit`.
        """
        if rows % unit:
            raise ValueError(f"{rows} rows are not a multiple of {unit}")
        return cls((0, *(rank_slice(rows // unit, part, parts).stop * unit for part in range(parts))))

    @property
    def total(self) -> int:
        """The number of rows of the field."""
        return self.ends[-1]

    @property
    def sizes(self) -> list[int]:
        """The number of rows of each rank."""
        return [stop - start for start, stop in zip(self.ends, self.ends[1:], strict=False)]

    def rows(self, rank: int) -> slice:
        """Return the rows of a rank."""
        return slice(self.ends[rank], self.ends[rank + 1])

    def at(self, rank: int, rows: int) -> Cut:
        """Return the same cut at another resolution.

        Args:
            rank: A rank of the space group.
            rows: The number of rows that this rank holds at the other resolution.

        Returns:
            The cut at that resolution.

        Raises:
            ValueError: The ends do not scale to whole rows.
        """
        own = self.sizes[rank]
        ends = [end * rows for end in self.ends]
        if rows == 0 or any(end % own for end in ends):
            raise ValueError(
                f"a tile of {own} rows cannot become one of {rows}: rows {list(self.ends)} do not scale to that"
            )
        return Cut(tuple(end // own for end in ends))

    def inside(self, first: int, last: int) -> Cut:
        """Return the same cut restricted to the rows from `first` to `last`, counted from `first`."""
        return Cut(tuple(min(max(end, first), last) - first for end in self.ends))


def layout_of(tile: Tensor) -> torch.memory_format:
    """Return the memory format of a tile: channels last, or contiguous."""
    if tile.ndim == 4 and tile.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def exchange(parts: list[Tensor], shapes: list[tuple[int, ...]], space: Space, kind: str) -> list[Tensor]:
    """Send one tensor to each rank of the space group and receive one from each, without gradients. One all-to-all.

    Args:
        parts: The tensors to send, of one type, real or complex; part r goes to rank r. The part that this rank keeps does
            not count as sent.
        shapes: The shapes of the tensors to receive; tensor r comes from rank r.
        space: The space group.
        kind: The kind of exchange under which `space.traffic` counts it.

    Returns:
        The received tensors, in the order of ranks.
    """
    like = parts[0]
    if space.size == 1:
        return parts
    as_real = torch.view_as_real if like.is_complex() else (lambda part: part)
    packed = torch.cat([as_real(part.contiguous()).reshape(-1) for part in parts])
    numbers = 2 if like.is_complex() else 1  # of a value
    counts = [numbers * torch.Size(shape).numel() for shape in shapes]
    sent = [numbers * part.numel() for part in parts]
    received = packed.new_empty(sum(counts))
    with space.traffic.waiting():
        dist.all_to_all_single(received, packed, counts, sent, group=space.group)
    space.traffic.sent(kind, 1, (packed.numel() - sent[space.rank]) * packed.element_size())
    pieces = received.split(counts)
    if like.is_complex():
        return [torch.view_as_complex(p.reshape(*shape, 2)) for p, shape in zip(pieces, shapes, strict=True)]
    return [p.reshape(shape) for p, shape in zip(pieces, shapes, strict=True)]


def _overlap(one: slice, other: slice) -> slice:
    """Return the rows in both slices; an empty slice if there are none."""
    start = max(one.start, other.start)
    return slice(start, max(start, min(one.stop, other.stop)))


def _move(tile: Tensor, have: Cut, want: Cut, space: Space) -> Tensor:
    """Return the rows that `want` gives to this rank, without gradients."""
    own = have.rows(space.rank)
    target = want.rows(space.rank)
    parts: list[Tensor] = []
    shapes: list[tuple[int, ...]] = []
    for rank in range(space.size):
        leaving = _overlap(own, want.rows(rank))
        arriving = _overlap(have.rows(rank), target)
        parts.append(tile[..., leaving.start - own.start : leaving.stop - own.start, :])
        shapes.append((*tile.shape[:-2], arriving.stop - arriving.start, tile.shape[-1]))
    return torch.cat(exchange(parts, shapes, space, "recut"), dim=-2)


class _Recut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tile: Tensor, have: Cut, want: Cut, space: Space) -> Tensor:
        ctx.cuts = (have, want, space)
        return _move(tile, have, want, space)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        have, want, space = ctx.cuts
        return _move(grad, want, have, space), None, None, None


def recut(tile: Tensor, have: Cut, want: Cut, space: Space) -> Tensor:
    """Move the rows of a field from one cut to another. One all-to-all, and one back for the gradients.

    Args:
        tile: This rank's rows [..., y, X] under the cut `have`.
        have: The present cut.
        want: The cut to move to.
        space: The space group.

    Returns:
        This rank's rows [..., y', X] under the cut `want`.

    Raises:
        ValueError: The cuts are of different numbers of rows.
    """
    if have.total != want.total:
        raise ValueError(f"cuts of {have.total} and of {want.total} rows: expected two cuts of one field")
    if space.size == 1 or have == want:
        return tile
    moved: Tensor = _Recut.apply(tile, have, want, space)
    return moved


def gather_cut(rows: int, space: Space, device: torch.device) -> Cut:
    """Return the cut in which every rank holds the number of rows that it passes here. One all-gather of 8 bytes a rank."""
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(space.size)]
    dist.all_gather(sizes, torch.tensor([rows], device=device), group=space.group)
    return Cut((0, *torch.cat(sizes).cumsum(0).tolist()))


def gather_on_first(tile: Tensor, cut: Cut, space: Space) -> Tensor | None:
    """Return all rows of a field on the first rank of the space group, without gradients. One all-to-all.

    Args:
        tile: This rank's rows [..., y, X].
        cut: The rows of every rank.
        space: The space group.

    Returns:
        The whole field [..., Y, X] on the first rank, None on the others.
    """
    if space.size == 1:
        return tile.detach()
    ends = (0, *(cut.total for _ in range(space.size)))
    moved = _move(tile.detach(), cut, Cut(ends), space)
    return moved if space.rank == 0 else None
