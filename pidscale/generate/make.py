"""Make a shard set of an equation: one task per shard, solved in parallel, the manifest written last.

A set is a function of its request (equation, parameters, grid, seed, samples): a killed run is continued to the same
bytes, a finished one is left alone, and a folder with another request is refused. Must not know models or training.

Extra file of a set: request.json, written first; it says whose shards those without a manifest are.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pidscale.config import UserError
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde, residual_squares
from pidscale.records.layout import (
    DTYPE,
    VERSION,
    ChannelInfo,
    Manifest,
    ShardEntry,
    Split,
    canonical,
    check_against,
    load_manifest,
    read_json,
    sample_key,
    write_atomic,
)
from pidscale.records.lock import held
from pidscale.records.write import Sample, Stats, finished_shard, merge_stats, publish_manifest, write_shard

FIRST_COUNTER = {"train": 0, "test": 2**40}  # seeds of the splits never meet
_CHUNK_BYTES = 2**25  # fields whose residual is taken together

Progress = Callable[[int, int], None]


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


@dataclass(frozen=True)
class _Made:
    """What a task gives back: the shard, its statistics, and per norm the residuals [samples] of what was stored."""

    split: str
    number: int
    entry: ShardEntry
    stats: Stats
    residuals: dict[str, list[float]]


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
    root = Path(root).absolute()
    _check_numbers(pde, samples, samples_per_shard, in_flight)
    request = _request(pde, samples, grid, seed, samples_per_shard)
    _check_request(root, request)
    if (root / "manifest.json").exists():
        manifest = load_manifest(root)
        check_against(manifest, root, pde.name, grid.describe())
        return manifest
    twice = 2 * _cluster_cpus() if parallel else 1
    with _claimed(root, request):
        jobs = _plan(pde, grid, str(root), seed, samples, samples_per_shard)
        made = _reported(_in_ray(jobs, in_flight or twice) if parallel else map(make_shard, jobs), jobs, progress)
        manifest = _manifest(pde, grid, request, sorted(made, key=lambda one: one.number))
        publish_manifest(root, manifest)
        return manifest


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


def _check_request(root: Path, request: dict[str, Any]) -> None:
    """Refuse a folder that holds anything but this request's set, whole or in part; a request alone made nothing."""
    path = root / "request.json"
    if path.exists() and not any(root.glob("*.tar")):
        return
    if path.exists():
        found = read_json(path)
    elif (root / "manifest.json").exists():
        path, found = root / "manifest.json", load_manifest(root).request
    elif any(root.glob("*.tar")):
        raise UserError(f"{root}: holds tars that were not made here (no request.json); choose another data.path")
    else:
        return
    if differs := [k for k in request if not isinstance(found, dict) or found.get(k) != request[k]]:
        what = f"{', '.join(differs)} not as asked for now"
        raise UserError(f"{path}: a set of another request ({what}); choose another data.path or delete it yourself")


