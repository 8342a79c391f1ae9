"""Ray around the two loops: joining a cluster, room on it, attempts and what ended them, live progress.

With the teacher actors and the tasks that make shards the only code that knows Ray.
"""

from pidscale.cluster.joining import connect
from pidscale.cluster.phase import run_phase
from pidscale.cluster.room import Need, wait_for_room

__all__ = ["Need", "connect", "run_phase", "wait_for_room"]
