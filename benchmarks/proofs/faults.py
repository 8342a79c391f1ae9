"""Losses during runs on two hosts: what a run does after each, how long that takes, and what it costs.

    python -m benchmarks.proofs.faults --trials 3            # every fault three times
    python -m benchmarks.proofs.faults --trials 1 --add --only killed

The trials are those of tests/test_faults.py: two hosts that are network namespaces, a real Ray, real runs. `trials` of the
result has each of them, `rows` has a line for each fault and phase. --add keeps the trials that the file has of this package
(the folder pidscale/ as committed), so that they can be run in several parts.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.report import Row, circumstances, finish, known_trials, options

PHASES = ("shards", "teacher", "distill")
NUMBERS = ("hosts", "steps_lost", "seconds_to_notice", "seconds_to_resume", "seconds_silent")


def package() -> str:
    """Return the name that git gives the contents of pidscale/; an error of git if they are not committed."""
    subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "pidscale"], check=True)
    found = subprocess.run(["git", "rev-parse", "HEAD:pidscale"], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def run_trials(times: int, only: str, jobs: int, file: Path) -> None:
    """Run the tests of faults, whose figures pytest writes to a file; each job has two hosts of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(jobs), "tests/test_faults.py", f"--trials={times}"]
    subprocess.run([*command, f"--junitxml={file}", *(["-k", only] if only else [])], env=dict(os.environ), check=False)


def read_trials(file: Path) -> Iterator[Row]:
    """Yield the figures of each trial, and the reason of one that failed."""
    for case in ElementTree.parse(file).iter("testcase"):
        found: dict[str, Any] = {
            one.attrib["name"]: _value(one.attrib["name"], one.attrib["value"]) for one in case.iter("property")
        }
        failed = case.find("failure") if case.find("failure") is not None else case.find("error")
        if "fault" in found:
            found["recovered"] = failed is None and found.get("recovered") is True
            if failed is not None:
                found["failed"] = failed.attrib.get("message", "")[:300]
            yield found


def _value(name: str, text: str) -> Any:
    if text in ("None", "True", "False"):
        return {"None": None, "True": True, "False": False}[text]
    return float(text) if name in NUMBERS else text


def ordered(trials: list[Row]) -> list[Row]:
    """Return trials by fault and phase."""
    return sorted(trials, key=lambda one: (one["fault"], PHASES.index(one["phase"])))


def rows_of(trials: list[Row]) -> Iterator[Row]:
    """Yield a row for each fault and phase."""
    for fault, phase in dict.fromkeys((one["fault"], one["phase"]) for one in trials):
        own = [one for one in trials if (one["fault"], one["phase"]) == (fault, phase)]
        equal = [one["result_equal"] for one in own if one.get("result_equal") is not None]
        yield {
            "fault": fault,
            "phase": phase,
            "hosts": 2,
            "trials": len(own),
            "submitted": sum(bool(one.get("submitted")) for one in own),
            "recovered": sum(bool(one["recovered"]) for one in own),
            "steps_lost_max": max(
                (one["steps_lost"] for one in own if one.get("steps_lost") is not None), default=None
            ),
            "seconds_to_notice": _median(own, "seconds_to_notice"),
            "seconds_to_notice_max": max((one.get("seconds_to_notice") or 0.0 for one in own), default=None),
            "seconds_to_resume": _median(own, "seconds_to_resume"),
            "seconds_silent_max": max((one.get("seconds_silent") or 0.0 for one in own), default=None),
            "result_equal": None if not equal else sum(equal),
            "message": next((one["message"] for one in own if one.get("message")), ""),
        }


def _median(trials: list[Row], key: str) -> float | None:
    found = [one[key] for one in trials if one.get(key) is not None]
    return statistics.median(found) if found else None


def main() -> None:
    """Run the trials and write the result."""
    parser = options(__doc__, "faults")
    parser.add_argument("--trials", type=int, default=3, help="trials of each fault and phase")
    parser.add_argument("--only", default="", help="an expression of pytest -k that selects faults")
    parser.add_argument(
        "--jobs", type=int, default=1, help="trials that run side by side, which makes each of them slower"
    )
    parser.add_argument("--add", action="store_true", help="keep the trials that the file has of this commit")
    given = parser.parse_args()
    meta = circumstances(jobs=given.jobs)
    tried = package()
    kept = [one for one in known_trials(given.json) if one["package"] == tried] if given.add else []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "junit.xml"
        run_trials(given.trials, given.only, given.jobs, file)
        trials = ordered(kept + [{**one, "package": tried} for one in read_trials(file)])
    finish(given.json, {"rows": list(rows_of(trials)), "trials": trials, "meta": meta}, "faults")
    if not all(one["recovered"] for one in trials):
        sys.exit(1)


if __name__ == "__main__":
    main()
