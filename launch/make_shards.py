"""Make a shard set: python launch/make_shards.py pde=darcy pde.points=64 data.path=shards/darcy64 data.train=4096"""

from __future__ import annotations

from entry import run

from pidscale.cluster.joining import connect
from pidscale.cluster.room import Need, wait_for_room
from pidscale.config import Settings, UserError
from pidscale.make.make import check_target, make_shard_set
from pidscale.meter import ProgressLine
from pidscale.pde import build_pde


def main(settings: Settings) -> None:
    """Make what is missing of the set, in parallel Ray tasks."""
    data, pde, points = settings.data, build_pde(settings.pde.name, settings.pde.params), settings.pde.points
    if points is None:
        raise UserError("pde.points=null: only a set that is there has a grid; say how many points a side to make")
    check_target(data.path)
    connect()
    wait_for_room(Need({"tasks": 1}, {"CPU": 1}), settings.cluster.wait)
    line = ProgressLine("shards", data.train + data.test)
    manifest = make_shard_set(
        pde,
        data.path,
        {"train": data.train, "test": data.test},
        grid=pde.grid(points),
        seed=data.seed,
        samples_per_shard=data.samples_per_shard,
        progress=lambda done, total: line.show(done),
    )
    line.close()
    floor = manifest.truth_residual["train"]
    print(f"shards: {data.path}, residual of the stored truth: l2 {floor['l2']:.1e}, dual {floor['dual']:.1e}")
    if floor["l2"] > 0.05:
        print(
            "shards: warning: this grid hardly resolves the equation, a null solution scores about 1; raise pde.points"
        )


if __name__ == "__main__":
    run(main, phases=())
