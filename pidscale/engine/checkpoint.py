"""Checkpoints of a run. A checkpoint counts once its manifest, which is written last, exists and matches its files.

    checkpoints/step_00000500/  rank-00000.safetensors, one for each rank, state.json and manifest.json
    (while it is written: step_00000500.XXXXXXXX.tmp, which holds a mark of ours; what a killed run left of one is removed)

The files hold tensors by name (slices.py), so that a checkpoint loads at any world size, ZeRO stage and `space`. The manifest
holds names, sizes and checksums of the files of all ranks; sealer.py writes it. Knows no equations and no networks.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pidscale.config import UserError
from pidscale.engine.slices import Reader, file_name
from pidscale.files import file_sha256, sync_folder, write_atomic
from pidscale.parallel.mesh import Mesh
from pidscale.plain import json_text

MANIFEST = "manifest.json"
STATE = "state.json"
VERSION = 2
_NAME = re.compile(r"step_[0-9]{8}", re.ASCII)
_MARK = ".attempt"  # a file in a folder that is being written: it says that a run made the folder


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files match its manifest.

    Attributes:
        folder: Its folder.
        step: The number of finished steps.
        state: The small state that was saved with it, as plain JSON values.
        world: The number of ranks that wrote it.
    """

    folder: Path
    step: int
    state: dict[str, Any]
    world: int

    def reader(self) -> Reader:
        """Open the files of all ranks; a UserError names one that this host does not see."""
        return Reader.of(self.folder, [file_name(rank) for rank in range(self.world)])


def newest_step(root: Path) -> int | None:
    """Return the step of the newest checkpoint with a manifest, without reading it; None if there is none."""
    return max((_step(folder) for folder in _folders(root) if (folder / MANIFEST).exists()), default=None)


def newest(root: Path, mesh: Mesh, say: Callable[[str], None] = print) -> Checkpoint | None:
    """Return the newest checkpoint whose files match its manifest. All ranks call it.

    Each rank reads its part of the files, so that checking takes as long as the slowest part. A checkpoint of an earlier
    version raises a UserError. For each checkpoint that is tried, one broadcast of its manifest and one gathering of names.

    Args:
        root: The folder of the checkpoints.
        mesh: The mesh of ranks.
        say: Prints a warning for each damaged checkpoint that is passed over, on the first rank.

    Returns:
        The checkpoint; None if there is none.
    """
    passed_over = False
    for folder in mesh.broadcast(_folders(root) if mesh.first else None):
        manifest, state = mesh.broadcast((_manifest(folder), _state(folder)) if mesh.first else None)
        damaged = [MANIFEST] if manifest is None else [STATE] if state is None else []
        if not damaged:
            damaged = [name for names in mesh.gather(_damaged(folder, manifest["files"], mesh)) for name in names]
        if damaged:
            if mesh.first:
                say(f"warning: {folder}: {damaged[0]} is missing or changed, so that this checkpoint is not used")
            passed_over = True
            continue
        return Checkpoint(folder, int(manifest["step"]), state, int(manifest["world"]))
    if passed_over and mesh.first:
        say(nothing_whole(root))
    return None


def nothing_whole(place: object) -> str:
    """Return the warning that no checkpoint of a place can be used."""
    return f"warning: {place}: no checkpoint is complete and unchanged, so that the phase starts at step 0"


def check_resumable(root: Path) -> None:
    """Refuse a run whose newest checkpoint this version cannot read. For a driver: reads manifests only.

    Raises a UserError if an earlier version wrote it.

    Args:
        root: The folder of the checkpoints.
    """
    for folder in _folders(root):
        if _manifest(folder) is not None:
            return


def temporary(root: Path, step: int, suffix: str) -> Path:
    """Return the folder that a checkpoint is written to; eight letters of a suffix tell it from those of other attempts."""
    return root / f"step_{step:08d}.{suffix}.tmp"


