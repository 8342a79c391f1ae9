"""Where the files of a set lie: a folder, or an address such as s3://bucket/set (remote.py). Knows names and bytes only."""

from __future__ import annotations

import hashlib
import io
from typing import Any, Protocol

from pidscale.config import UserError


class Unreachable(UserError):
    """What is wrong with the way to a set (network, credentials, permissions, cache) and not with the set."""


class Store(Protocol):
    """The files of one set by name. Safe to share between threads. piece: bytes that are best asked for at once."""

    piece: int

    def where(self, name: str) -> str:
        """The full name of a file, for messages."""
        ...

    def sizes(self) -> dict[str, int]:
        """Bytes of every file of the set, by name."""
        ...

    def read(self, name: str) -> bytes:
        """A whole file. Raises FileNotFoundError, OSError for what is no plain file."""
        ...

    def fill(self, name: str, offset: int, view: memoryview) -> None:
        """Bytes of a file from `offset` on into a buffer. Raises FileNotFoundError, ValueError where the file ends early."""
        ...

    def renew(self, name: str) -> bool:
        """Throw away a copy of a file that is not as the original; whether there was one, so that it is worth a new try."""
        ...

    def close(self) -> None:
        """Let go of what is held open; using the store opens it again."""
        ...


class Forward(io.RawIOBase):
    """A file of a store from its beginning to its end, for what reads files."""

    def __init__(self, store: Store, name: str, size: int) -> None:
        self.store, self.name, self.size, self.at = store, name, size, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As many bytes as fit and are left."""
        view = memoryview(buffer).cast("B")[: self.size - self.at]
        self.store.fill(self.name, self.at, view)
        self.at += len(view)
        return len(view)


def sha256_of(store: Store, name: str, size: int) -> str:
    """SHA-256 of a file of this size, in hex, a piece at a time."""
    digest, buffer = hashlib.sha256(), bytearray(min(store.piece, size))
    for offset in range(0, size, store.piece):
        view = memoryview(buffer)[: min(store.piece, size - offset)]
        store.fill(name, offset, view)
        digest.update(view)
    return digest.hexdigest()
