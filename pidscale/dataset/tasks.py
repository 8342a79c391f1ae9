"""One Ray task for each shard, as many at a time as the cluster has room for. Knows Ray, no equations and no records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from pidscale.config import UserError
from pidscale.dataset.publish import FinishedShard

_LOOK_EVERY, _PATIENCE = (
    15.0,
    600.0,
)  # seconds between two looks at a cluster that gives nothing, and how long to wait for it


Progress = Callable[[int, int], None]


Job = TypeVar("Job")


def reported(made: Iterable[FinishedShard], total: int, progress: Progress | None) -> Iterator[FinishedShard]:
    """The same, telling after each shard how many samples are done."""
    done = 0
    for one in made:
        done += one.entry.samples
        if progress is not None:
            progress(done, total)
        yield one


def cluster_cpus() -> int:
    """CPUs of the Ray that is there. Raises UserError without one."""
    import ray

    if not ray.is_initialized():
        raise UserError("make_shard_set(parallel=True) needs a running Ray: call ray.init first, or use parallel=False")
    resources: dict[str, float] = ray.cluster_resources()
    return max(1, int(resources.get("CPU", 1)))


def in_ray(
    make: Callable[[Job], FinishedShard], jobs: Sequence[Job], limit: int, num_cpus: int = 1, num_gpus: int = 0
) -> Iterator[FinishedShard]:
    """Results of one Ray task per job, as they finish, at most `limit` in flight; the first error stops the rest."""
    import ray

    task = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=3)(make)
    waiting = list(reversed(jobs))
    running: list[Any] = []
    alone = 0.0  # seconds for which no host could hold a task
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                running.append(task.remote(waiting.pop()))
            ready, running = ray.wait(running, num_returns=1, timeout=_LOOK_EVERY)
            if ready:
                alone = 0.0
                yield ray.get(ready[0])
            elif (
                max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=0)
                < num_cpus
            ):
                alone += _LOOK_EVERY
                lacking = f"no host of the cluster has the {num_cpus} CPUs of a task left"
                if alone >= _PATIENCE:
                    raise UserError(
                        f"{lacking} for {alone:.0f} s; start one; the same command goes on from what is made"
                    )
                print(f"waiting ({alone:.0f} of {_PATIENCE:.0f} s): {lacking}; start one", flush=True)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from None
        raise
    except ray.exceptions.RayError as error:  # a process or host that was lost more often than a task is repeated
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"a task was lost again and again ({said[:160]}); the same command goes on from what is made"
        ) from None
    finally:
        for left in running:
            ray.cancel(left)
