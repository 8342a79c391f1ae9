"""Typed settings as frozen dataclasses, one section for each part of a run. An unknown key or a wrong type is an error.

Knows no Hydra (launch/ composes the files), no ranks and no equations: it receives and gives plain values.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

NOISES = ("edm", "vp", "subvp", "flow")  # which levels; diffusion/noise.py says what they are
OBJECTIVES = ("piddm", "pid", "dm")  # distill/ has a file for each
SOURCES = ("inline", "ring", "actors", "shards")  # of endpoints
SOLVERS = ("euler", "heun", "dpm2m")  # of the probability-flow ODE; diffusion/solvers.py says what they are
PHASES = ("teacher", "distill")


class UserError(Exception):
    """A user's mistake: one clear line that names the file or key, what was expected and what to do."""


def exact(number: float) -> str:
    """A number in as few digits as tell it from any other: what is refused never reads like its own bound."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))


@dataclass(frozen=True)
class PdeSettings:
    """Which equation, with which parameters, on how many points a side (null: the grid of the shard set)."""

    name: str = "darcy"
    params: dict[str, Any] = field(default_factory=dict)
    points: int | None = 32


@dataclass(frozen=True)
class DataSettings:
    """The shard set: where it is, how it is read; train, test, samples_per_shard and seed are what make_shards makes.

    path: a folder, or an address such as s3://bucket/set. verify: check every row block that is read. prefetch: batches read
    ahead, by `threads` threads (0: within the step). on_bad_sample: refuse, or skip. Of a remote set, cache: a folder for its
    shards, of cache_gib GiB at most; patience: seconds for which the store may be away.
    """

    path: str = "shards/darcy32"
    train: int = 6144
    test: int = 3072
    samples_per_shard: int = 512
    seed: int = 0
    verify: bool = True
    prefetch: int = 2
    threads: int = 1
    on_bad_sample: str = "refuse"
    cache: str | None = None
    cache_gib: float = 100.0
    patience: float = 300.0


@dataclass(frozen=True)
class ModelSettings:
    """The network: kind and size choose a preset, `change` replaces values of it, precision is fp32 or bf16.

    recompute: keep less for the backward pass and compute it once more (activation checkpointing); about a third more time.
    """

    kind: str = "unet"
    size: str = "tiny"
    change: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    recompute: bool = False


@dataclass(frozen=True)
class TrainSettings:
    """What both loops share: how many steps, on what batches, at which rate. global_batch counts all workers."""

    steps: int = 3000
    global_batch: int = 64
    micro_batch: int = 32  # the most samples one worker holds at once; accumulation follows from it
    lr: float = 2.0e-3
    warmup: int = 100
    clip: float = 1.0
    ema: float = 0.03  # half-life of the weight average as a share of the steps done so far
    max_skips: int = 20  # steps in a row without a finite gradient that end the run
    log_every: int = 25
    checkpoint_every: int = 500
    keep: int = 2


@dataclass(frozen=True)
class TeacherSettings(TrainSettings):
    """Training of the teacher. sigma_max, p_mean and p_std follow from data and grid where null; the latter two are EDM's.

    start: folder of a finished teacher whose weights, units and levels this one goes on from; null begins anew.
    """

    noise: str = "edm"  # which levels: edm, vp, subvp, or flow (which predicts the velocity)
    evaluate_every: int = 1000
    evaluate_samples: int = 64
    evaluate_steps: int = 9
    sigma_max: float | None = None
    p_mean: float | None = None
    p_std: float | None = None
    start: str | None = None


@dataclass(frozen=True)
class LambdaSettings:
    """Weights of the residual's terms, dimensionless: each term is divided by its own scale of the teacher's samples.

    The defaults are for equations without a file in configs/physics/.
    """

    l2: float = 0.002
    dual: float = 0.02
    boundary: float = 0.002
    conservation: float = 0.0  # of budgets: the residual's mean over space, which a dual norm may not see
    initial: float = 0.0  # of the first interval of time, in addition to its share of the others


@dataclass(frozen=True)
class DistillSettings(TrainSettings):
    """Distillation. A ring of `ring` rows of global_batch endpoints, each used `reuse` times, made `chunk` at a time."""

    objective: str = "piddm"  # match the teacher's endpoints; `pid`: its flow; `dm`: its distribution
    match: float = 4.0  # of dm: weight of the match with endpoints beside it; 0: without any
    source: str = "inline"  # of endpoints: in the step, by a thread ahead (`ring`), by `actors`, from `shards`
    ahead: int = 2  # rows of endpoints that may be ready before they are needed
    actors: int = 1  # teacher actors of source actors, each with the resources of a worker
    endpoints: str | None = None  # set of source shards, which `pidscale make-endpoints` makes
    teacher: str | None = None  # folder of a consolidated teacher; this run's own where null
    start: str = "teacher"  # weights that students begin with: those of the teacher, or new ones (`scratch`)
    solver: str = "heun"
    solver_steps: int = 18
    ring: int = 24
    reuse: int = 24
    chunk: int = 32
    norm: str = "both"  # l2, dual or both
    weights: LambdaSettings = field(default_factory=LambdaSettings)
    physics_weight: float = 1.0  # times every one of them: the losses of the objectives differ in size
    levels: int = 250  # of pid: its grid of noise levels
    distance: str = "l2"  # between fields that should be equal: squared, or l1
    huber: float = 0.0  # width of a pseudo-Huber l2 distance, in units of the model; 0: squared
    power: float = 0.0  # weight of the match of each channel's mean square, beside that of its points
    physics_from: float = 0.0  # share of the steps before the residual counts; until then student and twin are one
    physics_ramp: float = 0.0  # share of the steps over which it then grows to its weight
    gradient_to: str = "all"  # what the residual may move: the `solution`, also the `shape` of the inputs, or `all`
    constraints: list[str] = field(default_factory=list)  # hard ones that the student's output is held to
    twin: bool = True  # train the lambda = 0 student beside the student, on the same endpoints
    scale_samples: int = 512
    scale_steps: int = 18
    teacher_precision: str = "fp32"  # of the frozen teacher's calls
    carry_teacher: bool = False  # put the teacher into the student's folder, for samples of more calls than one

    @property
    def pairs(self) -> bool:
        """Whether the objective learns from endpoints of the teacher."""
        return self.objective == "piddm" or (self.objective == "dm" and self.match > 0)


@dataclass(frozen=True)
class EvaluateSettings:
    """The report: how many samples, how many steps the teacher rows take.

    calls: further rows of the student, of so many network calls, the teacher's after its own. refine: evaluations of each
    sample in a row of samples whose residual was lowered; 0: no such row.
    """

    samples: int = 1536
    teacher_steps: list[int] = field(default_factory=lambda: [4, 18])
    calls: list[int] = field(default_factory=list)
    refine: int = 0
    seed: int = 1000
    batch: int = 64


@dataclass(frozen=True)
class ClusterSettings:
    """Workers and ZeRO. `deepspeed` goes to DeepSpeed as it stands, once checked."""

    workers: int = 2
    cpus_per_worker: int = 1
    use_gpu: bool = False
    space: int = 1  # workers that share each field, by rows; side by side, so on one host where it holds them
    zero_stage: int = 1
    max_failures: int = 0  # lost workers or hosts after which a run still goes on by itself
    wait: int = 600  # seconds to wait for room on the cluster, at the start and after a loss
    timeout: int = 1800
    deepspeed: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunSettings:
    """The run's name, where runs live, its seed, and what to do with an existing one: auto, must or never resume."""

    name: str = "run"
    folder: str = "runs"
    seed: int = 0
    resume: str = "auto"


