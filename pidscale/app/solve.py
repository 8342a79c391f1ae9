"""What launch/solve.py is asked, and what it does: a file of what is known, a student, and an answer. Knows no ranks."""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pidscale.app.files import read_known, write_answer
from pidscale.config import UserError
from pidscale.figures.answer import draw, layers
from pidscale.generator.arguments import as_int
from pidscale.generator.generator import OneStepGenerator
from pidscale.generator.load import load_student
from pidscale.generator.tasks.descend import OPTIMISERS
from pidscale.generator.tasks.likeliest import Answer, solve_task
from pidscale.generator.tasks.observations import TASKS, Observation, observe, warnings_for
from pidscale.generator.tasks.posterior import Posterior, posterior
from pidscale.generator.tasks.search import MOST, Search
from pidscale.meter import ProgressLine
from pidscale.paths import at_home
from pidscale.pde import build_pde
from pidscale.pde.own import look_here

LONGEST = 200  # bytes of a file's name: file systems take 255, and a file that is being written has more than its own
FAR = 3.0  # sigma from what is known beyond which an answer is doubted


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists what can be asked")


def asked_from(words: Sequence[str], description: str) -> argparse.Namespace:
    """Arguments of a command line. Raises UserError."""
    parser = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("task", choices=TASKS, help="what is known: the inputs (forward), the solution (inverse), or some points")
    add("--student", required=True, metavar="FOLDER", help="a consolidated student, such as runs/demo/student")
    add(
        "--input",
        required=True,
        type=at_home("--input"),
        metavar="FILE",
        help="what is known: npy, npz or csv (docs/tasks.md)",
    )
    add("--out", required=True, type=at_home("--out"), metavar="FILE.npz", help="where the answer is written")
    add(
        "--picture", type=at_home("--picture"), metavar="FILE.png", help="where a picture of the first field is written"
    )
    add("--equation", metavar="NAME", help="what the student is expected to be of; module:Class for one of your own")
    add("--sigma", action="append", default=[], metavar="[CHANNEL=]S", help="noise of what is known, in its own unit")
    add("--param", action="append", default=[], metavar="NAME=VALUE", help="a parameter that is known")
    add("--posterior", type=int, metavar="K", help="draw K posterior samples in place of the likeliest field")
    add("--steps", type=int, default=Search.steps, help="network evaluations of each start (default %(default)s)")
    add("--starts", type=int, default=Search.starts, help="draws the search begins at (default %(default)s)")
    add("--seed", type=int, default=Search.seed, help="of those draws (default %(default)s)")
    add("--batch", type=int, default=Search.batch, help="fields searched at once (default %(default)s)")
    add("--physics", type=float, help="weight of the equation (default 1; 0 for posterior samples)")
    add("--optimiser", choices=list(OPTIMISERS), default=Search.optimiser, help="(default %(default)s)")
    add("--device", default="cpu", help="(default %(default)s)")
    return parser.parse_args(list(words))


