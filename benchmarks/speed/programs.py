"""Students as programs: how far their fields are from PyTorch's, and the time of a sample beside PyTorch's.

python -m benchmarks.speed.programs [--quick] [--json benchmarks/results/programs.json]

Students of students/ are exported with their heads and without, for torch.export (.pt2) and in ONNX. The module in PyTorch,
the loaded .pt2 file and the file in ONNX (by onnxruntime) make the same fields from the same noise by turns, with one thread
each. Times are of the processor and this process alone: medians, and ratios to PyTorch, medians of the ratios of single turns
with their least and greatest. Students whose solver steps ONNX cannot hold are measured without them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from benchmarks.report import Row, apart, circumstances, finish, options, ratios
from pidscale.config import UserError
from pidscale.generator.load import load_student
from pidscale.generator.programs import write_program
from pidscale.generator.student import Student

STUDENTS = ("darcy", "poisson", "burgers", "navier_stokes")
BATCHES = (1, 16)
REPEATS = 7
SEED = 3

Program = Callable[[], Tensor]


def written(student: Student, folder: Path) -> dict[str, Path]:
    """Write a student's programs; none where ONNX cannot hold its solver steps."""
    found = {form: folder / f"student.{form}" for form in ("onnx", "pt2")}
    try:
        for path in found.values():
            write_program(student, path)
    except UserError as error:
        print(f"not measured: {error}")
        return {}
    return found


def opened(student: Student, paths: dict[str, Path], count: int) -> dict[str, Program]:
    """Return what makes `count` fields [count, C, Y, X] from the same noise, by its name."""
    eps = student.eps(range(count), SEED)
    none = eps.new_zeros(count, 0)  # samples of these students do not differ in parameters
    module = student.module().eval()
    found: dict[str, Program] = {"torch": lambda: module(eps, none)}
    program = torch.export.load(paths["pt2"]).module()
    found["pt2"] = lambda: program(eps)
    one = onnxruntime.SessionOptions()
    one.intra_op_num_threads = one.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(paths["onnx"], one)
    noise = eps.numpy()
    found["onnx"] = lambda: torch.from_numpy(session.run(["fields"], {"noise": noise})[0])
    return found


def measure(programs: dict[str, Program], count: int, repeats: int) -> Row:
    """Return milliseconds of a sample, ratios to PyTorch, and the distance of fields: the worst channel's, relative to it."""
    with torch.no_grad():
        made = {name: program() for name, program in programs.items()}
        spent: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(repeats):
            for name, program in programs.items():
                began = time.process_time()
                program()
                spent[name].append(1e3 * (time.process_time() - began) / count)
    row: Row = {"batch": count}
    whole = made["torch"]
    for name in programs:
        row[f"{name}_ms"] = statistics.median(spent[name])
        if name == "torch":
            continue
        row[f"{name}_ratio"], row[f"{name}_spread"] = ratios(spent[name], spent["torch"])
        row[f"{name}_apart"] = apart(made[name], whole)
    return row


def rows_of(names: Collection[str], batches: Collection[int], repeats: int) -> list[Row]:
    """Return the rows of these students, with their heads and without."""
    rows = []
    for name in names:
        own = load_student(Path("students") / name)
        for student in [own, own.with_head(0)] if own.head else [own]:
            with tempfile.TemporaryDirectory() as folder:
                paths = written(student, Path(folder))
                if not paths:
                    continue
                first: Row = {"student": name, "network": student.card.architecture["kind"], "head": student.head}
                first |= {f"{form}_bytes": path.stat().st_size for form, path in paths.items()}
                rows += [first | measure(opened(student, paths, batch), batch, repeats) for batch in batches]
    return rows


def main() -> None:
    """Measure and write the rows."""
    parser = options(__doc__, "programs")
    parser.add_argument("--quick", action="store_true", help="one student and one repeat, for a test")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    repeats = 1 if asked.quick else REPEATS
    rows = rows_of(STUDENTS[1:2] if asked.quick else STUDENTS, BATCHES, repeats)
    finish(asked.json, {"rows": rows, "meta": circumstances(seed=SEED, repeats=repeats)}, "programs")


if __name__ == "__main__":
    main()
