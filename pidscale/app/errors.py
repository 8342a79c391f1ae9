"""What an error means to a user: one line that names a file, a setting or a package, or nothing where it is a bug.

Must not know the subcommands; what they advise stands in what was asked.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pidscale.config import Settings, UserError
from pidscale.paths import is_address, with_paths
from pidscale.plain import printable

# import name and distribution of what `pip install 'pidscale[train]'` brings
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
    """Return an error's message without the line breaks and control characters that names in files may have."""
    return printable(" ".join(part.strip() for part in str(error).splitlines() if part.strip()))


def explain(error: Exception, asked: argparse.Namespace) -> str | None:
    """Return one line for an error that is not a bug, None for a bug.

    Args:
        error: What ended a subcommand.
        asked: What the command line asked for, as `parse` returns it; `settings` are those of the run, if it has some.

    Returns:
        The line without its `error: `.
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
    from pidscale.run.host_limits import is_out_of_memory  # which imports torch

    return is_out_of_memory(error)


def _explain_os_error(error: OSError, asked: argparse.Namespace) -> str | None:
    said = error.strerror or one_line(error)
    if asked.settings is None:
        return f"{error.filename or asked.command}: {said}; {asked.files}"
    if error.filename is None:
        return None
    return f"{error.filename}: {said}; {_origin(str(error.filename), asked.settings)}"


def _origin(path: str, settings: Settings) -> str:
    """Which settings lead to a path, and so what to check."""
    named: list[str] = []

    def note(folder: str, key: str) -> str:
        if not is_address(folder) and Path(path).absolute().is_relative_to(Path(folder).absolute()):
            named.append(f"{key}={folder}")
        return folder

    with_paths(settings, note)
    if named:
        return f"check {', '.join(named)}"
    return "no setting leads to this path; check HOME and TMPDIR, free space and permissions"
