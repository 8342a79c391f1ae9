"""Make a shard set of an equation: one task per shard, solved in parallel, the manifest written last.

A set is a function of its request (equation, parameters, grid, seed, samples): a killed run is continued to the same
bytes, a finished one is left alone, and a folder with another request is refused. Must not know models or training.

Extra file of a set: request.json, written first; it says whose shards those without a manifest are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from pidscale.config import UserError
from pidscale.generate.claim import check_request, claimed
from pidscale.generate.publish import FIRST_COUNTER, Made, make_or_take, manifest_of
from pidscale.generate.trial import blamed, check_own
from pidscale.ops.grid import Grid
from pidscale.paths import expanded, refuse_address, refuse_job_package
from pidscale.pde.base import Pde, residual_squares
from pidscale.records.check import check_set, check_wanted, load_manifest
from pidscale.records.layout import VERSION, Manifest, canonical, sample_key
from pidscale.records.write import Sample, publish_manifest

_CHUNK_BYTES = 2**25  # fields whose residual is taken together
_LOOK_EVERY, _PATIENCE = (
    15.0,
    600.0,
)  # seconds between two looks at a cluster that gives nothing, and how long to wait for it

Progress = Callable[[int, int], None]
Job = TypeVar("Job")


@dataclass(frozen=True)
class _Job:
    """One shard to make: sample numbers [first, last) of a split; seed counters are base + number."""

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
    """Make the set, or what is missing of it, and return its manifest.

    samples: per split, "train" and perhaps "test". parallel: one Ray task per shard, at most in_flight at a time (twice
    the CPUs of the cluster if None), in a Ray that the caller has initialised, on storage that all hosts share; else in
    this process. progress(done, total) is called with samples after each shard. A finished set of the same request is
    returned without work. UserError for a wrong number, a folder of another request, or a sample that fails.
    """
    check_target(root)
    root = Path(expanded(root, "data.path")).absolute()
    _check_numbers(pde, samples, samples_per_shard, in_flight)
    request = _request(pde, samples, grid, seed, samples_per_shard)
    check_request(root, request)
    if (root / "manifest.json").exists():
        manifest = load_manifest(root)
        check_wanted(manifest, root, pde.name, grid.describe())
        check_set(manifest, root)
        return manifest
    twice = 2 * cluster_cpus() if parallel else 1
    check_own(pde, grid, seed, FIRST_COUNTER["train"])
    with claimed(root, request):
        jobs = _plan(pde, grid, str(root), seed, samples, samples_per_shard)
        total = sum(samples.values())
        shards = in_ray(make_shard, jobs, in_flight or twice) if parallel else map(make_shard, jobs)
        made = reported(shards, total, progress)
        manifest = manifest_of(pde, grid, request, list(made), "check pde.params")
        publish_manifest(root, manifest)
        return manifest


def check_target(root: str | Path) -> None:
    """Raise UserError where a set cannot be made or would not last. A script asks before it starts a cluster."""
    refuse_address(root, "data.path", "a set is made in a folder; make it there and copy the folder up")
    refuse_job_package(root, "data.path")


def _check_numbers(pde: Pde, samples: Mapping[str, int], samples_per_shard: int, in_flight: int | None) -> None:
    if "train" not in samples:
        raise UserError("data.samples: no 'train'; the normaliser is measured on it, so every set needs that split")
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
    """What decides every byte of the set, as plain JSON values."""
    what = {"format": VERSION, "equation": pde.name, "params": pde.params_dict(), "grid": grid.describe()}
    how = {"seed": seed, "samples": dict(samples), "samples_per_shard": samples_per_shard}
    plain: dict[str, Any] = json.loads(canonical({**what, **how}))
    return plain


def _plan(pde: Pde, grid: Grid, root: str, seed: int, samples: Mapping[str, int], per_shard: int) -> list[_Job]:
    jobs = []
    for split, count in samples.items():
        for number, first in enumerate(range(0, count, per_shard)):
            last = min(first + per_shard, count)
            jobs.append(_Job(pde, grid, root, seed, split, number, first, last, FIRST_COUNTER[split]))
    return jobs


def make_shard(job: _Job) -> Made:
    """Make one shard, or take the true one that an earlier run left."""
    return make_or_take(job.root, job.split, job.number, job.last - job.first, _samples(job))


def _samples(job: _Job) -> Iterator[Sample]:
    """Samples of one shard, a chunk at a time, with the residual of the float32 fields that are stored."""
    chunk = max(1, _CHUNK_BYTES // (4 * len(job.pde.channels) * job.grid.shape[0] * job.grid.shape[1]))
    for first in range(job.first, job.last, chunk):
        numbers = range(first, min(first + chunk, job.last))
        drawn = [_draw(job, job.base + n) for n in numbers]
        with blamed(job.pde, "sample"):
            varying = np.array([[params[name] for name in job.pde.varying] for _, params in drawn])
        with blamed(job.pde, f"residual of samples {job.base + numbers[0]} to {job.base + numbers[-1]}"):
            norms = truth_residuals(job.pde, job.grid, np.stack([fields for fields, _ in drawn]), varying)
        if not all(np.isfinite(values).all() for values in norms.values()):
            raise UserError(f"{job.pde.name}: the residual of the truths is beyond float32; check pde.params")
        for i, (n, (fields, params)) in enumerate(zip(numbers, drawn, strict=True)):
            residual = {name: float(f"{values[i]:.6g}") for name, values in norms.items()}
            yield sample_key(n), fields, {"seed": job.base + n, "params": params, "residual": residual}


def _draw(job: _Job, counter: int) -> tuple[np.ndarray, dict[str, Any]]:
    expected = (len(job.pde.channels), *job.grid.shape)
    with blamed(job.pde, f"sample {counter}"):
        solved, params = job.pde.sample(job.seed, counter, job.grid)
        with np.errstate(over="ignore"):
            fields = np.ascontiguousarray(solved, dtype=np.float32)
    if fields.shape != expected or not np.isfinite(fields).all():
        wrong = f"shape {fields.shape}, not {expected}"
        found = "values that are not finite in float32" if fields.shape == expected else wrong
        raise UserError(f"{job.pde.name}: seed {job.seed}, sample {counter} has {found}; check pde.params")
    return fields, params


def truth_residuals(pde: Pde, grid: Grid, fields: np.ndarray, params: np.ndarray) -> dict[str, np.ndarray]:
    """Relative residuals per sample, float64 [B] each, of fields float32 [B, C, Y, X]: the floor of any residual."""
    with torch.no_grad():
        squares = residual_squares(pde, grid, torch.from_numpy(fields), torch.from_numpy(params))
    return {name: np.sqrt(square.double().numpy()) for name, square in sorted(squares.items())}


def reported(made: Iterable[Made], total: int, progress: Progress | None) -> Iterator[Made]:
    """The same, telling after each shard how many samples are done."""
    done = 0
    for one in made:
        done += one.entry.samples
        if progress is not None:
            progress(done, total)
        yield one


def cluster_cpus() -> int:
    """CPUs of the Ray that is there. Raises UserError without one."""
    import ray

    if not ray.is_initialized():
        raise UserError("make_shard_set(parallel=True) needs a running Ray: call ray.init first, or use parallel=False")
    resources: dict[str, float] = ray.cluster_resources()
    return max(1, int(resources.get("CPU", 1)))


def in_ray(
    make: Callable[[Job], Made], jobs: Sequence[Job], limit: int, num_cpus: int = 1, num_gpus: int = 0
) -> Iterator[Made]:
    """Results of one Ray task per job, as they finish, at most `limit` in flight; the first error stops the rest."""
    import ray

    task = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=3)(make)
    waiting = list(reversed(jobs))
    running: list[Any] = []
    alone = 0.0  # seconds for which no host could hold a task
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                running.append(task.remote(waiting.pop()))
            ready, running = ray.wait(running, num_returns=1, timeout=_LOOK_EVERY)
            if ready:
                alone = 0.0
                yield ray.get(ready[0])
            elif (
                max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=0)
                < num_cpus
            ):
                alone += _LOOK_EVERY
                lacking = f"no host of the cluster has the {num_cpus} CPUs of a task left"
                if alone >= _PATIENCE:
                    raise UserError(
                        f"{lacking} for {alone:.0f} s; start one; the same command goes on from what is made"
                    )
                print(f"waiting ({alone:.0f} of {_PATIENCE:.0f} s): {lacking}; start one", flush=True)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from None
        raise
    except ray.exceptions.RayError as error:  # a process or host that was lost more often than a task is repeated
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"a task was lost again and again ({said[:160]}); the same command goes on from what is made"
        ) from None
    finally:
        for left in running:
            ray.cancel(left)
