"""A phase on the workers of a cluster: attempt after attempt, until it is finished, stopped, or has failed too often.

Ray Train runs one attempt; whether there is another is decided here, where the user is told of it. Knows Ray; knows no models
and no equations beyond what it hands on.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from pidscale.cluster.bulletin import Watch, open_bulletin
from pidscale.cluster.failures import Failure, failure
from pidscale.cluster.room import Need, described, hosts, wait_for_room
from pidscale.cluster.worker import Parcel, environment, work
from pidscale.config import ClusterSettings, Settings, UserError, to_plain
from pidscale.distill.endpoints.actors import start_actors
from pidscale.engine.checkpoint import newest_step
from pidscale.run.memory import MemoryPlan
from pidscale.run.reporting import STOP_FILE


class Stop:
    """Whether the user asked to end: SIGTERM (as `ray job stop` sends it) or Ctrl-C. Loops learn it from a stop file."""

    def __init__(self, folder: Path) -> None:
        self.file, self.asked = folder / STOP_FILE, False

    def __call__(self) -> bool:
        """Whether it was asked."""
        return self.asked

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        """Hear both signals until the body ends; the second Ctrl-C raises KeyboardInterrupt."""
        self.file.unlink(missing_ok=True)
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def ask(number: int, frame: object) -> None:
            if number == signal.SIGINT:
                if self.asked:
                    raise KeyboardInterrupt
                print("stopping with a checkpoint; Ctrl-C once more ends without", flush=True)
            self.asked = True
            self.file.touch()

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self.file.unlink(missing_ok=True)


def find_room(phase: str, settings: Settings, stop: Stop) -> None:
    """Wait until the cluster has room for the workers and actors of a phase. Raises UserError where it has none."""
    c = settings.cluster
    need = Need.of(c, {"cluster.workers": c.workers, "distill.actors": _actors(phase, settings)})
    wait_for_room(need, c.wait, stop, _say(phase))


def fit(phase: str, settings: Settings, folder: Path, plan: MemoryPlan, stop: Stop) -> None:
    """Run a phase on the cluster, which has room for it, until it has ended or was stopped.

    Raises:
        UserError: A worker met a user's mistake, workers were lost more often than `cluster.max_failures`, or there was no
            room for others within `cluster.wait`.
    """
    bulletin, plain = open_bulletin(), to_plain(settings)
    served = start_actors(settings, folder, plain, bulletin) if _actors(phase, settings) else []
    with _mark(folder) as mark:
        _attempts(settings.cluster, Parcel(phase, plain, str(folder), mark, plan, bulletin, 0, served), stop)


def _actors(phase: str, settings: Settings) -> int:
    """How many teacher actors a phase has."""
    return settings.distill.actors if phase == "distill" and settings.distill.source == "actors" else 0


def _attempts(c: ClusterSettings, parcel: Parcel, stop: Stop) -> None:
    """Attempts until one ends by itself, or no other may follow."""
    phase, folder, lost, patience = parcel.phase, Path(parcel.folder), 0, time.monotonic() + c.wait
    need = Need.of(c, {"cluster.workers": c.workers})
    for attempt in range(1, 10**6):
        failed = _attempt(c, replace(parcel, attempt=attempt), need, stop)
        if failed is None:
            return
        if failed.users:
            raise UserError(failed.line)
        goes_on = f"the same command goes on {_from_step(folder, phase)}"
        if stop():
            raise UserError(f"{folder}: {phase} was stopped after a failure: {failed.line}; {goes_on}")
        lost += failed.started
        if failed.started and lost > c.max_failures:
            times = f"failure {lost}, cluster.max_failures={c.max_failures}"
            raise UserError(f"{folder}: {phase}: {failed.line}; {times}; {goes_on}")
        if failed.started:
            patience = time.monotonic() + c.wait
            count = f"failure {lost} of cluster.max_failures={c.max_failures}"
        else:
            count = "nothing was lost"
        if time.monotonic() > patience:
            raise UserError(f"{folder}: {phase}: {failed.line}; cluster.wait={c.wait} s are over; {goes_on}")
        _say(phase)(f"{failed.line}; {count}; goes on {_from_step(folder, phase)}")
        wait_for_room(need, max(0.0, patience - time.monotonic()), stop, _say(phase))


def _attempt(c: ClusterSettings, parcel: Parcel, need: Need, stop: Stop) -> Failure | None:
    """One attempt by Ray Train; what ended it too early, if anything did."""
    from ray.train import ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import FailureConfig, RunConfig

    phase, folder = parcel.phase, Path(parcel.folder)
    ray.get(parcel.bulletin.begin.remote(parcel.attempt))
    resources: dict[str, float] = {name: float(count) for name, count in need.each.items()}
    trainer = TorchTrainer(
        work,
        train_loop_config={"parcel": parcel},
        torch_config=TorchConfig(timeout_s=c.timeout),
        scaling_config=ScalingConfig(num_workers=c.workers, use_gpu=c.use_gpu, resources_per_worker=resources),
        run_config=RunConfig(  # type: ignore[arg-type]
            name=f"{phase}-{int(time.time() * 1000)}",  # our checkpoints alone decide where to resume
            storage_path=str(folder / "ray"),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
            worker_runtime_env={"env_vars": environment(c)},
        ),
    )
    controllers: list[Any] = []
    trainer._register_sigint_handler = controllers.append  # type: ignore[attr-defined]  # its own would abort
    watch = Watch(
        phase,
        parcel.bulletin,
        stop,
        lambda: f"{need} on {described(hosts(), need.each)}",
        lambda: _end(controllers),
    )
    try:
        with watch.watching():
            trainer.fit()
    except TrainingFailedError as error:
        return failure(error, watch.word.places, folder, phase)
    except ray.exceptions.RayActorError as error:  # the controller's process
        if watch.abandoned:
            return Failure("its workers had not started", started=False)
        return failure(error, watch.word.places, folder, phase)
    return None


def _end(controllers: list[Any]) -> None:
    """End Ray Train's controller, and with it all that it has started."""
    for controller in controllers:
        ray.kill(controller)


def _say(phase: str) -> Any:
    """Lines of this phase on the terminal."""
    return lambda text: print(f"{phase}: {text}", flush=True)


def _from_step(folder: Path, phase: str) -> str:
    """Where the next attempt begins, as far as the driver can see."""
    step = newest_step(folder / "checkpoints" / phase)
    return "from the beginning: no checkpoint yet" if step is None else f"from step {step}"


@contextlib.contextmanager
def _mark(folder: Path) -> Iterator[str]:
    """A new file in the run's folder, by which workers see whether theirs is the same folder; its name."""
    mark = folder / f".seen-{secrets.token_hex(4)}"
    mark.touch()
    try:
        yield mark.name
    finally:
        with contextlib.suppress(OSError):
            mark.unlink(missing_ok=True)
