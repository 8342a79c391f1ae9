"""The demo on two hosts, one of which is lost for good: figures of its student beside those of the demo.

    python -m benchmarks.proofs.shrunk [--json benchmarks/results/shrunk.json]

The run is that of tests/test_shrunk.py: hosts are network namespaces, with a real Ray. `rows` has each figure of the student
of that run, and of the demo as benchmarks/results/demo.json has it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.report import circumstances, finish, options


def main() -> None:
    """Run it and write the result."""
    given = options(__doc__, "shrunk").parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "junit.xml"
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "tests/test_shrunk.py", "--shrunk"]
        status = subprocess.run([*words, f"--junitxml={file}"], check=False).returncode
        case = next(ElementTree.parse(file).iter("testcase"))
        found = {one.attrib["name"]: float(one.attrib["value"]) for one in case.iter("property")}
    names = [name for name in found if f"demo_{name}" in found]
    rows = [{"figure": name, "shrunk": found[name], "demo": found[f"demo_{name}"]} for name in names]
    finish(given.json, {"rows": rows, "meta": circumstances(passed=status == 0)})
    sys.exit(status)


if __name__ == "__main__":
    main()