def begin(folder: Path) -> None:
    """Create a temporary folder, with our mark. Any rank may call it first."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()


def commit(folder: Path, manifest: Mapping[str, Any], state: Mapping[str, Any]) -> Path:
    """Write the manifest of a folder that holds the files of all ranks, and give it its final name. One process calls it.

    Args:
        folder: The folder that `begin` created.
        manifest: Version, step, world size, stage and space, and `files` with the bytes and checksums of all ranks' files.
        state: Small state, as plain JSON values.

    Returns:
        The final folder.

    Raises:
        UserError: A file of a rank is not there, or not all of it.
    """
    for rank in range(manifest["world"]):
        path = folder / file_name(rank)
        if not path.is_file() or path.stat().st_size != manifest["files"][path.name]["bytes"]:
            raise UserError(
                f"{path}: rank {rank} has written it, and the first rank does not see it; use a run.folder on storage that "
                "all hosts share"
            )
    written = json_text(state, indent=1).encode()
    write_atomic(folder / STATE, written)
    write_atomic(folder / MANIFEST, described(manifest, written))
    final = folder.parent / f"step_{manifest['step']:08d}"
    if final.exists():
        shutil.rmtree(final)  # the same step of an earlier attempt, whose files do not match its manifest
    folder.rename(final)
    sync_folder(final.parent)
    (final / _MARK).unlink()
    return final


def described(manifest: Mapping[str, Any], state: bytes) -> bytes:
    """Return the bytes of a manifest, which gains the entry of the small state and a checksum of its own.

    Args:
        manifest: The manifest, with an entry for each rank's file.
        state: The bytes of the small state.

    Returns:
        JSON.
    """
    own = {"bytes": len(state), "sha256": hashlib.sha256(state).hexdigest()}
    full = {**manifest, "files": {**manifest["files"], STATE: own}}
    return json_text({**full, "sha256": _own_checksum(full)}, indent=1).encode()


def discard(folder: Path) -> None:
    """Remove what a failed attempt has written, so that a full disk has room again."""
    shutil.rmtree(folder, ignore_errors=True)


def sweep(root: Path) -> None:
    """Remove the temporary folders that killed runs left; only folders with our mark are removed.

    Call it from one process, while no process of this run is writing.

    Args:
        root: The folder of the checkpoints.
    """
    for mark in root.glob(f"step_????????.????????.tmp/{_MARK}"):
        shutil.rmtree(mark.parent, ignore_errors=True)


def remove_older(root: Path, step: int, keep: int, keep_every: int) -> None:
    """Remove older checkpoints; damaged ones of later steps, which were passed over, stay.

    Args:
        root: The folder of the checkpoints.
        step: The step of the newest one.
        keep: How many of the newest ones stay.
        keep_every: The steps between those that stay besides; 0: none.
    """
    names = _folders(root)[::-1]
    complete = [folder for folder in names if (folder / MANIFEST).exists() and _step(folder) <= step]
    for folder in complete[:-keep]:
        if not (keep_every and _step(folder) % keep_every == 0):
            shutil.rmtree(folder)


def _folders(root: Path) -> list[Path]:
    """Return the folders of checkpoints, the newest first."""
    return sorted((folder for folder in root.glob("step_*") if _NAME.fullmatch(folder.name)), reverse=True)


def _step(folder: Path) -> int:
    """Return the step that the name of a checkpoint's folder states."""
    return int(folder.name[5:])


def _own_checksum(manifest: Mapping[str, Any]) -> str:
    """Return the checksum of a manifest's contents without the checksum itself."""
    contents = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def _manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a checkpoint if it is intact and names the files of all ranks, else None.

    Raises a UserError if an earlier version wrote it.
    """
    with suppress(OSError):
        return read_manifest((folder / MANIFEST).read_bytes(), folder, _step(folder))
    return None


def read_manifest(data: bytes | None, where: Path | str, step: int) -> dict[str, Any] | None:
    """Return the manifest that bytes hold if it is intact and names the files of all ranks, else None.

    Raises a UserError if an earlier version wrote it.

    Args:
        data: The bytes; None if there is no manifest.
        where: The place of the checkpoint, for messages.
        step: The step that the name of its place states.

    Returns:
        The manifest.
    """
    with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        manifest: dict[str, Any] = json.loads(data or b"")
        if manifest["sha256"] == _own_checksum(manifest):
            _check_version(where, manifest["version"])
            world = manifest["world"]
            named = isinstance(world, int) and not isinstance(world, bool) and len(manifest["files"]) == world + 1 > 1
            if named and manifest["step"] == step:
                wanted = {STATE, *(file_name(rank) for rank in range(world))}
                return manifest if manifest["files"].keys() == wanted else None
    return None


def _state(folder: Path) -> dict[str, Any] | None:
    """Return the small state of a checkpoint, None if it is not one."""
    with suppress(OSError):
        return read_state((folder / STATE).read_bytes())
    return None


def read_state(data: bytes) -> dict[str, Any] | None:
    """Return the small state that bytes hold, None if they hold none."""
    with suppress(ValueError, RecursionError):
        state = json.loads(data)
        return state if isinstance(state, dict) else None
    return None


def _check_version(where: Path | str, version: Any) -> None:
    """Raise a UserError if this version cannot read a checkpoint's format."""
    if version == 1:
        raise UserError(
            f"{where}: a checkpoint of version 1, which pidscale 0.1 reads; finish the run with it, or choose another "
            "run.name"
        )
    if version != VERSION:
        raise UserError(
            f"{where}: a checkpoint of version {version!r}, and this pidscale reads version {VERSION}; use the pidscale "
            "that wrote it, or choose another run.name"
        )


def _damaged(folder: Path, files: Mapping[str, Mapping[str, Any]], mesh: Mesh) -> list[str]:
    """Return the names of the files in this rank's part that are missing or do not match the manifest."""
    return [name for name in sorted(files)[mesh.rank :: mesh.world] if not file_matches(folder / name, files[name])]


def file_matches(path: Path, entry: Mapping[str, Any]) -> bool:
    """Return whether a file has the bytes and the checksum of its entry in a manifest; False if it cannot be read."""
    try:
        return path.stat().st_size == entry["bytes"] and file_sha256(path) == entry["sha256"]
    except (OSError, KeyError, TypeError):
        return False


def matches(data: bytes, entry: Mapping[str, Any]) -> bool:
    """Return whether bytes are those of an entry in a manifest."""
    return isinstance(entry, dict) and entry.get("sha256") == hashlib.sha256(data).hexdigest()
