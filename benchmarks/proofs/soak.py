"""An hour of training on two hosts with a loss every three to five minutes, beside the unbroken run.

    python -m benchmarks.proofs.soak [--minutes 60] [--json benchmarks/results/soak.json]

The run is that of tests/test_soak.py: hosts are network namespaces, with a real Ray. The result has the losses (`rows`) and,
every 20 seconds, what could pile up on the host that is never lost (`looks`): memory, handles and processes of Ray's daemons,
memory of the command, shared memory, temporary files, files of the run. Handles on logs of past workers, of which Ray's log
monitor holds at most 200, and the curves and tracebacks that a run keeps of each attempt, are counted by themselves.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.report import Row, circumstances, finish, options

PILES = (
    *("processes", "memory_mib", "handles", "handles_on_logs", "command_mib", "shared_memory_mib"),
    *("temporary_files", "files_of_run", "curves_and_tracebacks"),
)


def growth(looks: list[Row], key: str) -> tuple[float, float]:
    """Return the medians of a figure in the second and in the last quarter of the looks; the first quarter fills caches."""
    quarter = max(1, len(looks) // 4)
    early, late = looks[quarter : 2 * quarter], looks[-quarter:]
    return statistics.median(one[key] for one in early), statistics.median(one[key] for one in late)


def main() -> None:
    """Run it and write the result."""
    parser = options(__doc__, "soak")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long the run is at work")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "junit.xml"
        asked = [f"--soak={given.minutes}", f"--junitxml={file}"]
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "tests/test_soak.py", *asked]
        status = subprocess.run(words, check=False).returncode
        case = next(ElementTree.parse(file).iter("testcase"))
        found: dict[str, Any] = {one.attrib["name"]: one.attrib["value"] for one in case.iter("property")}
    looks = json.loads(found.pop("looks", "[]"))
    rows = json.loads(found.pop("losses", "[]"))
    if not looks:
        sys.exit(status)  # pytest has said why
    piles = [{"what": key, "second_quarter": a, "last_quarter": b} for key in PILES for a, b in [growth(looks, key)]]
    finish(given.json, {"rows": rows, "piles": piles, "looks": looks, "meta": circumstances(**found)})
    sys.exit(status)


if __name__ == "__main__":
    main()
