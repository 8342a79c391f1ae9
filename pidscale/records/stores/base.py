"""What a store of the files of a set offers, and the error that a set cannot be reached. Knows names and bytes only."""

from __future__ import annotations

import hashlib
import io
from typing import Any, Protocol

from pidscale.config import UserError


class Unreachable(UserError):
    """The set cannot be reached (network, credentials, permissions, cache), which says nothing about the set itself."""


class Store(Protocol):
    """The files of one set, by name. Safe to share between threads.

    Attributes:
        piece: The bytes that a read had best ask for.
    """

    piece: int

    def where(self, name: str) -> str:
        """Return the path or address of a file, for messages."""
        ...

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file of the set, by name."""
        ...

    def read(self, name: str) -> bytes:
        """Return the content of a file; FileNotFoundError if it is missing, another OSError if it is not a regular file."""
        ...

    def fill(self, name: str, offset: int, view: memoryview) -> None:
        """Fill a buffer with the bytes of a file.

        A missing file raises a FileNotFoundError, a file that ends too early a ValueError.

        Args:
            name: The file.
            offset: The offset of the first byte.
            view: The buffer.
        """
        ...

    def discard_damaged(self, name: str) -> bool:
        """Delete the local copy of a file if it is damaged; return whether there was one, so that a second try may help."""
        ...

    def close(self) -> None:
        """Close open files; using the store opens them again."""
        ...


class SequentialFile(io.RawIOBase):
    """A file of a store that is read from its beginning to its end, for libraries that read files.

    Args:
        store: The store.
        name: The file.
        size: Its bytes.
    """

    def __init__(self, store: Store, name: str, size: int) -> None:
        self.store = store
        self.name = name
        self.size = size
        self.offset = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as fit and are left."""
        view = memoryview(buffer).cast("B")[: self.size - self.offset]
        self.store.fill(self.name, self.offset, view)
        self.offset += len(view)
        return len(view)


def sha256_of(store: Store, name: str, size: int) -> str:
    """Return the SHA-256 of a file in hex; only one piece is in memory at a time.

    Args:
        store: The store.
        name: The file.
        size: Its bytes.

    Returns:
        The SHA-256.
    """
    digest = hashlib.sha256()
    buffer = bytearray(min(store.piece, size))
    for offset in range(0, size, store.piece):
        view = memoryview(buffer)[: min(store.piece, size - offset)]
        store.fill(name, offset, view)
        digest.update(view)
    return digest.hexdigest()
