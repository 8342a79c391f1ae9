"""A fresh checkout in a scratch folder, with the files as they are here, and one Ray for all pages."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import RAY_ENVIRONMENT
from tests.docs.blocks import ROOT

_RAY = """
import ray
own = dict(num_cpus=4, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
for tries in (3, 2, 1):
    try:
        ray.init(address="local", **own)
        break
    except Exception:
        if tries == 1:
            raise
        ray.shutdown()
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""


def checkout(folder: Path) -> Path:
    """Clone this checkout into a folder, with what is not committed yet and .venv; return the clone."""
    made = folder / "pidscale"
    _git(folder, "clone", "-q", str(ROOT), str(made))
    changed = _git(ROOT, "ls-files", "-z", "--modified", "--others", "--exclude-standard").split("\0")
    for name in filter(None, changed):
        target = made / name
        if not (ROOT / name).is_file():
            target.unlink(missing_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    venv = made / ".venv"
    venv.mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != ".installed":
            (venv / path.name).symlink_to(path)
    (venv / ".installed").touch()  # newer than all files, so that `make` installs nothing
    return made


def environment(folder: Path, *, activated: bool, **more: str) -> dict[str, str]:
    """Return the environment of a reader in a checkout; the installed package is another one, so PYTHONPATH names it."""
    here = str(Path(sys.executable).parent)
    path = [part for part in os.environ["PATH"].split(os.pathsep) if part != here]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTEST_"))}
    path.insert(0, str(folder.parent / "bin"))  # where a page finds what stands for a command that is not here
    own = {"PATH": os.pathsep.join([str(folder / ".venv" / "bin"), *path] if activated else path)}
    return kept | RAY_ENVIRONMENT | own | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"} | more


class Ray:
    """One Ray for all commands, which join it by RAY_ADDRESS; started by the first that asks for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None
        self.found: dict[str, str] = {}

    def variables(self) -> Mapping[str, str]:
        """Return the variables of a command that joins it."""
        if self.process is None:
            token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
            self.process = subprocess.Popen(
                [sys.executable, "-c", _RAY],
                cwd=self.folder,
                env=environment(self.folder, activated=True, **token),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
            assert self.process.stdout is not None
            address = self.process.stdout.readline().strip()
            assert address, "Ray does not start"
            self.found = {"RAY_ADDRESS": address, **token}
        return self.found

    def close(self) -> None:
        """End it; the next command that asks for it starts another."""
        if self.process is not None:
            self.process.communicate("\n", timeout=60)
            self.process = None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr.strip()} (run the check in a git clone)"
    return done.stdout
