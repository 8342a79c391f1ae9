"""Teachers as Ray actors with their own resources, and the supply that receives their endpoints. Knows Ray, and no students.

Each worker has at most `ahead` requested rows in progress; it requests the next row when it takes one. Ray restarts a lost
actor and repeats its pending calls. Rows are requested by their counters, so none is lost or used twice.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pidscale.config import Settings, UserError, from_plain
from pidscale.dataset.problem import open_problem
from pidscale.distill.endpoints.endpoint import Endpoints
from pidscale.distill.endpoints.rollout import open_rollout, open_teacher
from pidscale.distill.endpoints.supply import Tally
from pidscale.environment import actor_environment

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, float]


class TeacherActor:
    """A Ray actor with a frozen teacher that makes endpoints on request."""

    def __init__(self, plain: dict[str, Any], folder: str, number: int, bulletin: Any) -> None:
        """Load the teacher.

        Args:
            plain: Settings of the run, as plain values.
            folder: Folder of the run.
            number: Number of the actor, for messages.
            bulletin: Handle of the bulletin, which passes lines on to the driver.
        """
        import ray

        settings = from_plain(Settings, plain)
        torch.set_num_threads(settings.cluster.cpus_per_worker)  # as in the workers: bits may depend on it
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        device = torch.device("cuda" if settings.cluster.use_gpu else "cpu")
        problem = open_problem(settings.pde, settings.data)
        self.rollout = open_rollout(settings, open_teacher(settings, Path(folder), problem, device))
        if ray.get_runtime_context().was_current_actor_reconstructed:
            bulletin.say.remote(
                f"warning: teacher actor {number} was lost and started again; what it had in hand is made again"
            )

    def process(self) -> int:
        """Return the process ID of the actor."""
        return os.getpid()

    def make(self, counters: np.ndarray) -> Arrays:
        """Return parameters, fields and checksums of endpoints, and the seconds spent on them."""
        began = time.perf_counter()
        made = self.rollout.endpoints(torch.from_numpy(counters.copy()))
        fields = made.fields_BCYX.cpu().numpy()
        return made.params_BP.numpy(), fields, made.checksums.cpu().numpy(), time.perf_counter() - began


def start_actors(settings: Settings, folder: Path, plain: dict[str, Any], bulletin: Any) -> list[Any]:
    """Start the teacher actors, each with the resources of a worker.

    Args:
        settings: Settings of the run; `distill.actors` is the number of actors.
        folder: Folder of the run.
        plain: Settings of the run, as plain values.
        bulletin: Handle of the bulletin, which passes lines on to the driver.

    Returns:
        Handles of the actors. An actor ends when its handle is deleted.
    """
    import ray

    c = settings.cluster
    kind = ray.remote(TeacherActor).options(
        num_cpus=c.cpus_per_worker,
        num_gpus=1 if c.use_gpu else 0,
        max_restarts=-1,
        max_task_retries=-1,
        runtime_env={"env_vars": actor_environment(c)},
    )
    return [kind.remote(plain, str(folder), number, bulletin) for number in range(settings.distill.actors)]


class Served:
    """A supply that requests endpoints from actors in turn, starting with an actor that depends on the worker's number."""

    def __init__(self, actors: Sequence[Any], number: int, ahead: int, timeout: float, device: torch.device) -> None:
        """Create the supply; it requests nothing before `start`.

        Args:
            actors: Handles of the actors.
            number: Number of the worker, which determines the first actor that it asks.
            ahead: Number of rows to request before they are needed.
            timeout: Number of seconds to wait for a row.
            device: Device that the fields are copied to.
        """
        self.actors = list(actors)
        self.turn = number
        self.ahead = ahead
        self.timeout = timeout
        self.device = device
        self.wanted: Iterator[Tensor] = iter(())
        self.asked: deque[tuple[Tensor, Any]] = deque()
        self.tally = Tally()
        self.started = False

    def _ask(self, counters: Tensor) -> tuple[Tensor, Any]:
        self.turn += 1
        return counters, self.actors[self.turn % len(self.actors)].make.remote(counters.numpy())

    def _fill(self) -> None:
        while len(self.asked) < self.ahead:
            counters = next(self.wanted, None)
            if counters is None:
                return
            self.asked.append(self._ask(counters))

    def start(self, wanted: Iterator[Tensor]) -> None:
        """Request the first rows immediately."""
        self.wanted = wanted
        self.started = True
        self._fill()

    def get(self, counters: Tensor) -> Endpoints:
        """Return the next row.

        Args:
            counters: The next counters of the order given to `start`; any counters before `start`.

        Returns:
            Endpoints of the counters, copied to the device.

        Raises:
            UserError: When no actor returns the row within the timeout, or an actor cannot start.
            RuntimeError: When the next counters of the order are different ones.
        """
        import ray

        began = time.perf_counter()
        asked, reference = self.asked.popleft() if self.started else self._ask(counters)
        if not torch.equal(asked, counters):
            raise RuntimeError(f"endpoints {asked.tolist()} came where {counters.tolist()} were asked for")
        try:
            params, fields, checksums, seconds = ray.get(reference, timeout=self.timeout)
        except ray.exceptions.GetTimeoutError:
            raise UserError(
                f"distill.source=actors: {len(self.actors)} teacher actors gave no endpoints in {self.timeout:.0f} s; "
                "see `ray status` for what they wait for, or raise cluster.timeout"
            ) from None
        except ray.exceptions.RayActorError as error:  # a lost actor is restarted; this one could not start
            said = str(getattr(error, "cause", None) or error).strip().splitlines()
            raise UserError(f"distill.source=actors: a teacher actor could not start: {said[-1]}") from None
        if self.started:
            self.tally.spent += seconds
            self.tally.waited += time.perf_counter() - began
            self._fill()
        self.tally.add(len(counters), seconds)
        on_device = torch.tensor(fields, device=self.device)  # copies all three, so that Ray can free its memory
        return Endpoints(counters, torch.tensor(params), on_device, torch.tensor(checksums))

    def close(self) -> None:
        """Stop requesting rows."""
        self.wanted = iter(())
        self.asked = deque()
