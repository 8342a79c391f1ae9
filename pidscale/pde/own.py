"""Equations of a user's own, named by where they are found: `module:Class`. Knows no file and no equation of the library.

Importing a module runs it. So a module is imported where the user names it, and never because a file does.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pidscale.config import UserError
from pidscale.pde.base import Controls, Pde


class NotImported(UserError):
    """A file is of an equation of a user's own, whose module nobody has imported."""


_PARTS = [part for protocol in (Pde, Controls) for part in vars(protocol) if not part.startswith("_")]


def is_own(name: str) -> bool:
    """Whether a name is that of an equation of a user's own."""
    return ":" in name


def look_here(name: str | None) -> None:
    """Let a script find the module of an equation that its user names in the folder he is in.

    Nothing else is looked for there: a folder that was fetched from somewhere may hold a module of any name.
    """
    if name is not None and is_own(name) and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def check_imported(where: str, name: str) -> None:
    """Raise NotImported unless the module of an equation that a file names is there already, and has such a class."""
    module, _, kind = name.partition(":")
    found = sys.modules.get(module)
    if found is None or kind not in vars(found):  # not getattr: a module may import more where it is asked
        raise NotImported(
            f"{where}: of the equation {name[:80]!r}, which is not of this library, and no file decides what is imported: "
            f"`import {module[:80]}` first, or name it to a script by --equation"
        )


def own_pde(path: str, params: Mapping[str, Any]) -> Pde:
    """An equation of the class that a path names, looked over. Raises UserError for whatever a user's module does wrong."""
    module, _, name = path.partition(":")
    try:
        make = getattr(importlib.import_module(module), name).from_params
    except (Exception, SystemExit) as error:
        where = "expected a class with `from_params`, in a module of this folder or on PYTHONPATH"
        raise UserError(f"pde.name={path!r}: {where} ({_said(error)})") from None
    try:
        pde: Pde = make(params)
        lacking = [part for part in _PARTS if not hasattr(pde, part)]
        if lacking:
            raise TypeError(f"it has no {', '.join(lacking)}")
        channels = {channel.name for channel in pde.channels}
        for parameter, (low, high) in pde.varying.items():
            if not low <= high or parameter in channels:
                raise ValueError(f"varying {parameter!r}: {low} to {high}; expected low <= high, and no channel's name")
        if make(pde.params_dict()) != pde:
            raise ValueError("params_dict() does not give the same equation back")
        json.dumps(pde.params_dict())
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(
            f"pde.name={path!r}: not an equation as pidscale.pde.base.Pde has it ({_said(error)})"
        ) from None
    if pde.name != path:
        raise UserError(f"pde.name={path!r}: its `name` is {pde.name!r}; make them equal: cards find it again by name")
    return pde


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
