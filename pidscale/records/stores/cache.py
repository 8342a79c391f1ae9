"""Shards of a remote set kept on this machine: fetched whole when first used, checked, and deleted when room is needed.

One folder may serve many processes and many sets. Knows names, bytes and hashes; must not know equations, ranks or torch.
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
from pidscale.records.layout import Manifest, file_sha256, index_name
from pidscale.records.stores.base import Store, Unreachable
from pidscale.records.stores.folder import Folder

MARK = ".pidscale-cache"  # stands in each folder of a set that a cache made: nothing else is ever deleted
_OURS = re.compile(r"[a-z0-9_]+-\d{5}\.(tar|index\.json)")
_ATTEMPTS = 3  # times that an object whose hash is wrong is fetched


class Cache:
    """A remote store with its shards in a folder.

    manifest: of the remote set. folder: shared by every process that names it; sets lie in it by their data hash. limit:
    bytes that shards in it may take together; those used least recently are deleted first. A file that is open stays
    readable when it is deleted. Only shards and indices are counted and deleted, in folders that bear the mark of a cache.
    """

    piece = Folder.piece

    def __init__(self, remote: Store, manifest: Manifest, folder: str | Path, limit: int) -> None:
        self.remote, self.limit, self.folder = remote, limit, Path(folder)
        self._wanted = _hashes(manifest)
        self._own = self.folder / manifest.data_hash[:24]
        try:
            self._own.mkdir(parents=True, exist_ok=True)
            (self._own / MARK).touch()
        except OSError as error:
            raise Unreachable(f"data.cache={folder}: {error.strerror}; name a folder that this run may write") from None
        self._local = Folder(self._own)

    def where(self, name: str) -> str:
        """The address: what a user would mend."""
        return self.remote.where(name)

    def sizes(self) -> dict[str, int]:
        """Bytes by name, as the remote has them."""
        return self.remote.sizes()

    def read(self, name: str) -> bytes:
        """A whole file, from here if it is a shard or an index."""
        if name not in self._wanted:
            return self.remote.read(name)
        while True:
            self._fetch(name)
            with suppress(FileNotFoundError):  # deleted by another process since
                return self._local.read(name)

    def fill(self, name: str, offset: int, view: memoryview) -> None:
        """Bytes of a file that is here, or is brought here first."""
        while True:
            try:
                return self._local.fill(name, offset, view)
            except FileNotFoundError:
                self._fetch(name)

    def renew(self, name: str) -> bool:
        """Delete a copy here whose SHA-256 is not that of the manifest; whether it was so."""
        path = self._own / name
        with self._alone(self._own / f".{name}.lock"):
            with suppress(FileNotFoundError):
                if file_sha256(path) == self._wanted[name][1]:
                    return False
            path.unlink(missing_ok=True)
        self._local.close()
        return True

    def close(self) -> None:
        """Close local files."""
        self._local.close()
        self.remote.close()

    def _fetch(self, name: str) -> None:
        """Bring a file here, unless it is. UserError for one whose bytes are not those of the manifest."""
        path, (size, sha256) = self._own / name, self._wanted[name]
        with self._alone(self._own / f".{name}.lock"):
            if path.exists():
                os.utime(path)  # used now
                return
            if size is not None and size > self.limit:
                raise Unreachable(
                    f"data.cache_gib: {name} alone has {size / 2**30:.3g} GiB, more than the whole cache may; raise it"
                )
            temporary = self._own / f".{name}.{os.getpid()}.tmp"
            for left in self._own.glob(f".{name}.*.tmp"):  # of a process that was killed: only we hold the lock
                left.unlink(missing_ok=True)
            try:
                for _ in range(_ATTEMPTS):
                    if self._copied(name, size, temporary) == sha256:
                        break
                else:
                    raise UserError(
                        f"{self.where(name)}: SHA-256 differs from manifest.json in {_ATTEMPTS} attempts: the object is "
                        "damaged or another one; restore it"
                    )
                with self._alone(self.folder / ".lock"):
                    self._make_room(temporary.stat().st_size)
                    os.replace(temporary, path)
            except FileNotFoundError as error:
                raise UserError(f"{self.where(name)}: missing, but manifest.json lists it; restore it") from error
            except OSError as error:
                raise Unreachable(
                    f"data.cache={self.folder}: {error.strerror}; it must be a folder that this run may write, with room for "
                    "data.cache_gib"
                ) from error
            finally:
                temporary.unlink(missing_ok=True)

    def _copied(self, name: str, size: int | None, target: Path) -> str:
        """Copy a remote file; its SHA-256, or "" where it ends early."""
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
        """A remote file a piece at a time, or at once where its size is not known."""
        if size is None:
            yield memoryview(self.remote.read(name))
            return
        for offset in range(0, size, self.remote.piece):
            piece = memoryview(bytearray(min(self.remote.piece, size - offset)))
            self.remote.fill(name, offset, piece)
            yield piece

    def _make_room(self, size: int) -> None:
        """Delete the shards used least recently until `size` more bytes fit."""
        found = []
        for mark in self.folder.glob(f"*/{MARK}"):
            for path in mark.parent.iterdir():
                with suppress(FileNotFoundError):
                    if _OURS.fullmatch(path.name):
                        stat = path.stat()
                        found.append((stat.st_mtime_ns, stat.st_size, path))
        taken = sum(one[1] for one in found)
        for _, freed, path in sorted(found):
            if taken + size <= self.limit:
                return
            path.unlink(missing_ok=True)
            taken -= freed

    @contextmanager
    def _alone(self, lock: Path) -> Iterator[None]:
        """Wait until no other thread or process holds this lock; the system frees it when its holder ends."""
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Unreachable(
                f"data.cache={self.folder}: {error.strerror}; name a folder that this run may write"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _hashes(manifest: Manifest) -> dict[str, tuple[int | None, str]]:
    """Bytes (None where not listed) and SHA-256 of tars and indices, by name."""
    found: dict[str, tuple[int | None, str]] = {}
    for split in manifest.splits.values():
        for entry in split.shards:
            found[entry.name] = (entry.bytes, entry.sha256)
            found[index_name(entry.name)] = (None, entry.index_sha256)
    return found
