"""The folder of a run and its phases: an existing phase is resumed or refused, never overwritten. Knows no Ray or equations.

    runs/NAME/   config.json  versions.json  teacher.json  distill.json  checkpoints/  teacher/  student/  tb/  report/

PHASE.json holds what determines the result of the phase, and whether the phase is finished.
"""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pidscale.config import Settings, UserError, to_flat, to_plain
from pidscale.engine.disk import in_one_line
from pidscale.files import refuse_folder_in_use, write_atomic
from pidscale.plain import json_text
from pidscale.records.lock import Ownership
from pidscale.renamed import MEANT, signature_of_today
from pidscale.run.places import MAKES, home_of, open_shelf, run_folder, run_place

# settings that may change between the attempts of a phase, because they do not change its result
_COURSE = ("log_every", "pictures", "checkpoint_every", "keep", "keep_every", "max_skips")
_FREE = {
    "model": {"recompute"},
    "teacher": {*_COURSE, "evaluate_every", "evaluate_samples", "evaluate_steps", "start"},
    "distill": {*_COURSE, "teacher", "source", "ahead", "actors", "endpoints", "carry_teacher"},
}
_OBJECTIVES = ("teacher.objective.name", "distill.objective.name")  # others have other settings: named before them
_SECTIONS = {"teacher": ("pde", "model", "teacher"), "distill": ("pde", "distill")}


def signature(phase: str, settings: Settings, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Return what decides a phase's result.

    Args:
        phase: `teacher` or `distill`.
        settings: Those of the run.
        inputs: Hashes of what the phase reads, by a name that an error may show.

    Returns:
        The settings that matter by their dotted names, the seed, and the hashes; plain JSON values.
    """
    flat: dict[str, Any] = {"run.seed": settings.run.seed}
    for name, value in to_flat(settings).items():
        section, key = name.split(".")[:2]
        if section in _SECTIONS[phase] and key not in _FREE.get(section, set()):
            flat[name] = value
    own = settings.teacher.own if phase == "teacher" else settings.distill.own
    flat.pop(f"{phase}.objective")
    flat |= {f"{phase}.objective.{key}": value for key, value in to_plain(own).items()}
    if phase == "distill":
        flat["model.precision"] = settings.model.precision  # all else of the model is the teacher's
    plain_values: dict[str, Any] = json.loads(json.dumps(flat | dict(inputs)))  # as PHASE.json gives them back
    return plain_values


def due(phase: str, settings: Settings, inputs: Mapping[str, str]) -> bool:
    """Return whether a phase has work left. Writes nothing.

    A phase that ended before its first checkpoint has made nothing, so its settings may still change.

    Args:
        phase: `teacher` or `distill`.
        settings: Those of the run.
        inputs: Hashes of what the phase reads (data set, teacher), by a name that an error may show.

    Returns:
        Whether there is work left.

    Raises:
        UserError: The phase must not go on: another setting or input, an old checkpoint, or what run.resume says.
    """
    folder = run_folder(settings)
    resume = settings.run.resume
    path = folder / f"{phase}.json"
    now = signature(phase, settings, inputs)
    refuse_folder_in_use(folder, "config.json", "run.name")
    if not path.exists():
        if resume == "must":
            raise UserError(
                f"{path}: missing, and run.resume=must; check run.folder and run.name, or set run.resume=auto"
            )
        return True
    if resume == "never":
        raise UserError(
            f"{folder}: run.name={settings.run.name} exists and run.resume=never; choose another run.name, "
            "or set run.resume=auto to go on with it"
        )
    record = _read(path)
    shelf = open_shelf(settings, folder, phase)
    if not record["finished"] and shelf.newest_step() is None:
        return True
    before = signature_of_today(record["signature"])
    for key in sorted(now.keys() | before.keys(), key=lambda key: (key not in _OBJECTIVES, key)):
        had = before.get(key, MEANT.get(key))
        has = now.get(key)
        if had != has and not (key.startswith(f"{phase}.objective.") and key not in now):  # of other objectives
            raise UserError(f"{path}: {key} was {had!r} and is {has!r} now; restore it, or choose another run.name")
    if record["finished"]:
        return False
    shelf.check_resumable()
    return True


def begin(phase: str, settings: Settings, inputs: Mapping[str, str]) -> bool:
    """Begin or continue a phase, unless it is finished, and record what determines its result.

    A card in the folder means that a phase reached its end, so that a card of an attempt that was killed at its end is
    removed. A phase that must not continue raises the UserError of `due`.

    Args:
        phase: `teacher` or `distill`.
        settings: Settings of the run.
        inputs: Hashes of what the phase reads (data set, teacher), by a name that messages show.

    Returns:
        Whether the phase has work left.
    """
    if not due(phase, settings, inputs):
        return False
    home = home_of(settings)
    folder = home.folder
    open_shelf(settings, folder, phase).sweep()  # first, so that a full disk has room for what follows
    with in_one_line(folder, "the run's records", None, "then the same command goes on"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in MAKES[phase]:
            home.withdraw(name)
        write_atomic(folder / "config.json", json_text(to_plain(settings), indent=1).encode())
        write_atomic(folder / "versions.json", json_text(versions(), indent=1).encode())
        _record(folder / f"{phase}.json", signature(phase, settings, inputs), finished=False)
    for name in ("config.json", "versions.json", f"{phase}.json"):
        home.push(folder / name)
    return True


@contextmanager
def hold_run(settings: Settings) -> Iterator[Ownership]:
    """Lock a run, in which two drivers would damage each other's checkpoints; remove its folder if it stays empty.

    Args:
        settings: Settings of the run.

    Yields:
        The owner that this process has become, whom the workers ask before they seal a checkpoint.

    Raises:
        UserError: When another process holds the run.
    """
    home = home_of(settings)
    home.folder.mkdir(parents=True, exist_ok=True)
    try:
        with home.hold() as owner:
            if owner is None:
                whose = home.holder() or "another process"
                place = run_place(settings)
                raise UserError(f"{place}: {whose} is working on this run; wait for it, or change run.name")
            home.pull()  # what another driver may have written until now
            try:
                yield owner
            finally:
                with suppress(UserError):
                    home.push_logs()
    finally:
        with suppress(OSError):
            home.folder.rmdir()  # fails if anything was written


def _read(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        if isinstance(record["signature"], dict) and isinstance(record["finished"], bool):
            return record
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise UserError(f"{path}: damaged, so the run cannot be resumed safely; restore it, or choose another run.name")


def finish(phase: str, settings: Settings, inputs: Mapping[str, str]) -> None:
    """Record that a phase is finished; arguments as for `begin`."""
    home = home_of(settings)
    path = home.folder / f"{phase}.json"
    _record(path, signature(phase, settings, inputs), finished=True)
    home.push(path)


def _record(path: Path, signed: dict[str, Any], finished: bool) -> None:
    record = {"finished": finished, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "signature": signed}
    write_atomic(path, json_text(record, indent=1).encode())


def versions() -> dict[str, str]:
    """Return the versions of Python, the machine and the libraries, and the git commit of the checkout if there is one."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("pidscale", "torch", "deepspeed", "ray", "webdataset", "hydra-core", "numpy", "scipy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["commit"] = _commit(Path(__file__).parents[2]) or "unknown"
    return found


def _commit(checkout: Path) -> str:
    """The commit of a checkout; empty for an installation, which may lie in a repository of something else."""
    if not (checkout / ".git").exists():
        return ""
    describe = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # no git on this machine
        return ""
