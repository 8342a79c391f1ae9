"""Room on the disk that a run writes to: looked at before a write, and one line where it is not there. Knows no ranks.

A full disk is told in many tongues: errors with a number, those of safetensors with the number in their text, those of
torch.save without any.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from pidscale.config import UserError
from pidscale.plain import size_text

_KINDS = {
    errno.ENOSPC: "no room on the disk",
    errno.EDQUOT: "no room within the disk quota",
    errno.EROFS: "the file system is read-only",
}
_REMEDY = {errno.EROFS: "mount it for writing"}
_TORCH = ("PytorchStreamWriter", "inline_container")  # torch.save says that a write failed, and not why


def kind_of(error: BaseException) -> int | None:
    """The error number, where an error says that a disk takes no more; None for every other error."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _KINDS:
            return seen.errno
        if isinstance(seen, SafetensorError):
            told = re.search(r"os error (\d+)", str(seen))
            if told and int(told[1]) in _KINDS:
                return int(told[1])
        if isinstance(seen, RuntimeError) and any(word in str(seen) for word in _TORCH):
            return errno.ENOSPC
        seen = seen.__cause__ or seen.__context__
    return None


def free_bytes(folder: Path) -> int | None:
    """Bytes that may still be written under a folder, which need not be there yet; None where the system does not say."""
    with suppress(OSError):
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free
    return None


def _line(folder: Path, what: str, needed: int | None, kind: int, after: str) -> str:
    """The one line: folder, bytes needed and free as far as they are known, and what the same command does afterwards."""
    sizes = [] if needed is None else [f"{size_text(needed)} needed"]
    free = free_bytes(folder)
    sizes += [] if free is None or kind == errno.EROFS else [f"{size_text(free)} free"]
    counted = f" ({', '.join(sizes)})" if sizes else ""
    return f"{folder}: {_KINDS[kind]} for {what}{counted}; {_REMEDY.get(kind, 'make room')}, {after}"


def lack_of_room(folder: Path, what: str, needed: int, after: str) -> str | None:
    """The line where fewer than `needed` bytes are free under a folder, so that a write could not end; else None.

    after: what happens once there is room, as `the same command goes on from step 100`.
    """
    free = free_bytes(folder)
    return _line(folder, what, needed, errno.ENOSPC, after) if free is not None and free < needed else None


@contextmanager
def in_one_line(folder: Path, what: str, needed: int | None, after: str) -> Iterator[None]:
    """The body writes `what`, about `needed` bytes, into a folder. Raises UserError where the disk takes no more."""
    try:
        yield
    except Exception as error:
        kind = kind_of(error)
        if kind is None:
            raise
        raise UserError(_line(folder, what, needed, kind, after)) from error
