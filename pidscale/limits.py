"""Checks of combinations of settings. Bounds of a single value are declared with its field.

Must not know anything except the settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from pidscale.config import PHASES, Settings, UserError
from pidscale.environment import check_environment
from pidscale.paths import check_store, refuse_address
from pidscale.setting import check_values

_TOO_MANY = 2.0  # endpoints that a group of workers must not make for each one that it uses


def check(settings: Settings, phases: Sequence[str] = PHASES) -> None:
    """Check all values and their combinations. Raises a UserError that names the key of a value that is not allowed.

    Args:
        settings: All settings.
        phases: Phases that will run; their batches must fit the workers.
    """
    check_values(settings)
    _check_batches(settings, phases)
    _check_noise(settings)
    if "distill" in phases:
        _check_distill(settings)
    _check_names(settings)
    check_environment(settings.cluster)


def with_workers(settings: Settings, workers: int) -> Settings:
    """Return settings of the same run on another number of workers."""
    least = min(settings.cluster.min_workers, workers)
    return replace(settings, cluster=replace(settings.cluster, workers=workers, min_workers=least))


def worker_counts(settings: Settings, phase: str) -> tuple[int, ...]:
    """Return the numbers of workers that a phase may run on, the largest first.

    These are `cluster.workers`, and the multiples of `cluster.space` down to `cluster.min_workers` that the batches of the
    phase can be shared by.

    Args:
        settings: Checked settings.
        phase: `teacher` or `distill`.

    Returns:
        The numbers.
    """
    c = settings.cluster
    counts = [c.workers]
    for workers in range(c.workers - c.space, (c.min_workers or c.workers) - 1, -c.space):
        try:
            check(with_workers(settings, workers), (phase,))
        except UserError:
            continue
        counts.append(workers)
    return tuple(counts)


def _check_batches(s: Settings, phases: Sequence[str]) -> None:
    """Check that the batches of the phases fit the groups of workers."""
    if s.cluster.workers % s.cluster.space:
        raise UserError(
            f"cluster.space={s.cluster.space} does not divide cluster.workers={s.cluster.workers}: make it a divisor, or "
            "cluster.workers a multiple of it"
        )
    if s.cluster.min_workers > s.cluster.workers:
        raise UserError(
            f"cluster.min_workers={s.cluster.min_workers} is larger than cluster.workers={s.cluster.workers}: lower it, or "
            "set it to 0"
        )
    groups = s.cluster.workers // s.cluster.space
    for section in PHASES:
        batch = getattr(s, section).global_batch
        if section in phases and batch < groups:
            raise UserError(
                f"{section}.global_batch={batch} is smaller than the {groups} groups of {_groups(s)}: give each at least one "
                "sample, or use fewer workers"
            )
    if "teacher" in phases and s.teacher.evaluate_samples < groups:
        raise UserError(
            f"teacher.evaluate_samples={s.teacher.evaluate_samples} is smaller than the {groups} groups of {_groups(s)}: "
            "each measures at least one sample"
        )


def chunks_made(batch: int, groups: int, chunk: int) -> float:
    """Return how many endpoints the busiest group makes for each one that it uses.

    Endpoints are made in whole chunks, and those of samples of other groups are dropped: 1 if each group has whole chunks.

    Args:
        batch: Number of samples in a global batch.
        groups: Number of groups of workers that share the batch.
        chunk: Number of samples in a chunk.

    Returns:
        The ratio.
    """
    bounds = [batch * group // groups for group in range(groups + 1)]  # as the ranks share a batch
    shares = pairwise(bounds)
    return max((-(-last // chunk) - first // chunk) * chunk / max(1, last - first) for first, last in shares)


def _groups(s: Settings) -> str:
    """Return the name of the groups that divide the samples of a batch, for messages."""
    space = f" / cluster.space={s.cluster.space}" if s.cluster.space > 1 else ""
    return f"cluster.workers={s.cluster.workers}{space}"


def _check_noise(s: Settings) -> None:
    """Check that p_mean and p_std are set for EDM noise only."""
    if s.teacher.noise != "edm" and (s.teacher.p_mean is not None or s.teacher.p_std is not None):
        raise UserError(
            f"teacher.p_mean, teacher.p_std: of teacher.noise=edm; {s.teacher.noise} has none, leave them null"
        )


def _check_distill(s: Settings) -> None:
    """Check batches, endpoints and residual terms of the distillation."""
    d = s.distill
    groups = s.cluster.workers // s.cluster.space
    if d.global_batch % d.chunk or chunks_made(d.global_batch, groups, d.chunk) >= _TOO_MANY:
        fits = [n for n in range(1, d.chunk + 1) if d.global_batch % n == 0]
        made = {n: chunks_made(d.global_batch, groups, n) for n in fits}
        exact = max(n for n in fits if made[n] == 1)
        best = exact if exact > 1 else max(n for n in fits if made[n] < _TOO_MANY)
        raise UserError(
            f"distill.chunk={d.chunk} does not fit the {d.global_batch} / {groups} samples of each group of {_groups(s)} "
            f"(distill.global_batch): endpoints are made in the same chunks everywhere; set distill.chunk={best}"
        )
    if d.source in ("thread", "actors") and s.cluster.space > 1:
        why = {"thread": "cannot talk beside the student", "actors": "has no actors"}[d.source]
        raise UserError(
            f"distill.source={d.source} with cluster.space={s.cluster.space}: a teacher that shares its fields {why}; use "
            "distill.source=inline, or shards"
        )
    if d.source != "inline" and not d.takes_endpoints:
        raise UserError(f"distill.source={d.source}: objective {d.own.name} takes no endpoints; leave it inline")
    if d.combine == "conflict_free" and s.cluster.zero_stage == 3:
        raise UserError(
            "distill.combine=conflict_free: combines gradients of whole weights, which ZeRO stage 3 divides; set "
            "cluster.zero_stage to 2 or less"
        )
    if d.physics_from + d.physics_ramp > 1:
        raise UserError(f"distill.physics_ramp={d.physics_ramp:g} reaches beyond the last step; lower it")
    if d.scale_samples % d.global_batch:
        raise UserError(
            f"distill.scale_samples={d.scale_samples} must be a multiple of distill.global_batch={d.global_batch}"
        )


def _check_names(s: Settings) -> None:
    """Check names and folders."""
    name = s.run.name
    fits = 0 < len(name) <= 100 and len(name.encode()) <= 200  # a file system counts bytes
    if not name.isprintable() or "/" in name or name.startswith(".") or not name.strip() or not fits:
        raise UserError(
            f"run.name={name[:120]!r}: expected up to 100 characters (200 bytes) without '/' that do not start with '.'"
        )
    if s.data.cache is not None and not s.data.cache.strip():
        raise UserError("data.cache='': expected a folder, or omit the key")
    for key, place in {"teacher.start": s.teacher.start, "distill.teacher": s.distill.teacher}.items():
        refuse_address(
            place or "", key, "an address of a store; it must be a folder, which all hosts see; copy what lies there"
        )
    for key, place in {"run.scratch": s.run.scratch, "data.cache": s.data.cache}.items():
        refuse_address(place or "", key, "an address of a store; expected a folder on a disk of each host")
    check_store(s.run.folder, "run.folder")
    for key, folder in (("run.folder", s.run.folder), ("data.path", s.data.path)):
        if not folder.strip():
            raise UserError(f"{key}={folder!r}: expected a folder; write out the default, or omit the key")