@dataclass(frozen=True)
class Settings:
    """All settings of a run."""

    pde: PdeSettings = field(default_factory=PdeSettings)
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    run: RunSettings = field(default_factory=RunSettings)


T = TypeVar("T")


def from_plain(kind: type[T], plain: Mapping[str, Any], where: str = "") -> T:
    """Build a settings dataclass from plain values. Raises UserError that names an unknown key or a wrong type."""
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in plain.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in hints:
            close = difflib.get_close_matches(str(key), hints, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(sorted(hints))}"
            raise UserError(f"{name}: unknown setting; {advice}")
        values[key] = _value(hints[key], value, name)
    return kind(**values)


def _value(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UserError(f"{name}={value!r}: expected a section with keys")
        return from_plain(typing.cast(type, hint), value, name)
    if isinstance(hint, types.UnionType):
        return None if value is None else _value(typing.get_args(hint)[0], value, name)
    origin = typing.get_origin(hint) or hint
    if origin is list and isinstance(value, list):
        return [_value(typing.get_args(hint)[0], item, name) for item in value]
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**1023 else math.inf
    if not isinstance(value, origin) or (isinstance(value, bool) and origin is not bool):
        raise UserError(f"{name}={value!r}: expected {origin.__name__}, got {type(value).__name__}")
    return dict(value) if origin is dict else value


def to_plain(settings: Any) -> dict[str, Any]:
    """Settings as plain JSON values."""
    return dataclasses.asdict(settings)


def to_flat(settings: Settings) -> dict[str, Any]:
    """Settings as one dictionary of `section.key`."""
    return {f"{s}.{k}": v for s, section in to_plain(settings).items() for k, v in section.items()}
