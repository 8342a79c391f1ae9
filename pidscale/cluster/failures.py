"""What ended an attempt, in one line: a user's mistake, a lost worker or host, or an error whose traceback goes to a file.

Knows the errors of Ray Train; must not know what the workers computed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import ray

from pidscale.cluster.bulletin import Place
from pidscale.config import UserError

FOLDER = "errors"  # of the run: tracebacks


@dataclass(frozen=True)
class Failure:
    """Why an attempt ended. line: what happened, without its end point. users: a mistake, which no repetition mends.

    started: whether the workers were at work; else the group could not start, and nothing was lost.
    """

    line: str
    users: bool = False
    started: bool = True


def failure(error: Exception, places: Mapping[int, Place], folder: Path, phase: str) -> Failure:
    """What an error of `fit` says. places: of the workers that began, by rank. The traceback goes to folder/errors."""
    workers = dict(sorted(getattr(error, "worker_failures", {}).items()))
    several = len({place.host for place in places.values()}) > 1
    for rank, one in workers.items():
        if mistake := _mistake(one):
            where = f" ({_name(rank, places)})" if several else ""
            what = "; ".join(line.strip() for line in str(mistake).splitlines()[:3] if line.strip())
            kept = "" if isinstance(mistake, UserError) else f"; traceback: {_keep(folder, phase, rank, one)}"
            return Failure(f"{what}{where}{kept}", users=True)
    lost = [
        rank for rank, one in workers.items() if any(isinstance(e, ray.exceptions.RayActorError) for e in _chain(one))
    ]
    if lost:
        names = ", ".join(_name(rank, places) for rank in lost)
        said = _keep(folder, phase, lost[0], workers[lost[0]])
        return Failure(f"{names}: lost ({_why(workers[lost[0]])}; {said})")
    causes = {rank: list(_chain(one))[-1] for rank, one in workers.items()}
    for rank in sorted(causes, key=lambda one: bool(_broken(causes[one]))):  # what broke before what others saw of it
        cause, kept = causes[rank], _keep(folder, phase, rank, workers[rank])
        if broken := _broken(cause):
            whom = _whom(rank, cause, places, workers)
            return Failure(f"{_name(rank, places)}: lost its connection to {whom} ({broken}; traceback: {kept})")
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        said = f"{type(cause).__name__}: {lines[0] if lines else ''}"[:200]
        return Failure(f"{_name(rank, places)}: {said} (traceback: {kept})")
    cause = getattr(error, "controller_failure", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    said = f"{type(cause).__name__}: {lines[0] if lines else ''}"[:200]
    return Failure(
        f"the workers could not start ({said}; traceback: {_keep(folder, phase, None, error)})", started=bool(places)
    )


def _name(rank: int, places: Mapping[int, Place]) -> str:
    return f"worker {rank} on host {places[rank].host if rank in places else '?'}"


def _broken(error: BaseException) -> str:
    """How a connection between workers ended, by what gloo or NCCL say; "" for another error.

    It is what those see who are left when another worker or its host is gone, mostly before Ray knows.
    """
    text = str(error)
    if not ("gloo/transport/tcp" in text or "NCCL" in text) or "connectFullMesh" in text:
        return ""
    found = re.search(r"Connection [a-z]+(?: by peer)?|Broken pipe|No route to host|[Tt]imed out", text)
    return found[0] if found else " ".join(text.split())[:120]


def _whom(rank: int, error: BaseException, places: Mapping[int, Place], reported: Container[int]) -> str:
    """Which worker a connection was to: those at the address that gloo names, else those that have not reported an error."""
    others = {one: place for one, place in places.items() if one != rank}
    address = re.search(r"\[([0-9a-fA-F.:]+)\]:\d+", str(error))
    there = {one: place for one, place in others.items() if address and place.address == address[1]}
    silent = {one: place for one, place in others.items() if one not in reported}
    meant = there or silent or others
    if len(meant) == 1:
        return _name(next(iter(meant)), places)
    hosts = {place.host for place in meant.values()}
    return f"a worker on host {hosts.pop()}" if len(hosts) == 1 else "another worker"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = getattr(error, "base_exc", None) or getattr(error, "health_check_failure", None) or error.__cause__


def _mistake(error: BaseException) -> BaseException | None:
    """The user's mistake behind an error, if there is one."""
    return next((one for one in _chain(error) if isinstance(one, (UserError, ValueError))), None)


def _why(error: BaseException) -> str:
    """Why Ray says that an actor is gone, in one line."""
    text = " ".join(str(error).split())
    for sign, meaning in (
        ("node was terminated", "its host is gone"),
        ("node died", "its host is gone"),
        ("its node has died", "its host is gone"),
        ("out of memory", "its host ran out of memory"),
        ("OutOfMemory", "its host ran out of memory"),
        ("missing too many heartbeats", "its host no longer answers"),
        ("unavailable", "its host does not answer"),
    ):
        if sign.lower() in text.lower():
            return meaning
    return "its process died"


def _keep(folder: Path, phase: str, rank: int | None, error: BaseException) -> str:
    """Write what an error says in full; the file's name."""
    path = (
        folder / FOLDER / f"{phase}-{time.strftime('%Y%m%d-%H%M%S')}-{'start' if rank is None else f'worker{rank}'}.txt"
    )
    notes = (note for one in _chain(error) for note in getattr(one, "__notes__", ()))  # tracebacks of workers
    text = "\n\n".join([*(f"{type(one).__name__}: {one}" for one in _chain(error)), *notes])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    except OSError as failed:
        return f"which could not be written: {failed.strerror}"
    return str(path)
