"""Whether a cluster has room for what a run asks, and waiting until it has: said at once, every 15 s, and with an end.

What counts is each worker on one host, and what is free now. Knows Ray; must not know models or equations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ray
from ray._private.state import available_resources_per_node

from pidscale.cluster.joining import address
from pidscale.config import ClusterSettings, UserError

SAY_EVERY = 15.0  # seconds
_LOOK_EVERY = 0.5


@dataclass(frozen=True)
class Host:
    """A live host of the cluster: its name, and its CPUs and GPUs in all and free."""

    name: str
    total: Mapping[str, float]
    free: Mapping[str, float]


@dataclass(frozen=True)
class Need:
    """What is to find room: so many parts by name of the setting, each with these resources on one host."""

    asked: Mapping[str, int]
    each: Mapping[str, int]

    @classmethod
    def of(cls, settings: ClusterSettings, asked: Mapping[str, int]) -> Need:
        """Parts that take what a worker takes."""
        each = {"CPU": settings.cpus_per_worker} | ({"GPU": 1} if settings.use_gpu else {})
        return cls({name: count for name, count in asked.items() if count}, each)

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return sum(self.asked.values())

    def fits(self, resources: Mapping[str, float]) -> int:
        """How many parts a host with these resources holds."""
        return min(int(resources.get(name, 0.0) // count) for name, count in self.each.items())

    def __str__(self) -> str:
        said = " and ".join(f"{name}={count}" for name, count in self.asked.items())
        units = " and ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in self.each.items())
        return f"{said}: {self.parts} x {units}"


def hosts() -> list[Host]:
    """The live hosts of the cluster, by name."""
    free = available_resources_per_node()
    found = [
        Host(str(node["NodeManagerHostname"]), dict(node["Resources"]), free.get(node["NodeID"], {}))
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(found, key=lambda host: host.name)


def described(found: list[Host], each: Mapping[str, int]) -> str:
    """What hosts have free of what they have in all: `2 hosts (a: 0 of 4 CPUs free, ...)`; the first eight by name."""
    lines = []
    for host in found[:8]:
        units = [f"{host.free.get(name, 0.0):g} of {host.total.get(name, 0.0):g} {name}s free" for name in each]
        lines.append(f"{host.name}: {', '.join(units)}")
    more = f"; and {len(found) - 8} more" if len(found) > 8 else ""
    return f"{len(found)} host{'s' * (len(found) != 1)} ({'; '.join(lines)}{more})"


def wait_for_room(
    need: Need, seconds: float, stopped: Callable[[], bool] = lambda: False, say: Callable[[str], None] = print
) -> None:
    """Return once every part finds room at the same time.

    Args:
        need: What is to find room.
        seconds: How long to wait (`cluster.wait`). A Ray of our own gets no further host, so that what it lacks in all is
            refused at once.
        stopped: Whether the user asked to end; looked at twice a second.
        say: Told at once, when the kind of lack changes and every 15 s what is missing and what the cluster has.

    Raises:
        UserError: The cluster is too small or stays too busy, or the user asked to end.
    """
    began, said, was = time.monotonic(), -SAY_EVERY, None
    while True:
        found = hosts()
        if sum(need.fits(host.free) for host in found) >= need.parts:
            return
        lacking = sum(need.fits(host.total) for host in found) < need.parts
        missing = f"{need} do not fit on {described(found, need.each)}"
        if lacking and address() is None:
            raise UserError(f"{missing}; ask for fewer, lower cluster.cpus_per_worker, or join a larger cluster")
        waited = time.monotonic() - began
        what = (
            "the cluster is too small: start more hosts" if lacking else "others hold the rest: `ray status` says what"
        )
        if stopped():
            raise UserError(f"stopped while it waited for room: {missing}")
        if waited >= seconds:
            raise UserError(f"{missing}; {what}; cluster.wait={seconds:.0f} s are over: ask for less, or wait longer")
        if waited - said >= SAY_EVERY or lacking != was:
            said, was = waited, lacking
            say(f"waiting for room ({waited:.0f} of cluster.wait={seconds:.0f} s): {missing}; {what}")
        time.sleep(_LOOK_EVERY)
