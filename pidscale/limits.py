"""What the values of settings may be, alone and together. Must not know anything but the settings themselves."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import fields

from pidscale.config import NOISES, OBJECTIVES, PHASES, SOLVERS, SOURCES, LambdaSettings, Settings, UserError
from pidscale.paths import refuse_address


def check(settings: Settings, phases: Sequence[str] = PHASES) -> None:
    """Check ranges and choices, section by section. Raises UserError that names the key.

    phases: those to come, whose batches must fit the workers; a script asks for its own only.
    """
    _check_choices(settings)
    _check_batches(settings, phases)
    _check_noise(settings)
    _check_numbers(settings)
    if "distill" in phases:
        _check_distill(settings)
    _check_report(settings)
    _check_names(settings)


def _check_choices(s: Settings) -> None:
    choices = {
        "teacher.noise": (s.teacher.noise, NOISES),
        "distill.solver": (s.distill.solver, SOLVERS),
        "distill.objective": (s.distill.objective, OBJECTIVES),
        "distill.source": (s.distill.source, SOURCES),
        "distill.start": (s.distill.start, ("teacher", "scratch")),
        "distill.distance": (s.distill.distance, ("l2", "l1")),
        "distill.teacher_precision": (s.distill.teacher_precision, ("fp32", "bf16")),
        "distill.norm": (s.distill.norm, ("l2", "dual", "both")),
        "distill.gradient_to": (s.distill.gradient_to, ("solution", "shape", "all")),
        "model.precision": (s.model.precision, ("fp32", "bf16")),
        "data.on_bad_sample": (s.data.on_bad_sample, ("refuse", "skip")),
        "run.resume": (s.run.resume, ("auto", "must", "never")),
        "cluster.zero_stage": (s.cluster.zero_stage, (0, 1, 2, 3)),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise UserError(f"{name}={value!r}: expected one of {', '.join(map(str, allowed))}")
    for name in _POSITIVE:
        value = operator.attrgetter(name)(s)
        if not 0 < value < math.inf:
            least = "1 or more" if isinstance(value, int) else "more than 0, finite"
            raise UserError(f"{name}={value}: expected {least}")
    if s.pde.points is not None and not 4 <= s.pde.points <= 2**14:
        raise UserError(f"pde.points={s.pde.points}: expected 4 to {2**14}")


def _check_batches(s: Settings, phases: Sequence[str]) -> None:
    """Batches of the phases to come fit the groups of workers."""
    if s.cluster.workers % s.cluster.space:
        raise UserError(
            f"cluster.space={s.cluster.space} does not divide cluster.workers={s.cluster.workers}: make it a divisor, or "
            "cluster.workers a multiple of it"
        )
    groups = s.cluster.workers // s.cluster.space
    for section in PHASES:
        if section in phases and getattr(s, section).global_batch < groups:
            raise UserError(
                f"{section}.global_batch={getattr(s, section).global_batch} is smaller than the {groups} groups of "
                f"{_groups(s)}: give each at least one sample, or use fewer workers"
            )
        if not 0 <= getattr(s, section).clip < math.inf or getattr(s, section).warmup < 0:
            values = f"{section}.clip={getattr(s, section).clip}, {section}.warmup={getattr(s, section).warmup}"
            raise UserError(f"{values}: expected 0 (off) or more, finite")
    if "teacher" in phases and s.teacher.evaluate_samples < groups:
        raise UserError(
            f"teacher.evaluate_samples={s.teacher.evaluate_samples} is smaller than the {groups} groups of {_groups(s)}: "
            "each measures at least one sample"
        )


def _check_noise(s: Settings) -> None:
    for key in ("sigma_max", "p_mean", "p_std"):
        value = getattr(s.teacher, key)
        if value is not None and not (math.isfinite(value) and (value > 0 or key == "p_mean")):
            raise UserError(f"teacher.{key}={value}: expected a finite number" + ", more than 0" * (key != "p_mean"))
    if s.teacher.noise != "edm" and (s.teacher.p_mean is not None or s.teacher.p_std is not None):
        raise UserError(
            f"teacher.p_mean, teacher.p_std: of teacher.noise=edm; {s.teacher.noise} has none, leave them null"
        )


def _check_numbers(s: Settings) -> None:
    for name in _NOT_NEGATIVE:
        value = operator.attrgetter(name)(s)
        if not 0 <= value < math.inf:
            raise UserError(f"{name}={value}: expected 0 or more, finite")
    for name, (most, why) in _MOST.items():
        value = operator.attrgetter(name)(s)
        if value > most:
            raise UserError(f"{name}={value}: expected at most {most}: {why}")
    if not 0 <= s.distill.physics_from < 1:
        raise UserError(
            f"distill.physics_from={s.distill.physics_from}: expected a share of the steps, 0 or more and below 1"
        )


def _check_report(s: Settings) -> None:
    if min(s.evaluate.teacher_steps, default=0) < 1:
        raise UserError(f"evaluate.teacher_steps={s.evaluate.teacher_steps}: expected step counts of 1 or more")
    for name in ("teacher_steps", "calls"):
        values = getattr(s.evaluate, name)
        if len(set(values)) < len(values):
            raise UserError(f"evaluate.{name}={values}: expected each once; every one is a row of the report")
    if min(s.evaluate.calls, default=2) < 2:
        raise UserError(
            f"evaluate.calls={s.evaluate.calls}: expected 2 or more each; one call is the student's own row"
        )
    if s.evaluate.samples < 2:
        raise UserError(f"evaluate.samples={s.evaluate.samples}: a variance needs 2 or more")


def _check_names(s: Settings) -> None:
    """Names and folders."""
    name = s.run.name
    if not name.isprintable() or "/" in name or name.startswith(".") or not 0 < len(name) <= 100:
        raise UserError(
            f"run.name={name[:120]!r}: expected up to 100 characters without '/' that do not start with '.'"
        )
    if s.data.cache is not None and not s.data.cache.strip():
        raise UserError("data.cache='': expected a folder, or leave the key away")
    folders = {"run.folder": s.run.folder, "teacher.start": s.teacher.start, "distill.teacher": s.distill.teacher}
    for key, place in {**folders, "data.cache": s.data.cache}.items():
        refuse_address(
            place or "", key, "an address of a store; it must be a folder, which all hosts see; copy what lies there"
        )
    for key, folder in (("run.folder", s.run.folder), ("data.path", s.data.path)):
        if not folder.strip():
            raise UserError(f"{key}={folder!r}: expected a folder; write out the default, or leave the key away")


_LOOP = ["steps", "micro_batch", "lr", "ema", "max_skips", "log_every", "checkpoint_every", "keep"]
_POSITIVE_KEYS = {
    "data": ["train", "test", "samples_per_shard", "prefetch", "cache_gib"],
    "teacher": [*_LOOP, "evaluate_every", "evaluate_samples", "evaluate_steps"],
    "distill": [*_LOOP, "solver_steps", "ring", "reuse", "ahead", "actors", "chunk", "scale_samples", "scale_steps"],
    "evaluate": ["samples", "batch"],
    "cluster": ["workers", "space", "cpus_per_worker", "timeout"],
}
_POSITIVE = [f"{section}.{key}" for section, keys in _POSITIVE_KEYS.items() for key in keys]
_WEIGHTS = ["distill.physics_weight", *(f"distill.weights.{one.name}" for one in fields(LambdaSettings))]
_NOT_NEGATIVE = list(_WEIGHTS)
_NOT_NEGATIVE += [f"distill.{key}" for key in ("power", "match", "huber", "physics_ramp")]
_MOST = {
    **dict.fromkeys(("teacher.lr", "distill.lr"), (1e30, "Adam's step would leave float32")),
    "data.prefetch": (64, "each is a whole batch in memory"),
    "distill.ring": (2**20, "each row is a whole batch in memory"),
    "distill.ahead": (2**12, "each row is a whole batch in memory"),
    "distill.solver_steps": (10_000, "an endpoint takes a teacher call or two for each"),
    "distill.levels": (100_000, "each is a level of noise"),
    "distill.scale_samples": (2**20, "all are in memory at once"),
    "distill.scale_steps": (10_000, "a sample takes two teacher calls for each"),
    **dict.fromkeys(_WEIGHTS, (10**6, "nothing would be left of the match")),
}
_NOT_NEGATIVE += ["run.seed", "evaluate.seed"]
_NOT_NEGATIVE += [
    "evaluate.refine",
    "data.threads",
    "data.patience",
    "data.seed",
    "cluster.max_failures",
    "cluster.wait",
]


def _groups(s: Settings) -> str:
    """How messages call the groups that share the samples of a batch."""
    return f"cluster.workers={s.cluster.workers}" + (
        f" / cluster.space={s.cluster.space}" if s.cluster.space > 1 else ""
    )


def _check_distill(s: Settings) -> None:
    d, groups = s.distill, s.cluster.workers // s.cluster.space
    share = d.global_batch // groups
    if d.global_batch % groups or share % d.chunk:
        raise UserError(
            f"distill.chunk={d.chunk} must divide the {d.global_batch} / {groups} samples of each group of {_groups(s)} "
            "(distill.global_batch), so that endpoints are made in the same chunks everywhere"
            + (f": set distill.chunk={math.gcd(d.chunk, share)}" if d.global_batch % groups == 0 else "")
        )
    if d.source in ("ring", "actors") and s.cluster.space > 1:
        why = {"ring": "cannot talk beside the student", "actors": "has no actors"}[d.source]
        raise UserError(
            f"distill.source={d.source} with cluster.space={s.cluster.space}: a teacher that shares its fields {why}; use "
            "distill.source=inline, or shards"
        )
    if not d.pairs and d.source != "inline":
        raise UserError(f"distill.source={d.source}: objective {d.objective} takes no endpoints; leave it inline")
    if d.objective != "piddm" and d.power > 0:
        raise UserError(
            f"distill.power={d.power:g}: objective {d.objective} matches no powers; choose distill={d.objective}, whose "
            "values go together, or set distill.power=0"
        )
    if d.distance == "l1" and d.huber > 0:
        raise UserError(f"distill.huber={d.huber:g} softens distance l2; set distill.huber=0 or distill.distance=l2")
    if not 0 <= d.physics_from + d.physics_ramp <= 1:
        raise UserError(f"distill.physics_ramp={d.physics_ramp:g} reaches beyond the last step; lower it")
    if d.levels < 2:
        raise UserError(f"distill.levels={d.levels}: a grid has 2 levels or more")
    if d.scale_samples % d.global_batch:
        raise UserError(
            f"distill.scale_samples={d.scale_samples} must be a multiple of distill.global_batch={d.global_batch}"
        )
