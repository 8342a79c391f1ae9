"""`pidscale make-shards`: make a shard set by solving the equation."""

from __future__ import annotations

from pidscale.app.output import Progress
from pidscale.cluster.joining import connect
from pidscale.cluster.room import Need, wait_for_room
from pidscale.config import Settings, UserError
from pidscale.make.make import check_target, make_shard_set
from pidscale.pde import build_pde

_COARSE = 0.05  # l2 residual of truths above which the grid is too coarse


def run(settings: Settings) -> None:
    """Make the missing shards of the set in parallel Ray tasks.

    Args:
        settings: All settings; `pde`, `data` and `cluster.wait` are used.

    Raises:
        UserError: When the settings specify no grid, or the folder holds another set.
    """
    data = settings.data
    pde = build_pde(settings.pde.name, settings.pde.params)
    points = settings.pde.points
    if points is None:
        raise UserError("pde.points=null: only an existing set has a grid; set the number of points a side")
    check_target(data.path)
    connect()
    wait_for_room([Need({"tasks": 1}, {"CPU": 1})], settings.cluster, settings.cluster.wait)
    progress = Progress("shards")
    manifest = make_shard_set(
        pde,
        data.path,
        {"train": data.train, "test": data.test},
        grid=pde.grid(points),
        seed=data.seed,
        samples_per_shard=data.samples_per_shard,
        progress=progress,
    )
    progress.close()
    floor = manifest.truth_residual["train"]
    print(f"shards: {data.path}, residual of the stored truth: l2 {floor['l2']:.1e}, dual {floor['dual']:.1e}")
    if floor["l2"] > _COARSE:
        print(
            "shards: warning: this grid hardly resolves the equation (a null solution scores about 1); raise pde.points"
        )
