"""Hosts on one machine: namespaces of network, processes, mounts and names, connected by a switch. Needs root and iproute2.

Each host has its own hostname, address, /tmp/ray, /dev/shm, HOME and processes, so that Ray takes it for a separate machine
and `ray stop` ends only the processes of that host. Knows nothing of what runs on the hosts.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

import matplotlib

from tests.conftest import RAY_ENVIRONMENT

TOOLS = ("ip", "unshare", "nsenter", "mount", "setpriv")
LACKING = "needs root, and ip, unshare, nsenter, mount and setpriv"
WITH_US = ("setpriv", "--pdeathsig", "KILL")  # what is started so ends with the process that started it
POSSIBLE = os.geteuid() == 0 and all(map(shutil.which, TOOLS))
ADDRESSES = {"one": "10.77.0.1", "two": "10.77.0.2"}


class Host:
    """One host; `close` ends all its processes at once, as a power failure would."""

    def __init__(self, name: str, folder: Path) -> None:
        """Start a host; `folder` is its own, for HOME and its table of host names."""
        self.name = name
        self.address = ADDRESSES[name]
        self.home = folder / f"home-{name}"
        self.home.mkdir(parents=True)
        table = folder / f"hosts-{name}"
        table.write_text("127.0.0.1 localhost\n" + "".join(f"{at} {who}\n" for who, at in ADDRESSES.items()))
        ready = folder / f"ready-{name}"
        script = (
            f"hostname {name} && ip link set lo up && mkdir -p /tmp/ray && mount -t tmpfs none /tmp/ray && "
            f"mount -t tmpfs -o size=512m none /dev/shm && mount --bind {table} /etc/hosts && "
            f"touch {ready} && while :; do sleep 100000 & wait; done"
        )  # process 1 is a shell that waits, which buries orphans as the init of a host does
        flags = ["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--kill-child"]
        self.outer = subprocess.Popen(
            [*WITH_US, "unshare", *flags, "sh", "-c", script], stderr=subprocess.DEVNULL, start_new_session=True
        )
        until = time.monotonic() + 20
        while not ready.exists():
            assert self.outer.poll() is None and time.monotonic() < until, f"no host {name}"
            time.sleep(0.02)
        self.first = _child(self.outer)  # process 1 of the host
        self.unplug: Callable[[], None] = lambda: None  # takes its cable away

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a new account on this host."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTEST_"))}
        own = {"PATH": path, "HOME": str(self.home), "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": matplotlib.get_cachedir()}
        return kept | RAY_ENVIRONMENT | own | more

    def start(self, *words: str, log: Path | None, cwd: Path | None = None, **more: str) -> subprocess.Popen:
        """Start a process on this host; its output goes to a file, or where ours goes."""
        with log.open("a") if log else nullcontext() as out:
            command = ["nsenter", f"--target={self.first}", "--net", "--mount", "--pid", "--uts", "--ipc"]
            command += [f"--wd={cwd or self.home}", *words]
            return subprocess.Popen(
                command, env=self.environment(**more), stdout=out, stderr=out, start_new_session=True
            )

    def run(self, *words: str, log: Path, timeout: float = 120, **more: str) -> None:
        """Run a command on this host to its end; AssertionError with its output if it fails."""
        status = self.start(*words, log=log, **more).wait(timeout)
        assert status == 0, f"{' '.join(words)} on {self.name}: {status}\n{log.read_text()[-2000:]}"

    def mount(self, *words: str) -> None:
        """Mount something that only this host sees."""
        _run("nsenter", f"--target={self.first}", "--mount", "--pid", "mount", *words)

    def unmount(self, folder: str) -> None:
        """Take away what was mounted last on a folder, though files of it may be open."""
        _run("nsenter", f"--target={self.first}", "--mount", "--pid", "umount", "--lazy", folder)

    def close(self) -> None:
        """End all processes of this host at once, then take its cable away; one that has ended stays so.

        The system keeps a network namespace while a socket has something to send, to a host that was lost before this one
        for instance. With its cable it would answer for its address, which the next host of this name has too.
        """
        if self.outer.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.kill(self.first, signal.SIGKILL)
        self.outer.wait(20)
        self.unplug()


class Switch:
    """The switch that connects hosts: a bridge in its own namespace, so that a lost host disconnects only itself."""

    def __init__(self) -> None:
        script = "ip link add switch type bridge && ip link set switch up && echo up && exec sleep 100000"
        self.process = subprocess.Popen(
            [*WITH_US, "unshare", "--net", "--kill-child", "--fork", "sh", "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self.process.stdout is not None and self.process.stdout.readline() == b"up\n", "no switch"
        self.first = _child(self.process)

    def plug(self, host: Host) -> None:
        """Connect a host, whose end of the cable becomes eth0 with the host's address."""
        port = f"port{host.first}"
        end = f"host{host.first}"
        _run("ip", "link", "add", port, "type", "veth", "peer", "name", end)
        _run("ip", "link", "set", end, "netns", str(host.first))
        _run("ip", "link", "set", port, "netns", str(self.first))
        self._ip("link", "set", port, "master", "switch", "up")
        host.unplug = partial(self.unplug, port)
        for words in (
            f"link set {end} name eth0",
            f"addr add {host.address}/24 dev eth0",
            "link set eth0 up",
        ):
            _run("nsenter", f"--target={host.first}", "--net", "ip", *words.split())

    def unplug(self, port: str) -> None:
        """Take the cable of a port away; one that is gone stays so."""
        subprocess.run(self._words("link", "del", port), check=False, stderr=subprocess.DEVNULL)

    def cut(self, host: Host) -> None:
        """Pull the cable of a host, whose processes go on."""
        self._ip("link", "set", f"port{host.first}", "down")

    def close(self) -> None:
        """Switch it off, which disconnects all hosts."""
        os.kill(self.first, signal.SIGKILL)
        self.process.wait(20)

    def _ip(self, *words: str) -> None:
        _run(*self._words(*words))

    def _words(self, *words: str) -> list[str]:
        return ["nsenter", f"--target={self.first}", "--net", "ip", *words]


def _run(*words: str) -> None:
    subprocess.run(words, check=True)


def _child(process: subprocess.Popen) -> int:
    """The first child of a process."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
