"""Typed settings as frozen dataclasses, one section for each part of a run: each with its default and its bounds.

The defaults are those of the command line; a file of configs/ holds what its choice changes. An unknown key, a wrong type or
a value outside its bounds is an error. What an equation or an objective takes is declared in its own file, and read when it
is used: `pde.params` and `distill.objective`. Takes and gives plain values: knows no Hydra (app/ composes the files), no
ranks and no equations. Imports no torch, unless the class of an objective is asked for (`objective_class`).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from pidscale.renamed import renewed
from pidscale.setting import UserError as UserError
from pidscale.setting import exact as exact
from pidscale.setting import from_plain as from_plain
from pidscale.setting import setting as setting
from pidscale.setting import to_flat as to_flat
from pidscale.setting import to_plain as to_plain
from pidscale.setting import with_default

NOISES = ("edm", "vp", "subvp", "flow")  # which levels; diffusion/noise.py says what they are
SOURCES = ("inline", "thread", "actors", "shards")  # of endpoints
SOLVERS = ("euler", "heun", "dpm2m")  # of the probability-flow ODE; diffusion/solvers.py says what they are
PRECISIONS = ("fp32", "bf16")
PHASES = ("teacher", "distill")


@dataclass(frozen=True)
class PdeSettings:
    """Which equation.

    Attributes:
        name: A name of the library, or `module:Class` for one's own.
        params: Its parameters; those left out have the equation's defaults.
        points: Points a side; null: those of the shard set.
    """

    name: str = "darcy"
    params: dict[str, Any] = field(default_factory=dict)
    points: int | None = setting(32, at_least=4, at_most=2**14)


@dataclass(frozen=True)
class DataSettings:
    """The shard set: where it is, how it is read; train, test, samples_per_shard and seed are what make_shards makes.

    Attributes:
        path: A folder, or an address such as s3://bucket/set.
        train: Samples to train on.
        test: Samples that no training sees.
        samples_per_shard: Samples of a shard.
        seed: Of the samples.
        verify: Check every row block that is read.
        prefetch: Batches read ahead.
        threads: Threads that read ahead; 0: read within the step.
        on_bad_sample: `refuse` or `skip` damaged samples.
        cache: Of a remote set: a folder for its shards.
        cache_gib: The most that the cache may hold.
        patience: Seconds for which a remote store may be away.
    """

    path: str = "shards/darcy32"
    train: int = setting(6144, at_least=1)
    test: int = setting(3072, at_least=1)
    samples_per_shard: int = setting(512, at_least=1)
    seed: int = setting(0, at_least=0)
    verify: bool = True
    prefetch: int = setting(2, at_least=1, at_most=64, why="each is a whole batch in memory")
    threads: int = setting(1, at_least=0)
    on_bad_sample: str = setting("refuse", choices=("refuse", "skip"))
    cache: str | None = None
    cache_gib: float = setting(100.0, above=0)
    patience: float = setting(300.0, at_least=0)


@dataclass(frozen=True)
class ModelSettings:
    """The network.

    Attributes:
        kind: `unet` or `fno`.
        size: Chooses a preset of the kind.
        change: Replaces values of the preset.
        precision: `fp32` or `bf16`.
        recompute: Keep less for the backward pass and compute it once more (activation checkpointing): a third more time.
    """

    kind: str = "unet"
    size: str = "tiny"
    change: dict[str, Any] = field(default_factory=dict)
    precision: str = setting("fp32", choices=PRECISIONS)
    recompute: bool = False


@dataclass(frozen=True)
class TrainSettings:
    """What both loops share.

    Attributes:
        steps: Steps in all.
        global_batch: Samples of a step, of all workers.
        micro_batch: The most samples that one worker holds at once; accumulation follows from it.
        lr: The highest learning rate.
        warmup: Steps over which the rate rises to it.
        clip: Norm to which gradients are clipped; 0: off.
        ema: Half-life of the weight average as a share of the steps done so far.
        max_skips: Steps in a row without a finite gradient that end the run.
        log_every: Steps between two lines of progress.
        checkpoint_every: Steps between two checkpoints.
        keep: Checkpoints that are kept.
    """

    steps: int = setting(1000, at_least=1, at_most=10**7, why="checkpoints are named by the step")
    global_batch: int = setting(32, at_least=1)
    micro_batch: int = setting(16, at_least=1)
    lr: float = setting(3.0e-3, above=0, at_most=1e30, why="Adam's step would leave float32")
    warmup: int = setting(100, at_least=0)
    clip: float = setting(1.0, at_least=0, why="0 is off")
    ema: float = setting(0.03, above=0)
    max_skips: int = setting(20, at_least=1)
    log_every: int = setting(25, at_least=1)
    checkpoint_every: int = setting(250, at_least=1)
    keep: int = setting(2, at_least=1)


@dataclass(frozen=True)
class TeacherSettings(TrainSettings):
    """Training of the teacher.

    Attributes:
        noise: Which levels it learns: `edm`, `vp`, `subvp`, or `flow`, which predicts the velocity.
        evaluate_every: Steps between two evaluations.
        evaluate_samples: Samples of an evaluation.
        evaluate_steps: Solver steps of each.
        sigma_max: The highest level; null: it follows from data and grid, as do the next two, which are of `edm` alone.
        p_mean: Mean of the logarithm of a training level.
        p_std: Its standard deviation.
        start: Folder of a finished teacher whose weights, units and levels this one goes on from; null: new weights.
    """

    noise: str = setting("edm", choices=NOISES)
    evaluate_every: int = setting(500, at_least=1)
    evaluate_samples: int = setting(64, at_least=1)
    evaluate_steps: int = setting(9, at_least=1)
    sigma_max: float | None = setting(None, above=0)
    p_mean: float | None = setting(None)
    p_std: float | None = setting(None, above=0)
    start: str | None = None


_WEIGHT: dict[str, Any] = {"at_least": 0, "at_most": 10**6, "why": "nothing would be left of the match"}


@dataclass(frozen=True)
class LambdaSettings:
    """Weights of the residual's terms, dimensionless: each term is divided by its own scale of the teacher's samples.

    The defaults are for equations without a file in configs/physics/.

    Attributes:
        l2: Of the interior residual in l2.
        dual: Of the interior residual in the dual norm.
        boundary: Of the residual on the edge.
        conservation: Of budgets: the residual's mean over space, which a dual norm may not see.
        initial: Of the first interval of time, in addition to its share of the others.
    """

    l2: float = setting(0.002, **_WEIGHT)
    dual: float = setting(0.02, **_WEIGHT)
    boundary: float = setting(0.002, **_WEIGHT)
    conservation: float = setting(0.0, **_WEIGHT)
    initial: float = setting(0.0, **_WEIGHT)


@dataclass(frozen=True)
class ObjectiveSettings:
    """What every section `distill.objective` holds; each objective has a class of its own, which adds its settings.

    Attributes:
        name: Which objective, a key of `pidscale.distill.objectives.OBJECTIVES`.
    """

    name: str


USUAL = "piddm"  # the objective that is meant where none is named


def objective_class(name: Any) -> Any:
    """Return the class of an objective, which says what it needs: `pidscale.distill.objectives.base.Objective`.

    It imports the room of the objectives, and with it torch. That happens when a distillation begins. It happens when
    settings are read only if `distill.source` of a distillation is not `inline` (limits.py), or if a setting of an objective
    has its default value under the name of an earlier version (renamed.py).

    Args:
        name: The name of the objective.

    Returns:
        The class.

    Raises:
        UserError: There is no such objective.
    """
    objectives = importlib.import_module("pidscale.distill.objectives").OBJECTIVES
    if not isinstance(name, str) or name not in objectives:
        raise UserError(f"distill.objective.name={name!r}: expected one of {', '.join(objectives)}")
    return objectives[name]


@dataclass(frozen=True)
class DistillSettings(TrainSettings):
    """Distillation.

    Attributes:
        steps: See `TrainSettings`.
        lr: See `TrainSettings`.
        warmup: See `TrainSettings`.
        checkpoint_every: See `TrainSettings`.
        objective: What students are trained to do: the name of an objective, and those of its settings that differ from its
            defaults. `own` reads it.
        source: Who makes endpoints, and when: `inline` in the step, a `thread` ahead of it, `actors`; or a set of `shards`.
        ahead: Global batches of endpoints that may be ready before they are needed.
        actors: Teacher actors of source `actors`, each with the resources of a worker.
        endpoints: The set of source `shards`, which `pidscale make-endpoints` makes.
        teacher: Folder of a consolidated teacher; null: this run's own.
        start: Weights that students begin with: those of the `teacher`, or new ones (`scratch`).
        solver: Of the endpoints.
        solver_steps: Of the endpoints.
        buffer_rows: Global batches of endpoints that are held.
        reuse: How often each endpoint is used.
        chunk: Samples in one call of the teacher.
        norm: Of the interior residual: `l2`, `dual` or `both`.
        weights: Of the residual's terms.
        physics_weight: A factor of all of them: the losses of the objectives differ in size.
        physics_from: Share of the steps before the residual counts; until then student and control are one.
        physics_ramp: Share of the steps over which it then grows to its weight.
        gradient_to: What the residual may move: the `solution`, also the `shape` of the inputs, or `all`.
        constraints: Hard ones that the student's output is held to.
        control: Train the control beside the student: the same without the residual, on the same endpoints.
        scale_samples: Teacher's samples that the scale of each term is measured on.
        scale_steps: Solver steps of each.
        teacher_precision: Of the frozen teacher's calls.
        carry_teacher: Put the teacher into the student's folder, for samples of more calls than one.
    """

    steps: int = with_default(TrainSettings, "steps", 1100)
    lr: float = with_default(TrainSettings, "lr", 2.0e-3)
    warmup: int = with_default(TrainSettings, "warmup", 50)
    checkpoint_every: int = with_default(TrainSettings, "checkpoint_every", 400)
    objective: dict[str, Any] = field(default_factory=lambda: {"name": USUAL})
    source: str = setting("inline", choices=SOURCES)
    ahead: int = setting(2, at_least=1, at_most=2**12, why="each is a whole batch in memory")
    actors: int = setting(1, at_least=1)
    endpoints: str | None = None
    teacher: str | None = None
    start: str = setting("teacher", choices=("teacher", "scratch"))
    solver: str = setting("dpm2m", choices=SOLVERS)
    solver_steps: int = setting(24, at_least=1, at_most=10_000, why="an endpoint takes a teacher call or two for each")
    buffer_rows: int = setting(32, at_least=1, at_most=2**20, why="each is a whole batch in memory")
    reuse: int = setting(34, at_least=1)
    chunk: int = setting(16, at_least=1)
    norm: str = setting("both", choices=("l2", "dual", "both"))
    weights: LambdaSettings = field(default_factory=LambdaSettings)
    physics_weight: float = setting(1.0, **_WEIGHT)
    physics_from: float = setting(0.33, at_least=0, below=1, why="it is a share of the steps")
    physics_ramp: float = setting(0.0, at_least=0, at_most=1, why="it is a share of the steps")
    gradient_to: str = setting("shape", choices=("solution", "shape", "all"))
    constraints: list[str] = field(default_factory=list)
    control: bool = True
    scale_samples: int = setting(128, at_least=1, at_most=2**20, why="all are in memory at once")
    scale_steps: int = setting(18, at_least=1, at_most=10_000, why="a sample takes two teacher calls for each")
    teacher_precision: str = setting("fp32", choices=PRECISIONS)
    carry_teacher: bool = False

    @classmethod
    def renewed(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Return the section under the names of today, with a line for each old name."""

        def known(objective: Any) -> list[str]:
            return [one.name for one in fields(objective_class(objective).settings_class)]

        return renewed(plain, known, lambda line: print(line, flush=True))

    @property
    def needs(self) -> Any:
        """The class of the objective, which says what it needs. Raises UserError for a name that there is not."""
        return objective_class(self.objective.get("name", USUAL))

    @property
    def own(self) -> Any:
        """The settings of the objective, as its own class reads them. Raises UserError as `from_plain` does."""
        return from_plain(self.needs.settings_class, self.objective, "distill.objective")

    @property
    def complete(self) -> Self:
        """The same with every value of the section `objective`."""
        return replace(self, objective=to_plain(self.own))

    @property
    def takes_endpoints(self) -> bool:
        """Whether the objective learns from endpoints of the teacher."""
        return bool(self.needs.targets(self.own).value == "endpoints")