def carry_out(asked: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Read, search, write and tell. Raises UserError before anything is computed, where it can."""
    for name, path, ending in (("--out", asked.out, ".npz"), ("--picture", asked.picture, ".png")):
        if path is not None:
            _check_place(name, path, ending, asked.input)
    if asked.equation is not None:
        look_here(asked.equation)
        build_pde(asked.equation)  # imports its module, which a card may not
    student = load_student(asked.student, asked.device)
    if asked.equation not in (None, student.pde.name):
        raise UserError(
            f"{asked.student}: a student of {student.pde.name}, not of {asked.equation}; name another folder"
        )
    known = read_known(student, asked.input)
    observation = observe(student, asked.task, known.values, known.masks, _sigma(asked.sigma), str(asked.input))
    for line in warnings_for(student, observation):
        say(line)
    answer = _answer(asked, student, observation, known.params | _pairs("--param", asked.param, "diffusivity=0.002"))
    write_answer(asked.out, student.pde.name, answer)
    for line in _told(answer):
        say(line)
    say(f"answer: {asked.out}")
    if asked.picture is not None:
        draw(asked.picture, layers(student, observation, answer))
        say(f"picture: {asked.picture}")


def _check_place(name: str, path: Path, ending: str, known: Path) -> None:
    """Raise UserError where a search would end with nowhere to write its answer, or over what it was asked."""
    if len(os.fsencode(path.name)) > LONGEST:
        raise UserError(f"{name}={path}: a name of more than {LONGEST} bytes; give a shorter one")
    if path.suffix != ending:
        raise UserError(f"{name}={path}: expected a name that ends in {ending}")
    if not path.parent.is_dir():
        raise UserError(f"{name}={path}: no folder {path.parent}; make it first")
    if path.is_dir():
        raise UserError(f"{name}={path}: is a folder; name a file in it")
    if path.exists() and known.exists() and path.samefile(known):
        raise UserError(f"{name}={path}: is --input too, and would be lost; name another file")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(f"{name}={path}: {error.strerror}; name a file that can be written") from None


def _answer(
    asked: argparse.Namespace, student: OneStepGenerator, observation: Observation, params: dict[str, Any]
) -> Answer | Posterior:
    line = ProgressLine(asked.task, 1)

    def show(done: int, total: int, note: str) -> None:
        line.total = total
        line.show(done, note)

    physics = asked.physics if asked.physics is not None else 0.0 if asked.posterior else 1.0
    starts = as_int("--starts", asked.starts, 1, MOST)
    search = Search(asked.steps, starts, asked.seed, asked.batch, physics, asked.optimiser, show)
    if asked.posterior is not None:
        count = as_int("--posterior", asked.posterior, 2, MOST)
        found: Answer | Posterior = posterior(student, observation, count, params, search)
    else:
        found = solve_task(student, observation, params, search)
    line.close()
    return found


def _told(answer: Answer | Posterior) -> list[str]:
    """What it is worth, field by field where there are few."""
    residual = "residual l2 {l2:.3g}, dual {dual:.3g}, boundary {boundary:.3g}"
    lines = []
    for i in range(min(8, len(answer.mismatch))):
        figures = {name: math.sqrt(float(values[i].square().mean())) for name, values in answer.residual.items()}
        apart = math.sqrt(float(answer.mismatch[i].square().mean()))
        lines.append(f"field {i}: {apart:.3g} sigma from what is known; {residual.format(**figures)}")
    if len(answer.mismatch) > len(lines):
        lines.append(f"and {len(answer.mismatch) - len(lines)} more, in the file")
    sigmas = answer.mismatch.reshape(len(answer.mismatch), -1).square().mean(dim=1).sqrt()
    if far := int((sigmas > FAR).sum()):
        lines.append(
            f"warning: {far} of {len(sigmas)} fields lie more than {FAR:g} sigma from what is known: the student makes "
            "no such field, or needs more --steps or --starts"
        )
    return lines


def _pairs(name: str, words: Sequence[str], example: str) -> dict[str, float]:
    """NAME=VALUE arguments, each name once."""
    found: dict[str, float] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if key in found:
            raise UserError(f"{name}={word}: {key} is given twice; keep one")
        try:
            found[key] = float(value)
        except ValueError:
            separator = ""
        if not separator or not key:
            raise UserError(f"{name}={word}: expected NAME=VALUE, such as {example}")
    return found


def _sigma(words: Sequence[str]) -> float | dict[str, float] | None:
    """One number for all channels, or some by channel; None where nothing is said."""
    if len(words) == 1 and "=" not in words[0]:
        try:
            return float(words[0])
        except ValueError:
            raise UserError(f"--sigma={words[0]}: expected a number, or CHANNEL=NUMBER") from None
    return _pairs("--sigma", words, "pressure=0.001, or one number for all") or None
