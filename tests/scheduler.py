"""Stand-ins for SLURM: `srun`, which starts a command on other hosts of a test, and `scontrol`. Nothing else is replaced.

A host is a set of namespaces that cannot see the others, so `srun` asks the process of the test, which sees them all.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection, Listener
from pathlib import Path

from tests.hosts import Host

KEY = b"stand-in"
_SRUN = f"""#!{sys.executable}
import os, signal, sys
from multiprocessing.connection import Client
words = sys.argv[1:]
first = next(n for n, word in enumerate(words) if not word.startswith("-"))
options = dict(word.lstrip("-").partition("=")[::2] for word in words[:first])
with Client(os.environ["SCHEDULER"], "AF_UNIX", authkey={KEY!r}) as line:
    line.send((options["nodelist"].split(","), words[first:], dict(os.environ)))
    signal.signal(signal.SIGTERM, lambda *_: line.send("end"))
    sys.exit(line.recv())
"""
_SCONTROL = """#!/usr/bin/env bash
case "$1" in
show) tr , '\\n' <<<"$3" ;;
requeue) echo "$2" >>"$SCHEDULER.requeued" ;;
esac
"""


def write_commands(folder: Path) -> Path:
    """Write both commands to a folder, which belongs at the front of PATH; return the folder."""
    folder.mkdir()
    for name, text in (("srun", _SRUN), ("scontrol", _SCONTROL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


class Scheduler:
    """What answers `srun`: starts its command on the hosts that it names, and ends it there when `srun` gets SIGTERM."""

    def __init__(self, folder: Path, hosts: dict[str, Host]) -> None:
        """Listen at folder/socket; output of commands goes to folder/srun-HOST.log unless they write it to a file."""
        self.hosts = hosts
        self.folder = folder
        self.address = folder / "socket"
        self.commands = write_commands(folder / "bin")
        self.listener = Listener(str(self.address), "AF_UNIX", authkey=KEY)
        threading.Thread(target=self._answer, daemon=True).start()

    def environment(self, nodes: str, **more: str) -> dict[str, str]:
        """The variables of a job on these nodes, separated by commas."""
        path = f"{self.commands}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": nodes, "SLURM_CPUS_ON_NODE": "1"}
        return {"PATH": path, "SCHEDULER": str(self.address)} | job | more

    @property
    def requeued(self) -> list[str]:
        """The jobs that were queued again."""
        file = Path(f"{self.address}.requeued")
        return file.read_text().split() if file.exists() else []

    def close(self) -> None:
        """Answer no more."""
        self.listener.close()

    def _answer(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._step, args=(self.listener.accept(),), daemon=True).start()

    def _step(self, line: Connection) -> None:
        """Run the command of one `srun` to its end; HOME is that of the host, so that only variables carry the token."""
        nodes, command, environment = line.recv()
        started = []
        for name in nodes:
            host = self.hosts[name]
            own = environment | {"HOME": str(host.home)}
            started.append(host.start(*command, log=self.folder / f"srun-{name}.log", **own))

        def end() -> None:
            with suppress(EOFError, OSError):
                line.recv()
                for process in started:
                    os.kill(inner(process), signal.SIGTERM)

        threading.Thread(target=end, daemon=True).start()
        status = max(process.wait() for process in started)
        with suppress(OSError):
            line.send(status)


def inner(process) -> int:
    """The process that nsenter started, or became."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0]) if children else process.pid
