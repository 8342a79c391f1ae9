"""Makes a shard set of an equation: one task for each shard, solved in parallel, the manifest written last.

A set is a function of its request (equation, parameters, grid, seed, samples): a killed run is continued to the same
bytes, a finished set is left unchanged, and a folder with another request is refused. Must not know models or training.

The request is written first, as request.json: it identifies shards that have no manifest yet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pidscale.config import UserError
from pidscale.dataset.hold import check_request, hold_set
from pidscale.dataset.publish import FIRST_COUNTER, FinishedShard, build_manifest, ensure_shard
from pidscale.dataset.tasks import Progress, cluster_cpus, report_progress, run_in_ray
from pidscale.make.own_equation import check_own_equation, equation_errors
from pidscale.ops.grid import Grid
from pidscale.paths import expanded, refuse_address, refuse_job_package
from pidscale.pde.base import Pde
from pidscale.pde.residuals import truth_residuals
from pidscale.records.check import check_set, check_wanted, load_manifest
from pidscale.records.format import VERSION, sample_key
from pidscale.records.json_checks import canonical
from pidscale.records.manifest import Manifest
from pidscale.records.write import Sample, publish_manifest

_CHUNK_BYTES = 2**25  # fields whose residual is computed together


@dataclass(frozen=True)
class _Job:
    """One shard to make: samples [first, last) of a split; the counter of a sample is base + its number."""

    pde: Pde
    grid: Grid
    root: str
    seed: int
    split: str
    number: int
    first: int
    last: int
    base: int


def make_shard_set(
    pde: Pde,
    root: str | Path,
    samples: Mapping[str, int],
    *,
    grid: Grid,
    seed: int,
    samples_per_shard: int = 256,
    parallel: bool = True,
    in_flight: int | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Make a shard set, or finish one that a killed run left; a finished set is returned without work.

    Raises UserError for a wrong number, a folder of another request, or a sample that fails.

    Args:
        pde: The equation.
        root: The folder of the set, on storage that all hosts share.
        samples: The number of samples of each split: "train", and optionally "test".
        grid: The grid of the fields.
        seed: The seed of all samples.
        samples_per_shard: The number of samples in a shard.
        parallel: Whether to run one task for each shard in the Ray cluster that the caller has initialised; otherwise the
            shards are made in this process.
        in_flight: The number of tasks that are submitted at a time; twice the CPUs of the cluster if None.
        progress: Called with the samples done and the total after each shard.

    Returns:
        The manifest of the set.
    """
    check_target(root)
    root = Path(expanded(root, "data.path")).absolute()
    _check_numbers(samples, samples_per_shard, in_flight)
    request = _request(pde, samples, grid, seed, samples_per_shard)
    check_request(root, request)
    if (root / "manifest.json").exists():
        manifest = load_manifest(root)
        check_wanted(manifest, root, pde.name, grid.describe())
        check_set(manifest, root)
        return manifest
    default_limit = 2 * cluster_cpus() if parallel else 1
    check_own_equation(pde, grid, seed, FIRST_COUNTER["train"])
    with hold_set(root, request):
        jobs = _plan(pde, grid, str(root), seed, samples, samples_per_shard)
        shards = run_in_ray(make_shard, jobs, in_flight or default_limit) if parallel else map(make_shard, jobs)
        finished = list(report_progress(shards, sum(samples.values()), progress))
        manifest = build_manifest(pde, grid, request, finished, "check pde.params")
        publish_manifest(root, manifest)
        return manifest


def check_target(root: str | Path) -> None:
    """Raise UserError if a set cannot be made at `root` or would be lost. Scripts call this before they start a cluster."""
    refuse_address(root, "data.path", "a set is made in a folder; make it there, then upload the folder")
    refuse_job_package(root, "data.path")


