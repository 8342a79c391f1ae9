"""Cells of a comparison: one row and one task of one equation and seed, from a trained network to figures.

A cell is a file, written once it is measured, and is not measured again while its request stays the same. Knows no ranks.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pidscale.compare.contender import NONE, TEACHER, Contender, headed
from pidscale.compare.measure import whole_if
from pidscale.compare.questions import question, reference
from pidscale.compare.run import Comparison
from pidscale.compare.settings import ROW_KEYS
from pidscale.compare.tasks import TUNED, answer_row, kind_of, observation
from pidscale.config import Settings, UserError, from_plain
from pidscale.dataset.problem import open_problem
from pidscale.environment import processor
from pidscale.files import write_atomic
from pidscale.generator.artifact import read_card
from pidscale.generator.generator import Generator
from pidscale.generator.load import load_network, load_student
from pidscale.methods import METHODS, Method
from pidscale.methods.base import Question, apply_finish, ask
from pidscale.methods.controls import Smooth, SolveInput
from pidscale.pde.base import Samples
from pidscale.plain import finite, json_text
from pidscale.records.check import load_manifest
from pidscale.records.stores.opening import open_store
from pidscale.run.phases import versions

VERSION = 1  # of what is measured and how; cells of another one are measured again
SHOWN = 4  # samples of a row that are kept for pictures
FIELDS, PARAMS = "fields:", "params:"  # begin the names of their arrays
STREAM = "evaluate"
MEMORY = 4096  # largest number of training fields that `nearest` looks at


def method_of(name: str, row: dict[str, Any]) -> Method:
    """Return the method of a row with its settings.

    Args:
        name: Name of the row.
        row: The row, as in `compare.rows`.

    Returns:
        The method.

    Raises:
        UserError: When there is no such method, or a setting of it is unknown or out of range.
    """
    where = f"compare.rows.{name}"
    if row["method"] not in METHODS:
        raise UserError(f"{where}.method={row['method']}: no such method; methods: {', '.join(METHODS)}")
    kind = METHODS[row["method"]]
    known = [one.name for one in fields(kind)] + list(ROW_KEYS)
    for key in row:
        if key not in known:
            raise UserError(f"{where}.{key}: no setting of {row['method']} or of a row; known keys: {', '.join(known)}")
    given = {key: value for key, value in row.items() if key not in ROW_KEYS}
    try:
        made: Method = from_plain(kind, given, where)
    except UserError as error:  # a method names its settings `method.NAME`
        raise UserError(str(error).replace("method.", f"{where}.", 1)) from None
    return made


@dataclass(frozen=True)
class Cell:
    """One row and one task of one equation and seed.

    Attributes:
        equation: Name of the equation in the comparison.
        seed: Random seed of its networks.
        name: Name of the row.
        row: The row, as in `compare.rows`.
        task: The task.
        settings: Settings of the run whose network is asked: equation, data and report.
        generator: Folder of the network; of the teacher where the method calls none.
        heads: Numbers of solver steps for further rows.
        fields: Number of fields of a task other than `sample`.
        folder: Folder of the files of all cells.
    """

    equation: str
    seed: int
    name: str
    row: dict[str, Any]
    task: str
    settings: Settings
    generator: Path
    heads: tuple[int, ...]
    fields: int
    folder: Path

    @property
    def samples(self) -> int:
        """Number of samples or fields."""
        return min(self.row.get("samples", self.settings.evaluate.samples), self.settings.evaluate.samples)

    def request(self) -> dict[str, Any]:
        """Return all that the figures depend on, as plain JSON values. A network that is missing raises a UserError."""
        data = self.settings.data
        manifest = load_manifest(open_store(data.path, data.patience))
        return {
            "version": VERSION,
            "method": asdict(method_of(self.name, self.row)),  # type: ignore[call-overload]
            "batch": self.settings.evaluate.batch,
            "where": [self.equation, self.seed, self.name, self.task],
            "row": self.row,
            "weights": read_card(self.generator).weights_sha256,
            "data": manifest.data_hash,
            "heads": list(self.heads),
            "samples": self.samples if self.task == "sample" else self.fields,
            "noise": self.settings.evaluate.seed,
        }

    def path(self) -> Path:
        """Return the file of the cell, whose name ends in a digest of its request. Raises UserError as `request` does."""
        request = self.request()
        digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:12]
        return self.folder / f"{self.equation}-{self.seed}-{self.name}-{self.task}-{digest}.json"


@dataclass(frozen=True)
class Measured:
    """A cell that was measured, or the reason why it was not.

    Attributes:
        cell: The cell.
        rows: Its rows; none if it failed.
        failed: One line; empty if it did not.
    """

    cell: Cell
    rows: tuple[dict[str, Any], ...] = ()
    failed: str = ""


def known(cell: Cell) -> Measured | None:
    """Return a cell that was measured before; None if it was not, or something that it depends on has changed."""
    try:
        return Measured(cell, tuple(json.loads(cell.path().read_text())["rows"]))
    except (OSError, ValueError, KeyError, UserError):
        return None


def measure(cell: Cell) -> Measured:
    """Measure a cell and write its file. Whatever goes wrong is the reason in the result, and no file is written.

    Args:
        cell: The cell.

    Returns:
        The rows, or the reason why there are none.
    """
    try:
        path = cell.path()
        rows, shown = _sampled(cell) if cell.task == "sample" else _answered(cell)
        own = {"equation": cell.equation, "seed": cell.seed, "task": cell.task, "row": cell.name}
        by = {"machine": processor(), "commit": versions()["commit"]}
        rows = finite([own | one | by for one in rows])
        pictures = io.BytesIO()
        np.savez_compressed(pictures, allow_pickle=False, **shown)
        cell.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path.with_suffix(".npz"), pictures.getvalue())
        write_atomic(path, json_text({"request": cell.request(), "rows": rows}, indent=1).encode())
    except UserError as error:
        return Measured(cell, failed=str(error))
    except Exception as error:  # the table goes on without this cell
        return Measured(cell, failed=f"{type(error).__name__}: {error}".splitlines()[0][:300])
    return Measured(cell, tuple(rows))


def shown(cell: Cell) -> dict[str, Samples]:
    """Return the samples that a cell keeps for pictures, by row; none if its file is missing or damaged."""
    try:
        with np.load(cell.path().with_suffix(".npz"), allow_pickle=False) as file:
            found = {name: torch.from_numpy(file[name]) for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, UserError):
        return {}
    names = [name.removeprefix(FIELDS) for name in found if name.startswith(FIELDS)]
    return {name: Samples(found[FIELDS + name], found[PARAMS + name]) for name in names}


def contenders_of(cell: Cell, generator: Generator) -> Iterator[Contender]:
    """Yield the row of a cell of samples, then those with a finish behind it."""
    method = method_of(cell.name, cell.row)
    trained = cell.row.get("network", TEACHER) if method.takes else NONE
    yield Contender(cell.name, trained, method, head=cell.row.get("head"))
    if cell.row.get("smooth"):
        sweeps = cell.row["smooth"]
        yield Contender(f"{cell.name}+smooth{sweeps}", trained, method, Smooth(sweeps), head=0)
    if cell.row.get("solve"):
        yield Contender(f"{cell.name}+solve", trained, method, SolveInput(), head=0)
    if trained != NONE and "head" not in cell.row:
        yield from headed(cell.name, generator, method, cell.heads)


def _opened(cell: Cell) -> Generator:
    """Return the generator of a cell; a student whose method calls its teacher too has it."""
    if cell.row["method"] == "few_calls":
        return load_student(cell.generator, teacher=cell.settings.distill.teacher)
    return load_network(cell.generator)


def _sampled(cell: Cell) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Return the rows of a cell of samples, and a few samples of each."""
    settings = replace(cell.settings, evaluate=replace(cell.settings.evaluate, samples=cell.samples))
    problem = open_problem(settings.pde, settings.data)
    generator = _opened(cell)
    against = reference(settings, problem)
    names = {TEACHER, cell.row.get("network", TEACHER)}
    comparison = Comparison(
        question(settings, generator, against.truth),
        dict.fromkeys(names, generator),
        against,
        settings.evaluate.batch,
    )
    rows = [comparison.measure(one) for one in contenders_of(cell, generator)]
    return rows, _kept(comparison.samples)


