"""Checkpoints of a run. A checkpoint counts once its manifest, which is written last, exists and matches its files.

    checkpoints/step_00000500/  DeepSpeed's files, averages by name, state.json and manifest.json
    (while it is written: step_00000500.XXXXXXXX.tmp, which holds a mark of ours; what a killed run left of one is removed)

The manifest holds names, sizes and checksums of all files, the world size, the ZeRO stage and the step. Knows no equations.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pidscale.config import UserError
from pidscale.engine.disk import in_one_line, lack_of_room
from pidscale.files import file_sha256, write_atomic
from pidscale.parallel.mesh import Mesh
from pidscale.plain import json_text

MANIFEST = "manifest.json"
_MARK = ".attempt"  # a file in a folder that is being written: it says that a run made the folder


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files match its manifest.

    Attributes:
        folder: Its folder.
        step: The number of finished steps.
        state: The small state that was saved with it, as plain JSON values.
    """

    folder: Path
    step: int
    state: dict[str, Any]


def save(
    root: Path,
    step: int,
    state: dict[str, Any],
    stage: int,
    mesh: Mesh,
    keep: int,
    write: Callable[[Path], None],
    needed: int | None = None,
) -> None:
    """Write a checkpoint. All ranks call it.

    The checkpoint counts once the first rank has written the manifest and renamed the folder. A disk without room raises a
    UserError, before anything is written if `needed` is known. Two broadcasts of a few bytes and two barriers.

    Args:
        root: The folder of the checkpoints.
        step: The number of finished steps.
        state: Small state to save, as plain JSON values.
        stage: The ZeRO stage.
        mesh: The mesh of ranks.
        keep: The number of checkpoints to keep; older ones are removed.
        write: Writes the files of this rank to a folder.
        needed: The bytes of all files, about.
    """
    with unfinished_folder(root, step, mesh, needed) as folder:
        write(folder)
        mesh.barrier()
        if mesh.first:
            write_atomic(folder / "state.json", json_text(state, indent=1).encode())
            _write_manifest(folder, step, stage, mesh.world)
            final = root / f"step_{step:08d}"
            if final.exists():
                shutil.rmtree(final)  # the same step of an earlier attempt, whose files do not match its manifest
            folder.rename(final)
            (final / _MARK).unlink()
            _remove_older(root, step, keep)
        mesh.barrier()


@contextmanager
def unfinished_folder(root: Path, step: int, mesh: Mesh, needed: int | None = None) -> Iterator[Path]:
    """Create a folder under a temporary name that all ranks write to; remove it if the body fails. All ranks call it.

    Two broadcasts of a few bytes.

    Args:
        root: The folder of the checkpoints.
        step: The number of finished steps.
        mesh: The mesh of ranks.
        needed: The bytes of all files, about.

    Yields:
        The folder.

    Raises:
        UserError: The disk has no room for `needed` bytes, or none is left while the body writes.
    """
    last = newest_step(root)
    after = "the same command starts again" if last is None else f"the same command goes on from step {last}"
    what = f"the files of step {step}"
    suffix = mesh.broadcast(uuid.uuid4().hex[:8])
    message = None
    if mesh.first and needed is not None:
        message = lack_of_room(root, what, needed, after)
    message = mesh.broadcast(message)
    if message is not None:
        raise UserError(message)
    folder = root / f"step_{step:08d}.{suffix}.tmp"
    with in_one_line(root, what, needed, after), ExitStack() as on_failure:
        on_failure.callback(shutil.rmtree, folder, ignore_errors=True)  # so that a full disk has room again
        folder.mkdir(parents=True, exist_ok=True)
        if mesh.first:
            (folder / _MARK).touch()
        yield folder
        on_failure.pop_all()


def sweep(root: Path) -> None:
    """Remove the temporary folders that killed runs left; only folders with our mark are removed.

    Call it from one process, while no process of this run is writing.

    Args:
        root: The folder of the checkpoints.
    """
    for mark in root.glob(f"step_????????.????????.tmp/{_MARK}"):
        shutil.rmtree(mark.parent, ignore_errors=True)


