"""A cache of a remote set on this machine: shards are fetched when first used, checked, and deleted when space is needed.

Many processes and many sets may share one folder. Knows names, bytes and hashes; must not know equations, ranks or torch.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pidscale.config import UserError
from pidscale.files import file_sha256
from pidscale.records.format import index_name
from pidscale.records.manifest import Manifest
from pidscale.records.stores.base import Store, Unreachable
from pidscale.records.stores.folder import Folder

MARK = ".pidscale-cache"  # a file in each folder that a cache made: only files in such folders are ever deleted
_OURS = re.compile(r"[a-z0-9_]+-\d{5}\.(tar|index\.json)")
_ATTEMPTS = 3  # to fetch an object whose hash is wrong


class Cache:
    """A remote store with copies of its shards and indices in a local folder.

    The least recently used files are deleted first; an open file stays readable after it was deleted. Only shards and indices
    are counted and deleted, and only in folders with the mark of a cache.

    Args:
        remote: The remote store.
        manifest: The manifest of the remote set.
        folder: The folder of the cache, which other processes may share; it holds one folder a set, by data hash.
        limit: The bytes that all shards and indices in the folder may take.

    Attributes:
        piece: The bytes of a read, as of a folder.

    Raises:
        Unreachable: The folder cannot be written.
    """

    piece = Folder.piece

    def __init__(self, remote: Store, manifest: Manifest, folder: str | Path, limit: int) -> None:
        self.remote = remote
        self.limit = limit
        self.folder = Path(folder)
        self._wanted = _hashes(manifest)
        self._own = self.folder / manifest.data_hash[:24]
        try:
            self._own.mkdir(parents=True, exist_ok=True)
            (self._own / MARK).touch()
        except OSError as error:
            raise Unreachable(
                f"data.cache={folder}: {error.strerror}; name a folder that this run may write to"
            ) from None
        self._local = Folder(self._own)

    def where(self, name: str) -> str:
        """Return the address of a file, which is what a user can repair."""
        return self.remote.where(name)

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all files of the remote set by name."""
        return self.remote.sizes()

    def read(self, name: str) -> bytes:
        """Return the content of a file, from the cache if it is a shard or an index."""
        if name not in self._wanted:
            return self.remote.read(name)
        while True:
            self._fetch(name)
            with suppress(FileNotFoundError):  # another process has deleted it
                return self._local.read(name)

    def fill(self, name: str, offset: int, view: memoryview) -> None:
        """Fill a buffer with the bytes of a file, which is fetched first if needed."""
        while True:
            try:
                return self._local.fill(name, offset, view)
            except FileNotFoundError:
                self._fetch(name)

    def discard_damaged(self, name: str) -> bool:
        """Delete the copy of a file if its SHA-256 is not that of the manifest; return whether it was deleted."""
        path = self._own / name
        with self._alone(self._own / f".{name}.lock"):
            with suppress(FileNotFoundError):
                if file_sha256(path) == self._wanted[name][1]:
                    return False
            path.unlink(missing_ok=True)
        self._local.close()
        return True

    def close(self) -> None:
        """Close open files."""
        self._local.close()
        self.remote.close()

    def _fetch(self, name: str) -> None:
        """Fetch a file unless it is in the cache; UserError if its bytes are not those of the manifest."""
        path = self._own / name
        size, sha256 = self._wanted[name]
        with self._alone(self._own / f".{name}.lock"):
            if path.exists():
                os.utime(path)  # it is used now
                return
            if size is not None and size > self.limit:
                raise Unreachable(
                    f"data.cache_gib: {name} alone has {size / 2**30:.3g} GiB, more than the cache may hold; raise it"
                )
            temporary = self._own / f".{name}.{os.getpid()}.tmp"
            for left in self._own.glob(f".{name}.*.tmp"):  # of a killed process, since this one holds the lock
                left.unlink(missing_ok=True)
            try:
                for _ in range(_ATTEMPTS):
                    if self._copied(name, size, temporary) == sha256:
                        break
                else:
                    raise UserError(
                        f"{self.where(name)}: SHA-256 differs from manifest.json in {_ATTEMPTS} attempts, so the object is "
                        "damaged or was replaced; restore it"
                    )
                with self._alone(self.folder / ".lock"):
                    self._make_room(temporary.stat().st_size)
                    os.replace(temporary, path)
            except FileNotFoundError as error:
                raise UserError(f"{self.where(name)}: missing, but manifest.json lists it; restore it") from error
            except OSError as error:
                raise Unreachable(
                    f"data.cache={self.folder}: {error.strerror}; expected a folder that this run may write to, with room "
                    "for data.cache_gib"
                ) from error
            finally:
                temporary.unlink(missing_ok=True)

    def _copied(self, name: str, size: int | None, target: Path) -> str:
        """Copy a remote file; return its SHA-256, "" if it ends too early."""
        digest = hashlib.sha256()
        with open(target, "wb") as file:
            try:
                for piece in self._pieces(name, size):
                    digest.update(piece)
                    file.write(piece)
            except ValueError:
                return ""
        return digest.hexdigest()

    def _pieces(self, name: str, size: int | None) -> Iterator[memoryview]:
        """Yield a remote file piece by piece, or at once if its size is not known."""
        if size is None:
            yield memoryview(self.remote.read(name))
            return
        for offset in range(0, size, self.remote.piece):
            piece = memoryview(bytearray(min(self.remote.piece, size - offset)))
            self.remote.fill(name, offset, piece)
            yield piece

    def _make_room(self, size: int) -> None:
        """Delete the least recently used files until `size` more bytes fit."""
        found = []
        for mark in self.folder.glob(f"*/{MARK}"):
            for path in mark.parent.iterdir():
                with suppress(FileNotFoundError):
                    if _OURS.fullmatch(path.name):
                        stat = path.stat()
                        found.append((stat.st_mtime_ns, stat.st_size, path))
        used = sum(one[1] for one in found)
        for _, freed, path in sorted(found):
            if used + size <= self.limit:
                return
            path.unlink(missing_ok=True)
            used -= freed

    @contextmanager
    def _alone(self, lock: Path) -> Iterator[None]:
        """Hold a lock alone while the body runs; the system releases it when its holder ends."""
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Unreachable(
                f"data.cache={self.folder}: {error.strerror}; name a folder that this run may write to"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _hashes(manifest: Manifest) -> dict[str, tuple[int | None, str]]:
    """Return the bytes (None if the manifest does not list them) and the SHA-256 of tars and indices, by name."""
    found: dict[str, tuple[int | None, str]] = {}
    for split in manifest.splits.values():
        for entry in split.shards:
            found[entry.name] = (entry.bytes, entry.sha256)
            found[index_name(entry.name)] = (None, entry.index_sha256)
    return found
