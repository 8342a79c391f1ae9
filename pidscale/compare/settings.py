"""Settings of a comparison: equations, networks, rows and tasks. Imports no torch: a command line is checked before that."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from pidscale.setting import UserError, setting

TASKS = ("sample", "forward", "inverse", "reconstruct", "noisy")
LAMBDA0 = "-lambda0"  # ends the name of a student's control
ROW_KEYS: dict[str, tuple[type, Any, Any]] = {  # keys of a row that are no settings of its method: type, least, most
    "method": (str, "", ""),
    "network": (str, "", ""),
    "samples": (int, 2, 2**20),
    "head": (int, 0, 64),
    "smooth": (int, 0, 1000),
    "solve": (bool, False, True),
}


@dataclass(frozen=True)
class CompareSettings:
    """Settings of a comparison.

    Attributes:
        equations: Names of the equations, choices of `pde=`.
        seeds: Random seeds; every network is trained and asked once with each.
        tasks: Tasks of the table.
        rows: What the table compares, by name: `method` and its settings; `network`, the one that it asks; `samples`, a
            smaller number of samples; `head`, solver steps behind the network; `smooth`, sweeps of a smoother for a further
            row; `solve`, whether there is a further row with the numerical solution of the generated inputs.
        only: Names of the rows that are measured; empty: all of them.
        teachers: Words of the command that trains a teacher, by name; `teacher` teaches the students.
        students: Words of the command that distils a student, by name.
        change: Further words of all commands of one equation, by the name of the equation.
        heads: Numbers of solver steps; each answer is also measured behind each of them.
        fields: Number of held-out fields of each task other than `sample`.
        longest: Minutes after which a cell is ended and counts as failed.
        at_once: Largest number of networks that are trained at the same time; fewer where the cluster has no room for them.
    """

    equations: list[str] = setting(["darcy"], some=True, distinct=True)
    seeds: list[int] = setting([0], at_least=0, some=True, distinct=True)
    tasks: list[str] = setting(list(TASKS), choices=TASKS, some=True, distinct=True)
    rows: dict[str, Any] = field(default_factory=dict)
    only: list[str] = setting([], distinct=True)
    teachers: dict[str, Any] = field(default_factory=lambda: {"teacher": []})
    students: dict[str, Any] = field(default_factory=dict)
    change: dict[str, Any] = field(default_factory=dict)
    heads: list[int] = setting([4], at_least=1, at_most=64, distinct=True)
    fields: int = setting(32, at_least=1)
    longest: float = setting(240.0, above=0)
    at_once: int = setting(8, at_least=1, at_most=256, why="each takes a process on this host")

    def __post_init__(self) -> None:
        if "teacher" not in self.teachers:
            raise UserError("compare.teachers: no 'teacher'; students learn from the teacher of this name")
        for section, commands in (("teachers", self.teachers), ("students", self.students), ("change", self.change)):
            for name, words in commands.items():
                _check_name(f"compare.{section}", name)
                if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                    example = f"'compare.{section}.{name}=[\"distill=pid\"]'"
                    raise UserError(f"compare.{section}.{name}={words!r}: expected a list of words, such as {example}")
        for name in self.students:
            if name in self.teachers:
                raise UserError(f"compare.students.{name}: a teacher has this name too; choose another")
        for name, row in self.rows.items():
            _check_name("compare.rows", name)
            self._check_row(f"compare.rows.{name}", row)
        for name in self.only:
            if name not in self.rows:
                raise UserError(f"compare.only: no row {name!r}; rows: {', '.join(self.rows)}")

    def _check_row(self, where: str, row: Any) -> None:
        if not isinstance(row, dict) or not isinstance(row.get("method"), str):
            raise UserError(f"{where}={row!r}: expected a section with a method, such as {{method: one_call}}")
        for key, (kind, least, most) in ROW_KEYS.items():
            value = row.get(key, least)
            fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
            if not fits or (kind is int and not least <= value <= most):
                bounds = f" from {least} to {most}" if kind is int else ""
                raise UserError(f"{where}.{key}={value!r}: expected {_KINDS[kind]}{bounds}")
        known = [*self.networks, *(f"{student}{LAMBDA0}" for student in self.students)]
        if row.get("network", "teacher") not in known:
            raise UserError(f"{where}.network={row['network']}: no such network; networks: {', '.join(known)}")

    @property
    def networks(self) -> list[str]:
        """Names of all networks that are trained."""
        return [*self.teachers, *self.students]

    @property
    def measured(self) -> dict[str, dict[str, Any]]:
        """The rows that are measured, by name."""
        return {name: row for name, row in self.rows.items() if not self.only or name in self.only}

    @property
    def asked(self) -> set[str]:
        """Names of the networks that the measured rows are about, and of the teacher of the students."""
        return {row.get("network", "teacher").removesuffix(LAMBDA0) for row in self.measured.values()} | {"teacher"}


_KINDS = {str: "text", int: "a whole number", bool: "true or false"}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def _check_name(where: str, name: Any) -> None:
    """Check a name, which becomes part of the names of files. Raises UserError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(f"{where}: {name!r} is no name; expected letters, digits, and _ . - within them")
