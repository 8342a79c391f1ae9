"""Teachers as Ray actors on resources of their own, and the supply that takes their endpoints. Knows Ray, and no students.

A worker asks for the rows that it will need, `ahead` of them at a time: more are not made before one is taken. An actor that
is lost is started again by Ray, and what it had in hand is made once more, by the same counters: nothing is used twice or
lost.
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

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, float]


class TeacherActor:
    """A frozen teacher that makes endpoints for whoever asks."""

    def __init__(self, plain: dict[str, Any], folder: str, number: int, bulletin: Any) -> None:
        import ray

        settings = from_plain(Settings, plain)
        torch.set_num_threads(settings.cluster.cpus_per_worker)  # as the workers have: bits may follow from it
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        device = torch.device("cuda" if settings.cluster.use_gpu else "cpu")
        problem = open_problem(settings.pde, settings.data)
        self.rollout = open_rollout(settings, open_teacher(settings, Path(folder), problem, device))
        if ray.get_runtime_context().was_current_actor_reconstructed:
            bulletin.say.remote(
                f"warning: teacher actor {number} was lost and started again; what it had in hand is made again"
            )

    def process(self) -> int:
        """The number of its process."""
        return os.getpid()

    def make(self, counters: np.ndarray) -> Arrays:
        """Parameters, fields and checksums of endpoints, and the seconds that they took."""
        began = time.perf_counter()
        made = self.rollout.endpoints(torch.from_numpy(counters.copy()))
        fields = made.fields_BCYX.cpu().numpy()
        return made.params_BP.numpy(), fields, made.checksums.cpu().numpy(), time.perf_counter() - began


def start_actors(settings: Settings, folder: Path, plain: dict[str, Any], bulletin: Any) -> list[Any]:
    """As many actors as distill.actors says, one worker's resources each. The caller keeps them while workers use them."""
    import ray

    c = settings.cluster
    kind = ray.remote(TeacherActor).options(
        num_cpus=c.cpus_per_worker,
        num_gpus=1 if c.use_gpu else 0,
        max_restarts=-1,
        max_task_retries=-1,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": str(c.cpus_per_worker)}},
    )
    return [kind.remote(plain, str(folder), number, bulletin) for number in range(settings.distill.actors)]


class Served:
    """Endpoints of actors, asked for in turns, beginning with the one of this worker's number."""

    def __init__(self, actors: Sequence[Any], number: int, ahead: int, timeout: float, device: torch.device) -> None:
        self.actors, self.turn, self.ahead, self.timeout, self.device = list(actors), number, ahead, timeout, device
        self.wanted: Iterator[Tensor] = iter(())
        self.asked: deque[tuple[Tensor, Any]] = deque()
        self.tally, self.started = Tally(), False

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
        """Ask for the first rows at once."""
        self.wanted, self.started = wanted, True
        self._fill()

    def get(self, counters: Tensor) -> Endpoints:
        """The next row. UserError where no actor gives one within the timeout of the cluster."""
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
        except ray.exceptions.RayActorError as error:  # one that was lost is started again; this one could not start
            said = str(getattr(error, "cause", None) or error).strip().splitlines()
            raise UserError(f"distill.source=actors: a teacher actor could not start: {said[-1]}") from None
        if self.started:
            self.tally.spent, self.tally.waited = (
                self.tally.spent + seconds,
                self.tally.waited + time.perf_counter() - began,
            )
            self._fill()
        self.tally.add(len(counters), seconds)
        to = torch.tensor(fields, device=self.device), torch.tensor(checksums)  # copies: Ray's own memory is let go
        return Endpoints(counters, torch.tensor(params), *to)

    def close(self) -> None:
        """Ask for no more."""
        self.wanted, self.asked = iter(()), deque()
