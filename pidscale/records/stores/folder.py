"""The store of a set in a folder of this machine. Knows names and bytes only."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from pidscale.config import UserError

_MOST_OPEN_FILES = 32
_LARGEST_READ = 2**30  # bytes of a file that `read` returns: a manifest or an index


class _OpenFile:
    """A regular file that stays open as long as this object is referenced."""

    def __init__(self, path: Path) -> None:
        # not blocking, so that opening a named pipe does not wait for a writer
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        os.set_blocking(self.descriptor, True)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class Folder:
    """A set in a folder of this machine.

    Args:
        root: The folder.

    Attributes:
        piece: The bytes of a read, few enough that they are still in the processor's cache when they are hashed.
    """

    piece = 2**20

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._files: OrderedDict[str, _OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def where(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.root / name)

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all files by name. Links are followed wherever they lead, since checksums prove the contents.

        Returns:
            The sizes.

        Raises:
            UserError: There is no such folder.
        """
        if not self.root.is_dir():
            what = "not a folder" if self.root.exists() else "no such folder"
            raise UserError(
                f"{self.root}: {what}; name the folder of a shard set (data.path), or make one with `pidscale make-shards`"
            )
        sizes: dict[str, int] = {}
        with os.scandir(self.root) as entries:
            for entry in entries:
                with suppress(OSError):  # a link to nowhere, or a file that was just deleted, is not there
                    if entry.is_file():
                        sizes[entry.name] = entry.stat().st_size
        return sizes

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Args:
            name: The file.

        Returns:
            The content.

        Raises:
            OSError: The file is too large for a manifest or an index, or cannot be read.
        """
        file = _OpenFile(self.root / name)
        if os.fstat(file.descriptor).st_size > _LARGEST_READ:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), self.where(name))
        with open(file.descriptor, "rb", closefd=False) as reader:
            return reader.read()

    def fill(self, name: str, offset: int, view: memoryview) -> None:
        """Fill a buffer with the bytes of a file, by one pread unless it is very large or interrupted.

        Args:
            name: The file.
            offset: The offset of the first byte.
            view: The buffer.

        Raises:
            ValueError: The file ends too early.
        """
        file = self._file(name)
        done = 0
        while done < len(view):
            got = os.preadv(file.descriptor, [view[done:]], offset + done)
            if got == 0:
                raise ValueError("the file ends inside this sample; restore the file")
            done += got

    def _file(self, name: str) -> _OpenFile:
        """Return an open file; the least recently used one is closed when there are too many."""
        with self._lock:
            if name in self._files:
                self._files.move_to_end(name)
            else:
                self._files[name] = _OpenFile(self.root / name)
                while len(self._files) > _MOST_OPEN_FILES:
                    self._files.popitem(last=False)
            return self._files[name]

    def discard_damaged(self, name: str) -> bool:
        """Return False: the files are the originals, not copies."""
        return False

    def close(self) -> None:
        """Close the open files."""
        with self._lock:
            self._files.clear()
