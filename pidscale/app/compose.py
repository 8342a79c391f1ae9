"""Settings from the groups of configs/ and from the words of a command line, composed by Hydra and checked.

Must not know what they are for, and imports no torch, except where `config.objective_class` is asked.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pidscale.config import PHASES, Settings, UserError, from_plain, to_flat
from pidscale.limits import check
from pidscale.paths import PATH_SETTINGS, expanded, with_paths

_PACKAGE = Path(__file__).resolve().parent.parent
# an installation has the files within the package, a checkout beside it
CONFIGS = next(folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir())
_ANY_TEXT = (*PATH_SETTINGS, "run.name")  # settings whose value is a path or a name, with any character in it


def groups(config_dir: Path | None = None) -> dict[str, list[str]]:
    """Return the groups by name, and the choices of each.

    Args:
        config_dir: A folder with groups of the user's own, or choices of his own for the groups of pidscale.

    Returns:
        Names of files without their ending, by group, both sorted.
    """
    found: dict[str, set[str]] = {}
    for folder in (CONFIGS, *([config_dir] if config_dir else [])):
        for group in folder.iterdir():
            if group.is_dir():
                found.setdefault(group.name, set()).update(path.stem for path in group.glob("*.yaml"))
    return {name: sorted(found[name]) for name in sorted(found) if found[name]}


def settings_from(
    arguments: Sequence[str],
    config: str = "config",
    phases: Sequence[str] = PHASES,
    config_dir: Path | None = None,
) -> Settings:
    """Return the settings that groups and arguments make, checked.

    Args:
        arguments: `group=choice` and `section.key=value`.
        config: The file of configs/ that names the choices which no argument names.
        phases: The phases to come; batches must fit the workers for these.
        config_dir: A folder of the user's own groups. Its files come before those of pidscale.

    Returns:
        All settings, in which `~` stands for no home folder any more.

    Raises:
        UserError: An argument, a file of the folder or a value is wrong.
    """
    if config_dir is not None and not config_dir.is_dir():
        what = "a file, expected a folder" if config_dir.exists() else "no such folder; expected one"
        raise UserError(
            f"--config-dir={config_dir}: {what} with groups in it, such as {config_dir / 'pde' / 'mine.yaml'}"
        )
    known = groups(config_dir)
    for argument in arguments:
        _check_argument(argument, known)
    # a dotted key is added whether it is there or not, so that our own check names an unknown one
    overrides = [a if a[0] == "+" or "." not in a.split("=")[0] else f"++{a}" for a in map(quoted, arguments)]
    try:
        plain = _compose(config, overrides, config_dir)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        message = str(error).split("Config search path")[0]
        line = "; ".join(line.strip() for line in message.splitlines() if line.strip()).replace(":; ", ": ")
        raise UserError(f"{' '.join(arguments) or config}: {line}") from None
    settings = with_paths(from_plain(Settings, plain), expanded)
    check(settings, phases)
    return settings


def _compose(config: str, overrides: Sequence[str], config_dir: Path | None) -> dict[str, Any]:
    """The composed settings as plain values."""
    overrides = list(overrides)
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        if config_dir is not None:
            # Hydra's own hydra.searchpath appends folders; this one comes first. The empty list makes Hydra read the path.
            path = GlobalHydra.instance().config_loader().get_search_path()
            path.prepend("--config-dir", f"file://{config_dir.absolute()}", "main")
            overrides.append("hydra.searchpath=[]")
        plain = OmegaConf.to_container(compose(config, overrides), resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _check_argument(argument: str, known: Mapping[str, Sequence[str]]) -> None:
    """Raise UserError where an argument has no form that settings have, or names a group or choice that is not there."""
    if argument.startswith("~"):
        raise UserError(f"{argument}: removes a setting, but every setting needs a value; give it another value")
    key, _, choice = argument.partition("=")
    key = key.lstrip("+")
    if "=" not in argument or not key:
        raise UserError(f"{argument!r}: expected group=choice or section.key=value; --help lists them")
    if re.split(r"[./]", key)[0] == "hydra":
        raise UserError(f"{argument}: a setting of Hydra itself, which pidscale does not read; run.folder places a run")
    if "." not in key and key not in known:
        advice = _nearest(key, known) or f"groups: {', '.join(known)}; "
        raise UserError(f"{argument}: unknown group {key!r}; {advice}a single value is section.key=value")
    choice = choice.strip("'\"")
    if key in known and choice not in known[key]:  # Hydra says nothing where a file is optional
        raise UserError(f"{argument}: no such choice; {_nearest(choice, known[key])}{key} has {', '.join(known[key])}")


def _nearest(word: str, known: Iterable[str]) -> str:
    """A question after the nearest word that is known, if one is near."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def quoted(argument: str) -> str:
    """Return an argument with its value quoted if that is a path or a name: Hydra takes few characters in plain words."""
    key, _, value = argument.partition("=")
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if key.lstrip("+") not in _ANY_TEXT or is_quoted or value.lower() == "null":
        return argument
    escaped = re.sub(r"(\\*)('|\Z)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)  # Hydra's own rule
    return f"{key}='{escaped}'"


def help_text(config: str, config_dir: Path | None = None) -> str:
    """Return what can be set: the groups with their choices, and every setting with its value.

    Args:
        config: The file of configs/ that names the choices.
        config_dir: A folder of the user's own groups. UserError if it is none.

    Returns:
        Some hundred lines.
    """
    values = to_flat(settings_from([], config, config_dir=config_dir))
    lines = ["group=choice takes a file of that group, section.key=value sets one value:", ""]
    lines += [f"  {group}={{{','.join(choices)}}}" for group, choices in groups(config_dir).items()]
    return "\n".join([*lines, "", *(f"  {key}={json.dumps(value)}" for key, value in values.items())])
