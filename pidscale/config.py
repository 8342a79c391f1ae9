"""Typed settings as frozen dataclasses, one section for each part of a run; every field has a default and, if needed, bounds.

The defaults are those of the command line; each file in configs/ lists only the values that it changes. An unknown key, a
value of the wrong type, or a value outside its bounds is an error. The settings of an equation (`pde.params`) and of an
objective (`teacher.objective`, `distill.objective`) are declared in its own file, and are checked when they are used.
Knows no Hydra (app/ composes the files), no ranks and no equations; imports no torch before `objective_class` needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from pidscale.objective_settings import USUAL as USUAL
from pidscale.objective_settings import ObjectiveSettings as ObjectiveSettings
from pidscale.objective_settings import objective_class as objective_class
from pidscale.renamed import renewed
from pidscale.setting import UserError as UserError
from pidscale.setting import distinct as distinct
from pidscale.setting import exact as exact
from pidscale.setting import from_plain as from_plain
from pidscale.setting import setting as setting
from pidscale.setting import to_flat as to_flat
from pidscale.setting import to_plain as to_plain
from pidscale.setting import with_default

NOISES = ("edm", "vp", "subvp", "flow")  # noise schedules, defined in diffusion/noise.py
SOURCES = ("inline", "thread", "actors", "shards")  # sources of endpoints
SOLVERS = ("euler", "heun", "dpm2m")  # solvers of the probability-flow ODE, defined in diffusion/solvers.py
PRECISIONS = ("fp32", "bf16")
PHASES = ("teacher", "distill")


@dataclass(frozen=True)
class PdeSettings:
    """Settings of the equation.

    Attributes:
        name: Name of a built-in equation, or `module:Class` for a custom one.
        params: Parameters of the equation; omitted ones keep the equation's defaults.
        points: Number of grid points per side; null: the grid of the shard set.
    """

    name: str = "darcy"
    params: dict[str, Any] = field(default_factory=dict)
    points: int | None = setting(32, at_least=4, at_most=2**14)


@dataclass(frozen=True)
class DataSettings:
    """Location and reading of the shard set; train, test, samples_per_shard and seed apply when shards are made.

    Attributes:
        path: Folder of the set, or its address, such as s3://bucket/set.
        train: Number of training samples.
        test: Number of held-out samples.
        samples_per_shard: Number of samples in each shard.
        seed: Random seed of the samples.
        verify: Whether to verify the checksum of every row block that is read.
        prefetch: Number of batches to read ahead.
        threads: Number of threads that read ahead; 0: batches are read within the step.
        on_bad_sample: Whether to `refuse` a set with damaged samples or to `skip` those samples.
        cache: Local folder in which the shards of a remote set are cached; null: no cache.
        cache_gib: Maximum size of the cache in GiB.
        patience: Number of seconds for which requests to an unavailable remote store are repeated.
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
    """Settings of the network.

    Attributes:
        kind: Kind of network, `unet` or `fno`.
        size: Name of a preset of this kind.
        change: Values that replace those of the preset.
        precision: Precision of the inner layers, `fp32` or `bf16`.
        recompute: Whether to recompute activations in the backward pass: less memory, about a third more time.
    """

    kind: str = "unet"
    size: str = "tiny"
    change: dict[str, Any] = field(default_factory=dict)
    precision: str = setting("fp32", choices=PRECISIONS)
    recompute: bool = False


