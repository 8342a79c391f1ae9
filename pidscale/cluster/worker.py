"""The entry of one Ray Train worker: it sets up the mesh, then runs the loop of its phase. Imported on every host.

Knows Ray; knows no models and no equations beyond what it hands on.
"""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pidscale.cluster.bulletin import Place
from pidscale.config import ClusterSettings, Settings, UserError, from_plain
from pidscale.distill import loop as distill_loop
from pidscale.distill.endpoints.actors import Served
from pidscale.parallel.mesh import Mesh
from pidscale.run.agree import agree
from pidscale.run.host_limits import device_limit
from pidscale.run.memory import MemoryPlan
from pidscale.run.preflight import in_our_words, warning
from pidscale.run.reporting import STOP_FILE, Reporter, Stopped
from pidscale.teacher import loop as teacher_loop

LOOPS: dict[str, Callable[..., dict[str, Any]]] = {
    "teacher": teacher_loop.train,
    "distill": distill_loop.train,
}

# A CPU step frees and asks for the same few hundred MiB again and again; the C library would return them to the system each
# time and fault them in anew, more so off the main thread, where Ray Train runs the loops.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}


def environment(settings: ClusterSettings) -> dict[str, str]:
    """Environment variables of a worker."""
    own = {"OMP_NUM_THREADS": str(settings.cpus_per_worker)}
    return own if settings.use_gpu else own | {"DS_ACCELERATOR": "cpu"} | KEEP_MEMORY


@dataclass(frozen=True)
class Parcel:
    """What the driver hands to each worker of an attempt.

    settings: plain values. mark: name of a file that the driver has just written into the run's folder. actors: those that
    make endpoints, if the phase has any.
    """

    phase: str
    settings: dict[str, Any]
    folder: str
    mark: str
    plan: MemoryPlan
    bulletin: Any
    attempt: int
    actors: list[Any] = field(default_factory=list)


def work(config: dict[str, Parcel]) -> None:
    """Run the loop of the phase. Ray Train calls it with the dictionary that it was given.

    What it raises brings its traceback along as a note: Ray hands the driver the error alone.
    """
    try:
        _work(config["parcel"])
    except Exception as error:
        error.add_note(traceback.format_exc())
        raise


def _work(parcel: Parcel) -> None:
    import ray.train
    from ray.train.torch import get_device

    settings, folder, bulletin = from_plain(Settings, parcel.settings), Path(parcel.folder), parcel.bulletin
    context = ray.train.get_context()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # backward passes too
    rank, world, c = context.get_world_rank(), context.get_world_size(), settings.cluster
    bulletin.started.remote(parcel.attempt, rank, Place(socket.gethostname(), ray.util.get_node_ip_address()))
    _check_shared(folder, parcel.mark)
    agree(settings, Mesh(rank, world, get_device()))
    mesh = Mesh.over(rank, world, get_device(), c.space, c.timeout)

    def progress(done: int, total: int, note: str) -> None:
        if mesh.first:
            bulletin.post.remote(parcel.attempt, done, total, note)

    warned = warning(parcel.plan, device_limit(mesh.device, context.get_local_world_size()))
    if context.get_local_rank() == 0 and warned:
        bulletin.say.remote(warned)
    reporter, extra = Reporter(folder, progress, bulletin.say.remote), {}
    if parcel.actors:
        extra["supply"] = Served(parcel.actors, mesh.data_rank, settings.distill.ahead, c.timeout, mesh.device)
    try:
        with in_our_words(settings, parcel.phase):
            LOOPS[parcel.phase](settings, folder, mesh, reporter, **extra)
    except Stopped as stopped:
        if mesh.first:
            bulletin.say.remote(str(stopped))
            (folder / STOP_FILE).unlink(missing_ok=True)
    dist.barrier()


def _check_shared(folder: Path, mark: str) -> None:
    """Raise UserError where this host sees another folder under the run's name than the driver: nothing could be resumed."""
    if not os.path.lexists(folder / mark):
        raise UserError(
            f"{folder}: host {socket.gethostname()} does not see what the driver has written there; name a run.folder on "
            "storage that all hosts share"
        )
