"""Typed settings as frozen dataclasses, one section for each part of a run. An unknown key or a wrong type is an error.

Knows no Hydra (launch/ composes the files), no ranks and no equations: it receives and gives plain values.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

SOLVERS = ("euler", "heun", "dpm2m")  # of the probability-flow ODE; diffusion/solvers.py says what they are
PHASES = ("teacher", "distill")


class UserError(Exception):
    """A user's mistake: one clear line that names the file or key, what was expected and what to do."""


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
    """The network: kind and size choose a preset, `change` replaces values of it, precision is fp32 or bf16."""

    kind: str = "unet"
    size: str = "tiny"
    change: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"


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
    log_every: int = 25
    checkpoint_every: int = 500
    keep: int = 2


@dataclass(frozen=True)
class TeacherSettings(TrainSettings):
    """Training of the teacher. sigma_max, p_mean and p_std follow from data and grid where null."""

    evaluate_every: int = 1000
    evaluate_samples: int = 64
    evaluate_steps: int = 9
    sigma_max: float | None = None
    p_mean: float | None = None
    p_std: float | None = None


@dataclass(frozen=True)
class LambdaSettings:
    """Weights of the residual's terms, dimensionless: each term is divided by its own scale of the teacher's samples."""

    l2: float = 0.001
    dual: float = 0.006
    boundary: float = 0.002


@dataclass(frozen=True)
class DistillSettings(TrainSettings):
    """Distillation. A ring of `ring` rows of global_batch endpoints, each used `reuse` times, made `chunk` at a time."""

    teacher: str | None = None  # folder of a consolidated teacher; this run's own where null
    solver: str = "heun"
    solver_steps: int = 18
    ring: int = 24
    reuse: int = 24
    chunk: int = 32
    norm: str = "both"  # l2, dual or both
    weights: LambdaSettings = field(default_factory=LambdaSettings)
    huber: float = 0.0  # width of the pseudo-Huber match, in units of the model; 0: squared
    power: float = 0.0  # weight of the match of each channel's mean square, beside that of its points
    physics_from: float = 0.0  # share of the steps before the residual counts; until then student and twin are one
    gradient_to: str = "all"  # what the residual may move: the `solution`, also the `shape` of the inputs, or `all`
    constraints: list[str] = field(default_factory=list)  # hard ones that the student's output is held to
    twin: bool = True  # train the lambda = 0 student beside the student, on the same endpoints
    scale_samples: int = 512
    scale_steps: int = 18


@dataclass(frozen=True)
class EvaluateSettings:
    """The report: how many samples, how many steps the teacher rows take."""

    samples: int = 1536
    teacher_steps: list[int] = field(default_factory=lambda: [4, 18])
    seed: int = 1000
    batch: int = 64


@dataclass(frozen=True)
class ClusterSettings:
    """Workers and ZeRO. `deepspeed` goes to DeepSpeed as it stands, once checked."""

    workers: int = 2
    cpus_per_worker: int = 1
    use_gpu: bool = False
    zero_stage: int = 1
    max_failures: int = 0
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
        return float(value)
    if not isinstance(value, origin) or (isinstance(value, bool) and origin is not bool):
        raise UserError(f"{name}={value!r}: expected {origin.__name__}, got {type(value).__name__}")
    return dict(value) if origin is dict else value


def to_plain(settings: Any) -> dict[str, Any]:
    """Settings as plain JSON values."""
    return dataclasses.asdict(settings)


def to_flat(settings: Settings) -> dict[str, Any]:
    """Settings as one dictionary of `section.key`."""
    return {f"{s}.{k}": v for s, section in to_plain(settings).items() for k, v in section.items()}


