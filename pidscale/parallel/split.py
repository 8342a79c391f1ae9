"""Which rows of a field are whose, and how rows come from one cut to another. Knows ranks; knows no physics and no models.

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
    """Rows 0 to ends[-1] among the ranks of a space group: rank r holds ends[r] to ends[r + 1]."""

    ends: tuple[int, ...]

    @classmethod
    def even(cls, rows: int, parts: int, unit: int = 1) -> Cut:
        """As even as multiples of `unit` rows allow. ValueError where the rows are no such multiple."""
        if rows % unit:
            raise ValueError(f"{rows} rows are no multiple of {unit}")
        return cls((0, *(rank_slice(rows // unit, part, parts).stop * unit for part in range(parts))))

    @property
    def total(self) -> int:
        """All rows."""
        return self.ends[-1]

    @property
    def sizes(self) -> list[int]:
        """Rows of each rank."""
        return [stop - start for start, stop in zip(self.ends, self.ends[1:], strict=False)]

    def rows(self, rank: int) -> slice:
        """The rows of a rank."""
        return slice(self.ends[rank], self.ends[rank + 1])

    def at(self, rank: int, rows: int) -> Cut:
        """The same cut at another resolution, where this rank holds `rows` rows. ValueError where it does not fit."""
        mine = self.sizes[rank]
        ends = [end * rows for end in self.ends]
        if rows == 0 or any(end % mine for end in ends):
            raise ValueError(f"{rows} rows of a tile of {mine}: rows {list(self.ends)} do not scale to that")
        return Cut(tuple(end // mine for end in ends))

    def inside(self, first: int, last: int) -> Cut:
        """The same cut of the rows first to last alone, counted from `first`."""
        return Cut(tuple(min(max(end, first), last) - first for end in self.ends))


def layout_of(tile: Tensor) -> torch.memory_format:
    """Channels last where a tile is so, else rows of rows."""
    if tile.ndim == 4 and tile.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def exchange(parts: list[Tensor], shapes: list[tuple[int, ...]], space: Space, kind: str) -> list[Tensor]:
    """Send part r to rank r of the space group and receive tensors of these shapes, one from each; outside the graph.

    One all-to-all; the part for this rank itself does not count as sent.
    """
    like = parts[0]
    if space.size == 1:
        return parts
    real = torch.view_as_real if like.is_complex() else (lambda part: part)
    packed = torch.cat([real(part.contiguous()).reshape(-1) for part in parts])
    double = 2 if like.is_complex() else 1
    counts = [double * torch.Size(shape).numel() for shape in shapes]
    sent = [double * part.numel() for part in parts]
    received = packed.new_empty(sum(counts))
    with space.traffic.waiting():
        dist.all_to_all_single(received, packed, counts, sent, group=space.group)
    space.traffic.sent(kind, 1, (packed.numel() - sent[space.rank]) * packed.element_size())
    pieces = received.split(counts)
    if like.is_complex():
        return [torch.view_as_complex(p.reshape(*shape, 2)) for p, shape in zip(pieces, shapes, strict=True)]
    return [p.reshape(shape) for p, shape in zip(pieces, shapes, strict=True)]


def _overlap(one: slice, other: slice) -> slice:
    start = max(one.start, other.start)
    return slice(start, max(start, min(one.stop, other.stop)))


def _move(tile: Tensor, have: Cut, want: Cut, space: Space) -> Tensor:
    mine, target = have.rows(space.rank), want.rows(space.rank)
    parts, shapes = [], []
    for rank in range(space.size):
        out, into = _overlap(mine, want.rows(rank)), _overlap(have.rows(rank), target)
        parts.append(tile[..., out.start - mine.start : out.stop - mine.start, :])
        shapes.append((*tile.shape[:-2], into.stop - into.start, tile.shape[-1]))
    return torch.cat(exchange(parts, shapes, space, "recut"), dim=-2)


class _Recut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tile: Tensor, have: Cut, want: Cut, space: Space) -> Tensor:
        ctx.cuts = have, want, space
        return _move(tile, have, want, space)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        have, want, space = ctx.cuts
        return _move(grad, want, have, space), None, None, None


def recut(tile: Tensor, have: Cut, want: Cut, space: Space) -> Tensor:
    """The rows that `want` gives to this rank, of a field cut as `have`; both cuts are of all its rows. One all-to-all.

    The adjoint takes gradients back the same way.
    """
    if have.total != want.total:
        raise ValueError(f"cuts of {have.total} and of {want.total} rows")
    if space.size == 1 or have == want:
        return tile
    moved: Tensor = _Recut.apply(tile, have, want, space)
    return moved


def counted(rows: int, space: Space, device: torch.device) -> Cut:
    """The cut in which every rank holds so many rows as it says. One all-gather of 8 bytes each."""
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(space.size)]
    dist.all_gather(sizes, torch.tensor([rows], device=device), group=space.group)
    return Cut((0, *torch.cat(sizes).cumsum(0).tolist()))


def whole(tile: Tensor, cut: Cut, space: Space) -> Tensor | None:
    """All rows, on the first rank of the space group, None on others: for pictures and tests, outside the graph."""
    if space.size == 1:
        return tile.detach()
    ends = (0, *(cut.total for _ in range(space.size)))
    moved = _move(tile.detach(), cut, Cut(ends), space)
    return moved if space.rank == 0 else None
