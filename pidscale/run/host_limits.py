"""Memory limits of a process on this machine and of a GPU, and the errors that mean out of memory. Knows no models."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from pathlib import Path

import torch


def _address_space() -> int | None:
    """Return the address space that RLIMIT_AS leaves beyond what is mapped already; None without a limit."""
    try:
        import resource

        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError):  # not Linux
        return None
    return None if soft == resource.RLIM_INFINITY else max(0, soft - mapped)


def group_limit(root: Path = Path("/")) -> int | None:
    """Return the lowest limit of this process's control groups (version 1 or 2) and of the groups above them.

    Args:
        root: Root of the file system; another one in tests.

    Returns:
        Bytes; None without a limit.
    """
    found = []
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            top, name = ("memory", "memory.limit_in_bytes") if kinds else ("", "memory.max")
            inside = Path(path.lstrip("/"))  # a container may see its own group at the top, whatever this path says
            for group in (inside, *inside.parents):
                with suppress(OSError, ValueError):  # no such file, or no number but `max`
                    found.append(int((root / "sys/fs/cgroup" / top / group / name).read_text()))
    return min(found, default=None)


def _physical() -> int | None:
    """Return the memory that is available without swapping; all memory if the system does not report that."""
    with suppress(OSError):
        found = re.search(r"^MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def memory_limit(processes: int = 1) -> int | None:
    """Return how many bytes a process may use on the CPU.

    Args:
        processes: Number of workers that share this host.

    Returns:
        Bytes; None if the system reports no limit.
    """
    shared = [limit // processes for limit in (group_limit(), _physical()) if limit is not None]
    own = _address_space()
    return min(shared if own is None else [*shared, own], default=None)


def device_limit(device: torch.device, processes: int = 1) -> int | None:
    """Return how many bytes a process may use on its device: a whole GPU, or its part of the host.

    Args:
        device: The device.
        processes: Number of workers that share this host.

    Returns:
        Bytes; None if the system reports no limit.
    """
    return torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else memory_limit(processes)


_SIGNS = (
    "can't allocate memory",
    "Cannot allocate memory",
    "not enough memory",
    "out of memory",
    "std::bad_alloc",
    "could not create a primitive",  # oneDNN, without room for a layer
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means out of memory: on a GPU, in torch, in Python, in the system or in Ray."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