def _answered(cell: Cell) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Return the rows of a cell of answers, and a few answers of each."""
    settings = cell.settings
    problem = open_problem(settings.pde, settings.data)
    generator = _opened(cell)
    if "head" in cell.row:
        generator = generator.with_head(cell.row["head"])
    held_out = problem.samples("test", TUNED + cell.fields)
    truth = Samples(held_out.fields[TUNED:], held_out.params[TUNED:])
    seen = observation(generator, truth, cell.task)
    counters = range(len(truth.fields))
    asked = Question(
        eps_NCYX=generator.eps(counters, settings.evaluate.seed, STREAM),
        params_NP=truth.params,
        counters=torch.arange(len(counters)),
        task=kind_of(cell.task),
        known=seen,
        truth=truth,
        stream=STREAM,
        training=problem.samples("train", MEMORY) if cell.row["method"] == "nearest" else None,
    )
    method = method_of(cell.name, cell.row)
    outcomes = {cell.name: ask(method, generator, asked, settings.evaluate.batch)}
    if "head" not in cell.row:
        bare = outcomes[cell.name]
        if generator.head:  # rows with other numbers of steps begin at the network's own fields
            bare = ask(method, generator.with_head(0), asked, settings.evaluate.batch)
        for one in headed(cell.name, generator, method, cell.heads):
            outcomes[one.name] = bare if one.finish is None else apply_finish(one.finish, generator, bare)
    rows: list[dict[str, Any]] = [
        {
            "method": name,
            "nfe": whole_if(found.cost.calls),
            "gradients": whole_if(found.cost.gradients),
            "residuals": whole_if(found.cost.residuals),
            **answer_row(generator, found.samples, truth, seen.known_NCYX),
            "ms_per_sample": 1e3 * found.cost.seconds,
            "train_seconds": generator.card.metrics.train_seconds or 0.0 if method.takes else 0.0,
            "n_samples": len(truth.fields),
        }
        for name, found in outcomes.items()
    ]
    return rows, _kept({name: found.samples for name, found in outcomes.items()})


def _kept(made: dict[str, Samples]) -> dict[str, np.ndarray]:
    """Return the first samples of each row, and their parameters, as arrays by name."""
    fields = {FIELDS + name: samples.fields[:SHOWN].float().numpy() for name, samples in made.items()}
    return fields | {PARAMS + name: samples.params[:SHOWN].numpy() for name, samples in made.items()}
