"""SHA-256 of what tiny runs leave: a change that promises to move no number is compared with the commit before it.

python -m benchmarks.proofs.fingerprints [--json FILE] [--against FILE]

UNet and FNO, EDM and flow teachers, each objective, whole fields and fields split over two ranks: weights of teacher,
student and lambda = 0 student, and the fields that the PIDDM student makes (one call, three calls, refined, a task).
Bits belong to one processor and one version of torch, so both files must come from one machine. Exits with status 1 if any
fingerprint differs.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.ranks import spawn
from benchmarks.report import Row, circumstances, options, save
from pidscale.config import Settings, from_plain
from pidscale.distill import loop as distill_loop
from pidscale.generator.load import load_student, load_teacher
from pidscale.limits import check
from pidscale.make.make import make_shard_set
from pidscale.parallel.mesh import Mesh
from pidscale.pde import build_pde
from pidscale.run.reporting import Reporter
from pidscale.teacher import loop as teacher_loop

POINTS = 16
MODELS: dict[str, dict[str, Any]] = {
    "unet": {"kind": "unet", "change": {"width": 8, "multipliers": [1, 2], "embedding": 16}},
    "fno": {"kind": "fno", "change": {"width": 8, "modes": 4, "layers": 2, "embedding": 16}},
}
NOISES = ("edm", "flow")
OBJECTIVES: dict[str, dict[str, Any]] = {
    "piddm": {
        "objective": {"name": "piddm", "huber": 0.03, "power": 0.1},
        "physics_from": 0.25,
        "gradient_to": "shape",
    },
    "pid": {"objective": {"name": "pid", "levels": 20}},
    "dm": {"objective": {"name": "dm", "match": 4.0}},
}
TRAINING = {"log_every": 2, "checkpoint_every": 100, "micro_batch": 2}


def _settings(shards: Path, folder: Path, model: str, noise: str, objective: str, space: int) -> Settings:
    plain = {
        "pde": {"points": POINTS},
        "data": {"path": str(shards)},
        "model": MODELS[model],
        "teacher": {**TRAINING, "steps": 10, "global_batch": 6, "warmup": 4, "noise": noise, "evaluate_samples": 4}
        | {"lr": 2e-3},
        "distill": {**TRAINING, "solver": "heun", "physics_from": 0.0, "gradient_to": "all", **OBJECTIVES[objective]}
        | {"steps": 8, "global_batch": 8, "warmup": 2, "chunk": 2, "solver_steps": 3, "scale_steps": 3}
        | {"scale_samples": 8, "buffer_rows": 3, "reuse": 2, "teacher": str(folder / "teacher")},
        "cluster": {"space": space, "workers": space},
        "run": {"folder": str(folder), "name": "run"},
    }
    settings = from_plain(Settings, plain)
    check(settings)
    return settings


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _runs(rank: int, world: int, shards: Path, root: Path) -> None:
    """Make every run of one mesh, whose ranks share each field."""
    mesh = Mesh.over(rank, world, torch.device("cpu"), world, 300)
    for model in MODELS:
        for noise in NOISES:
            own = root / f"{model}-{noise}-{world}"
            for objective in OBJECTIVES:
                settings = _settings(shards, own, model, noise, objective, world)
                own.mkdir(parents=True, exist_ok=True)
                if not (own / "teacher").exists():
                    mesh.barrier()
                    teacher_loop.train(settings, own, mesh, Reporter(say=lambda text: None))
                folder = own / objective
                folder.mkdir(exist_ok=True)
                mesh.barrier()
                distill_loop.train(settings, folder, mesh, Reporter(say=lambda text: None))


def _fields(folder: Path, teacher: Path) -> dict[str, str]:
    """Fields of a student by how they were asked for."""
    student = load_student(folder, teacher=teacher)
    known = student.sample(2, seed=5)
    asked = {
        "one call": student.sample(4, seed=1),
        "three calls": student.sample(4, seed=1, nfe=3),
        "refined": student.refine(4, seed=1, steps=3).fields,
        "forward": student.forward({"permeability": known["permeability"]}, steps=3, starts=2).fields,
        "teacher": load_teacher(teacher).sample(4, seed=1, steps=3),
    }
    return {
        way: _sha256(b"".join(fields[name].contiguous().numpy().tobytes() for name in sorted(fields)))
        for way, fields in asked.items()
    }


def measure() -> list[Row]:
    """Return a row for each file of weights and each set of fields."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="fingerprints-") as name:
        root = Path(name)
        shards = root / "shards"
        pde = build_pde("darcy")
        counts = {"train": 48, "test": 16}
        make_shard_set(pde, shards, counts, grid=pde.grid(POINTS), seed=3, samples_per_shard=16, parallel=False)
        for world in (1, 2):
            spawn(_runs, world, shards, root, timeout=1800)
        for file in sorted(root.glob("*/**/weights.safetensors")):
            rows.append({"what": str(file.parent.relative_to(root)), "sha256": _sha256(file.read_bytes())})
        for run in sorted(root.glob("*-*-1")):
            for way, value in _fields(run / "piddm" / "student", run / "teacher").items():
                rows.append({"what": f"{run.name}, {way}", "sha256": value})
    return rows


def compare(rows: list[Row], earlier: Path) -> bool:
    """Print which fingerprints differ from those of a file; return whether any does."""
    before = {row["what"]: row["sha256"] for row in json.loads(earlier.read_text())["rows"]}
    now = {row["what"]: row["sha256"] for row in rows}
    differing = sorted(what for what in before | now if before.get(what) != now.get(what))
    for what in differing:
        print(f"differs: {what}")
    print(f"{len(before | now) - len(differing)} of {len(before | now)} fingerprints are those of {earlier}")
    return bool(differing)


def main() -> None:
    """Train, write and compare."""
    parser = options(__doc__, "fingerprints")
    parser.add_argument("--against", type=Path, help="a file of an earlier commit, of this machine")
    arguments = parser.parse_args()
    rows = measure()
    save(arguments.json, {"rows": rows, "meta": circumstances()})
    if arguments.against is None:
        print(f"{len(rows)} fingerprints in {arguments.json}")
        return
    raise SystemExit(compare(rows, arguments.against))


if __name__ == "__main__":
    main()