@dataclass(frozen=True)
class TrainSettings:
    """Settings shared by teacher training and distillation.

    Attributes:
        steps: Total number of steps.
        global_batch: Number of samples per step, over all workers.
        micro_batch: Maximum number of samples that a worker processes at once; gradient accumulation follows from it.
        lr: Peak learning rate.
        warmup: Number of steps over which the learning rate rises to its peak.
        clip: Maximum norm of the gradients; 0: no clipping.
        ema: Half-life of the weight average, as a share of the steps done so far.
        max_skips: Number of consecutive skipped steps after which the run fails. A step without a finite gradient is skipped.
        log_every: Number of steps between two lines of progress.
        pictures: Number of pictures of samples that TensorBoard gets in the course of the run; 0: only one at its end.
        checkpoint_every: Number of steps between two checkpoints.
        keep: Number of the newest checkpoints to keep.
        keep_every: Number of steps between two checkpoints that are kept besides; 0: none. Those of its multiples stay.
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
    pictures: int = setting(10, at_least=0)
    checkpoint_every: int = setting(250, at_least=1)
    keep: int = setting(2, at_least=1)
    keep_every: int = setting(0, at_least=0, why="0 is off")


@dataclass(frozen=True)
class TeacherSettings(TrainSettings):
    """Settings of teacher training.

    Attributes:
        objective: Name of the objective, and those of its settings that differ from their defaults.
        noise: Noise schedule: `edm`, `vp`, `subvp`, or `flow`, with which the network predicts the velocity.
        evaluate_every: Number of steps between two evaluations.
        evaluate_samples: Number of samples per evaluation.
        evaluate_steps: Number of solver steps per sample of an evaluation.
        sigma_max: Highest noise level; null: chosen from the data.
        p_mean: Mean of the logarithm of the training noise levels, for `edm` only; null: chosen from the grid.
        p_std: Standard deviation of that logarithm, for `edm` only; null: the default of the schedule.
        start: Folder of a finished teacher that provides initial weights, units and noise levels; null: random weights.
    """

    objective: dict[str, Any] = field(default_factory=lambda: {"name": USUAL["teacher"]})
    noise: str = setting("edm", choices=NOISES)
    evaluate_every: int = setting(500, at_least=1)
    evaluate_samples: int = setting(64, at_least=1)
    evaluate_steps: int = setting(9, at_least=1)
    sigma_max: float | None = setting(None, above=0)
    p_mean: float | None = setting(None)
    p_std: float | None = setting(None, above=0)
    start: str | None = None

    @property
    def needs(self) -> Any:
        """The class of the objective. Raises UserError if there is no objective of this name."""
        return objective_class("teacher", self.objective.get("name", USUAL["teacher"]))

    @property
    def own(self) -> Any:
        """The settings of the objective as an instance of its settings class. Raises UserError as `from_plain` does."""
        return from_plain(self.needs.settings_class, self.objective, "teacher.objective")


_WEIGHT: dict[str, Any] = {"at_least": 0, "at_most": 10**6, "why": "nothing would be left of the match"}


@dataclass(frozen=True)
class LambdaSettings:
    """Weights of the terms of the residual, dimensionless because each term is divided by its scale on the teacher's samples.

    The defaults apply to equations without a file in configs/physics/.

    Attributes:
        l2: Weight of the interior residual in the l2 norm.
        dual: Weight of the interior residual in the dual norm.
        boundary: Weight of the residual on the boundary.
        conservation: Weight of the spatial mean of the residual (the budgets), which a dual norm may miss.
        initial: Additional weight of the first time interval, which the other terms include as well.
    """

    l2: float = setting(0.002, **_WEIGHT)
    dual: float = setting(0.02, **_WEIGHT)
    boundary: float = setting(0.002, **_WEIGHT)
    conservation: float = setting(0.0, **_WEIGHT)
    initial: float = setting(0.0, **_WEIGHT)


@dataclass(frozen=True)
class DistillSettings(TrainSettings):
    """Settings of the distillation.

    Attributes:
        steps: See `TrainSettings`.
        lr: See `TrainSettings`.
        warmup: See `TrainSettings`.
        checkpoint_every: See `TrainSettings`.
        objective: Name of the objective, and those of its settings that differ from their defaults.
        source: Source of the endpoints: computed within the step (`inline`), ahead of it by a `thread` or by `actors`, or
            read from a set of `shards`.
        ahead: Maximum number of global batches of endpoints that are prepared in advance.
        actors: Number of teacher actors for source `actors`; each has the resources of a worker.
        endpoints: Path of the endpoint set for source `shards`; `pidscale make-endpoints` writes it.
        teacher: Folder of a consolidated teacher; null: the teacher of this run.
        start: Initial weights of the students: those of the `teacher`, or random ones (`scratch`).
        solver: ODE solver for the endpoints.
        solver_steps: Number of solver steps per endpoint.
        buffer_rows: Number of global batches of endpoints in the buffer.
        reuse: Number of times each endpoint is used.
        chunk: Number of samples per call of the teacher.
        norm: Norm of the interior residual: `l2`, `dual` or `both`.
        weights: Weights of the terms of the residual.
        physics_weight: Factor of all these weights, because the losses of the objectives differ in magnitude.
        physics_from: Share of the steps after which the loss has the residual; until then student and control are identical.
        physics_ramp: Share of the steps over which the weight of the residual then rises to its full value.
        combine: How the gradients of residual and distillation are combined: `sum`; `conflict_free`, a direction that lowers
            both losses and does not depend on their weights; or `lagrangian`, the sum with weights that grow while the
            residual is above `goal` and shrink while it is below.
        goal: Root mean square of every term of the residual, relative to the teacher's samples, that `lagrangian` aims at.
        gradient_to: Fields that the residual's gradient changes: the `solution`, also the `shape` of the inputs, or `all`.
        constraints: Names of the hard constraints that the output of the student satisfies.
        head: Number of solver steps of the equation behind every field of the finished student.
        head_in_training: Whether the student is also trained through these steps.
        control: Whether to train the control as well: the same student without the residual, on the same endpoints.
        scale_samples: Number of teacher samples that the scale of each term is measured on.
        scale_steps: Number of solver steps per sample for the scales.
        teacher_precision: Precision of the frozen teacher, `fp32` or `bf16`.
        carry_teacher: Whether to store the teacher in the folder of the student, for sampling with more than one call.
    """

    steps: int = with_default(TrainSettings, "steps", 1100)
    lr: float = with_default(TrainSettings, "lr", 2.0e-3)
    warmup: int = with_default(TrainSettings, "warmup", 50)
    checkpoint_every: int = with_default(TrainSettings, "checkpoint_every", 400)
    objective: dict[str, Any] = field(default_factory=lambda: {"name": USUAL["distill"]})
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
    combine: str = setting("sum", choices=("sum", "conflict_free", "lagrangian"))
    goal: float = setting(0.2, above=0)
    gradient_to: str = setting("shape", choices=("solution", "shape", "all"))
    constraints: list[str] = field(default_factory=list)
    head: int = setting(0, at_least=0, at_most=64, why="a numerical solver is the better choice beyond that")
    head_in_training: bool = False
    control: bool = True
    scale_samples: int = setting(128, at_least=1, at_most=2**20, why="all are in memory at once")
    scale_steps: int = setting(18, at_least=1, at_most=10_000, why="a sample takes two teacher calls for each")
    teacher_precision: str = setting("fp32", choices=PRECISIONS)
    carry_teacher: bool = False

    @classmethod
    def renewed(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Return the section with old names replaced by current ones; prints a line for each old name."""

        def known(objective: Any) -> list[str]:
            return [one.name for one in fields(objective_class("distill", objective).settings_class)]

        return renewed(plain, known, lambda line: print(line, flush=True))

    @property
    def trained_head(self) -> int:
        """Number of solver steps that the student is trained through."""
        return self.head if self.head_in_training else 0

    @property
    def needs(self) -> Any:
        """The class of the objective. Raises UserError if there is no objective of this name."""
        return objective_class("distill", self.objective.get("name", USUAL["distill"]))

    @property
    def own(self) -> Any:
        """The settings of the objective as an instance of its settings class. Raises UserError as `from_plain` does."""
        return from_plain(self.needs.settings_class, self.objective, "distill.objective")

    @property
    def complete(self) -> Self:
        """A copy of these settings in which `objective` holds all settings of the objective, defaults included."""
        return replace(self, objective=to_plain(self.own))

    @property
    def takes_endpoints(self) -> bool:
        """Whether the objective trains on endpoints of the teacher."""
        return bool(self.needs.targets(self.own).value == "endpoints")


