"""Settings of earlier versions: renamed keys, and the values implied by keys that did not exist yet.

Old names are accepted for one more version, with a warning that gives the new name. Knows no current settings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

NAMES = {
    "distill.objective": "distill.objective.name",
    "distill.match": "distill.objective.match",
    "distill.levels": "distill.objective.levels",
    "distill.distance": "distill.objective.distance",
    "distill.huber": "distill.objective.huber",
    "distill.power": "distill.objective.power",
    "distill.ring": "distill.buffer_rows",
    "distill.twin": "distill.control",
}
VALUES = {"distill.source": {"ring": "thread"}}

# Values assumed for keys that did not exist when a run was started.
MEANT: dict[str, Any] = {
    "teacher.noise": "edm",
    "teacher.p_std": None,
    "teacher.objective.name": "denoising",
    "teacher.objective.estimate_steps": 1,
    "distill.objective.name": "piddm",
    "distill.objective.match": 4.0,
    "distill.objective.call_levels": [],
    "distill.objective.levels": 250,
    "distill.objective.distance": "l2",
    "distill.objective.huber": 0.0,
    "distill.objective.power": 0.0,
    "distill.start": "teacher",
    "distill.weights.conservation": 0.0,
    "distill.weights.initial": 0.0,
    "distill.physics_weight": 1.0,
    "distill.physics_from": 0.0,
    "distill.physics_ramp": 0.0,
    "distill.combine": "sum",
    "distill.goal": 0.2,
    "distill.constraints": [],
    "distill.head": 0,
    "distill.head_in_training": False,
    "distill.teacher_precision": "fp32",
}


def renewed(
    distill: Mapping[str, Any], known: Callable[[Any], Collection[str]], say: Callable[[str], None]
) -> dict[str, Any]:
    """Return the section `distill` with old names replaced by current ones.

    Earlier versions kept the settings of all objectives in one section. Settings that the selected objective does not have
    are omitted if they have their former default value.

    Args:
        distill: The section as plain values, with names of the current or of earlier versions.
        known: Returns the names of the settings of an objective, given its name.
        say: Called with one line of text for each old name.

    Returns:
        The section as plain values. A value under an old name takes precedence, because the files of configs/ use new names
        only.
    """
    found = dict(distill)
    for key, changes in VALUES.items():
        short = key.removeprefix("distill.")
        value = found.get(short)
        if isinstance(value, str) and value in changes:
            found[short] = changes[value]
            say(_line(f"{key}={value}", f"{key}={changes[value]}"))
    objective = found.get("objective", {})
    if isinstance(objective, str):
        say(_line("distill.objective", "distill.objective.name"))
        found["objective"] = objective = {"name": objective}
    if not isinstance(objective, Mapping):  # refused when it is parsed
        return found
    for old, new in NAMES.items():
        short = old.removeprefix("distill.")
        if short == "objective" or short not in found:
            continue
        value = found.pop(short)
        section, _, key = new.removeprefix("distill.").rpartition(".")
        if not section:
            found[key] = value
        elif value != MEANT[new] or key in known(objective.get("name", MEANT["distill.objective.name"])):
            found["objective"] = objective = {**objective, key: value}
        else:
            continue
        say(_line(old, new))
    return found


def signature_of_today(signed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recorded settings of a run, by dotted name, with old names replaced by current ones."""
    weights = signed.get("distill.weights", {})  # earlier versions stored this section as one mapping
    found = {NAMES.get(key, key): value for key, value in signed.items() if key != "distill.weights"}
    return found | {f"distill.weights.{key}": value for key, value in weights.items()}


def _line(old: str, new: str) -> str:
    return f"warning: {old} is now {new}; this version still reads the old name, the next one does not"
