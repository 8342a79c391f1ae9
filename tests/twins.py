"""Run one function on several ranks, each a process of its own, and hand back what every rank returned.

For twin tests: the same numbers from P ranks as from one process. Ranks are forked from one server that has imported torch
and DeepSpeed and computes nothing itself: importing them anew in each rank takes longer than what the rank is there for.

    def shares(rank, world, seed): ...        # at module level: the processes import it by name
    first, second = spawn(shares, 2, 7)

Knows torch.distributed over gloo on the loopback interface; knows nothing of meshes, models or Ray.
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
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


class RankFailed(AssertionError):
    """A rank raised, died or did not return in time; the message holds its traceback or its stacks."""


def spawn(fn: Callable[..., Any], world: int, *args: Any, timeout: float = 300.0) -> list[Any]:
    """Return [fn(rank, world, *args) for every rank], each run in a process of its own with a gloo group around it.

    fn and what it takes and returns must be picklable; returned tensors are copied. Raises RankFailed with the
    traceback of the rank that failed first, and after `timeout` seconds with the stacks of the ranks still running.
    No process outlives the call.
    """
    with tempfile.TemporaryDirectory(prefix="twins-") as folder:
        ranks = _start(fn, world, args, Path(folder), timeout)
        try:
            _wait(ranks, Path(folder), time.monotonic() + timeout, timeout)
        finally:
            for process in ranks:
                process.kill()
                process.join()
        # Written by our own processes a moment ago: the one kind of pickle that may be read.
        return [torch.load(Path(folder, f"{rank}.result"), weights_only=False) for rank in range(world)]


def _start(
    fn: Callable[..., Any], world: int, args: tuple[Any, ...], folder: Path, timeout: float
) -> list[BaseProcess]:
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed", "deepspeed", "pidscale.teacher.loop", "pidscale.distill.loop"])
    with socket.socket() as probe:  # DeepSpeed wants to read a port; nobody listens on it
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = []
    for rank in range(world):
        environment = {**os.environ, **_environment(rank, world, port)}
        process = context.Process(
            target=_rank, args=(fn, rank, world, args, folder, timeout, environment), name=f"rank {rank}"
        )
        with mock.patch.dict(os.environ, environment):  # the first to start brings the server, which imports torch
            process.start()
        ranks.append(process)
    return ranks


def _environment(rank: int, world: int, port: int) -> dict[str, str]:
    tools = Path(sys.executable).parent  # ninja and friends, also where the environment was not activated
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
    """The life of one rank."""
    os.environ.clear()  # the server's is that of the first rank it was started for
    os.environ.update(environment)
    with open(folder / f"{rank}.stacks", "w") as stacks:
        faulthandler.register(signal.SIGUSR1, file=stacks)
        try:
            dist.init_process_group(
                "gloo",
                init_method=f"file://{folder / 'store'}",
                rank=rank,
                world_size=world,
                timeout=datetime.timedelta(seconds=2 * timeout),  # the parent's clock is the one that counts
            )
            torch.save(fn(rank, world, *args), folder / f"{rank}.result")
            if dist.is_initialized():
                dist.barrier()  # nobody hangs up while another still listens
                dist.destroy_process_group()
        except BaseException:
            # Written and renamed before the sockets close: so the rank that failed first is known as the first.
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
            raise RankFailed(
                f"no end after {timeout:g} s of rank {', '.join(map(str, running))}{_stacks(running, folder)}"
            )
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
    """Where each rank still running stands, as its own interpreter tells it."""
    for process in running.values():
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGUSR1)
    time.sleep(0.2)
    files = {rank: folder / f"{rank}.stacks" for rank in running}
    return "".join(f"\nrank {rank}:\n{file.read_text()}" for rank, file in files.items() if file.exists())
