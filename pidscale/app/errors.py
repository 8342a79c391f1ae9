"""Error messages for users: one line that names a file, a setting or a package. Bugs have no such message.

Must not know the subcommands: command-specific advice is taken from the parsed arguments.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pidscale.config import Settings, UserError
from pidscale.paths import is_address, with_paths
from pidscale.plain import printable

# distribution by import name, for the packages that `pip install 'pidscale[train]'` installs
TRAIN = {
    "deepspeed": "deepspeed",
    "h5py": "h5py",
    "hydra": "hydra-core",
    "matplotlib": "matplotlib",
    "omegaconf": "hydra-core",
    "PIL": "pillow",
    "ray": "ray",
    "scipy": "scipy",
    "tensorboard": "tensorboard",
    "webdataset": "webdataset",
    "xxhash": "xxhash",
    "yaml": "pyyaml",
}


def one_line(error: BaseException) -> str:
    """Return the message of an error in one line, without control characters, which names in files may contain."""
    return printable(" ".join(part.strip() for part in str(error).splitlines() if part.strip()))


def explain(error: Exception, asked: argparse.Namespace) -> str | None:
    """Return one line for an error that is not a bug, None for a bug.

    Args:
        error: Error that ended a subcommand.
        asked: Arguments as returned by `parse`; `settings` holds the settings of the run, if the subcommand has any.

    Returns:
        The line, without the prefix `error: `.
    """
    if isinstance(error, UserError):
        return one_line(error)
    if isinstance(error, ModuleNotFoundError):
        package = TRAIN.get((error.name or "").partition(".")[0])
        what = f"pidscale {asked.command}: the package {package} is not installed"
        return package and f"{what}; run `pip install 'pidscale[train]'`"
    if _is_out_of_memory(error):
        return f"out of memory ({one_line(error)[:200] or 'of this machine'}); {asked.memory}"
    if isinstance(error, OSError):
        return _explain_os_error(error, asked)
    return None


def _is_out_of_memory(error: Exception) -> bool:
    if not isinstance(error, (MemoryError, OSError, RuntimeError)):
        return False
    from pidscale.run.host_limits import is_out_of_memory  # imports torch, so it is imported late

    return is_out_of_memory(error)


def _explain_os_error(error: OSError, asked: argparse.Namespace) -> str | None:
    said = error.strerror or one_line(error)
    if asked.settings is None:
        return f"{error.filename or asked.command}: {said}; {asked.files}"
    if error.filename is None:
        return None
    return f"{error.filename}: {said}; {_origin(str(error.filename), asked.settings)}"


def _origin(path: str, settings: Settings) -> str:
    """Return advice that names the settings whose folders contain a path."""
    named: list[str] = []

    def note(folder: str, key: str) -> str:
        if not is_address(folder) and Path(path).absolute().is_relative_to(Path(folder).absolute()):
            named.append(f"{key}={folder}")
        return folder

    with_paths(settings, note)
    if named:
        return f"check {', '.join(named)}"
    return "no setting leads to this path; check HOME and TMPDIR, free space and permissions"
