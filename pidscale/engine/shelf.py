"""Where the checkpoints of a phase lie: in a folder that all hosts share, or in an object store.

    in a store: checkpoints/teacher/step_00000500/manifest.json, and XXXXXXXX/ with the files that it names

An object store renames nothing, so that the files of each attempt lie in a folder of their own, and the manifest, which is
put last, names that folder. Each host keeps the files only while it writes or loads them. Knows no networks.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pidscale.config import UserError
from pidscale.engine import checkpoint
from pidscale.engine.checkpoint import MANIFEST, STATE, Checkpoint, nothing_whole
from pidscale.engine.slices import file_name
from pidscale.parallel.mesh import Mesh
from pidscale.plain import json_text
from pidscale.records.stores.objects import Objects

_OURS = re.compile(r"step_[0-9]{8}/(manifest\.json|[0-9a-f]{8}/(state\.json|rank-[0-9]{5}\.safetensors))", re.ASCII)


class Shelf(Protocol):
    """Where the checkpoints of a phase lie."""

    @property
    def folder(self) -> Path:
        """The folder of this host that files are written to."""
        ...

    def __str__(self) -> str:
        """Return the place, for messages."""
        ...

    def newest_step(self) -> int | None:
        """Return the step of the newest checkpoint with a manifest, without reading it; None if there is none."""
        ...

    def check_resumable(self) -> None:
        """Raise UserError if the newest checkpoint is one that this version cannot read."""
        ...

    def newest(self, mesh: Mesh, say: Callable[[str], None] = print) -> Checkpoint | None:
        """Return the newest checkpoint whose files match its manifest, None if there is none. All ranks call it."""
        ...

    def attempt(self, step: int, suffix: str) -> Path:
        """Return the folder that an attempt writes the files of this host to; eight letters tell it from other attempts."""
        ...

    def begin(self, folder: Path) -> None:
        """Create the folder of an attempt. Any rank may call it first."""
        ...

    def deliver(self, folder: Path, name: str) -> None:
        """Bring a file that this rank has written where the checkpoint lies."""
        ...

    def commit(self, folder: Path, manifest: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Make the files of all ranks a checkpoint. One process calls it, after all have delivered."""
        ...

    def discard(self, folder: Path) -> None:
        """Remove what a failed attempt has written."""
        ...

    def sweep(self) -> None:
        """Remove what killed attempts left. One process calls it, while none is writing."""
        ...

    def remove_older(self, step: int, keep: int, keep_every: int) -> None:
        """Remove older checkpoints than the newest `keep`, and those of every `keep_every` steps."""
        ...


