"""A phase on the workers of a cluster: one attempt after another, until it is finished, stopped, or has failed too often.

Ray Train runs one attempt; this file decides whether another one follows, and tells the user. Knows Ray; knows models and
equations only as arguments that it passes on.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from pidscale.cluster.bulletin import BEAT, Watch, open_bulletin
from pidscale.cluster.changes import Changes
from pidscale.cluster.failures import Failure, failure
from pidscale.cluster.groups import across_hosts
from pidscale.cluster.room import Need, described, hosts, wait_for_room
from pidscale.cluster.worker import Assignment, work
from pidscale.config import ClusterSettings, Settings, UserError, to_plain
from pidscale.distill.endpoints.actors import start_actors
from pidscale.environment import worker_environment
from pidscale.limits import with_workers, worker_counts
from pidscale.paths import is_address
from pidscale.records.lock import Ownership
from pidscale.run.memory import MemoryPlan
from pidscale.run.places import is_made, open_shelf, run_folder, run_place
from pidscale.run.reporting import Request


class Stop:
    """Whether the user asked to stop, by SIGTERM (as `ray job stop` sends it) or Ctrl-C."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        """Return whether the user asked to stop."""
        return self.asked

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        """Handle both signals while the body runs; the second Ctrl-C raises KeyboardInterrupt."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def ask(number: int, frame: object) -> None:
            if number == signal.SIGINT:
                if self.asked:
                    raise KeyboardInterrupt
                print("stopping with a checkpoint; press Ctrl-C again to stop without one", flush=True)
            self.asked = True

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def find_room(phase: str, settings: Settings, stop: Stop) -> int:
    """Wait until the cluster has room for the workers and actors of a phase; UserError if it has none in time.

    Args:
        phase: `teacher` or `distill`.
        settings: The settings of the run.
        stop: Whether the user asked to stop.

    Returns:
        The number of workers that there is room for.
    """
    c = settings.cluster
    needs = _needs(phase, settings, _actors(phase, settings))
    return wait_for_room(needs, c, c.wait, stop, _say(phase)).asked["cluster.workers"]


def runs_at_once(phase: str, settings: Settings) -> int:
    """Return the number of such phases that the cluster could run at the same time, by all that it has; 0 if none fits.

    Args:
        phase: `teacher` or `distill`.
        settings: The settings of the runs.

    Returns:
        The number.
    """
    need = _needs(phase, settings, _actors(phase, settings))[0]
    return sum(need.fits(host.total) for host in hosts()) // need.parts


def _needs(phase: str, settings: Settings, actors: int = 0) -> list[Need]:
    """Return what the workers of a phase need beside a number of actors, for each number of workers, the largest first."""
    counts = worker_counts(settings, phase)
    return [Need.of(settings.cluster, {"cluster.workers": n, "distill.actors": actors}) for n in counts]


@dataclass(frozen=True)
class Driver:
    """What the driver of a run has at hand while its workers run.

    Attributes:
        owner: The holder of the run's folder, which is this process.
        stop: Whether the user asked to stop.
        plan_of: Returns the memory plan of settings, which the workers compare with what they have.
    """

    owner: Ownership
    stop: Stop
    plan_of: Callable[[Settings], MemoryPlan]


def fit(phase: str, settings: Settings, folder: Path, driver: Driver, workers: int) -> None:
    """Run a phase on the cluster, which has room for it, until it is finished or stopped.

    A UserError ends it if a worker met a user's mistake, if workers were lost more often than `cluster.max_failures`, or if
    there was no room for new ones within `cluster.wait`.

    Args:
        phase: `teacher` or `distill`.
        settings: The settings of the run.
        folder: The folder of the run.
        driver: What the driver has at hand.
        workers: The number of workers of the first attempt.
    """
    bulletin = open_bulletin()
    actors = start_actors(settings, folder, to_plain(settings), bulletin) if _actors(phase, settings) else []

    def assignment(attempt: int, workers: int) -> Assignment:
        own = with_workers(settings, workers)
        plan = driver.plan_of(own)
        timeout = _timeout(settings)
        return Assignment(phase, to_plain(own), str(folder), driver.owner, plan, bulletin, timeout, attempt, actors)

    _attempts(settings, assignment, workers, driver.stop)


def _timeout(settings: Settings) -> int:
    """Return the seconds that a collective waits for a rank, which may itself be waiting for an object store."""
    remote = is_address(settings.data.path) or is_address(settings.run.folder)
    return settings.cluster.timeout + (math.ceil(settings.data.patience) if remote else 0)


def _actors(phase: str, settings: Settings) -> int:
    """Return the number of teacher actors of a phase."""
    return settings.distill.actors if phase == "distill" and settings.distill.source == "actors" else 0


