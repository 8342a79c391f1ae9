"""docs/faults.md, from what benchmarks.proofs.faults measured."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import source, table
from benchmarks.report import Row

HEADS = [
    "fault",
    "phase",
    "recovered",
    "steps lost, at most",
    "seconds to the message",
    "seconds to the next step",
    "seconds of silence, at most",
    "equal result",
]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _line(row: Row) -> list[str]:
    trials = row["trials"]
    lost = "" if row["steps_lost_max"] is None else f"{row['steps_lost_max']:.0f}"
    equal = "" if row["result_equal"] is None else f"{row['result_equal']} of {trials}"
    times = [_seconds(row[key]) for key in ("seconds_to_notice", "seconds_to_resume", "seconds_silent_max")]
    return [row["fault"], row["phase"], f"{row['recovered']} of {trials}", lost, *times, equal]


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    rows = result["rows"]
    trials = sum(row["trials"] for row in rows)
    jobs = sum(row["submitted"] for row in rows)
    recovered = sum(row["recovered"] for row in rows)
    note = result["meta"].get("note", "")
    said = [[row["fault"], row["phase"], f"`{row['message']}`"] for row in rows if row["message"]]
    return f"""# What happens when something is lost

For those whose runs have to survive a lost worker, host, disk or command: what a run then says, what it keeps, and how long
it takes until the next step. [troubleshooting.md](troubleshooting.md) says what to do about a message.

`python -m benchmarks.proofs.faults` starts runs of 2 workers on two hosts, one worker each, lets a fault happen after
the first checkpoint (or the second shard), and follows the run to its end. Hosts are network namespaces of one machine
with a real Ray and real runs; the folder of the runs is shared. Checkpoints are 10 steps apart. A fault that ends the
command (a stop, a full disk, a lost head) is followed by the same command once more, and a host that is killed is
started again, so that those times include the start of Ray. *Steps lost*: those that the log had reported and that the
run takes again; of shards, samples of finished shards that are made again. *Recovered*: the run reached its end with what it
makes; where nothing can be made (a run folder that is not shared, a run whose every step is skipped, a user's mistake), it
ended with one line of error, was not tried again, and published nothing. *Silence*: the longest time after the fault
for which the command is at work and prints nothing. *Equal result*: weights, or shards, equal those of the
unbroken run to the bit. The run with a teacher actor, and that after a host is lost for good, have one worker where the
unbroken one has two, whose sums are taken in another order.

## {recovered} of {trials} trials recovered, {jobs} of all were jobs of `ray job submit`

{note}

{table(HEADS, map(_line, rows))}

Medians. A worker that hangs is noticed after `cluster.timeout`, here 20 s. A command that was killed prints no message.

## What the run says

{table(["fault", "phase", "line"], said)}

{source("faults")}
"""
