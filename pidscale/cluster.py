"""Ray Train around the two loops: placement, checks before anything starts, restarts, worker entry, live progress.

Knows Ray; knows no models and no equations beyond what it hands on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist

from pidscale.config import ClusterSettings, Settings, UserError, from_plain, to_plain
from pidscale.distill import loop as distill_loop
from pidscale.distill.cost import announcement
from pidscale.distill.physics import active_weights, further
from pidscale.distill.serve import Served, start_actors
from pidscale.engine.agree import agree
from pidscale.engine.memory import MemoryPlan, device_limit, memory_plan
from pidscale.engine.phases import absolute, begin, claimed, due, finish, run_folder
from pidscale.engine.plan import check_model, in_our_words, model_description, plan_lines, plan_text, warning
from pidscale.engine.reporting import STOP_FILE, Reporter, Stopped
from pidscale.engine.spread import check_split
from pidscale.generate.problem import open_problem
from pidscale.limits import check
from pidscale.meter import ProgressLine
from pidscale.parallel.mesh import Mesh
from pidscale.pde.base import check_measures
from pidscale.pde.constraints import check_constraints
from pidscale.student.artifact import CARD, read_card
from pidscale.teacher import loop as teacher_loop
from pidscale.teacher.start import open_start


def connect() -> None:
    """Join the Ray that this job or RAY_ADDRESS names; without one, start our own, whatever else runs on this machine."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    own: dict[str, Any] = {} if "RAY_ADDRESS" in os.environ else {"address": "local", "include_dashboard": False}
    ray.init(logging_level=logging.ERROR, log_to_driver=False, **own)


def check_resources(settings: ClusterSettings, asked: Mapping[str, int]) -> None:
    """Raise UserError where the cluster as it is cannot hold what is asked, each part of it with a worker's resources."""
    have, parts = ray.cluster_resources(), sum(asked.values())
    said = " and ".join(f"{name}={count}" for name, count in asked.items() if count)
    for name, count in {"CPU": parts * settings.cpus_per_worker, "GPU": parts if settings.use_gpu else 0}.items():
        if count > have.get(name, 0):
            raise UserError(
                f"{said}: they need {count} {name}s, this Ray cluster has "
                f"{have.get(name, 0):.0f}; use fewer (cluster.cpus_per_worker={settings.cpus_per_worker}) or start more"
            )


class _Bulletin:
    """The newest word of the first worker, for the driver's live line, and what it has to say besides."""

    def __init__(self) -> None:
        self.latest: tuple[int, int, str] | None = None
        self.texts: list[str] = []

    def post(self, done: int, total: int, note: str) -> None:
        self.latest = (done, total, note)

    def say(self, text: str) -> None:
        self.texts.append(text)

    def read(self) -> tuple[tuple[int, int, str] | None, list[str]]:
        texts, self.texts = self.texts, []
        return self.latest, texts


@contextlib.contextmanager
def _live_line(label: str, bulletin: Any) -> Iterator[None]:
    """Show what the bulletin says until the body ends."""
    ended = threading.Event()
    line: ProgressLine | None = None

    def look() -> None:
        nonlocal line
        with contextlib.suppress(ray.exceptions.RayError):
            latest, texts = ray.get(bulletin.read.remote())
            for text in texts:
                print(text, flush=True)
            if latest is not None:
                line = line or ProgressLine(label, latest[1])
                line.show(latest[0], latest[2])

    def watch() -> None:
        while not ended.wait(0.5):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        look()
        if line is not None:
            line.close()


@contextlib.contextmanager
def _stop_on_signal(folder: Path) -> Iterator[None]:
    """SIGTERM (as `ray job stop` sends it) and Ctrl-C ask the loops for a checkpoint through a stop file."""
    stop = folder / STOP_FILE
    stop.unlink(missing_ok=True)
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: object) -> None:
        if number == signal.SIGINT:
            if stop.exists():
                raise KeyboardInterrupt
            print("stopping with a checkpoint; Ctrl-C once more ends without", flush=True)
        stop.touch()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def worker(parcel: dict[str, Any]) -> None:
    """Entry of one Ray Train worker: set up the mesh, then run the loop of the phase."""
    import ray.train
    from ray.train.torch import get_device

    settings, folder = from_plain(Settings, parcel["settings"]), Path(parcel["folder"])
    context = ray.train.get_context()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # backward passes too
    rank, world, c = context.get_world_rank(), context.get_world_size(), settings.cluster
    agree(settings, Mesh(rank, world, get_device()))
    mesh = Mesh.over(rank, world, get_device(), c.space, c.timeout)
    bulletin = parcel["bulletin"]

    def progress(done: int, total: int, note: str) -> None:
        if mesh.first:
            bulletin.post.remote(done, total, note)

    phase, warned = parcel["phase"], warning(parcel["plan"], device_limit(mesh.device, context.get_local_world_size()))
    if context.get_local_rank() == 0 and warned:
        bulletin.say.remote(warned)
    d, reporter, extra = settings.distill, Reporter(folder, progress, bulletin.say.remote), {}
    if parcel["actors"]:
        extra["supply"] = Served(parcel["actors"], mesh.data_rank, d.ahead, c.timeout, mesh.device)
    try:
        with in_our_words(settings, phase):
            LOOPS[phase](settings, folder, mesh, reporter, **extra)
    except Stopped as stopped:
        if mesh.first:
            bulletin.say.remote(str(stopped))
            (folder / STOP_FILE).unlink(missing_ok=True)
    dist.barrier()


LOOPS: dict[str, Callable[..., dict[str, Any]]] = {
    "teacher": teacher_loop.train,
    "distill": distill_loop.train,
}


