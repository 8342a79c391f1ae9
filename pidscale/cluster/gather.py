"""`python -m pidscale.cluster.gather HOSTS SECONDS ADVICE`: wait until hosts have joined the cluster of RAY_ADDRESS.

The job script of SLURM runs it between starting Ray and the command. Must not know what will run on the cluster.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from pidscale.cluster.joining import address, connect
from pidscale.cluster.room import hosts
from pidscale.config import UserError

_LOOK_EVERY = 0.5  # seconds


def gather(count: int, seconds: float, advice: str) -> None:
    """Wait until a number of hosts have joined the cluster, whose head may be starting too.

    Args:
        count: Number of hosts, with the head's.
        seconds: Maximum time to wait.
        advice: What to do if some are missing, for the message.

    Raises:
        UserError: When fewer have joined in time.
    """
    until = time.monotonic() + seconds
    try:
        connect(seconds)
    except UserError as error:
        raise UserError(f"no Ray on the first of {count} hosts within {seconds:g} s ({error}); {advice}") from None
    while len(found := hosts()) < count:
        if time.monotonic() > until:
            names = ", ".join(host.name for host in found)
            raise UserError(
                f"{len(found)} of {count} hosts have joined the Ray at {address()} within {seconds:g} s ({names}); {advice}"
            )
        time.sleep(_LOOK_EVERY)
    print(f"{count} host{'s' * (count != 1)} with Ray: {', '.join(host.name for host in found)}", flush=True)


def main(words: Sequence[str]) -> int:
    """Wait, and return the exit status; the arguments are those of `gather`."""
    count, seconds, advice = words
    try:
        gather(int(count), float(seconds), advice)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
