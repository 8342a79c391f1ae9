"""What ended an attempt, in one line: a user's mistake, a lost worker or host, or an error, whose traceback goes to a file.

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
from pidscale.files import write_atomic

FOLDER = "errors"  # in the run's folder, for tracebacks


@dataclass(frozen=True)
class Failure:
    """Why an attempt ended.

    Attributes:
        line: What happened, in one line without a full stop.
        users: Whether it is a user's mistake, which another attempt would repeat.
        started: Whether the workers had started; otherwise nothing was lost.
    """

    line: str
    users: bool = False
    started: bool = True


def failure(error: Exception, places: Mapping[int, Place], folder: Path, phase: str) -> Failure:
    """Describe the error that Ray Train raised. Its traceback is written to a file in folder/errors.

    Args:
        error: The error.
        places: Where the workers that had started run, by rank.
        folder: The folder of the run.
        phase: The phase, for the file's name.

    Returns:
        The failure.
    """
    workers = dict(sorted(getattr(error, "worker_failures", {}).items()))
    several_hosts = len({place.host for place in places.values()}) > 1
    for rank, worker_error in workers.items():
        if mistake := _mistake(worker_error):
            where = f" ({_name(rank, places)})" if several_hosts else ""
            what = "; ".join(line.strip() for line in str(mistake).splitlines()[:3] if line.strip())
            kept = "" if isinstance(mistake, UserError) else f"; traceback: {_keep(folder, phase, rank, worker_error)}"
            return Failure(f"{what}{where}{kept}", users=True)
    lost = [rank for rank, worker_error in workers.items() if _is_lost(worker_error)]
    if lost:
        names = ", ".join(_name(rank, places) for rank in lost)
        kept = _keep(folder, phase, lost[0], workers[lost[0]])
        return Failure(f"{names}: lost ({_why_lost(workers[lost[0]])}; {kept})")
    causes = {rank: list(_chain(worker_error))[-1] for rank, worker_error in workers.items()}
    for rank in sorted(causes, key=lambda rank: bool(_broken(causes[rank]))):  # other errors before lost connections
        cause = causes[rank]
        kept = _keep(folder, phase, rank, workers[rank])
        if broken := _broken(cause):
            peer = _peer(rank, cause, places, workers)
            return Failure(f"{_name(rank, places)}: lost its connection to {peer} ({broken}; traceback: {kept})")
        return Failure(f"{_name(rank, places)}: {_first_line(cause)} (traceback: {kept})")
    cause = getattr(error, "controller_failure", None) or error
    kept = _keep(folder, phase, None, error)
    return Failure(f"the workers could not start ({_first_line(cause)}; traceback: {kept})", started=bool(places))


def _first_line(error: BaseException) -> str:
    """Return the kind of an error and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


def _is_lost(error: BaseException) -> bool:
    """Return whether an error says that the worker's process is gone."""
    return any(isinstance(cause, ray.exceptions.RayActorError) for cause in _chain(error))


def _name(rank: int, places: Mapping[int, Place]) -> str:
    """Return the worker and its host, as messages name them."""
    return f"worker {rank} on host {places[rank].host if rank in places else '?'}"


def _broken(error: BaseException) -> str:
    """Return how a connection between workers ended, from the errors of gloo or NCCL; "" for another error.

    The other workers see such an error when a worker or its host is lost, mostly before Ray notices.
    """
    text = str(error)
    if not ("gloo/transport/tcp" in text or "NCCL" in text) or "connectFullMesh" in text:
        return ""
    found = re.search(r"Connection [a-z]+(?: by peer)?|Broken pipe|No route to host|[Tt]imed out", text)
    return found[0] if found else " ".join(text.split())[:120]


def _peer(rank: int, error: BaseException, places: Mapping[int, Place], reported: Container[int]) -> str:
    """Return the worker that a connection was to: one at the address that gloo names, else one that reported no error."""
    others = {other: place for other, place in places.items() if other != rank}
    address = re.search(r"\[([0-9a-fA-F.:]+)\]:\d+", str(error))
    named = {other: place for other, place in others.items() if address and place.address == address[1]}
    silent = {other: place for other, place in others.items() if other not in reported}
    candidates = named or silent or others
    if len(candidates) == 1:
        return _name(next(iter(candidates)), places)
    hosts = {place.host for place in candidates.values()}
    return f"a worker on host {hosts.pop()}" if len(hosts) == 1 else "another worker"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = getattr(error, "base_exc", None) or getattr(error, "health_check_failure", None) or error.__cause__


def _mistake(error: BaseException) -> BaseException | None:
    """Return the user's mistake behind an error, if there is one."""
    return next((one for one in _chain(error) if isinstance(one, (UserError, ValueError))), None)


def _why_lost(error: BaseException) -> str:
    """Return why Ray says that an actor is gone, in one line."""
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
    """Write the full text of an error to a file; return the file's path."""
    who = "start" if rank is None else f"worker{rank}"
    path = folder / FOLDER / f"{phase}-{time.strftime('%Y%m%d-%H%M%S')}-{who}.txt"
    notes = (note for one in _chain(error) for note in getattr(one, "__notes__", ()))  # tracebacks of workers
    text = "\n\n".join([*(f"{type(one).__name__}: {one}" for one in _chain(error)), *notes])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, f"{text}\n".encode())
    except OSError as failed:
        return f"not written: {failed.strerror}"
    return str(path)
