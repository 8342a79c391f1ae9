"""A set in a folder of this machine. Knows names and bytes only."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from pidscale.config import UserError

_OPEN_FILES = 32  # files that a folder keeps open


_LARGEST_READ = 2**30  # bytes of a file that is read whole: a manifest or an index


class _Open:
    """A plain file that is open for as long as anybody holds this."""

    def __init__(self, path: Path) -> None:
        # not to wait for whoever might write into a named pipe
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        os.set_blocking(self.descriptor, True)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class Folder:
    """A set in a folder of this machine."""

    piece = 2**20  # what is hashed next is still in the processor's cache

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._files: OrderedDict[str, _Open] = OrderedDict()
        self._lock = threading.Lock()

    def where(self, name: str) -> str:
        """The file's path."""
        return str(self.root / name)

    def sizes(self) -> dict[str, int]:
        """Bytes by name. Links are followed wherever they lead: checksums prove what comes. UserError without a folder."""
        if not self.root.is_dir():
            what = "not a folder" if self.root.exists() else "no such folder"
            raise UserError(
                f"{self.root}: {what}; name the folder of a shard set (data.path), or make one with `pidscale make-shards`"
            )
        sizes: dict[str, int] = {}
        with os.scandir(self.root) as entries:
            for entry in entries:
                with suppress(OSError):  # what cannot be followed or has just gone is not there
                    if entry.is_file():
                        sizes[entry.name] = entry.stat().st_size
        return sizes

    def read(self, name: str) -> bytes:
        """A whole file."""
        file = _Open(self.root / name)
        if os.fstat(file.descriptor).st_size > _LARGEST_READ:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), self.where(name))
        with open(file.descriptor, "rb", closefd=False) as whole:
            return whole.read()

    def fill(self, name: str, offset: int, view: memoryview) -> None:
        """One pread, unless it is very large or interrupted."""
        file, done = self._file(name), 0
        while done < len(view):
            got = os.preadv(file.descriptor, [view[done:]], offset + done)
            if got == 0:
                raise ValueError("the file ends inside this sample; restore the file")
            done += got

    def _file(self, name: str) -> _Open:
        """An open file; the least recently used one is let go when there are too many."""
        with self._lock:
            if name in self._files:
                self._files.move_to_end(name)
            else:
                self._files[name] = _Open(self.root / name)
                while len(self._files) > _OPEN_FILES:
                    self._files.popitem(last=False)
            return self._files[name]

    def renew(self, name: str) -> bool:
        """False: there is no other."""
        return False

    def close(self) -> None:
        """Close the files that are kept open."""
        with self._lock:
            self._files.clear()
