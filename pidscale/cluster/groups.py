"""Groups of workers that share each field (`cluster.space`), and the hosts that they run on.

Must not know Ray, which has placed the workers.
"""

from __future__ import annotations

from collections.abc import Mapping

from pidscale.cluster.bulletin import Place

_NAMED = 4  # groups that a line names


def across_hosts(places: Mapping[int, Place], workers: int, space: int) -> str:
    """Return a warning that names the groups whose workers run on several hosts.

    Args:
        places: Where workers run, by rank, of those that have started.
        workers: Number of workers.
        space: Number of workers that share each field; they have consecutive ranks.

    Returns:
        The line; "" if there is no such group, or if some workers have not started yet.
    """
    if space == 1 or len(places) < workers:
        return ""
    split = []
    for first in range(0, workers, space):
        hosts = dict.fromkeys(places[rank] for rank in range(first, first + space))
        if len(hosts) > 1:
            names = ", ".join(place.host for place in hosts)
            split.append(f"{first} to {first + space - 1} ({names})")
    if not split:
        return ""
    more = f" and {len(split) - _NAMED} more groups" if len(split) > _NAMED else ""
    return (
        f"warning: cluster.space={space}: workers {'; '.join(split[:_NAMED])}{more} share each field between hosts, which "
        f"slows every layer; give each host room for a multiple of {space} workers"
    )
