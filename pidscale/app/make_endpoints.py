"""`pidscale make-endpoints`: make the endpoints of a distillation in advance, for many students of one teacher."""

from __future__ import annotations

from pidscale.app.output import Progress
from pidscale.cluster.joining import connect
from pidscale.cluster.room import Need, wait_for_room
from pidscale.config import Settings
from pidscale.distill.endpoints.make import check_endpoint_set, make_endpoint_set
from pidscale.paths import absolute
from pidscale.run.places import run_folder


def run(settings: Settings) -> None:
    """Make the missing shards of the set in parallel Ray tasks."""
    settings = absolute(settings)
    path = settings.distill.endpoints
    check_endpoint_set(settings, run_folder(settings))
    connect()
    need = Need.of(settings.cluster, {"tasks": 1})  # one task is enough; more run if there is room
    wait_for_room([need], settings.cluster, settings.cluster.wait)
    progress = Progress("endpoints")
    manifest = make_endpoint_set(settings, run_folder(settings), progress)
    progress.close()
    if progress.line is None:
        print(f"endpoints: there already; `pidscale shards verify {path}` checks every byte of them")
    print(f"endpoints: {manifest.splits['train'].samples} in {path}; use distill.source=shards")