def _attempts(settings: Settings, assignment: Callable[[int, int], Assignment], workers: int, stop: Stop) -> None:
    """Start one attempt after another until one ends without a failure; UserError if no other may follow."""
    c = settings.cluster
    lost = 0
    deadline = time.monotonic() + c.wait
    for attempt in range(1, 10**6):
        given = assignment(attempt, workers)
        phase = given.phase
        needs = _needs(phase, settings)
        larger = [need for need in needs if need.parts > workers]
        failed = _attempt(with_workers(settings, workers).cluster, given, larger, stop)
        if failed is None:
            if stop() or is_made(phase, settings):
                return
            deadline = time.monotonic() + c.wait  # it stopped because the cluster changes
        else:
            lost += failed.started
            if failed.started:
                deadline = time.monotonic() + c.wait
            _say(phase)(_next_step(failed, lost, deadline, settings, phase, stop))
        seconds = max(0.0, deadline - time.monotonic())
        workers = wait_for_room(needs, c, seconds, stop, _say(phase)).parts


def _next_step(failed: Failure, lost: int, deadline: float, settings: Settings, phase: str, stop: Stop) -> str:
    """Return the line that says how a run goes on after a failure; UserError if it must not."""
    if failed.users:
        raise UserError(failed.line)
    c = settings.cluster
    place = run_place(settings)
    goes_on = f"the same command goes on {_from_step(settings, phase)}"
    if stop():
        raise UserError(f"{place}: {phase} was stopped after a failure: {failed.line}; {goes_on}")
    if failed.started and lost > c.max_failures:
        times = f"failure {lost}, cluster.max_failures={c.max_failures}"
        raise UserError(f"{place}: {phase}: {failed.line}; {times}; {goes_on}")
    if time.monotonic() > deadline:
        raise UserError(f"{place}: {phase}: {failed.line}; cluster.wait={c.wait} s are over; {goes_on}")
    count = f"failure {lost} of cluster.max_failures={c.max_failures}" if failed.started else "nothing was lost"
    return f"{failed.line}; {count}; goes on {_from_step(settings, phase)}"


def _attempt(c: ClusterSettings, assignment: Assignment, larger: Sequence[Need], stop: Stop) -> Failure | None:
    """Run one attempt with Ray Train; return its failure, None if there was none. It ends early if a larger need has room."""
    from ray.train import ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import FailureConfig, RunConfig

    phase = assignment.phase
    folder = Path(assignment.folder)
    need = Need.of(c, {"cluster.workers": c.workers})
    ray.get(assignment.bulletin.begin.remote(assignment.attempt))
    resources: dict[str, float] = {name: float(count) for name, count in need.each.items()}
    trainer = TorchTrainer(
        work,
        train_loop_config={"assignment": assignment},
        torch_config=TorchConfig(timeout_s=assignment.timeout),
        scaling_config=ScalingConfig(num_workers=c.workers, use_gpu=c.use_gpu, resources_per_worker=resources),
        run_config=RunConfig(  # type: ignore[arg-type]
            name=f"{phase}-{int(time.time() * 1000)}",  # new each time: only our own checkpoints decide where to resume
            storage_path=str(folder / "ray"),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
            worker_runtime_env={"env_vars": worker_environment(c, assignment.plan.total)},
        ),
    )
    controllers: list[Any] = []
    trainer._register_sigint_handler = controllers.append  # type: ignore[attr-defined]  # Ray's handler would abort
    changes = Changes(c.workers, larger, lambda: [place.host for place in watch.reports.places.values()], _say(phase))
    watch = Watch(
        phase,
        assignment.bulletin,
        lambda: Request.STOP if stop() else changes.asks,
        lambda: f"{need} on {described(hosts(), need.each)}",
        lambda: _end(controllers),
        max(assignment.timeout, 4 * BEAT),
        lambda places: across_hosts(places, c.workers, c.space),
    )
    try:
        with watch.watching(), changes.watching():
            trainer.fit()
    except TrainingFailedError as error:
        return failure(error, watch.reports.places, folder, phase)
    except ray.exceptions.RayActorError as error:  # of Ray Train's controller
        if watch.abandoned:
            return Failure("its workers had not started", started=False)
        return failure(error, watch.reports.places, folder, phase)
    return None


def _end(controllers: list[Any]) -> None:
    """Kill Ray Train's controller, and with it everything that it has started."""
    for controller in controllers:
        ray.kill(controller)


def _say(phase: str) -> Any:
    """Return a function that prints lines of a phase."""
    return lambda text: print(f"{phase}: {text}", flush=True)


def _from_step(settings: Settings, phase: str) -> str:
    """Return where the next attempt begins, as far as the driver can see."""
    step = open_shelf(settings, run_folder(settings), phase).newest_step()
    return "from the beginning: no checkpoint yet" if step is None else f"from step {step}"
