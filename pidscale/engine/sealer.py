"""Writes checkpoints beside the training: a step waits for a copy in host memory, a thread does the rest.

At `save` each rank copies its slices (slices.py). A thread on each rank then writes and hashes them; names, sizes and
checksums are gathered over a process group of the threads' own; the first rank writes the manifest last and renames the
folder. All ranks come to know whether that worked, and a failure is raised in the training. Knows no networks.
"""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from pidscale.config import UserError
from pidscale.engine.checkpoint import VERSION, Checkpoint
from pidscale.engine.disk import in_one_line, lack_of_room
from pidscale.engine.shelf import Shelf
from pidscale.engine.slices import Slice, file_name, in_host_memory, write
from pidscale.parallel.mesh import Mesh
from pidscale.records.lock import Ownership

_LAST_WAIT = 60.0  # seconds that a run which fails waits for its last checkpoint


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay.

    Attributes:
        keep: The number of the newest ones.
        keep_every: The steps between those that stay besides; 0: none.
    """

    keep: int
    keep_every: int = 0


@dataclass
class Sealer:
    """The writer of a run's checkpoints. All ranks call its methods, at the same steps.

    Attributes:
        shelf: Where the checkpoints lie.
        mesh: The mesh of ranks.
        aside: A mesh of the same ranks whose collectives never mix with those of the training (`Mesh.aside`).
        stage: The ZeRO stage, which the manifest states.
        retention: Which checkpoints stay.
        owner: The holder of the run's folder, if there is one: nothing is sealed or removed once another one has it.
        buffers: Host memory of the copies, used again.
        thread: The thread that is writing; None while there is none.
        failure: What ended the last checkpoint, if it failed.
    """

    shelf: Shelf
    mesh: Mesh
    aside: Mesh
    stage: int
    retention: Retention
    owner: Ownership | None = None
    buffers: dict[str, Tensor] = field(default_factory=dict)
    thread: threading.Thread | None = None
    failure: BaseException | None = None

    @classmethod
    def open(cls, shelf: Shelf, mesh: Mesh, stage: int, retention: Retention, owner: Ownership | None = None) -> Sealer:
        """Make the writer and the process group of its threads. All ranks call it.

        Args:
            shelf: Where the checkpoints lie.
            mesh: The mesh of ranks.
            stage: The ZeRO stage.
            retention: Which checkpoints stay.
            owner: The holder of the run's folder, if there is one.

        Returns:
            The writer; `close` ends it.
        """
        return cls(shelf, mesh, mesh.aside(), stage, retention, owner)

    def newest(self, say: Callable[[str], None] = print) -> Checkpoint | None:
        """Return the checkpoint to resume from, and remove what killed attempts left of others (checkpoint.py)."""
        found = self.shelf.newest(self.aside, say)
        if self.mesh.first:
            self.shelf.sweep()
            if found is not None:
                say(f"{self.shelf}: goes on from step {found.step}")
        return found

    def save(self, step: int, state: dict[str, Any], slices: Iterable[Slice]) -> None:
        """Begin to write a checkpoint, and return once the slices are copied into host memory.

        Waits for the one before. One all-reduce of 8 bytes and two broadcasts of a few bytes.

        Args:
            step: The number of finished steps.
            state: Small state to save, as plain JSON values.
            slices: The slices of this rank; those of all ranks together cover every tensor once.

        Raises:
            UserError: The disk has no room, or the last checkpoint could not be written.
        """
        self.wait()
        held = list(slices)
        needed = int(sum(self.aside.gather(sum(one.held.nbytes for one in held))))
        last = self.shelf.newest_step() if self.mesh.first else None
        after = "the same command starts again" if last is None else f"the same command goes on from step {last}"
        what = f"the files of step {step}"
        message = lack_of_room(self.shelf.folder, what, needed, after) if self.mesh.first else None
        message, suffix, after = self.aside.broadcast((message, uuid.uuid4().hex[:8], after))
        if message is not None:
            raise UserError(message)
        copies = in_host_memory(held, self.buffers)
        state = copy.deepcopy(state)  # the training changes it
        seal = _Seal(self, step, state, copies, self.shelf.attempt(step, suffix), what, needed, after)
        self.thread = threading.Thread(target=seal.run, name=f"checkpoint of step {step}", daemon=True)
        self.thread.start()

    def check(self) -> None:
        """Raise the error of a checkpoint that failed, on all ranks at the same step. One all-reduce of 8 bytes."""
        if self.mesh.any(self.failure is not None):
            self.wait()

    def wait(self) -> None:
        """Wait until the checkpoint that is being written is sealed, and raise its error if it failed."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        failure = self.failure
        self.failure = None
        if failure is not None:
            raise failure

    def finish(self) -> None:
        """Wait as `wait` does for the last checkpoint of a run, and give up the host memory of the copies."""
        self.wait()
        self.buffers.clear()

    def meet(self) -> None:
        """Wait for all ranks, also for one that works alone for longer than collectives may take. One barrier."""
        self.aside.barrier()

    def close(self) -> None:
        """End the writer: after `wait`, or for a run that fails, which gives its last checkpoint a minute."""
        if self.thread is not None:
            self.thread.join(_LAST_WAIT)
        self.aside.leave()


@dataclass(frozen=True)
class _Seal:
    """One checkpoint that is being written, as the thread of a rank sees it."""

    sealer: Sealer
    step: int
    state: dict[str, Any]
    slices: list[Slice]
    folder: Path
    what: str
    needed: int
    after: str

    def run(self) -> None:
        """Write, gather, seal; whatever fails is left to the training thread."""
        try:
            self._seal()
        except BaseException as error:
            self.sealer.failure = error

    def _seal(self) -> None:
        shelf = self.sealer.shelf
        aside = self.sealer.aside
        name = file_name(aside.rank)
        entry: dict[str, Any] = {}
        failure: Exception | None = None
        try:
            with in_one_line(shelf.folder, self.what, self.needed, self.after):
                shelf.begin(self.folder)
                size, digest = write(self.folder / name, self.slices)
                entry = {name: {"bytes": size, "sha256": digest}}
                shelf.deliver(self.folder, name)
        except Exception as error:  # the other ranks wait to hear of it
            failure = error
        found = aside.gather((entry, _shared(failure)))
        reason = next((one for _, one in found if one is not None), None)
        if reason is None and aside.first:
            try:
                with in_one_line(shelf.folder, self.what, self.needed, self.after):
                    self._commit({name: one for files, _ in found for name, one in files.items()})
            except Exception as error:
                failure = error
        reason = reason or aside.broadcast(_shared(failure))
        if reason is not None:
            shelf.discard(self.folder)
            kind, text = reason
            raise failure if failure is not None else kind(text)

    def _commit(self, files: dict[str, Any]) -> None:
        own = self.sealer
        if own.owner is not None:
            own.owner.check()
        manifest = {
            "version": VERSION,
            "step": self.step,
            "world": own.aside.world,
            "stage": own.stage,
            "space": own.mesh.space.size,
            "files": files,
        }
        own.shelf.commit(self.folder, manifest, self.state)
        own.shelf.remove_older(self.step, own.retention.keep, own.retention.keep_every)


def _shared(error: Exception | None) -> tuple[type[Exception], str] | None:
    """Return an error as the other ranks are to raise it."""
    if error is None:
        return None
    if isinstance(error, UserError):
        return UserError, str(error)
    return RuntimeError, f"another rank could not write its part of a checkpoint: {error!r}"