def fit(phase: str, settings: Settings, folder: Path, plan: MemoryPlan) -> None:
    """Run a phase on the cluster. Raises UserError with the worker's own line where a worker met a user's mistake."""
    from ray.train import ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import FailureConfig, RunConfig

    c = settings.cluster
    bulletin = ray.remote(num_cpus=0)(_Bulletin).remote()
    plain = to_plain(settings)
    parcel = {"settings": plain, "folder": str(folder), "phase": phase, "plan": plan, "bulletin": bulletin}
    parcel["actors"] = start_actors(settings, folder, plain, bulletin) if _actors(phase, settings) else []
    resources = {"CPU": c.cpus_per_worker} | ({"GPU": 1} if c.use_gpu else {})
    trainer = TorchTrainer(
        worker,
        train_loop_config=parcel,
        torch_config=TorchConfig(timeout_s=c.timeout),
        scaling_config=ScalingConfig(num_workers=c.workers, use_gpu=c.use_gpu, resources_per_worker=resources),
        run_config=RunConfig(  # type: ignore[arg-type]
            name=f"{phase}-{int(time.time() * 1000)}",  # our checkpoints alone decide where to resume
            storage_path=str(folder / "ray"),
            failure_config=FailureConfig(max_failures=c.max_failures),
            worker_runtime_env={"env_vars": _worker_environment(c)},
        ),
    )
    trainer._register_sigint_handler = lambda controller: None  # type: ignore[attr-defined]  # it would abort
    with _stop_on_signal(folder), _live_line(phase, bulletin):
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise _users(error) from None


# A CPU step frees and asks for the same few hundred MiB again and again; the C library would return them to the system each
# time and fault them in anew, more so off the main thread, where Ray Train runs the loops.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}


def _worker_environment(settings: ClusterSettings) -> dict[str, str]:
    environment = {"OMP_NUM_THREADS": str(settings.cpus_per_worker)}
    return environment if settings.use_gpu else environment | {"DS_ACCELERATOR": "cpu"} | KEEP_MEMORY


def _users(error: Exception) -> Exception:
    """The user's mistake behind a failed run, if there is one; else the failure itself."""
    for failure in getattr(error, "worker_failures", {}).values():
        cause: BaseException | None = failure
        while cause is not None:
            for known in (UserError, ValueError):
                if isinstance(cause, known):
                    return UserError("; ".join(line.strip() for line in str(cause).splitlines()[:3]))
            cause = getattr(cause, "base_exc", None) or cause.__cause__
    return error


def run_phase(phase: str, settings: Settings) -> Path:
    """Check everything a driver can check, then run a phase (`teacher` or `distill`) unless it is finished already.

    Returns the run's folder. Raises UserError before any worker starts wherever that is possible.
    """
    settings = absolute(settings)
    check(settings, (phase,))
    folder = run_folder(settings)
    problem = open_problem(settings.pde, settings.data)
    inputs = {"data.path (its data_hash)": problem.manifest.data_hash}
    if phase == "teacher":
        description = model_description(settings, problem.shape[0], len(problem.pde.varying))
        start = open_start(settings, problem)
        if start is not None:
            inputs["teacher.start (its weights)"] = start.card["weights"]["sha256"]
    else:
        teacher = distill_loop.open_teacher(settings, folder, problem, torch.device("cpu"))
        card = teacher.card
        description = card["architecture"]  # a student has its teacher's network, whatever the model section says
        check_constraints(problem.pde, settings.distill.constraints)
        check_measures(problem.pde, problem.grid, further(active_weights(settings.distill)))
        inputs["distill.teacher (its weights)"] = card["weights"]["sha256"]
    parameters = check_model(settings, description, problem.grid.shape)
    check_split(description, problem.pde, problem.grid, settings.cluster.space)
    if due(phase, settings, inputs):
        whose = "the teacher's network, " if phase == "distill" else ""
        print(f"{phase}: {whose}{plan_text(description, settings.cluster, parameters)}", flush=True)
        plan = memory_plan(settings, description, problem.grid.shape, phase, parameters)
        print(f"{phase}: {plan_lines(plan)}", flush=True)
        if phase == "distill":
            for line in announcement(settings, distill_loop.open_rollout(settings, teacher), problem.shape):
                print(f"{phase}: {line}", flush=True)
        with claimed(settings):
            connect()
            asked = {"cluster.workers": settings.cluster.workers, "distill.actors": _actors(phase, settings)}
            check_resources(settings.cluster, asked)
            _complete(phase, settings, folder, inputs, plan)
    else:
        print(f"{phase}: finished already in {folder}")
    return folder


def _actors(phase: str, settings: Settings) -> int:
    """How many teacher actors a phase has."""
    return settings.distill.actors if phase == "distill" and settings.distill.source == "actors" else 0


def _complete(phase: str, settings: Settings, folder: Path, inputs: dict[str, str], plan: MemoryPlan) -> None:
    """Begin a phase, or go on with it, and mark it finished."""
    if not begin(phase, settings, inputs):
        return
    print(f"{phase}: tensorboard --logdir {folder / 'tb'}", flush=True)
    fit(phase, settings, folder, plan)
    made = folder / ("teacher" if phase == "teacher" else "student")
    if not (made / CARD).exists():
        raise UserError(f"{folder}: {phase} was stopped; the same command goes on from its last checkpoint")
    finish(phase, settings, inputs)
    spent = read_card(made)["metrics"]
    source = "data" if phase == "teacher" else "endpoints of the teacher"
    print(
        f"{phase}: {spent['train_seconds']:.0f} s in all; {spent['wait_share']:.1%} of the steps' time waited for {source}"
    )
