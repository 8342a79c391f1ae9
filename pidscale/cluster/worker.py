"""The entry point of a Ray Train worker: it sets up the mesh, then runs the loop of its phase. Imported on every host.

Knows Ray; knows models and equations only as arguments that it passes on.
"""

from __future__ import annotations

import os
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist

from pidscale.cluster.bulletin import BEAT, Place, birth
from pidscale.cluster.repeat import repeated
from pidscale.config import Settings, UserError, from_plain
from pidscale.distill import loop as distill_loop
from pidscale.distill.endpoints.actors import Served
from pidscale.generator.artifact import read_card
from pidscale.parallel.mesh import Mesh
from pidscale.records.lock import Ownership
from pidscale.run.agree import agree
from pidscale.run.home import Home
from pidscale.run.host_limits import device_limit
from pidscale.run.memory import MemoryPlan
from pidscale.run.places import MAKES, fetch_teacher, home_of, run_place
from pidscale.run.preflight import in_our_words, warning
from pidscale.run.reporting import Reporter, Request, Stopped
from pidscale.teacher import loop as teacher_loop

_LOGS_EVERY = 15.0  # seconds between two looks whether curves have to be uploaded
LOOPS: dict[str, Callable[..., dict[str, Any]]] = {
    "teacher": teacher_loop.train,
    "distill": distill_loop.train,
}


@dataclass(frozen=True)
class Assignment:
    """Data that the driver passes to each worker of an attempt.

    Attributes:
        phase: `teacher` or `distill`.
        settings: The settings of the run as plain values.
        folder: The folder of the run.
        owner: The driver, which holds that folder.
        plan: The memory plan.
        bulletin: The handle of the bulletin.
        timeout: Seconds that a collective waits for a rank.
        attempt: The number of the attempt, from 1.
        actors: The handles of the actors that make endpoints, if the phase has any.
    """

    phase: str
    settings: dict[str, Any]
    folder: str
    owner: Ownership
    plan: MemoryPlan
    bulletin: Any
    timeout: int
    attempt: int
    actors: list[Any] = field(default_factory=list)


def work(config: dict[str, Assignment]) -> None:
    """Run the loop of the phase.

    Args:
        config: The assignment under the key `assignment`; Ray Train passes the dictionary that it was given.

    Raises:
        Exception: Any error of the loop, with its traceback as a note, because Ray passes only the error to the driver.
    """
    assignment = config["assignment"]
    try:
        with reported(assignment.bulletin, assignment.attempt, _rank()):
            _work(assignment)
    except Exception as error:
        error.add_note(traceback.format_exc())
        raise


def _rank() -> int:
    import ray.train

    rank: int = ray.train.get_context().get_world_rank()
    return rank


@contextmanager
def reported(bulletin: Any, attempt: int, rank: int, every: float = BEAT) -> Iterator[None]:
    """Report that this process is a worker, that it is alive while the body runs, and that it has left.

    Args:
        bulletin: The handle of the bulletin.
        attempt: The number of the attempt.
        rank: The rank of the worker.
        every: Seconds between two signs of life.

    Yields:
        Nothing.
    """
    node = ray.get_runtime_context().get_node_id()
    process = os.getpid()
    place = Place(socket.gethostname(), ray.util.get_node_ip_address(), node, process, birth(process))
    bulletin.started.remote(attempt, rank, place)
    try:
        with repeated(lambda: bulletin.beat.remote(attempt, rank), every):
            yield
    finally:
        bulletin.left.remote(attempt, rank)


def _work(assignment: Assignment) -> None:
    import ray.train
    from ray.train.torch import get_device

    settings = from_plain(Settings, assignment.settings)
    folder = Path(assignment.folder)
    bulletin = assignment.bulletin
    context = ray.train.get_context()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # in backward passes too
    rank = context.get_world_rank()
    world = context.get_world_size()
    c = settings.cluster
    _check_shared(settings, assignment.owner)
    home = home_of(settings, folder)
    home.pull()
    agree(settings, Mesh(rank, world, get_device()), _inputs(settings, folder, assignment.phase))
    mesh = Mesh.over(rank, world, get_device(), c.space, assignment.timeout)

    def progress(done: int, total: int, note: str) -> None:
        if mesh.first:
            bulletin.post.remote(assignment.attempt, done, total, note)

    warned = warning(assignment.plan, device_limit(mesh.device, context.get_local_world_size()))
    if context.get_local_rank() == 0 and warned:
        bulletin.say.remote(warned)
    requests = _Requests(bulletin, assignment.attempt, mesh.first)
    reporter = Reporter(progress, bulletin.say.remote, requests, home.push, assignment.owner)
    extra: dict[str, Any] = {}
    if assignment.actors:
        extra["supply"] = Served(assignment.actors, mesh.data_rank, settings.distill.ahead, c.timeout, mesh.device)
    try:
        with requests.listening(), in_our_words(settings, assignment.phase), _uploading(home, mesh):
            LOOPS[assignment.phase](settings, folder, mesh, reporter, **extra)
            if mesh.first:
                for name in MAKES[assignment.phase]:
                    home.push_generator(name)
    except Stopped as stopped:
        if mesh.first:
            bulletin.say.remote(str(stopped))
    dist.barrier()


def _inputs(settings: Settings, folder: Path, phase: str) -> dict[str, str]:
    """Return the checksum of the teacher that this host sees, or why it sees none, for a comparison with the other hosts."""
    if phase != "distill":
        return {}
    try:
        seen = read_card(fetch_teacher(settings, folder)).weights_sha256
    except UserError as error:
        seen = str(error)
    return {"distill.teacher (its weights)": seen}


class _Requests:
    """The driver's latest request. A thread of the first worker fetches it, so that the loop never waits for it."""

    def __init__(self, bulletin: Any, attempt: int, first: bool) -> None:
        self.bulletin = bulletin
        self.attempt = attempt
        self.first = first
        self.latest = Request.NOTHING

    def __call__(self) -> Request:
        return self.latest

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Fetch requests every half a second while the body runs."""
        ended = threading.Event()

        def listen() -> None:
            while not ended.wait(0.5):
                with suppress(ray.exceptions.RayError):
                    self.latest = ray.get(self.bulletin.asked.remote(self.attempt), timeout=10)

        thread = threading.Thread(target=listen, daemon=True)
        if self.first:
            thread.start()
        try:
            yield
        finally:
            ended.set()


@contextmanager
def _uploading(home: Home, mesh: Mesh) -> Iterator[None]:
    """Bring the curves to where the run lies, on the first rank, now and then while the body runs and at its end."""
    if not mesh.first:
        yield
        return

    def upload() -> None:
        with suppress(UserError):  # a store that is away for a while
            home.push_logs()

    with repeated(upload, _LOGS_EVERY):
        yield
    upload()


def _check_shared(settings: Settings, owner: Ownership) -> None:
    """Raise UserError if this host sees another run under the run's path than the driver does."""
    if not owner.holds():
        raise UserError(
            f"{run_place(settings)}: host {socket.gethostname()} does not see what the driver has written there; name a "
            "run.folder on storage that all hosts share"
        )
