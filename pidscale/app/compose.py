"""Composes settings with Hydra from the groups of configs/ and the words of a command line, and checks them.

Must not know the purpose of any setting, and imports no torch, except where `config.objective_class` is called.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pidscale.compare.settings import CompareSettings
from pidscale.config import PHASES, Settings, UserError, from_plain
from pidscale.limits import check
from pidscale.paths import PATH_SETTINGS, expanded, with_paths

_PACKAGE = Path(__file__).resolve().parent.parent
# an installation has the folder inside the package, a checkout beside the package
CONFIGS = next(folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir())
COMPARE = "compare"  # the file of configs/ that describes a comparison, its group, and its section
OWN = {  # what the runs of a comparison have of their own, and what to do
    "pde": "name it in compare.equations",
    "pde.name": "name it in compare.equations",
    "data.path": "run.folder and run.name say where all of them lie",
    "run.seed": "name seeds in compare.seeds",
    "distill": "compare.students says what is trained",
    "distill.objective.name": "compare.students says what is trained",
    "teacher.objective.name": "compare.teachers says what is trained",
    "distill.teacher": "students learn from compare.teachers.teacher",
}
SHARED = ("run", "evaluate", "data", "pde", COMPARE)  # sections that all networks of an equation share
_BARE_WORDS = re.compile(r"(compare\.(?:teachers|students|change)\.[^=\[\]]+)=\[([^'\"]*=[^'\"]*)\]")
_ANY_TEXT = (*PATH_SETTINGS, "run.name")  # settings whose value is a path or a name, which may contain any character


@dataclass(frozen=True)
class Comparison:
    """Settings of a comparison.

    Attributes:
        compare: What is compared.
        common: Settings that all runs share; `run.folder` and `run.name` say where the comparison lies.
        runs: Settings of each run that the rows are about, by equation and network, without its place, its data and its seed.
    """

    compare: CompareSettings
    common: Settings
    runs: dict[tuple[str, str], Settings]


def groups(config_dir: Path | None = None, config: str = "config") -> dict[str, list[str]]:
    """Return the configuration groups and the choices of each group.

    Args:
        config_dir: Folder of the user, with further groups or with further choices for the groups of pidscale.
        config: File of configs/ with the default choices; plans of comparisons are a group of COMPARE alone.

    Returns:
        Sorted mapping from group to a sorted list of choices, which are file names without suffix.
    """
    found: dict[str, set[str]] = {}
    for folder in (CONFIGS, *([config_dir] if config_dir else [])):
        for group in folder.iterdir():
            if group.is_dir() and (group.name != COMPARE or config == COMPARE):
                found.setdefault(group.name, set()).update(path.stem for path in group.glob("*.yaml"))
    return {name: sorted(found[name]) for name in sorted(found) if found[name]}


def settings_from(
    arguments: Sequence[str],
    config: str = "config",
    phases: Sequence[str] = PHASES,
    config_dir: Path | None = None,
) -> Settings:
    """Compose settings from groups and arguments, and check them.

    A wrong argument, file of the folder or value raises a UserError.

    Args:
        arguments: Arguments of the form `group=choice` or `section.key=value`.
        config: File of configs/ with the default choices.
        phases: Phases that will run; their batches must fit the workers.
        config_dir: Folder of the user with further groups. Its files take precedence over those of pidscale.

    Returns:
        All settings, with `~` expanded.
    """
    plain = composed(arguments, config, config_dir)
    if config == COMPARE:
        plain.pop(COMPARE)  # which is not about a run
    settings = with_paths(from_plain(Settings, plain), expanded)
    check(settings, phases)
    return settings


def comparison_from(arguments: Sequence[str], config_dir: Path | None = None) -> Comparison:
    """Compose the settings of a comparison and of each of its runs, and check them.

    Args:
        arguments: Arguments of the form `group=choice` or `section.key=value`; those about runs apply to all of them.
        config_dir: Folder of the user with further groups.

    Returns:
        The settings of the comparison, and those of its runs.

    Raises:
        UserError: When an argument, a file or a value is wrong, or an argument sets what each run has of its own.
    """
    for argument in arguments:
        if (key := _key(argument)) in OWN:
            raise UserError(f"{argument}: each run of a comparison has its own; {OWN[key]}")
        if bare := _BARE_WORDS.fullmatch(argument):
            quoted = ",".join(f"'{word.strip()}'" for word in bare[2].split(","))
            raise UserError(f'{argument}: words of a list need quotes; write "{bare[1]}=[{quoted}]"')
    compare = from_plain(CompareSettings, composed(arguments, COMPARE, config_dir)[COMPARE], COMPARE)
    _check_words(compare, groups(config_dir)["pde"])
    common = settings_from(arguments, COMPARE, (), config_dir)
    plan = [argument for argument in arguments if _key(argument) == COMPARE]
    chosen = [argument for argument in arguments if _key(argument).split(".")[0] != COMPARE]

    def settings_of(equation: str, words: Sequence[str], phase: str) -> Settings:
        change = compare.change.get(equation, [])
        return settings_from([*plan, f"pde={equation}", *change, *chosen, *words], COMPARE, (phase,), config_dir)

    runs = {}
    for equation in compare.equations:
        for section, phase in (("teachers", "teacher"), ("students", "distill")):
            for name, words in getattr(compare, section).items():
                if name not in compare.asked:
                    continue
                try:
                    runs[equation, name] = settings_of(equation, words, phase)
                except UserError as error:
                    if any(_key(word) in str(error) for word in words):  # and not of the command line
                        raise UserError(f"compare.{section}.{name}: {error}") from None
                    raise
    return Comparison(compare, common, runs)


def _key(argument: str) -> str:
    """Return the group or setting that an argument is about."""
    return argument.lstrip("+~").split("=")[0].replace("/", ".")


def _check_words(compare: CompareSettings, equations: Sequence[str]) -> None:
    """Raise UserError if words are of no equation, or set what all runs of a comparison share."""
    for name in compare.change:
        if name not in equations:
            raise UserError(
                f"compare.change.{name}: no such equation; {_nearest(name, equations)}pde has {', '.join(equations)}"
            )
    for section, commands in (
        ("teachers", compare.teachers),
        ("students", compare.students),
        ("change", compare.change),
    ):
        for name, words in commands.items():
            for word in words:
                key = _key(word)
                among = SHARED if section != "change" else ("run", COMPARE)
                if key.split(".")[0] in among or key in ("pde", "pde.name", "data.path"):
                    raise UserError(f"compare.{section}.{name}: {word} would set what all runs share; leave it out")


def composed(arguments: Sequence[str], config: str, config_dir: Path | None = None) -> dict[str, Any]:
    """Compose groups and arguments without a check of the values.

    Args:
        arguments: Arguments of the form `group=choice` or `section.key=value`.
        config: File of configs/ with the default choices.
        config_dir: Folder of the user with further groups.

    Returns:
        Plain values by section.

    Raises:
        UserError: When an argument or a file is wrong.
    """
    if config_dir is not None and not config_dir.is_dir():
        what = "a file, expected a folder" if config_dir.exists() else "no such folder; expected one"
        raise UserError(
            f"--config-dir={config_dir}: {what} with groups in it, such as {config_dir / 'pde' / 'mine.yaml'}"
        )
    known = groups(config_dir, config)
    for argument in arguments:
        _check_argument(argument, known)
    # ++ adds a dotted key even if it is unknown, so that our own check reports it
    overrides = [a if a[0] == "+" or "." not in a.split("=")[0] else f"++{a}" for a in map(quoted, arguments)]
    try:
        return _compose(config, overrides, config_dir)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        message = str(error).split("Config search path")[0]
        line = "; ".join(line.strip() for line in message.splitlines() if line.strip()).replace(":; ", ": ")
        raise UserError(f"{' '.join(arguments) or config}: {line}") from None


def _compose(config: str, overrides: Sequence[str], config_dir: Path | None) -> dict[str, Any]:
    """Return the composed settings as plain values."""
    overrides = list(overrides)
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        if config_dir is not None:
            # hydra.searchpath would append the folder; it must come first. The empty list makes Hydra read the search path.
            path = GlobalHydra.instance().config_loader().get_search_path()
            path.prepend("--config-dir", f"file://{config_dir.absolute()}", "main")
            overrides.append("hydra.searchpath=[]")
        plain = OmegaConf.to_container(compose(config, overrides), resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _check_argument(argument: str, known: Mapping[str, Sequence[str]]) -> None:
    """Raise UserError if an argument is malformed, or names an unknown group or choice."""
    if argument.startswith("~"):
        raise UserError(f"{argument}: removes a setting, but every setting needs a value; give it another value")
    key, _, choice = argument.partition("=")
    key = key.lstrip("+")
    if "=" not in argument or not key:
        raise UserError(f"{argument!r}: expected group=choice or section.key=value; --help lists them")
    parts = re.split(r"[./]", key)
    if not all(parts):
        raise UserError(f"{argument}: {key} is not a setting; did you mean {'.'.join(filter(None, parts))}?")
    if parts[0] == "hydra":
        raise UserError(f"{argument}: a setting of Hydra itself, which pidscale does not read; run.folder places a run")
    if "." not in key and key not in known:
        advice = _nearest(key, known) or f"groups: {', '.join(known)}; "
        raise UserError(f"{argument}: unknown group {key!r}; {advice}a single value is section.key=value")
    choice = choice.strip("'\"")
    if key in known and choice not in known[key]:  # Hydra ignores a missing file that is optional
        raise UserError(f"{argument}: no such choice; {_nearest(choice, known[key])}{key} has {', '.join(known[key])}")


def _nearest(word: str, known: Iterable[str]) -> str:
    """Return a suggestion of the most similar known word, or "" if none is similar."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def quoted(argument: str) -> str:
    """Quote the value of an argument if it is a path or a name, because Hydra restricts the characters of unquoted values."""
    key, _, value = argument.partition("=")
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if key.lstrip("+") not in _ANY_TEXT or is_quoted or value.lower() == "null":
        return argument
    escaped = re.sub(r"(\\*)('|\Z)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)  # Hydra's quoting
    return f"{key}='{escaped}'"