def newest_step(root: Path) -> int | None:
    """Return the step of the newest checkpoint with a manifest, without reading it; None if there is none."""
    steps = [int(p.parent.name[5:]) for p in root.glob(f"step_????????/{MANIFEST}") if p.parent.name[5:].isdigit()]
    return max(steps, default=None)


def _write_manifest(folder: Path, step: int, stage: int, world: int) -> None:
    """Sync all files of a checkpoint, and write its manifest."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != _MARK):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    manifest = {"version": 1, "step": step, "stage": stage, "world": world, "files": files}
    write_atomic(folder / MANIFEST, json_text({**manifest, "sha256": _own_checksum(manifest)}, indent=1).encode())


def _own_checksum(manifest: dict[str, Any]) -> str:
    """Return the checksum of a manifest's contents without the checksum itself."""
    contents = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def _remove_older(root: Path, step: int, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints up to `step`; damaged later ones, which were passed over, stay."""
    names = sorted(root.glob("step_????????"))
    complete = [p for p in names if (p / MANIFEST).exists() and p.name <= f"step_{step:08d}"]
    for folder in complete[:-keep]:
        shutil.rmtree(folder)


def _valid_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a checkpoint if it is intact and matches its files, else None."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        if manifest["sha256"] != _own_checksum(manifest):
            return None
        for name, entry in manifest["files"].items():
            path = folder / name
            if path.stat().st_size != entry["bytes"] or file_sha256(path) != entry["sha256"]:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return manifest


def newest(root: Path, stage: int, mesh: Mesh, say: Callable[[str], None] = print) -> Checkpoint | None:
    """Return the newest checkpoint whose files match its manifest. All ranks call it; the first one reads the files.

    A checkpoint that was written with another world size or ZeRO stage raises a UserError. One broadcast of its manifest.

    Args:
        root: The folder of the checkpoints.
        stage: The ZeRO stage.
        mesh: The mesh of ranks.
        say: Prints a warning for each damaged checkpoint that is passed over.

    Returns:
        The checkpoint; None if there is none.
    """
    found = mesh.broadcast(_newest_valid(root, say) if mesh.first else None)
    if found is None:
        return None
    folder, manifest = found
    _check_same(folder, manifest, mesh.world, stage)
    state = json.loads((Path(folder) / "state.json").read_text())
    return Checkpoint(Path(folder), int(manifest["step"]), state)


def check_resumable(root: Path, workers: int, stage: int) -> None:
    """Refuse to resume from a checkpoint of another number of workers or ZeRO stage, with a UserError.

    This is for a driver: it reads the manifest of the newest checkpoint, not its files.

    Args:
        root: The folder of the checkpoints.
        workers: The number of workers.
        stage: The ZeRO stage.
    """
    for folder in sorted(root.glob("step_????????"), reverse=True):
        with suppress(OSError, ValueError, KeyError, TypeError):
            manifest = json.loads((folder / MANIFEST).read_text())
            if manifest["sha256"] == _own_checksum(manifest):
                return _check_same(str(folder), manifest, workers, stage)


def _check_same(folder: str, manifest: dict[str, Any], workers: int, stage: int) -> None:
    """Raise UserError if a checkpoint was written with other settings."""
    for setting, key, now in (("cluster.workers", "world", workers), ("cluster.zero_stage", "stage", stage)):
        if manifest[key] != now:
            raise UserError(
                f"{folder}: written with {setting}={manifest[key]}, now {setting}={now}; "
                f"set {setting}={manifest[key]} to resume, or choose another run.name"
            )


def _newest_valid(root: Path, say: Callable[[str], None]) -> tuple[str, dict[str, Any]] | None:
    """Return the folder and the manifest of the newest checkpoint that is not damaged."""
    for folder in sorted(root.glob("step_????????"), reverse=True):
        manifest = _valid_manifest(folder)
        if manifest is not None:
            return str(folder), manifest
        say(f"warning: {folder}: incomplete or changed, so that an earlier checkpoint is used")
    return None