@contextmanager
def _claimed(root: Path, request: dict[str, Any]) -> Iterator[None]:
    """Hold the folder alone, with its request written down."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not os.access(root, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(f"{root}: {error.strerror}; data.path must be a folder that this run may write") from None
    with held(root) as alone:
        if not alone:
            raise UserError(f"{root}: another run is making this set; wait for it or change data.path")
        _check_request(root, request)
        write_atomic(root / "request.json", canonical(request) + b"\n")
        for left in root.glob(".*.tmp"):  # of a run that was killed: nobody else writes here now
            left.unlink(missing_ok=True)
        yield


def _plan(pde: Pde, grid: Grid, root: str, seed: int, samples: Mapping[str, int], per_shard: int) -> list[_Job]:
    jobs = []
    for split, count in samples.items():
        for number, first in enumerate(range(0, count, per_shard)):
            last = min(first + per_shard, count)
            jobs.append(_Job(pde, grid, root, seed, split, number, first, last, FIRST_COUNTER[split]))
    return jobs


def make_shard(job: _Job) -> _Made:
    """Make one shard, or take the true one that an earlier run left."""
    done = finished_shard(job.root, job.split, job.number, job.last - job.first)
    entry, stats = done or write_shard(job.root, job.split, job.number, _samples(job))
    index = read_json(Path(job.root) / entry.name.replace(".tar", ".index.json"))
    norms = [sample["meta"]["residual"] for sample in index["samples"]]
    return _Made(job.split, job.number, entry, stats, {name: [n[name] for n in norms] for name in norms[0]})


def _samples(job: _Job) -> Iterator[Sample]:
    """Samples of one shard, a chunk at a time, with the residual of the float32 fields that are stored."""
    chunk = max(1, _CHUNK_BYTES // (4 * len(job.pde.channels) * job.grid.shape[0] * job.grid.shape[1]))
    for first in range(job.first, job.last, chunk):
        numbers = range(first, min(first + chunk, job.last))
        drawn = [_draw(job, job.base + n) for n in numbers]
        varying = np.array([[params[name] for name in job.pde.varying] for _, params in drawn])
        norms = truth_residuals(job.pde, job.grid, np.stack([fields for fields, _ in drawn]), varying)
        if not all(np.isfinite(values).all() for values in norms.values()):
            raise UserError(f"{job.pde.name}: the residual of the truths is beyond float32; check pde.params")
        for i, (n, (fields, params)) in enumerate(zip(numbers, drawn, strict=True)):
            residual = {name: float(f"{values[i]:.6g}") for name, values in norms.items()}
            yield sample_key(n), fields, {"seed": job.base + n, "params": params, "residual": residual}


def _draw(job: _Job, counter: int) -> tuple[np.ndarray, dict[str, Any]]:
    solved, params = job.pde.sample(job.seed, counter, job.grid)
    expected = (len(job.pde.channels), *job.grid.shape)
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


def _reported(made: Iterable[_Made], jobs: list[_Job], progress: Progress | None) -> Iterator[_Made]:
    done, total = 0, sum(job.last - job.first for job in jobs)
    for one in made:
        done += one.entry.samples
        if progress is not None:
            progress(done, total)
        yield one


def _cluster_cpus() -> int:
    import ray

    if not ray.is_initialized():
        raise UserError("make_shard_set(parallel=True) needs a running Ray: call ray.init first, or use parallel=False")
    resources: dict[str, float] = ray.cluster_resources()
    return max(1, int(resources.get("CPU", 1)))


def _in_ray(jobs: list[_Job], limit: int) -> Iterator[_Made]:
    """Results of one Ray task per job, as they finish, at most `limit` in flight; the first error stops the rest."""
    import ray

    task = ray.remote(num_cpus=1, max_retries=3)(make_shard)
    waiting = list(reversed(jobs))
    running: list[Any] = []
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                running.append(task.remote(waiting.pop()))
            ready, running = ray.wait(running, num_returns=1)
            yield ray.get(ready[0])
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from None
        raise
    finally:
        for left in running:
            ray.cancel(left)


def _manifest(pde: Pde, grid: Grid, request: dict[str, Any], made: list[_Made]) -> Manifest:
    by_split = {split: [one for one in made if one.split == split] for split in request["samples"]}
    stats = merge_stats([one.stats for one in by_split["train"]])
    for channel, std in zip(pde.channels, stats.std, strict=True):
        if std == 0:
            raise UserError(f"{pde.name}: channel '{channel.name}' is constant over the train split; check pde.params")
    return Manifest(
        version=VERSION,
        equation=pde.name,
        channels=tuple(ChannelInfo(c.name, c.unit, c.role) for c in pde.channels),
        grid=grid.describe(),
        params=request["params"],
        normaliser={"mean": list(stats.mean), "std": list(stats.std)},
        dtype=DTYPE,
        splits={split: _split(split, parts) for split, parts in by_split.items()},
        truth_residual={split: _floor(parts) for split, parts in by_split.items()},
        request=request,
    )


def _split(split: str, parts: list[_Made]) -> Split:
    count, base = sum(one.entry.samples for one in parts), FIRST_COUNTER[split]
    return Split((base, base + count), count, tuple(one.entry for one in parts))


def _floor(parts: list[_Made]) -> dict[str, float]:
    """Per norm, the rms over all samples and, under "max_" + norm, the largest."""
    floor: dict[str, float] = {}
    for name in parts[0].residuals:
        values = np.array([v for one in parts for v in one.residuals[name]])
        floor |= {name: float(np.sqrt(np.mean(values**2))), f"max_{name}": float(values.max())}
    return floor
