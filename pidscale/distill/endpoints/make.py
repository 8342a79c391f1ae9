"""Creation of an endpoint set: one Ray task per shard; the manifest is written last. Knows Ray, and no students.

The set contains all endpoints that a distillation with the same settings uses. If the command is killed and run again, it
continues and writes the same bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from pidscale.config import Settings, UserError, from_plain, to_plain
from pidscale.dataset.hold import check_request, hold_set
from pidscale.dataset.problem import open_problem
from pidscale.dataset.publish import FinishedShard, build_manifest
from pidscale.dataset.tasks import Progress, cluster_cpus, report_progress, run_in_ray
from pidscale.distill.endpoints.rollout import Rollout, open_rollout, open_teacher
from pidscale.distill.endpoints.stored import KEY, SPLIT, make_shard, needed, request
from pidscale.paths import refuse_address, refuse_job_package
from pidscale.records.check import check_set, load_manifest
from pidscale.records.manifest import Manifest
from pidscale.records.write import publish_manifest


@dataclass(frozen=True)
class _Job:
    """One shard to make. The process that makes it loads the teacher.

    Attributes:
        plain: Settings of the run, as JSON.
        folder: Folder of the run.
        device: Device of the teacher.
        root: Folder of the set.
        number: Number of the shard.
        first: Counter of the first endpoint.
        last: Counter after the last endpoint.
    """

    plain: str
    folder: str
    device: str
    root: str
    number: int
    first: int
    last: int


@lru_cache(maxsize=1)
def _rollout(plain: str, folder: str, device: str) -> Rollout:
    """Return the teacher of these settings; cached, so that a process loads it once for all its tasks."""
    settings = from_plain(Settings, json.loads(plain))
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    problem = open_problem(settings.pde, settings.data)
    return open_rollout(settings, open_teacher(settings, Path(folder), problem, torch.device(device)))


def _shard(job: _Job) -> FinishedShard:
    """Make a shard with the threads of a worker, since bits may depend on their number."""
    rollout = _rollout(job.plain, job.folder, job.device)
    before = torch.get_num_threads()
    torch.set_num_threads(from_plain(Settings, json.loads(job.plain)).cluster.cpus_per_worker)
    try:
        return make_shard(rollout, job.root, job.number, job.first, job.last)
    finally:
        torch.set_num_threads(before)


def check_endpoint_set(settings: Settings, folder: Path) -> None:
    """Raise UserError if the requested set cannot be made, as far as this can be checked without Ray."""
    _asked(settings, folder)


def _asked(settings: Settings, folder: Path) -> tuple[Rollout, dict[str, Any]]:
    """Return the teacher, and the request of the set that the settings specify."""
    d = settings.distill
    path = d.endpoints
    if not d.takes_endpoints:
        raise UserError(
            f"distill.objective.name={d.own.name}: takes no endpoints with these settings; make none, or use "
            "distill=piddm"
        )
    if path is None:
        raise UserError(f"{KEY}=null: a set is made in a folder; name one")
    refuse_address(path, KEY, "a set is made in a folder; make it there, then upload the folder")
    refuse_job_package(path, KEY)
    if Path(path).is_file():
        raise UserError(f"{KEY}={path}: is a file; name a folder")
    problem = open_problem(settings.pde, settings.data)
    rollout = open_rollout(settings, open_teacher(settings, folder, problem, None))
    per_shard = -(-settings.data.samples_per_shard // d.chunk) * d.chunk
    count = -(-needed(settings) // d.chunk) * d.chunk
    asked = request(settings, rollout, count, per_shard)
    check_request(Path(path), asked, KEY)
    return rollout, asked


def make_endpoint_set(
    settings: Settings, folder: Path, progress: Progress | None = None, parallel: bool = True
) -> Manifest:
    """Make the set `distill.endpoints`, or the missing shards of it.

    Raises a UserError if the folder holds another set or a setting is wrong.

    Args:
        settings: Settings of the run, with absolute paths.
        folder: Folder of the run, which contains its teacher.
        progress: Called after each shard with the number of samples done and the total.
        parallel: Whether to run tasks in Ray, which the caller has initialised, or in this process.

    Returns:
        The manifest of the set.
    """
    rollout, asked = _asked(settings, folder)
    c = settings.cluster
    plain = json.dumps(to_plain(settings))
    root = Path(str(settings.distill.endpoints))
    count = asked["samples"][SPLIT]
    per_shard = asked["samples_per_shard"]
    if (root / "manifest.json").exists():
        manifest = load_manifest(root)
        check_set(manifest, root)
        return manifest
    with hold_set(root, asked, KEY):
        starts = enumerate(range(0, count, per_shard))
        where = (plain, str(folder), "cuda" if c.use_gpu else "cpu", str(root))
        jobs = [_Job(*where, n, first, min(first + per_shard, count)) for n, first in starts]
        needs = 2 * cluster_cpus() if parallel else 0, c.cpus_per_worker, int(c.use_gpu)
        made = run_in_ray(_shard, jobs, *needs) if parallel else map(_shard, jobs)
        remedy = "check the teacher"
        done = list(report_progress(made, count, progress))
        manifest = build_manifest(rollout.teacher.pde, rollout.teacher.grid, asked, done, remedy)
        publish_manifest(root, manifest)
        return manifest
