"""Checkpoints of a run. A checkpoint counts when its manifest, written last, is there and true. Knows no equations.

    checkpoints/step_00000500/  zero files of DeepSpeed, averages by name, state.json, and manifest.json
    (while it is written: step_00000500.ATTEMPT.tmp, which holds a mark of ours; one that was left is removed)

The manifest alone decides: it holds names, sizes and checksums of all files, the world size, the ZeRO stage and the step.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pidscale.config import UserError
from pidscale.engine.disk import in_one_line, lack_of_room
from pidscale.parallel.mesh import Mesh
from pidscale.plain import json_text
from pidscale.records.layout import write_atomic

MANIFEST = "manifest.json"
_MARK = ".attempt"  # in a folder that is being written: says that a run made it


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is there and true: its folder, its step, and the small state saved with it."""

    folder: Path
    step: int
    state: dict[str, Any]


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


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
    """Write a checkpoint of `step` finished steps. All ranks call it; `write` puts each rank's files into a folder.

    Nothing counts until the first rank has written the manifest and renamed the folder. Older ones beyond `keep` go.
    needed: bytes of all files, about. UserError where there is no room for them, or none is left while they are written.
    """
    with attempt(root, step, mesh, needed) as folder:
        write(folder)
        mesh.barrier()
        if mesh.first:
            write_atomic(folder / "state.json", json_text(state, indent=1).encode())
            _seal(folder, step, stage, mesh.world)
            final = root / f"step_{step:08d}"
            if final.exists():
                shutil.rmtree(final)  # the same step of an earlier attempt, whose manifest was not true
            folder.rename(final)
            (final / _MARK).unlink()
            _forget(root, step, keep)
        mesh.barrier()


@contextmanager
def attempt(root: Path, step: int, mesh: Mesh, needed: int | None = None) -> Iterator[Path]:
    """A folder of `root` that all ranks write into, under a name that does not count; gone where the body fails.

    Raises UserError where the disk has no room, before the body where `needed` bytes are known and too many.
    """
    last = last_sealed(root)
    after = "the same command begins anew" if last is None else f"the same command goes on from step {last}"
    what, own = f"the files of step {step}", mesh.broadcast(uuid.uuid4().hex[:8])
    lacking = None
    if mesh.first and needed is not None:
        lacking = lack_of_room(root, what, needed, after)
    lacking = mesh.broadcast(lacking)
    if lacking is not None:
        raise UserError(lacking)
    folder = root / f"step_{step:08d}.{own}.tmp"
    with in_one_line(root, what, needed, after):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if mesh.first:
                (folder / _MARK).touch()
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # so that a disk that was full has its room again
            raise


def sweep(root: Path) -> None:
    """Remove what attempts that were killed left under a name that does not count; only what bears our mark.

    For one process, while no attempt of this run is writing.
    """
    for mark in root.glob(f"step_????????.????????.tmp/{_MARK}"):
        shutil.rmtree(mark.parent, ignore_errors=True)


def last_sealed(root: Path) -> int | None:
    """The step of the newest checkpoint that has a manifest, which is not read; None where there is none."""
    steps = [int(p.parent.name[5:]) for p in root.glob(f"step_????????/{MANIFEST}") if p.parent.name[5:].isdigit()]
    return max(steps, default=None)


def _seal(folder: Path, step: int, stage: int, world: int) -> None:
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != _MARK):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "sha256": _checksum(path)}
    manifest = {"version": 1, "step": step, "stage": stage, "world": world, "files": files}
    write_atomic(folder / MANIFEST, json_text({**manifest, "sha256": _own_checksum(manifest)}, indent=1).encode())


def _own_checksum(manifest: dict[str, Any]) -> str:
    """Checksum of what a manifest says, its own checksum left out."""
    said = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _forget(root: Path, step: int, keep: int) -> None:
    """Remove all but the newest `keep` of those up to `step`; later ones, of an attempt that was passed over, stay."""
    names = sorted(root.glob("step_????????"))
    complete = [p for p in names if (p / MANIFEST).exists() and p.name <= f"step_{step:08d}"]
    for folder in complete[:-keep]:
        shutil.rmtree(folder)


def _true_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        if manifest["sha256"] != _own_checksum(manifest):
            return None
        for name, entry in manifest["files"].items():
            path = folder / name
            if path.stat().st_size != entry["bytes"] or _checksum(path) != entry["sha256"]:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return manifest


def newest(root: Path, stage: int, mesh: Mesh, say: Callable[[str], None] = print) -> Checkpoint | None:
    """The newest checkpoint that is there and true, or None. The first rank looks, all learn.

    `say` is told of one that is not.
    Raises UserError where it was written with another world size or ZeRO stage.
    """
    found = mesh.broadcast(_look(root, say) if mesh.first else None)
    if found is None:
        return None
    folder, manifest = found
    _check_same(folder, manifest, mesh.world, stage)
    state = json.loads((Path(folder) / "state.json").read_text())
    return Checkpoint(Path(folder), int(manifest["step"]), state)


def check_resumable(root: Path, workers: int, stage: int) -> None:
    """Raise UserError where the newest checkpoint was written by other workers. For a driver: reads its manifest alone."""
    for folder in sorted(root.glob("step_????????"), reverse=True):
        with suppress(OSError, ValueError, KeyError, TypeError):
            manifest = json.loads((folder / MANIFEST).read_text())
            if manifest["sha256"] == _own_checksum(manifest):
                return _check_same(str(folder), manifest, workers, stage)


def _check_same(folder: str, manifest: dict[str, Any], workers: int, stage: int) -> None:
    for key, have, now in (("cluster.workers", "world", workers), ("cluster.zero_stage", "stage", stage)):
        if manifest[have] != now:
            raise UserError(
                f"{folder}: written with {key}={manifest[have]}, now {key}={now}; "
                f"set {key}={manifest[have]} to resume, or choose another run.name"
            )


def _look(root: Path, say: Callable[[str], None]) -> tuple[str, dict[str, Any]] | None:
    for folder in sorted(root.glob("step_????????"), reverse=True):
        manifest = _true_manifest(folder)
        if manifest is not None:
            return str(folder), manifest
        say(f"warning: {folder}: incomplete or altered, using an earlier checkpoint")
    return None
