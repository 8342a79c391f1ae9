"""A user's own equations, named by the place of their class: `module:Class`. Knows no file and no equation of the library.

Importing a module runs it. So a module is imported when the user names it, and never because a file does.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pidscale.config import UserError
from pidscale.pde.base import Controls, Pde


class NotImported(UserError):
    """A file belongs to a user's own equation whose module has not been imported."""


_MEMBERS = [name for protocol in (Pde, Controls) for name in vars(protocol) if not name.startswith("_")]


def is_own(name: str) -> bool:
    """Return whether a name is that of a user's own equation."""
    return ":" in name


def look_here(name: str | None) -> None:
    """Let a script import the module of the equation that its user names from the current folder.

    Without such a name the folder stays out of the search path: a folder that was downloaded may hold a module of any name.

    Args:
        name: Equation as the user names it, or None.
    """
    if name is not None and is_own(name) and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def check_imported(where: str, name: str) -> None:
    """Check that the module of a user's own equation, which a file names, has been imported and has such a class.

    Args:
        where: The file, for messages.
        name: Equation as the file names it, `module:Class`.

    Raises:
        NotImported: When it has not.
    """
    module, _, kind = name.partition(":")
    found = sys.modules.get(module)
    if found is None or kind not in vars(found):  # not getattr, which may make a module import more
        raise NotImported(
            f"{where}: its equation {name[:80]!r} is not part of this library, and no file decides what is imported; "
            f"`import {module[:80]}` first, or give a script --equation {name[:80]}"
        )


def own_pde(path: str, params: Mapping[str, Any]) -> Pde:
    """Return a user's own equation, checked for what every equation has.

    Args:
        path: Place of its class, `module:Class`; the module is imported.
        params: Parameters for its `from_params`.

    Returns:
        The equation.

    Raises:
        UserError: When the module or class cannot be used, whatever it raises.
    """
    module, _, name = path.partition(":")
    try:
        make = getattr(importlib.import_module(module), name).from_params
    except (Exception, SystemExit) as error:
        expected = "expected a class with `from_params`, in a module of this folder or on PYTHONPATH"
        raise UserError(f"pde.name={path!r}: {expected} ({_reason(error)})") from None
    try:
        pde = _checked(make, params)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(
            f"pde.name={path!r}: does not implement pidscale.pde.base.Pde ({_reason(error)}); see docs/own_equation.md"
        ) from None
    if pde.name != path:
        raise UserError(f"pde.name={path!r}: its `name` is {pde.name!r}; make them equal: cards find it by name")
    return pde


def _checked(make: Callable[[Mapping[str, Any]], Pde], params: Mapping[str, Any]) -> Pde:
    """Return the equation that `make` builds; TypeError or ValueError for one that does not implement the protocol."""
    pde = make(params)
    missing = [member for member in _MEMBERS if not hasattr(pde, member)]
    if missing:
        raise TypeError(f"it has no {', '.join(missing)}")
    channels = {channel.name for channel in pde.channels}
    for parameter, (low, high) in pde.varying.items():
        if not low <= high or parameter in channels:
            raise ValueError(f"varying {parameter!r}: {low} to {high}; expected low <= high, and no channel's name")
    if make(pde.params_dict()) != pde:
        raise ValueError("from_params(params_dict()) is not an equal equation")
    json.dumps(pde.params_dict())
    return pde


def _reason(error: BaseException) -> str:
    """Return type and message of an error as one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
