"""What every script does first: compose the settings, check them, and turn a user's mistake into one line."""

from __future__ import annotations

import difflib
import json
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pidscale.config import PHASES, Settings, UserError, from_plain, to_flat
from pidscale.limits import check
from pidscale.paths import PATH_SETTINGS, expanded, is_address, with_paths
from pidscale.pde.own import look_here
from pidscale.plain import printable

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
PATHS = (*PATH_SETTINGS, "run.name")  # any text a folder may be called


def groups() -> dict[str, list[str]]:
    """The groups of configs/ and the choices of each."""
    return {
        path.name: sorted(p.stem for p in path.glob("*.yaml")) for path in sorted(CONFIGS.iterdir()) if path.is_dir()
    }


def settings_from(arguments: Sequence[str], config: str = "config", phases: Sequence[str] = PHASES) -> Settings:
    """Settings from configs/ and `key=value` arguments, checked for these phases. Raises UserError with one line."""
    known = groups()
    for argument in arguments:
        if argument.startswith("~"):
            raise UserError(f"{argument}: takes a setting away, and every setting has a value; give it another")
        key, _, choice = argument.partition("=")
        key = key.lstrip("+")
        if "=" not in argument or not key:
            raise UserError(f"{argument!r}: expected group=choice or section.key=value; --help lists them")
        if re.split(r"[./]", key)[0] == "hydra":
            raise UserError(f"{argument}: a setting of Hydra itself, which nothing reads; a run lies in run.folder")
        if "." not in key and key not in known:
            advice = _meant(key, known) or f"groups: {', '.join(known)}; "
            raise UserError(f"{argument}: unknown group {key!r}; {advice}a single value is section.key=value")
        choice = choice.strip("'\"")
        if key in known and choice not in known[key]:  # Hydra is silent where a file is optional
            raise UserError(
                f"{argument}: no such choice; {_meant(choice, known[key])}{key} has {', '.join(known[key])}"
            )
    # a dotted key is added as it stands, so that an unknown one is named by our own check
    overrides = [a if a[0] == "+" or "." not in a.split("=")[0] else f"++{a}" for a in map(quoted, arguments)]
    try:
        with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
            plain = OmegaConf.to_container(compose(config, overrides), resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        said = str(error).split("Config search path")[0]
        line = "; ".join(line.strip() for line in said.splitlines() if line.strip()).replace(":; ", ": ")
        raise UserError(f"{' '.join(arguments) or config}: {line}") from None
    settings = with_paths(from_plain(Settings, plain), expanded)  # type: ignore[arg-type]
    check(settings, phases)
    return settings


def _meant(word: str, known: Iterable[str]) -> str:
    """A question after the nearest word that is known, if one is near."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def quoted(argument: str) -> str:
    """An argument whose value, if it is a path, is quoted: Hydra takes few characters in plain words."""
    key, _, value = argument.partition("=")
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if key.lstrip("+") not in PATHS or is_quoted or value.lower() == "null":
        return argument
    escaped = re.sub(r"(\\*)('|\Z)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)  # Hydra's own rule
    return f"{key}='{escaped}'"


def help_text(config: str) -> str:
    """What can be set: the groups with their choices, and every value as it stands."""
    lines = ["Arguments: group=choice takes a file of configs/, section.key=value sets one value.", ""]
    lines += [f"  {group}={{{','.join(choices)}}}" for group, choices in groups().items()]
    values = to_flat(settings_from([], config))
    return "\n".join([*lines, "", *(f"  {key}={json.dumps(value)}" for key, value in values.items())])


def one_line(error: BaseException) -> str:
    """What an error says, without the line breaks and control characters that names in files may have."""
    return printable(" ".join(part.strip() for part in str(error).splitlines() if part.strip()))


@contextmanager
def interruptible(after: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the body with one line and the usual status. after: what the same command does then."""
    signal.signal(signal.SIGTERM, _end)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        print(f"interrupted; {after}", file=sys.stderr)
        raise SystemExit(128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)) from None


def run(main: Callable[[Settings], None], config: str = "config", phases: Sequence[str] = PHASES) -> None:
    """Run a script that ends with these phases. A user's mistake ends it with one line and exit status 2."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    settings: Settings | None = None
    try:
        with interruptible("the same command goes on from what is there"):
            if {"-h", "--help"} & set(sys.argv[1:]):
                print(f"{sys.modules['__main__'].__doc__}\n\n{help_text(config)}")
                return
            settings = settings_from(sys.argv[1:], config, phases)
            look_here(settings.pde.name)
            main(settings)
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}; {_whose(str(error.filename), settings)}", file=sys.stderr)
        raise SystemExit(2) from None


def _end(number: int, frame: object) -> None:
    """SIGTERM ends a script as Ctrl-C does, so that what it holds is let go."""
    raise KeyboardInterrupt(number)


def _whose(path: str, settings: Settings | None) -> str:
    """Which setting led to a path, and what to do about it."""
    named: list[str] = []

    def look(folder: str, key: str) -> str:
        if not is_address(folder) and Path(path).absolute().is_relative_to(Path(folder).absolute()):
            named.append(f"{key}={folder}")
        return folder

    if settings is not None:
        with_paths(settings, look)
    return (
        f"see {', '.join(named)}" if named else "no setting names it: see HOME and TMPDIR, free space and permissions"
    )