def check(settings: Settings, phases: Sequence[str] = PHASES) -> None:
    """Check ranges and choices, section by section. Raises UserError that names the key.

    phases: those to come, whose batches must fit the workers; a script asks for its own only.
    """
    s = settings
    choices = {
        "distill.solver": (s.distill.solver, SOLVERS),
        "distill.norm": (s.distill.norm, ("l2", "dual", "both")),
        "distill.gradient_to": (s.distill.gradient_to, ("solution", "shape", "all")),
        "model.precision": (s.model.precision, ("fp32", "bf16")),
        "run.resume": (s.run.resume, ("auto", "must", "never")),
        "cluster.zero_stage": (s.cluster.zero_stage, (0, 1, 2, 3)),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise UserError(f"{name}={value!r}: expected one of {', '.join(map(str, allowed))}")
    for section, keys in _POSITIVE.items():
        for key in keys:
            if not 0 < getattr(getattr(s, section), key) < math.inf:
                raise UserError(f"{section}.{key}={getattr(getattr(s, section), key)}: expected more than 0, finite")
    if s.data.on_bad_sample not in ("refuse", "skip"):
        raise UserError(f"data.on_bad_sample={s.data.on_bad_sample!r}: expected refuse or skip")
    if s.data.threads < 0 or not 0 <= s.data.patience < math.inf:
        raise UserError(f"data.threads={s.data.threads}, data.patience={s.data.patience}: expected 0 or more, finite")
    if s.pde.points is not None and not 4 <= s.pde.points <= 2**14:
        raise UserError(f"pde.points={s.pde.points}: expected 4 to {2**14}")
    for section in PHASES:
        if section in phases and getattr(s, section).global_batch < s.cluster.workers:
            raise UserError(
                f"{section}.global_batch={getattr(s, section).global_batch} is smaller than "
                f"cluster.workers={s.cluster.workers}: give every worker at least one sample, or use fewer workers"
            )
        if not 0 <= getattr(s, section).clip < math.inf or getattr(s, section).warmup < 0:
            values = f"{section}.clip={getattr(s, section).clip}, {section}.warmup={getattr(s, section).warmup}"
            raise UserError(f"{values}: expected 0 (off) or more, finite")
    for key in ("sigma_max", "p_mean", "p_std"):
        value = getattr(s.teacher, key)
        if value is not None and not (math.isfinite(value) and (value > 0 or key == "p_mean")):
            raise UserError(f"teacher.{key}={value}: expected a finite number" + ", more than 0" * (key != "p_mean"))
    if "teacher" in phases and s.teacher.evaluate_samples < s.cluster.workers:
        raise UserError(
            f"teacher.evaluate_samples={s.teacher.evaluate_samples} is smaller than cluster.workers={s.cluster.workers}: "
            "every worker measures at least one sample"
        )
    for key in ("l2", "dual", "boundary"):
        if not 0 <= getattr(s.distill.weights, key) < math.inf:
            raise UserError(f"distill.weights.{key}={getattr(s.distill.weights, key)}: expected 0 or more")
    if not 0 <= s.distill.power < math.inf:
        raise UserError(f"distill.power={s.distill.power}: expected a weight, 0 or more")
    if not 0 <= s.distill.huber < math.inf:
        raise UserError(f"distill.huber={s.distill.huber}: expected a width, or 0 for the squared difference")
    if not 0 <= s.distill.physics_from < 1:
        raise UserError(
            f"distill.physics_from={s.distill.physics_from}: expected a share of the steps, 0 or more and below 1"
        )
    if "distill" in phases:
        _check_rows(s)
    if min(s.evaluate.teacher_steps, default=0) < 1:
        raise UserError(f"evaluate.teacher_steps={s.evaluate.teacher_steps}: expected step counts of 1 or more")
    if s.evaluate.samples < 2:
        raise UserError(f"evaluate.samples={s.evaluate.samples}: a variance needs 2 or more")
    if s.cluster.max_failures < 0:
        raise UserError(f"cluster.max_failures={s.cluster.max_failures}: expected 0 or more")
    name = s.run.name
    if not name.isprintable() or "/" in name or name.startswith(".") or not 0 < len(name) <= 100:
        raise UserError(
            f"run.name={name[:120]!r}: expected up to 100 characters without '/' that do not start with '.'"
        )
    for key, folder in (("run.folder", s.run.folder), ("data.path", s.data.path)):
        if not folder.strip():
            raise UserError(f"{key}={folder!r}: expected a folder; write out the default, or leave the key away")


_LOOP = ["steps", "micro_batch", "lr", "ema", "log_every", "checkpoint_every", "keep"]
_POSITIVE = {
    "data": ["train", "test", "samples_per_shard", "prefetch", "cache_gib"],
    "teacher": [*_LOOP, "evaluate_every", "evaluate_samples", "evaluate_steps"],
    "distill": [*_LOOP, "solver_steps", "ring", "reuse", "chunk", "scale_samples", "scale_steps"],
    "evaluate": ["samples", "batch"],
    "cluster": ["workers", "cpus_per_worker", "timeout"],
}


def _check_rows(s: Settings) -> None:
    share, d = s.distill.global_batch // s.cluster.workers, s.distill
    if d.global_batch % s.cluster.workers or share % d.chunk:
        raise UserError(
            f"distill.chunk={d.chunk} must divide the {d.global_batch} / {s.cluster.workers} samples of each worker "
            "(distill.global_batch / cluster.workers), so that endpoints are made in the same chunks everywhere"
            + (f": set distill.chunk={math.gcd(d.chunk, share)}" if d.global_batch % s.cluster.workers == 0 else "")
        )
    if d.scale_samples % d.global_batch:
        raise UserError(
            f"distill.scale_samples={d.scale_samples} must be a multiple of distill.global_batch={d.global_batch}"
        )
