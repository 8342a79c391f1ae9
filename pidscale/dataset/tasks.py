"""One Ray task for each shard, as many at a time as the cluster has room for. Knows Ray, no equations and no records."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pidscale.config import UserError
from pidscale.dataset.publish import FinishedShard

_CHECK_INTERVAL = 15.0  # seconds between two checks of a cluster on which no task finishes
_PATIENCE = 600.0  # seconds to wait while no host is large enough for a task

Progress = Callable[[int, int], None]  # the samples done, the total
Job = TypeVar("Job")
Result = TypeVar("Result")


def report_progress(shards: Iterable[FinishedShard], total: int, progress: Progress | None) -> Iterator[FinishedShard]:
    """Pass shards on and report the samples done after each.

    Args:
        shards: Shards as they finish.
        total: The number of samples in all shards.
        progress: Called with the samples done and the total.

    Yields:
        The same shards.
    """
    done = 0
    for shard in shards:
        done += shard.entry.samples
        if progress is not None:
            progress(done, total)
        yield shard


def cluster_cpus() -> int:
    """Return the CPUs of the Ray cluster that this process is connected to.

    Returns:
        At least 1.

    Raises:
        UserError: The process is not connected to a cluster.
    """
    import ray

    if not ray.is_initialized():
        raise UserError("parallel=True needs a running Ray: call ray.init first, or use parallel=False")
    resources: dict[str, float] = ray.cluster_resources()
    return max(1, int(resources.get("CPU", 1)))


def run_in_ray(
    make: Callable[[Job], Result],
    jobs: Sequence[Job],
    limit: int,
    num_cpus: int = 1,
    num_gpus: int = 0,
    lost: Callable[[Job, str], Result] | None = None,
    longest: float = math.inf,
) -> Iterator[Result]:
    """Run one Ray task for each job; the first error cancels the others.

    Args:
        make: Does a job in a task; a function of a module.
        jobs: What is sent to the tasks.
        limit: The number of tasks that are submitted at a time.
        num_cpus: The CPUs of a task.
        num_gpus: The GPUs of a task.
        lost: Returns what stands for the result of a task that was lost too often, given its job and the reason; without it,
            the first such task is an error.
        longest: Seconds after which a task is ended and counts as lost; for those with `lost` only.

    Yields:
        What the tasks return, as they finish; it should be small.

    Raises:
        UserError: A task raised one or was lost too often, or no host was large enough for a task for ten minutes.
        ray.exceptions.RayTaskError: A task raised another exception.
    """
    import ray

    # max_calls=0: a process serves many tasks; by default Ray ends one with a GPU after each task, and with it what it loaded
    task = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=3, max_calls=0)(make)
    waiting = list(reversed(jobs))
    running: dict[Any, tuple[Job, float]] = {}  # with the time by which it has to end
    without_host = 0.0  # seconds for which no host was large enough for a task
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                job = waiting.pop()
                running[task.remote(job)] = job, time.monotonic() + longest
            if (found := _next(running)) is not None:
                without_host = 0.0
                job, _ = running.pop(found)
                yield _result(found, job, lost, longest)
            elif not _has_host(num_cpus, num_gpus):
                without_host += _CHECK_INTERVAL
                _wait_for_host(without_host, num_cpus, num_gpus)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from None
        raise
    except ray.exceptions.RayError as error:  # a process or a host was lost more often than Ray retries a task
        raise UserError(
            f"a task was lost repeatedly ({_reason(error)}); the same command continues from what is made"
        ) from None
    finally:
        for unfinished in running:
            ray.cancel(unfinished)


def _next(running: Mapping[Any, tuple[Job, float]]) -> Any:
    """Return a task that has ended, or whose time is over; None if there is none for a while."""
    import ray

    wait = min([_CHECK_INTERVAL, *(max(0.0, end - time.monotonic()) for _, end in running.values())])
    ready, _ = ray.wait(list(running), num_returns=1, timeout=wait)
    late = (task for task, (_, end) in running.items() if time.monotonic() >= end)
    return ready[0] if ready else next(late, None)


def _result(task: Any, job: Job, lost: Callable[[Job, str], Result] | None, longest: float) -> Result:
    """Return the result of a task that has ended, or what `lost` says if its process ended each time or its time is over."""
    import ray

    if lost is None:
        found: Result = ray.get(task)
        return found
    try:
        found = ray.get(task, timeout=0)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(task, force=True)  # it may be in a call that an interrupt does not end
        found = lost(job, f"it took longer than {longest:g} s")
    except (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.NodeDiedError,
    ) as error:
        found = lost(job, f"its process was lost repeatedly ({_reason(error)})")
    return found


def _reason(error: Exception) -> str:
    """Return the first line of an error of Ray."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:160]


def _has_host(num_cpus: int, num_gpus: int) -> bool:
    """Return whether a host that is alive has as many CPUs and GPUs as a task needs."""
    import ray

    needs = {"CPU": num_cpus, "GPU": num_gpus}
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return any(all(has.get(name, 0) >= number for name, number in needs.items()) for has in alive)


def _wait_for_host(seconds: float, num_cpus: int, num_gpus: int) -> None:
    """Print that no host is large enough, or raise UserError after that was so for too long."""
    gpus = f" and {num_gpus} GPU{'s' * (num_gpus != 1)}" if num_gpus else ""
    missing = f"no host of the cluster has the {num_cpus} CPUs{gpus} that a task needs"
    if seconds >= _PATIENCE:
        raise UserError(
            f"{missing}, for {seconds:.0f} s; start one, then run the same command to continue from what is made"
        )
    print(f"waiting ({seconds:.0f} of {_PATIENCE:.0f} s): {missing}; start one", flush=True)