@dataclass(frozen=True)
class EvaluateSettings:
    """The report.

    Attributes:
        samples: Of each row, and of the truths beside them.
        teacher_steps: Solver steps of the teacher's rows.
        calls: Further rows of the student, of so many network calls, the teacher's after its own.
        refine: Evaluations of each sample in a row of samples whose residual was lowered; 0: no such row.
        seed: Of the noise.
        batch: Samples generated at once.
    """

    samples: int = setting(1536, at_least=2, why="a variance needs two samples")
    teacher_steps: list[int] = setting([4, 18], at_least=1, some=True, distinct=True, why="each is a row of the report")
    calls: list[int] = setting(
        [], at_least=2, distinct=True, why="each is a row of the report; one call is the student's"
    )
    refine: int = setting(0, at_least=0)
    seed: int = setting(1000, at_least=0)
    batch: int = setting(64, at_least=1)


@dataclass(frozen=True)
class ClusterSettings:
    """Workers and ZeRO.

    Attributes:
        workers: Processes that train, one of Ray Train's each.
        cpus_per_worker: CPUs of each.
        use_gpu: Whether each has a GPU.
        space: Workers that share each field, by rows; side by side, so on one host where it holds them.
        zero_stage: What ZeRO splits over the workers: 0 nothing, 1 the optimiser, 2 also gradients, 3 also weights.
        max_failures: Lost workers or hosts after which a run still goes on by itself.
        wait: Seconds to wait for room on the cluster, at the start and after a loss.
        timeout: Seconds that a collective waits for a rank.
        deepspeed: Goes to DeepSpeed unchanged, once checked.
    """

    workers: int = setting(2, at_least=1)
    cpus_per_worker: int = setting(1, at_least=1)
    use_gpu: bool = False
    space: int = setting(1, at_least=1)
    zero_stage: int = setting(1, choices=(0, 1, 2, 3))
    max_failures: int = setting(0, at_least=0)
    wait: int = setting(600, at_least=0)
    timeout: int = setting(1800, at_least=1)
    deepspeed: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunSettings:
    """The run.

    Attributes:
        name: Its folder below `folder`.
        folder: Where runs live.
        seed: Of everything random but the shards.
        resume: What to do with an existing run: go on (`auto`), demand one (`must`), refuse it (`never`).
    """

    name: str = "run"
    folder: str = "runs"
    seed: int = setting(0, at_least=0)
    resume: str = setting("auto", choices=("auto", "must", "never"))


@dataclass(frozen=True)
class Settings:
    """All settings of a run, a section each."""

    pde: PdeSettings = field(default_factory=PdeSettings)
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    run: RunSettings = field(default_factory=RunSettings)
