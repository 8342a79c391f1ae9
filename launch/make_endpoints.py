"""Make the endpoints of a distillation beforehand, as a shard set for many students of one teacher:

python launch/make_endpoints.py run.name=NAME distill.endpoints=shards/endpoints
"""

from __future__ import annotations

from entry import run

from pidscale.cluster.joining import connect
from pidscale.cluster.room import Need, wait_for_room
from pidscale.config import Settings
from pidscale.distill.endpoints.make import check_endpoint_set, make_endpoint_set
from pidscale.meter import ProgressLine
from pidscale.paths import absolute
from pidscale.run.phases import run_folder


def main(settings: Settings) -> None:
    """Make what is missing of the set, in parallel Ray tasks."""
    line: ProgressLine | None = None

    def show(done: int, total: int) -> None:
        nonlocal line
        line = line or ProgressLine("endpoints", total)
        line.show(done)

    settings = absolute(settings)
    check_endpoint_set(settings, run_folder(settings))
    connect()
    need = Need.of(settings.cluster, {"tasks": 1})  # as many run at a time as there is room for
    wait_for_room(need, settings.cluster.wait)
    manifest = make_endpoint_set(settings, run_folder(settings), show)
    if line is not None:
        line.close()
    else:
        print(
            f"endpoints: there already; launch/shards.py verify {settings.distill.endpoints} checks every byte of them"
        )
    print(f"endpoints: {manifest.splits['train'].samples} in {settings.distill.endpoints}; use distill.source=shards")


if __name__ == "__main__":
    run(main, phases=("distill",))