def _check_numbers(samples: Mapping[str, int], samples_per_shard: int, in_flight: int | None) -> None:
    if "train" not in samples:
        raise UserError("data.samples: no 'train'; every set needs this split, on which the normaliser is measured")
    for split, count in samples.items():
        if split not in FIRST_COUNTER:
            raise UserError(f"data.samples: unknown split '{split}'; expected {' and '.join(FIRST_COUNTER)}")
        _check_whole(f"data.samples.{split}", count, 2**26)
    _check_whole("data.samples_per_shard", samples_per_shard, 2**20)
    if -(-max(samples.values()) // samples_per_shard) > 99999:
        raise UserError(f"data.samples_per_shard={samples_per_shard}: more than 99999 shards a split; make it larger")
    if in_flight is not None:
        _check_whole("data.in_flight", in_flight, 2**20)


def _check_whole(key: str, value: object, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise UserError(f"{key}={value!r}: expected a whole number from 1 to {most}")


def _request(pde: Pde, samples: Mapping[str, int], grid: Grid, seed: int, samples_per_shard: int) -> dict[str, Any]:
    """Return what determines every byte of the set, as plain JSON values."""
    request = {
        "format": VERSION,
        "equation": pde.name,
        "params": pde.params_dict(),
        "grid": grid.describe(),
        "seed": seed,
        "samples": dict(samples),
        "samples_per_shard": samples_per_shard,
    }
    plain: dict[str, Any] = json.loads(canonical(request))
    return plain


def _plan(pde: Pde, grid: Grid, root: str, seed: int, samples: Mapping[str, int], per_shard: int) -> list[_Job]:
    jobs = []
    for split, count in samples.items():
        for number, first in enumerate(range(0, count, per_shard)):
            last = min(first + per_shard, count)
            jobs.append(_Job(pde, grid, root, seed, split, number, first, last, FIRST_COUNTER[split]))
    return jobs


def make_shard(job: _Job) -> FinishedShard:
    """Make one shard, or reuse the valid one that an earlier run left."""
    return ensure_shard(job.root, job.split, job.number, job.last - job.first, _samples(job))


def _samples(job: _Job) -> Iterator[Sample]:
    """Yield the samples of one shard, with the residual of the float32 fields that are stored."""
    chunk = max(1, _CHUNK_BYTES // (4 * len(job.pde.channels) * job.grid.shape[0] * job.grid.shape[1]))
    for first in range(job.first, job.last, chunk):
        numbers = range(first, min(first + chunk, job.last))
        drawn = [_draw(job, job.base + n) for n in numbers]
        with equation_errors(job.pde, "sample"):
            varying = np.array([[params[name] for name in job.pde.varying] for _, params in drawn])
        with equation_errors(job.pde, f"residual of samples {job.base + numbers[0]} to {job.base + numbers[-1]}"):
            norms = truth_residuals(job.pde, job.grid, np.stack([fields for fields, _ in drawn]), varying)
        if not all(np.isfinite(values).all() for values in norms.values()):
            raise UserError(f"{job.pde.name}: the residual of the truths is beyond float32; check pde.params")
        for i, (n, (fields, params)) in enumerate(zip(numbers, drawn, strict=True)):
            residual = {name: float(f"{values[i]:.6g}") for name, values in norms.items()}
            yield sample_key(n), fields, {"seed": job.base + n, "params": params, "residual": residual}


def _draw(job: _Job, counter: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Draw one sample: fields float32 [C, Y, X] and parameters."""
    expected = (len(job.pde.channels), *job.grid.shape)
    with equation_errors(job.pde, f"sample {counter}"):
        solved, params = job.pde.sample(job.seed, counter, job.grid)
        with np.errstate(over="ignore"):
            fields = np.ascontiguousarray(solved, dtype=np.float32)
    if fields.shape != expected or not np.isfinite(fields).all():
        found = f"shape {fields.shape}, not {expected}"
        if fields.shape == expected:
            found = "values that are not finite in float32"
        raise UserError(f"{job.pde.name}: seed {job.seed}, sample {counter} has {found}; check pde.params")
    return fields, params