@dataclass(frozen=True)
class EvaluateSettings:
    """Settings of the report.

    Attributes:
        samples: Number of samples per row, and number of held-out truths that they are compared with.
        teacher_steps: Numbers of solver steps; the report has a row of the teacher for each.
        calls: Numbers of network calls, one of the student and the rest of its teacher; the report has a row for each.
        head_steps: Numbers of solver steps of the equation; the report has a row of each network with so many behind it.
        refine: Number of evaluations per sample for a row with refined samples, whose residual is lowered; 0: no such row.
        seed: Random seed of the noise.
        batch: Number of samples generated at once.
    """

    samples: int = setting(1536, at_least=2, why="a variance needs two samples")
    teacher_steps: list[int] = setting([4, 18], at_least=1, some=True, distinct=True, why="each is a row of the report")
    calls: list[int] = setting([], at_least=2, distinct=True, why="each is a row; one call is the student's own")
    head_steps: list[int] = setting([4, 16], at_least=1, at_most=64, distinct=True, why="each is a row of the report")
    refine: int = setting(0, at_least=0)
    seed: int = setting(1000, at_least=0)
    batch: int = setting(64, at_least=1)


@dataclass(frozen=True)
class ClusterSettings:
    """Settings of the workers and of ZeRO.

    Attributes:
        workers: Number of training processes, each a Ray Train worker.
        min_workers: Smallest number of workers to run with while the cluster has no room for all of them; the run grows again
            at a checkpoint. 0 stands for `workers`: the run then waits.
        cpus_per_worker: Number of CPUs per worker.
        use_gpu: Whether each worker has a GPU.
        space: Number of workers that share each field by rows. They have consecutive ranks.
        zero_stage: ZeRO stage: 0 partitions nothing, 1 the optimiser state, 2 also gradients, 3 also weights.
        max_failures: Number of times that a run restarts by itself after it lost a worker or a host.
        wait: Number of seconds to wait for free resources in the cluster, at the start and after a failure.
        shrink_after: Number of those seconds after which fewer workers are enough, if `min_workers` allows it.
        timeout: Number of seconds that a collective waits for a rank, and that a worker may give no sign of life; for data
            in an object store `data.patience` comes on top. Sections in which one rank works alone are not limited by it.
        deepspeed: Further DeepSpeed settings, passed on unchanged after a check.
        environment: Environment variables of workers and teacher actors; null: the value that the starting process has.
    """

    workers: int = setting(2, at_least=1)
    min_workers: int = setting(0, at_least=0)
    cpus_per_worker: int = setting(1, at_least=1)
    use_gpu: bool = False
    space: int = setting(1, at_least=1)
    zero_stage: int = setting(1, choices=(0, 1, 2, 3))
    max_failures: int = setting(0, at_least=0)
    wait: int = setting(600, at_least=0)
    shrink_after: int = setting(60, at_least=0)
    timeout: int = setting(300, at_least=1, at_most=10**6, why="a hung worker is noticed after it")
    deepspeed: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunSettings:
    """Settings of the run.

    Attributes:
        name: Name of the run, and of its folder within `folder`.
        folder: Folder of all runs, on storage that all hosts share; or an address, such as s3://bucket/runs.
        scratch: Folder of each host for its copy of a run whose `folder` is an address; empty: one in the temporary folder.
        seed: Random seed of everything except the shards and the report.
        resume: Whether to continue an existing run: if there is one (`auto`), always (`must`), or never (`never`).
    """

    name: str = "run"
    folder: str = "runs"
    scratch: str = ""
    seed: int = setting(0, at_least=0)
    resume: str = setting("auto", choices=("auto", "must", "never"))


@dataclass(frozen=True)
class Settings:
    """All settings of a run, one field for each section."""

    pde: PdeSettings = field(default_factory=PdeSettings)
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    run: RunSettings = field(default_factory=RunSettings)
