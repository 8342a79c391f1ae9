"""Joining the Ray cluster that the environment names, or starting a local one. Every failure is one line.

Knows Ray; must not know what will run on it.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from typing import Any

import ray

from pidscale.config import UserError

_LISTEN_SECONDS = 10.0  # for which connections to a head that does not answer are repeated
_JOIN_SECONDS = 45.0  # within which a head that answers must have let this process join
_SHORT_FOLDER = "/tmp"


def address() -> str | None:
    """Return the address of the cluster in RAY_ADDRESS, which Ray sets for jobs; None if a local Ray is to be started."""
    named = os.environ.get("RAY_ADDRESS", "").strip()
    return None if named in ("", "local") else named


def connect(patience: float = 0.0) -> None:
    """Join the cluster that this job or RAY_ADDRESS names; without one, start a local Ray, whatever else runs here.

    A UserError says that nothing answers at the address, that the cluster refuses this process, or that Ray cannot start.

    Args:
        patience: The seconds to wait for a head that is still starting; at least 10.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # we do not use its notices
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of tasks that were cancelled after the first error
    if ray.is_initialized():
        return
    named = address()
    if named is None:
        _start()
    else:
        _join(named, patience)


def _join(named: str, patience: float = 0.0) -> None:
    """Join the cluster at an address, or raise a UserError."""
    if ":" in named and "://" not in named:
        _check_listening(named, max(patience, _LISTEN_SECONDS))
    remedy = "correct the address, or unset RAY_ADDRESS to start a local Ray"
    try:
        ended = _init({"address": named}, _JOIN_SECONDS)
    except Exception as error:
        if type(error).__name__ == "AuthenticationError" or "token" in str(error).lower():
            remedy = "copy ~/.ray/auth_token of the head to this account, or set RAY_AUTH_TOKEN to its content"
        raise UserError(f"RAY_ADDRESS={named}: this cluster cannot be joined ({_last_line(error)}); {remedy}") from None
    if not ended:
        raise UserError(
            f"RAY_ADDRESS={named}: something answers there, but in {_JOIN_SECONDS:.0f} s it did not let this process join; "
            f"see `ray status` on that host; {remedy}"
        )


def _check_listening(named: str, seconds: float) -> None:
    """Raise UserError unless a process accepts connections at host:port within this time."""
    host, _, port = named.rpartition(":")
    if not port.isdecimal() or not host:
        raise UserError(f"RAY_ADDRESS={named}: expected HOST:PORT, as `ray start --head` prints it")
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except (OSError, OverflowError) as error:
            if time.monotonic() > until or isinstance(error, (socket.gaierror, OverflowError)):
                raise UserError(
                    f"RAY_ADDRESS={named}: nothing answers there ({getattr(error, 'strerror', None) or error}); start Ray on "
                    "that host (`ray start --head`), correct the address, or unset RAY_ADDRESS to start a local Ray"
                ) from None
            time.sleep(1)


def _start() -> None:
    """Start a local Ray. Where its defaults fail (a token in HOME, sockets in TMPDIR), other places are used."""
    os.environ.setdefault("RAY_task_events_max_num_task_in_gcs", "1000")  # its record of finished calls: 4 KB each
    options: dict[str, Any] = {"address": "local", "include_dashboard": False}
    for tries in (3, 2, 1):
        try:
            _init(options)
            return
        except OSError as error:
            named = str(error.filename or "")
            if "AF_UNIX" in str(error) and "_temp_dir" not in options and "RAY_TMPDIR" not in os.environ:
                options["_temp_dir"] = f"{_SHORT_FOLDER}/ray"  # the path of TMPDIR is too long for sockets
            elif "/.ray" in named and "RAY_AUTH_TOKEN" not in os.environ:
                # a token for this Ray only, since HOME cannot hold one
                os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
                os.environ["RAY_AUTH_MODE"] = "token"
            else:
                raise UserError(f"Ray cannot start: {_remedy(error)}") from None
        except Exception as error:
            if "timed out during startup" in str(error) and tries > 1:  # Ray waits 30 s, which no setting changes
                print("Ray did not start within 30 s; starting it again", flush=True)
                ray.shutdown()
                continue
            raise UserError(
                f"Ray cannot start ({_last_line(error)}); see {_SHORT_FOLDER}/ray/session_latest/logs"
            ) from None


def _remedy(error: OSError) -> str:
    """Return what an error of the system is about, and what to do."""
    if "AF_UNIX" in str(error):
        return (
            f"RAY_TMPDIR={os.environ.get('RAY_TMPDIR')}: too long a path for sockets; name a folder with a shorter one"
        )
    if "/.ray" in str(error.filename or ""):
        return f"{error.filename}: {error.strerror}; Ray keeps its token there: set RAY_AUTH_TOKEN, or HOME to another folder"
    where = error.filename or os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or _SHORT_FOLDER
    return f"{where}: {error.strerror or error}; set RAY_TMPDIR to a writable folder with a short path and free space"


def _init(options: dict[str, Any], seconds: float | None = None) -> bool:
    """Call ray.init in a thread, so that signals are handled meanwhile; return whether it ended within `seconds`.

    Errors of ray.init are raised. The thread stays alive: the system ends Ray's processes with the thread that started them.
    """
    failures: list[BaseException] = []
    ended = threading.Event()

    def body() -> None:
        try:
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
        except BaseException as error:
            failures.append(error)
        ended.set()
        if not failures:
            threading.Event().wait()

    threading.Thread(target=body, daemon=True).start()
    until = None if seconds is None else time.monotonic() + seconds
    while not ended.wait(0.1) and (until is None or time.monotonic() < until):
        pass
    for failure in failures:
        raise failure
    return ended.is_set()


def _last_line(error: BaseException) -> str:
    """Return the kind of an error and the last line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:200]
