"""Run one function on several ranks, each a process of its own, and return what every rank returned.

Ranks communicate by torch.distributed over gloo on the loopback interface: for tests that compare several ranks with one
process, and for measurements on one host. Knows nothing of meshes, models or Ray.
"""

from __future__ import annotations

import datetime
import faulthandler
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


class RankFailed(RuntimeError):
    """A rank raised, died or did not end in time; the message holds its traceback or its stacks."""


def spawn(
    fn: Callable[..., Any], world: int, *args: Any, timeout: float = 300.0, preload: Sequence[str] = ()
) -> list[Any]:
    """Call `fn(rank, world, *args)` in `world` processes that form one gloo group, and return the results in order of rank.

    Ranks are forked from one server process, which imports torch.distributed and the modules of `preload` once and computes
    nothing itself. The server lives as long as the caller's process, so the `preload` of the first call decides. A rank has
    one thread (OMP_NUM_THREADS=1), the caller's environment, and RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR
    and MASTER_PORT as torchrun sets them. No rank outlives the call.

    RankFailed is raised when a rank raises (with the traceback of the first one), when one dies, and when one is still
    running after `timeout` (with the stacks of all that are).

    Example::

        def total(rank, world, start):  # at module level: the processes import it by name
            value = torch.tensor([start + rank])
            torch.distributed.all_reduce(value)
            return value


        first, second = spawn(total, 2, 5)

    Args:
        fn: A function at module level.
        world: Number of ranks.
        *args: Further arguments of `fn`; they and the results must be picklable. Returned tensors are copies.
        timeout: Seconds after which ranks that have not ended are killed.
        preload: Names of modules that are slow to import and that `fn` needs, such as a training loop.

    Returns:
        One result for each rank.
    """
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        ranks = _start(fn, world, args, Path(folder), timeout, preload)
        try:
            _wait(ranks, Path(folder), time.monotonic() + timeout, timeout)
        finally:
            for process in ranks:
                process.kill()
                process.join()
        # Written by our own processes a moment ago: the one kind of pickle that may be read.
        return [torch.load(Path(folder, f"{rank}.result"), weights_only=False) for rank in range(world)]


def _start(
    fn: Callable[..., Any], world: int, args: tuple[Any, ...], folder: Path, timeout: float, preload: Sequence[str]
) -> list[BaseProcess]:
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed", *preload])
    with socket.socket() as probe:  # DeepSpeed wants to read a port; nobody listens on it
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks: list[BaseProcess] = []
    for rank in range(world):
        environment = {**os.environ, **_environment(rank, world, port)}
        process = context.Process(
            target=_rank, args=(fn, rank, world, args, folder, timeout, environment), name=f"rank {rank}"
        )
        with mock.patch.dict(os.environ, environment):  # the first start brings the server, which imports torch
            process.start()
        ranks.append(process)
    return ranks


def _environment(rank: int, world: int, port: int) -> dict[str, str]:
    tools = Path(sys.executable).parent  # ninja and others, also where the virtual environment is not activated
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": LOOPBACK,
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def _rank(
    fn: Callable[..., Any],
    rank: int,
    world: int,
    args: tuple[Any, ...],
    folder: Path,
    timeout: float,
    environment: dict[str, str],
) -> None:
    """Join the group, call the function and write its result or its traceback."""
    os.environ.clear()  # the server's environment is that of the first rank it was started for
    os.environ.update(environment)
    with open(folder / f"{rank}.stacks", "w") as stacks:
        faulthandler.register(signal.SIGUSR1, file=stacks)
        try:
            dist.init_process_group(
                "gloo",
                init_method=f"file://{folder / 'store'}",
                rank=rank,
                world_size=world,
                timeout=datetime.timedelta(seconds=2 * timeout),  # the parent's clock decides
            )
            torch.save(fn(rank, world, *args), folder / f"{rank}.result")
            if dist.is_initialized():
                dist.barrier()  # no rank leaves while another still listens
                dist.destroy_process_group()
        except BaseException:
            # Written and renamed before the sockets close, so that the rank that failed first is known as the first.
            draft = folder / f"{rank}.draft"
            draft.write_text(traceback.format_exc())
            draft.rename(folder / f"{rank}.error")
            os._exit(1)
        faulthandler.unregister(signal.SIGUSR1)


def _wait(ranks: list[BaseProcess], folder: Path, deadline: float, timeout: float) -> None:
    """Return when every rank has ended well; raise RankFailed when one ends badly or the time is over."""
    running = dict(enumerate(ranks))
    while running:
        ended = connection.wait([process.sentinel for process in running.values()], deadline - time.monotonic())
        if not ended:
            numbers = ", ".join(map(str, running))
            raise RankFailed(f"still running after {timeout:g} s: rank {numbers}{_stacks(running, folder)}")
        for rank, process in list(running.items()):
            if process.sentinel in ended:
                process.join()
                del running[rank]
                if process.exitcode != 0:
                    raise RankFailed(_failure(rank, process.exitcode, folder))


def _failure(rank: int, exitcode: int | None, folder: Path) -> str:
    errors = sorted(folder.glob("*.error"), key=lambda file: file.stat().st_mtime_ns)
    if not (folder / f"{rank}.error").exists():
        return f"rank {rank} died with exit code {exitcode} and left no traceback"
    return f"rank {errors[0].stem} failed:\n{errors[0].read_text()}"


def _stacks(running: dict[int, BaseProcess], folder: Path) -> str:
    """The stacks of each rank still running, as its own interpreter writes them."""
    for process in running.values():
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGUSR1)
    time.sleep(0.2)
    files = {rank: folder / f"{rank}.stacks" for rank in running}
    return "".join(f"\nrank {rank}:\n{file.read_text()}" for rank, file in files.items() if file.exists())
