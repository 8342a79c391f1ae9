"""The demo on two hosts, one of which is lost for good while the teacher trains: its student is as good as that of the demo.

`python -m benchmarks.proofs.shrunk` runs it, which takes as long as the demo; without --shrunk, this file is not collected.
"""

from __future__ import annotations

import json
import re

import pytest

from tests.hosts import LACKING, POSSIBLE
from tests.pair import HEAD, running, until
from tests.scripts import LAUNCH, ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not POSSIBLE, reason=LACKING),
]
FIGURES = ("residual_l2", "residual_dual", "boundary_rms", "solution_error", "swd_excess")
LOST_AT = 400  # of the teacher's 1000 steps


@pytest.fixture
def pair(tmp_path):
    with running(tmp_path) as made:
        yield made


def test_the_student_of_a_run_that_lost_a_host_for_good_is_that_of_the_demo(pair, record_property):
    folder = pair.folder
    log = folder / "demo.log"
    words = [f"run.folder={folder}/runs", f"data.path={folder}/darcy32", "teacher.checkpoint_every=50"]
    words += ["cluster.max_failures=1", "cluster.min_workers=1", "cluster.shrink_after=3", "cluster.wait=120"]
    one = pair.hosts["one"]
    process = one.start("python", str(LAUNCH / "demo.py"), *words, log=log, RAY_ADDRESS=HEAD, **pair.own)
    until(log, rf"teacher \[.*\] ({LOST_AT // 100}|[{LOST_AT // 100 + 1}-9])\d\d/1000", process)
    pair.hosts["two"].close()
    until(log, r"failure 1 of cluster.max_failures=1; goes on from step \d+", process)
    until(log, r"goes on with cluster.workers=1", process)
    assert process.wait(3000) == 0, log.read_text()[-3000:]
    assert re.search(r"distill \[#+\] \d+/\d+", log.read_text())
    found = json.loads((folder / "runs/demo/report/metrics.json").read_text())["rows"]
    known = json.loads((ROOT / "benchmarks/results/demo.json").read_text())["rows"]
    rows = {row["method"]: row for row in found}
    demo = next(row for row in known if row["method"] == "student")
    student = rows["student"]
    for name in FIGURES:
        record_property(name, student[name])
        record_property(f"demo_{name}", demo[name])
    for other in ("student-lambda0", "teacher-heun-18", "student-lambda0+smooth3"):
        assert student["residual_dual"] < rows[other]["residual_dual"], other
        assert student["solution_error"] < rows[other]["solution_error"], other
    for name in FIGURES:
        assert student[name] < 1.15 * demo[name], name
