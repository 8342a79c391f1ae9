"""Loads a consolidated generator from its folder. Needs torch, numpy and safetensors only; knows no ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pidscale.caller import sheltered
from pidscale.config import UserError
from pidscale.generator.arguments import as_device
from pidscale.generator.artifact import TEACHER, check_weights, read_card, read_weights
from pidscale.generator.card import Card, Kind
from pidscale.generator.generator import Generator, Teacher
from pidscale.generator.hub import local
from pidscale.generator.regression import Regression
from pidscale.generator.section import REMEDY
from pidscale.generator.student import Student
from pidscale.generator.tasks.start import FOLDER as START
from pidscale.generator.tasks.start import read_start
from pidscale.models import build_denoiser
from pidscale.models.precondition import PreconditionedNetwork
from pidscale.ops.grid import Grid
from pidscale.paths import expanded
from pidscale.pde import stored_pde
from pidscale.pde.base import Pde
from pidscale.pde.constraints import check_constraints
from pidscale.pde.head import check_head


@sheltered
def load_student(
    path: str | Path,
    device: str | torch.device = "cpu",
    teacher: str | Path | None = None,
    with_start: bool = True,
    revision: str | None = None,
) -> Student:
    """Load a consolidated student from its folder, or from a repository of the Hugging Face hub (generator/hub.py).

    A UserError says so if a file is missing, truncated or altered, if the folder holds something else, if `teacher` is not
    the teacher that the student was distilled from, or if the hub refuses.

    Args:
        path: Folder of the student; where there is no such folder, a name such as "org/name" is that of a repository.
        device: Device of the network, such as "cuda".
        teacher: Folder of its teacher, for more than one network call; None for the teacher in the student's folder, if any.
        with_start: Whether to load the start network of its searches, if there is one in the student's folder.
        revision: A branch, a tag or a commit of the repository; None for its main branch.

    Returns:
        The student.
    """
    _check_path(path, "load_student")
    with local(path, revision) as here:
        folder, card, parts = _opened(here, device)
        _expect(folder, card, Kind.STUDENT)
        student = Student(**parts)
        if with_start and (folder / START).is_dir():
            student = replace(student, start=read_start(folder, student))
        if teacher is None and (folder / TEACHER).is_dir():
            teacher = folder / TEACHER
        return student if teacher is None else _with_teacher(student, folder, teacher)


@sheltered
def load_teacher(path: str | Path, device: str | torch.device = "cpu", revision: str | None = None) -> Teacher:
    """Load a consolidated teacher from its folder, or from a repository of the Hugging Face hub.

    A UserError says so if a file is missing, truncated or altered, if the folder holds something else, or if the hub refuses.

    Args:
        path: Folder or repository of the teacher, as in `load_student`.
        device: Device of the network, such as "cuda".
        revision: As in `load_student`.

    Returns:
        The teacher.
    """
    _check_path(path, "load_teacher")
    with local(path, revision) as here:
        folder, card, parts = _opened(here, device)
        _expect(folder, card, Kind.TEACHER)
        return Teacher(**parts)


def outline_teacher(path: str | Path) -> Teacher:
    """Open a teacher without its weights, which are on the device `meta`: for a process that needs its card and shapes.

    A UserError says so if the card cannot be used, if the weights are missing or truncated, or if the folder holds something
    else.

    Args:
        path: Folder of the teacher.

    Returns:
        The teacher.
    """
    _check_path(path, "outline_teacher")
    folder, card, parts = _opened(expanded(path, "path"), None)
    _expect(folder, card, Kind.TEACHER)
    return Teacher(**parts)


def load_generator(
    path: str | Path, device: str | torch.device = "cpu", revision: str | None = None
) -> Student | Teacher:
    """Load a student or a teacher, whichever the folder holds; arguments and errors are as in `load_student`.

    A student has a teacher only if its folder has one; to name another folder, use `load_student`.
    """
    with local(path, revision) as here:
        is_student = read_card(here).kind is Kind.STUDENT
        return load_student(here, device) if is_student else load_teacher(here, device)


@sheltered
def load_network(path: str | Path, device: str | torch.device = "cpu") -> Generator:
    """Load what a folder holds, a generator or a network that was trained by regression; see `load_generator`."""
    if read_card(expanded(path, "path")).kind is not Kind.REGRESSION:
        return load_generator(path, device)
    _, _, parts = _opened(expanded(path, "path"), device)
    return Regression(**parts)


def _expect(folder: Path, card: Card, kind: Kind) -> None:
    """Raise UserError unless a folder holds a generator of a kind."""
    if card.kind is kind:
        return
    remedy = {
        Kind.STUDENT: "load it with load_student",
        Kind.TEACHER: "load it with load_teacher",
        Kind.REGRESSION: "it answers the forward problems of a comparison and makes no samples",
    }
    raise UserError(f"{folder}: holds a {card.kind}, expected a {kind}; {remedy[card.kind]}")


def _check_path(path: object, function: str) -> None:
    if not isinstance(path, (str, Path)):
        raise UserError(f"{function}({path!r}): expected the path of a folder")


def _opened(name: str, device: str | torch.device | None) -> tuple[Path, Card, dict[str, Any]]:
    """Return folder, card and attributes of a generator, without weights if `device` is None."""
    where = torch.device("meta") if device is None else as_device(device)
    card = read_card(name)
    weights = None if device is None else read_weights(name, card)
    if weights is None:
        check_weights(name, card)
    pde = stored_pde(str(name), card.equation.name, card.equation.params)
    card.check_fits_equation(pde, str(name))
    try:
        denoiser = _denoiser(card, weights)
        check_constraints(pde, card.constraints)
        check_head(pde, card.head)
    except (UserError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])[:160]
        raise UserError(f"{name}: card and weights do not fit together ({reason}); {REMEDY}") from None
    parts = {
        "card": card,
        "denoiser": denoiser.to(where).eval().requires_grad_(False),
        "pde": pde,
        "grid": card.grid,
        "normaliser": card.normaliser,
        "noise": card.noise,
        "device": where,
        "head": card.head,
    }
    return Path(name), card, parts


def _denoiser(card: Card, weights: dict[str, torch.Tensor] | None) -> PreconditionedNetwork:
    """Return the network of a card with these weights, in float32 on the CPU; without weights, on the device `meta`."""
    with torch.device("meta"):  # shapes only: the file has the weights, so none are drawn
        denoiser = build_denoiser(card.architecture, card.noise.sigma_data, "fp32")
    if weights is None:
        return denoiser
    own = {name: values.to(torch.float32, copy=True) for name, values in weights.items()}
    denoiser.load_state_dict(own, assign=True)
    return denoiser


def _with_teacher(student: Student, path: Path, folder: str | Path) -> Student:
    """Return the student with its teacher. Raises UserError if the folder holds another teacher."""
    teacher = load_teacher(folder, student.device)
    if teacher.card.weights_sha256 != student.card.provenance.teacher:
        raise UserError(f"{folder}: not the teacher that {path} was distilled from; give the folder of that one")
    return replace(student, teacher=teacher)


def check_fits(generator: Generator, path: str | Path, pde: Pde, grid: Grid, remedy: str) -> None:
    """Check that a generator has the equation, the parameters and the grid of the settings.

    Args:
        generator: The generator.
        path: Folder of the generator, for the message.
        pde: Equation of the settings.
        grid: Grid of the settings.
        remedy: End of the message, which says what to do.

    Raises:
        UserError: When equation, parameters or grid differ.
    """
    for key, have, want in (
        ("equation", _equation(generator.pde), _equation(pde)),
        ("grid", generator.grid.describe(), grid.describe()),
    ):
        if have != want:
            kind = generator.card.kind
            raise UserError(f"{path}: {kind} of {key} {have}, the settings say {want}; {remedy}")


def _equation(pde: Pde) -> str:
    """Return name and parameters of an equation as text."""
    return ", ".join([pde.name, *(f"{k}={v}" for k, v in sorted(pde.params_dict().items()))])