@dataclass(frozen=True)
class FolderShelf:
    """Checkpoints in a folder that all hosts share.

    Attributes:
        folder: The folder.
    """

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)

    def newest_step(self) -> int | None:
        """As `Shelf` says."""
        return checkpoint.newest_step(self.folder)

    def check_resumable(self) -> None:
        """As `Shelf` says."""
        checkpoint.check_resumable(self.folder)

    def newest(self, mesh: Mesh, say: Callable[[str], None] = print) -> Checkpoint | None:
        """As `Shelf` says."""
        return checkpoint.newest(self.folder, mesh, say)

    def attempt(self, step: int, suffix: str) -> Path:
        """As `Shelf` says."""
        return checkpoint.temporary(self.folder, step, suffix)

    def begin(self, folder: Path) -> None:
        """As `Shelf` says."""
        checkpoint.begin(folder)

    def deliver(self, folder: Path, name: str) -> None:
        """Do nothing: the file is there."""

    def commit(self, folder: Path, manifest: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """As `Shelf` says."""
        checkpoint.commit(folder, manifest, state)

    def discard(self, folder: Path) -> None:
        """As `Shelf` says."""
        checkpoint.discard(folder)

    def sweep(self) -> None:
        """As `Shelf` says."""
        checkpoint.sweep(self.folder)

    def remove_older(self, step: int, keep: int, keep_every: int) -> None:
        """As `Shelf` says."""
        checkpoint.remove_older(self.folder, step, keep, keep_every)


@dataclass(frozen=True)
class StoreShelf:
    """Checkpoints in an object store.

    Attributes:
        objects: The objects below the address of the checkpoints.
        folder: The folder of this host that files pass through.
    """

    objects: Objects
    folder: Path

    def __str__(self) -> str:
        return self.objects.address

    def newest_step(self) -> int | None:
        """As `Shelf` says."""
        return max(self._steps(self.objects.listed()), default=None)

    def check_resumable(self) -> None:
        """As `Shelf` says."""
        for step in sorted(self._steps(self.objects.listed()), reverse=True):
            if self._manifest(step) is not None:
                return

    def newest(self, mesh: Mesh, say: Callable[[str], None] = print) -> Checkpoint | None:
        """As `Shelf` says. Each host fetches the files of the checkpoint; its ranks share them out."""
        listed = sorted(self._steps(self.objects.listed()), reverse=True) if mesh.first else None
        for step in mesh.broadcast(listed):
            manifest, state = mesh.broadcast(self._described(step) if mesh.first else None)
            damaged = [MANIFEST] if manifest is None else [STATE] if state is None else []
            if not damaged:
                folder = self.folder / f"{_name(step)}.{manifest['attempt']}"
                damaged = [name for names in mesh.gather(self._fetch(folder, manifest, mesh)) for name in names]
            if damaged:
                if mesh.first:
                    say(
                        f"warning: {self}/{_name(step)}: {damaged[0]} is missing or changed, so that this checkpoint is "
                        "not used"
                    )
                continue
            return Checkpoint(folder, step, state, int(manifest["world"]))
        if listed:  # on the first rank alone
            say(nothing_whole(self))
        return None

    def attempt(self, step: int, suffix: str) -> Path:
        """As `Shelf` says."""
        return self.folder / f"{_name(step)}.{suffix}"

    def begin(self, folder: Path) -> None:
        """As `Shelf` says. What an earlier attempt or a load has left on this host is removed."""
        with suppress(FileNotFoundError):
            for other in self.folder.iterdir():
                if other != folder and re.fullmatch(r"step_[0-9]{8}\.[0-9a-f]{8}", other.name):
                    shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)

    def deliver(self, folder: Path, name: str) -> None:
        """Upload a file, and remove it here."""
        self.objects.upload(f"{_prefix(folder)}/{name}", folder / name)
        (folder / name).unlink()

    def commit(self, folder: Path, manifest: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """As `Shelf` says; the manifest is put last, and files of other attempts at this step are removed after it."""
        prefix = _prefix(folder)
        step, attempt = prefix.split("/")
        there = self.objects.listed(step)
        for rank in range(manifest["world"]):
            name = file_name(rank)
            if there.get(f"{prefix}/{name}") != manifest["files"][name]["bytes"]:
                raise UserError(f"{self}/{prefix}/{name}: rank {rank} has uploaded it, and the store does not list it")
        written = json_text(state, indent=1).encode()
        self.objects.write(f"{prefix}/{STATE}", written)
        full = checkpoint.described({**manifest, "attempt": attempt}, written)
        self.objects.write(f"{step}/{MANIFEST}", full)
        others = [name for name in there if name.split("/")[1] not in (attempt, MANIFEST) and _OURS.fullmatch(name)]
        self.objects.remove(others)
        shutil.rmtree(folder, ignore_errors=True)

    def discard(self, folder: Path) -> None:
        """As `Shelf` says, as far as the store can be reached; `sweep` removes the rest."""
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(UserError):
            self.objects.remove(self.objects.listed(_prefix(folder)))

    def sweep(self) -> None:
        """As `Shelf` says."""
        listed = self.objects.listed()
        kept = {step: (self._manifest(step) or {}).get("attempt") for step in self._steps(listed)}
        left = []
        for name in filter(_OURS.fullmatch, listed):
            folder, attempt = name.split("/")[:2]
            if attempt != MANIFEST and kept.get(int(folder[5:]), "") not in (attempt, None):
                left.append(name)
        self.objects.remove(left)

    def remove_older(self, step: int, keep: int, keep_every: int) -> None:
        """As `Shelf` says; the manifest goes first, so that no checkpoint is ever there in part."""
        listed = self.objects.listed()
        complete = sorted(one for one in self._steps(listed) if one <= step)
        for old in complete[:-keep]:
            if not (keep_every and old % keep_every == 0):
                own = [name for name in listed if name.startswith(f"{_name(old)}/") and _OURS.fullmatch(name)]
                self.objects.remove(sorted(own, key=lambda name: not name.endswith(MANIFEST)))

    def _steps(self, listed: Mapping[str, int]) -> list[int]:
        """Return the steps of the checkpoints with a manifest."""
        return [int(name[5:13]) for name in listed if _OURS.fullmatch(name) and name.endswith(MANIFEST)]

    def _manifest(self, step: int) -> dict[str, Any] | None:
        """Return the manifest of a checkpoint, None if it is damaged; UserError if it is of another version."""
        name = f"{_name(step)}/{MANIFEST}"
        found = checkpoint.read_manifest(self.objects.content(name), f"{self}/{_name(step)}", step)
        attempt = found.get("attempt") if found else None
        return found if isinstance(attempt, str) and re.fullmatch(r"[0-9a-f]{8}", attempt, re.ASCII) else None

    def _described(self, step: int) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """Return manifest and small state of a checkpoint, None for one that is damaged."""
        manifest = self._manifest(step)
        if manifest is None:
            return None, None
        data = self.objects.content(f"{_name(step)}/{manifest['attempt']}/{STATE}")
        whole = data is not None and checkpoint.matches(data, manifest["files"][STATE])
        return manifest, checkpoint.read_state(data) if data is not None and whole else None

    def _fetch(self, folder: Path, manifest: Mapping[str, Any], mesh: Mesh) -> list[str]:
        """Fetch the files of a checkpoint, each of which one rank of this host fetches; return the damaged ones."""
        names = [file_name(rank) for rank in range(manifest["world"])]
        start = mesh.rank % len(names)
        damaged = []
        folder.mkdir(parents=True, exist_ok=True)
        for name in names[start:] + names[:start]:
            with _alone(folder / f".{name}.lock"):
                if checkpoint.file_matches(folder / name, manifest["files"][name]):
                    continue
                with suppress(FileNotFoundError):
                    self.objects.download(f"{_prefix(folder)}/{name}", folder / name)
                if not checkpoint.file_matches(folder / name, manifest["files"][name]):
                    damaged.append(name)
        return damaged


def _name(step: int) -> str:
    """Return the name of the folder of a checkpoint."""
    return f"step_{step:08d}"


def _prefix(folder: Path) -> str:
    """Return the name below the address of what lies in a folder of this host."""
    return folder.name.replace(".", "/")


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock of this host alone while the body runs; the system releases it when its holder ends."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
