"""Waiting until a cluster has room for a run, with a line at once and every 15 s, and a time limit.

Each worker must fit on one host, with what is free there now. Knows Ray; must not know models or equations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import ray
from ray._private.state import available_resources_per_node, state

from pidscale.cluster.joining import address
from pidscale.config import ClusterSettings, UserError, exact

SAY_EVERY = 15.0  # seconds between two lines
_LOOK_EVERY = 0.5  # seconds


@dataclass(frozen=True)
class Host:
    """A live host of the cluster.

    Attributes:
        name: Its name.
        total: Its resources, such as CPU and GPU, by name.
        free: Its free resources by name.
    """

    name: str
    total: Mapping[str, float]
    free: Mapping[str, float]


@dataclass(frozen=True)
class Need:
    """Resources that a cluster must have: a number of processes, each with the same resources on one host.

    Attributes:
        asked: Mapping from setting name (e.g. `cluster.workers`) to number of processes requested.
        each: Resources of one process by name.
    """

    asked: Mapping[str, int]
    each: Mapping[str, int]

    @classmethod
    def of(cls, settings: ClusterSettings, asked: Mapping[str, int]) -> Need:
        """Return the need of processes that each take the resources of a worker.

        Args:
            settings: The section `cluster`.
            asked: Mapping from setting name (e.g. `cluster.workers`) to number of processes requested.

        Returns:
            The need.
        """
        each = {"CPU": settings.cpus_per_worker} | ({"GPU": 1} if settings.use_gpu else {})
        return cls({name: count for name, count in asked.items() if count}, each)

    @property
    def parts(self) -> int:
        """Total number of processes."""
        return sum(self.asked.values())

    def fits(self, resources: Mapping[str, float]) -> int:
        """Return the number of processes that fit on a host with these resources."""
        return min(int(resources.get(name, 0.0) // count) for name, count in self.each.items())

    def __str__(self) -> str:
        asked = " and ".join(f"{name}={count}" for name, count in self.asked.items())
        units = " and ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in self.each.items())
        return f"{asked}: {self.parts} x {units}"


def hosts() -> list[Host]:
    """Return the live hosts of the cluster that are not about to leave, sorted by name."""
    free = available_resources_per_node()
    going = state.get_draining_nodes()
    found = [
        Host(str(node["NodeManagerHostname"]), dict(node["Resources"]), free.get(node["NodeID"], {}))
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in going
    ]
    return sorted(found, key=lambda host: host.name)


def leaving() -> set[str]:
    """Return the names of the live hosts that are about to leave, because somebody drains them or they are preempted."""
    going = state.get_draining_nodes()
    return {str(node["NodeManagerHostname"]) for node in ray.nodes() if node["Alive"] and node["NodeID"] in going}


def described(found: list[Host], each: Mapping[str, int]) -> str:
    """Describe the free resources of hosts, such as `2 hosts (a: 0 of 4 CPUs free; ...)`; at most eight hosts are named.

    Args:
        found: The hosts.
        each: The resources to describe.

    Returns:
        The description.
    """
    lines = []
    for host in found[:8]:
        units = [
            f"{exact(host.free.get(name, 0.0))} of {exact(host.total.get(name, 0.0))} {name}s free" for name in each
        ]
        lines.append(f"{host.name}: {', '.join(units)}")
    more = f"; and {len(found) - 8} more" if len(found) > 8 else ""
    return f"{len(found)} host{'s' * (len(found) != 1)} ({'; '.join(lines)}{more})"


class NoRoom(UserError):
    """The cluster has no room for a run within the time limit."""


def wait_for_room(
    needs: Sequence[Need],
    settings: ClusterSettings,
    seconds: float,
    stopped: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> Need:
    """Wait until the cluster has room for all processes of a need at the same time.

    Smaller needs are taken once `cluster.shrink_after` seconds have passed. A local Ray never gets more hosts: there they are
    taken immediately, and what it cannot hold is refused immediately.

    Args:
        needs: The processes and their resources, the largest need first.
        settings: The section `cluster`.
        seconds: Maximum time to wait; at the start that is `cluster.wait`.
        stopped: Whether the user asked to stop; called twice a second.
        say: Prints what is missing and what the cluster has: at once, every 15 s, and when the reason changes.

    Returns:
        The need that there is room for.

    Raises:
        NoRoom: The cluster is too small or stays too busy.
        UserError: The user asked to stop.
    """
    began = time.monotonic()
    reported = -SAY_EVERY  # seconds after `began`
    was_lacking: bool | None = None
    need = needs[0]
    while True:
        found = hosts()
        waited = time.monotonic() - began
        lacking = _fit(need, found, free=False) < need.parts
        alone = lacking and address() is None
        fewer = alone or waited >= min(settings.shrink_after, seconds)
        missing = f"{need} do not fit on {described(found, need.each)}"
        for one in needs if fewer else needs[:1]:
            if _fit(one, found, free=True) >= one.parts:
                if one is not need:
                    say(f"{missing}; goes on with {one}")
                return one
        if alone and all(_fit(one, found, free=False) < one.parts for one in needs):
            raise NoRoom(f"{missing}; ask for fewer, lower cluster.cpus_per_worker, or join a larger cluster")
        what = "the cluster is too small: start more hosts" if lacking else "others hold the rest: see `ray status`"
        if stopped():
            raise UserError(f"stopped while it waited for room: {missing}")
        if waited >= seconds:
            raise NoRoom(f"{missing}; {what}; cluster.wait={settings.wait} s are over: ask for less, or wait longer")
        if waited - reported >= SAY_EVERY or lacking != was_lacking:
            reported = waited
            was_lacking = lacking
            say(f"waiting for room ({waited:.0f} of cluster.wait={settings.wait} s): {missing}; {what}")
        time.sleep(_LOOK_EVERY)


def _fit(need: Need, found: Sequence[Host], free: bool) -> int:
    """Return the number of processes of a need that fit on hosts, with what is free or with all that they have."""
    return sum(need.fits(host.free if free else host.total) for host in found)
