"""Hosts on one machine: namespaces of network, processes, mounts and names, joined by a cable. Needs root and iproute2.

Each host has its own hostname, address, /tmp/ray, /dev/shm, HOME and processes, so that Ray takes it for a machine of its own
and `ray stop` ends its own processes alone. Knows nothing of what runs on them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import matplotlib

from tests.conftest import RAY_ENVIRONMENT

TOOLS = ("ip", "unshare", "nsenter", "mount")
LACKING = "needs root, and ip, unshare, nsenter and mount"
POSSIBLE = os.geteuid() == 0 and all(map(shutil.which, TOOLS))
ADDRESSES = {"one": "10.77.0.1", "two": "10.77.0.2"}


class Host:
    """One host; `close` ends it with all its processes, as pulling its plug would."""

    def __init__(self, name: str, folder: Path) -> None:
        """Make a host. folder: of its own, for HOME and its table of host names."""
        self.name, self.address, self.home = name, ADDRESSES[name], folder / f"home-{name}"
        self.home.mkdir(parents=True)
        table = folder / f"hosts-{name}"
        table.write_text("127.0.0.1 localhost\n" + "".join(f"{at} {who}\n" for who, at in ADDRESSES.items()))
        ready = folder / f"ready-{name}"
        script = (
            f"hostname {name} && ip link set lo up && mkdir -p /tmp/ray && mount -t tmpfs none /tmp/ray && "
            f"mount -t tmpfs -o size=512m none /dev/shm && mount --bind {table} /etc/hosts && "
            f"touch {ready} && exec sleep 100000"
        )
        flags = ["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--kill-child"]
        self.outer = subprocess.Popen(["unshare", *flags, "sh", "-c", script], start_new_session=True)
        until = time.monotonic() + 20
        while not ready.exists():
            assert self.outer.poll() is None and time.monotonic() < until, f"no host {name}"
            time.sleep(0.02)
        children = Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children").read_text().split()
        self.first = int(children[0])  # process 1 of the host

    def environment(self, **more: str) -> dict[str, str]:
        """What a fresh account on this host has in its environment."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTEST_"))}
        own = {"PATH": path, "HOME": str(self.home), "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": matplotlib.get_cachedir()}
        return kept | RAY_ENVIRONMENT | own | more

    def start(self, *words: str, log: Path, cwd: Path | None = None, **more: str) -> subprocess.Popen:
        """A process on this host, whose output goes to a file."""
        with log.open("a") as out:
            command = ["nsenter", f"--target={self.first}", "--net", "--mount", "--pid", "--uts", "--ipc"]
            command += [f"--wd={cwd or self.home}", *words]
            return subprocess.Popen(
                command, env=self.environment(**more), stdout=out, stderr=out, start_new_session=True
            )

    def run(self, *words: str, log: Path, timeout: float = 120, **more: str) -> None:
        """Run a command on this host to its end. AssertionError with its output where it fails."""
        status = self.start(*words, log=log, **more).wait(timeout)
        assert status == 0, f"{' '.join(words)} on {self.name}: {status}\n{log.read_text()[-2000:]}"

    def close(self) -> None:
        """End all processes of this host at once."""
        with suppress(ProcessLookupError):
            os.kill(self.first, signal.SIGKILL)
        self.outer.wait(20)


def join(one: Host, two: Host) -> None:
    """A cable between two hosts."""
    ends = {f"v{one.first}a": one, f"v{two.first}b": two}
    left, right = ends
    subprocess.run(["ip", "link", "add", left, "type", "veth", "peer", "name", right], check=True)
    for name, host in ends.items():
        subprocess.run(["ip", "link", "set", name, "netns", str(host.first)], check=True)
        inside = ["nsenter", f"--target={host.first}", "--net", "ip"]
        for words in (
            ["link", "set", name, "name", "eth0"],
            ["addr", "add", f"{host.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
        ):
            subprocess.run([*inside, *words], check=True)
