"""What every script does first: compose the settings, check them, and turn a user's mistake into one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pidscale.config import Settings, UserError, check, from_plain

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def settings_from(arguments: Sequence[str], config: str = "config") -> Settings:
    """Settings from configs/ and `key=value` arguments. Raises UserError with one line."""
    for argument in arguments:
        if "=" not in argument:
            raise UserError(f"{argument!r}: expected group=choice or section.key=value")
    # a dotted key is added as it stands, so that an unknown one is named by our own check
    overrides = [a if a[0] in "+~" or "." not in a.split("=")[0] else f"++{a}" for a in arguments]
    try:
        with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
            plain = OmegaConf.to_container(compose(config, overrides), resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        said = str(error).split("Config search path")[0]
        line = "; ".join(line.strip() for line in said.splitlines() if line.strip()).replace(":; ", ": ")
        raise UserError(f"{' '.join(arguments) or config}: {line}") from None
    settings = from_plain(Settings, plain)  # type: ignore[arg-type]
    check(settings)
    return settings


def run(main: Callable[[Settings], None], config: str = "config") -> None:
    """Run a script. A user's mistake ends it with one line and exit status 2."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        main(settings_from(sys.argv[1:], config))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}; see run.folder, run.name and data.path", file=sys.stderr)
        raise SystemExit(2) from None
