"""The processor, and the environment variables of workers and teacher actors: those that pidscale sets, and the user's.

Must not know what these processes do.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from pidscale.config import ClusterSettings, UserError

# A step on a CPU frees and allocates the same few hundred MiB again and again. By default the C library returns them to the
# system each time, which costs page faults, above all in other threads than the main one, where Ray Train runs the loops.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}
# A worker with a large network would keep gigabytes in pieces that nothing fits: it returns blocks as large as its tensors.
RETURN_MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(2**24)}
_LARGE = 2**31  # bytes
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def worker_environment(settings: ClusterSettings, needed: int = 0) -> dict[str, str]:
    """Return the environment variables of a worker that needs so many bytes of memory."""
    own = actor_environment(settings)
    if settings.use_gpu:
        return own
    return own | {"DS_ACCELERATOR": "cpu"} | (KEEP_MEMORY if needed < _LARGE else RETURN_MEMORY)


def actor_environment(settings: ClusterSettings) -> dict[str, str]:
    """Return the environment variables of a teacher actor.

    Those of `cluster.environment` with the value null are read here, so that no secret is written to a file of the run.
    """
    given = {name: os.environ[name] if value is None else str(value) for name, value in settings.environment.items()}
    return given | {"OMP_NUM_THREADS": str(settings.cpus_per_worker)}


def check_environment(settings: ClusterSettings) -> None:
    """Check `cluster.environment`. A UserError names a variable that it must not contain, or whose value cannot be used."""
    for name, value in settings.environment.items():
        key = f"cluster.environment.{name}"
        if not _NAME.fullmatch(str(name)):
            raise UserError(f"{key}: expected the name of an environment variable: letters, digits and _ only")
        if reason := _reserved(name):
            raise UserError(f"{key}: {reason}; omit it")
        if value is None:
            if name not in os.environ:
                raise UserError(
                    f"{key}=null: takes the value of {name} of this process, which has none; export it first"
                )
        elif isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).isprintable():
            raise UserError(
                f"{key}={value!r}: expected one line of text, a whole number, or null for the value of this process; put "
                f"""anything else in two pairs of quotes, such as '{key}="1.5"'"""
            )


def _reserved(name: str) -> str:
    """Return who sets a variable and from what; "" if users may set it."""
    if name == "OMP_NUM_THREADS":
        return "set by cluster.cpus_per_worker"
    if name == "DS_ACCELERATOR":
        return "set by cluster.use_gpu"
    if name in KEEP_MEMORY:
        return "set by pidscale for workers without a GPU"
    if name in _RANKS or name == "CUDA_VISIBLE_DEVICES":
        return "set by Ray for each worker"
    if name.startswith("RAY_"):
        return "read by Ray before a worker starts, so it is set where Ray is started (`ray start`)"
    return ""


def processor() -> str:
    """Return the processor's name and the number of its cores."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} cores of {names[0]}" if names else platform.processor() or platform.machine()
