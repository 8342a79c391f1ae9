"""Where a run lies: in a folder that all hosts share, or in an object store (`run.folder=s3://...`). Knows no Ray.

In a store, what counts is there: a host fetches what it needs, works on a copy, and uploads what it has made, the card of a
generator last, so that a generator is there as a whole or not at all. Checkpoints have a way of their own (engine/shelf.py).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pidscale.generator.artifact import CARD
from pidscale.records.lease import leased, tenant_of
from pidscale.records.lock import LOCK, Ownership, held, holder
from pidscale.records.stores.objects import Objects

_LOGS = ("tb", "errors")


class Home(Protocol):
    """Where a run lies, and what this host sees of it."""

    @property
    def folder(self) -> Path:
        """The folder of the run, or of its copy on this host."""
        ...

    @property
    def setting(self) -> str:
        """The setting that names this folder, for messages."""
        ...

    def where(self, name: str) -> str:
        """Return the path or the address of a part of the run, for messages."""
        ...

    def hold(self) -> AbstractContextManager[Ownership | None]:
        """Lock the run while the body runs, which gets the owner that this process has become, None if another one is."""
        ...

    def holder(self) -> str:
        """Return the process that holds the run, such as `process 7 on host a`; an empty string if it is not known."""
        ...

    def pull(self) -> None:
        """Bring the records of the run (files at the top of its folder) to this host."""
        ...

    def pull_generator(self, name: str) -> bool:
        """Bring a generator to this host.

        Args:
            name: The name of its folder within the run.

        Returns:
            Whether there is one.
        """
        ...

    def push(self, path: Path) -> None:
        """Bring a file of this host to where the run lies."""
        ...

    def push_generator(self, name: str) -> None:
        """Bring a generator of this host to where the run lies."""
        ...

    def push_all(self, name: str) -> None:
        """Bring all files of a folder of this host to where the run lies, if there is such a folder."""
        ...

    def push_logs(self) -> None:
        """Bring curves and tracebacks of this host to where the run lies."""
        ...

    def withdraw(self, name: str) -> None:
        """Remove the card of a generator, so that there is none."""
        ...


@dataclass(frozen=True)
class FolderHome:
    """A run in a folder that all hosts share: nothing travels.

    Attributes:
        folder: The folder.
    """

    folder: Path

    @property
    def setting(self) -> str:
        """As `Home` says."""
        return "run.folder"

    def where(self, name: str) -> str:
        """As `Home` says."""
        return str(self.folder / name)

    def hold(self) -> AbstractContextManager[Ownership | None]:
        """As `Home` says."""
        return held(self.folder)

    def holder(self) -> str:
        """As `Home` says."""
        return holder(self.folder)

    def pull(self) -> None:
        """Do nothing: the records are there."""

    def pull_generator(self, name: str) -> bool:
        """As `Home` says."""
        return (self.folder / name / CARD).exists()

    def push(self, path: Path) -> None:
        """Do nothing: the file is there."""

    def push_generator(self, name: str) -> None:
        """Do nothing: the generator is there."""

    def push_all(self, name: str) -> None:
        """Do nothing: the files are there."""

    def push_logs(self) -> None:
        """Do nothing: the files are there."""

    def withdraw(self, name: str) -> None:
        """As `Home` says."""
        (self.folder / name / CARD).unlink(missing_ok=True)


@dataclass(frozen=True)
class StoreHome:
    """A run in an object store, and its copy on this host.

    Attributes:
        objects: The objects below the address of the run.
        folder: The folder of the copy.
    """

    objects: Objects
    folder: Path

    @property
    def setting(self) -> str:
        """As `Home` says."""
        return "run.scratch"

    def where(self, name: str) -> str:
        """As `Home` says."""
        return self.objects.where(name)

    def hold(self) -> AbstractContextManager[Ownership | None]:
        """As `Home` says."""
        return leased(self.objects)

    def holder(self) -> str:
        """As `Home` says."""
        return tenant_of(self.objects)

    def pull(self) -> None:
        """Make the records of the copy (files at the top of a run's folder) those of the store."""
        there = [name for name in self.objects.sizes() if name != LOCK]
        with self._alone():
            for name in there:
                self._fetch(name)
            for path in self.folder.iterdir():
                if path.is_file() and path.name not in there and not path.name.startswith("."):
                    path.unlink()

    def pull_generator(self, name: str) -> bool:
        """Make a generator of the copy that of the store.

        Args:
            name: The name of its folder within the run.

        Returns:
            Whether there is one.
        """
        with self._alone():
            card = self.objects.content(f"{name}/{CARD}")
            own = self.folder / name / CARD
            if card is None:
                own.unlink(missing_ok=True)
                return False
            with suppress(FileNotFoundError):
                if own.read_bytes() == card:
                    return True
            own.unlink(missing_ok=True)
            for part in sorted(self.objects.listed(name), key=_cards_last):
                self._fetch(part)
            return True

    def push(self, path: Path) -> None:
        """Upload a file of the copy."""
        self.objects.upload(str(path.relative_to(self.folder)), path)

    def push_generator(self, name: str) -> None:
        """Upload a generator, its card last."""
        folder = self.folder / name
        files = [str(path.relative_to(self.folder)) for path in folder.rglob("*") if path.is_file()]
        for part in sorted(files, key=_cards_last):
            self.push(self.folder / part)

    def push_all(self, name: str) -> None:
        """Upload all files of a folder of the copy, if there is such a folder."""
        for path in (self.folder / name).rglob("*"):
            if path.is_file():
                self.push(path)

    def push_logs(self) -> None:
        """Upload curves and tracebacks of this host that the store does not have in this length."""
        for name in _LOGS:
            there = self.objects.listed(name) if (self.folder / name).is_dir() else {}
            for path in (self.folder / name).rglob("*"):
                if path.is_file() and there.get(str(path.relative_to(self.folder))) != path.stat().st_size:
                    self.push(path)

    def withdraw(self, name: str) -> None:
        """Remove the card of a generator, so that there is none, in the store and in the copy."""
        self.objects.remove([f"{name}/{CARD}"])
        (self.folder / name / CARD).unlink(missing_ok=True)

    def _fetch(self, name: str) -> None:
        """Fetch an object, which replaces the file of the copy at once."""
        path = self.folder / name
        temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
        try:
            self.objects.download(name, temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the copy while the body runs, alone among the processes of this host."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / ".copy", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _cards_last(name: str) -> tuple[bool, int]:
    """Order the files of a generator, which may hold another one: the outermost card is the last."""
    return name.endswith(f"/{CARD}"), -name.count("/")
