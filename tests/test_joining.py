"""Joining a Ray cluster: an address where nothing answers, a TMPDIR with too long a path, a read-only HOME."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pidscale.cluster import joining
from pidscale.config import UserError
from tests.conftest import RAY_ENVIRONMENT
from tests.scripts import LAUNCH

DEAD_PROXY = "http://127.0.0.1:9"  # where nothing listens
JOIN = """
import sys
from pidscale.cluster import joining
joining._JOIN_SECONDS = 3.0
try:
    joining.connect()
except joining.UserError as error:
    print(error)
"""


SHORT_RECORD = r"""
import os
from pathlib import Path
from pidscale.cluster import joining
joining.connect()
for line in Path("/proc").glob("[0-9]*/cmdline"):
    try:
        if "gcs_server" in line.read_text() and f"PPid:\t{os.getpid()}" in (line.parent / "status").read_text():
            print([one for one in (line.parent / "environ").read_text().split("\0") if "task_events" in one])
    except OSError:
        pass
"""


@pytest.fixture
def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_an_address_where_nothing_listens_is_refused_in_one_line(closed_port, monkeypatch):
    monkeypatch.setattr(joining, "_LISTEN_SECONDS", 0.5)
    with pytest.raises(
        UserError, match=rf"RAY_ADDRESS=127.0.0.1:{closed_port}: nothing answers there \(Connection refused\)"
    ):
        joining._join(f"127.0.0.1:{closed_port}")


@pytest.mark.parametrize("named", ["nonsense:port", ":6379", "127.0.0.1:99999999", "no.such.host.invalid:6379"])
def test_a_malformed_address_is_refused_in_one_line(named):
    with pytest.raises(UserError, match=r"^RAY_ADDRESS=\S+: (expected HOST:PORT|nothing answers)"):
        joining._join(named)


@pytest.mark.parametrize(
    ("named", "found"), [("", None), ("local", None), (" ", None), ("auto", "auto"), ("a:1", "a:1")]
)
def test_an_empty_address_means_a_local_ray(named, found, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", named)
    assert joining.address() == found


def test_a_server_that_is_not_ray_is_given_up(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        environment = os.environ | {"RAY_ADDRESS": f"127.0.0.1:{silent.getsockname()[1]}"}
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", JOIN], env=environment, capture_output=True, text=True, timeout=90)
    assert (
        done.returncode == 0 and "something answers there, but in 3 s it did not let this process join" in done.stdout
    )
    assert time.monotonic() - began < 60 and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare")
def test_a_local_ray_starts_with_a_read_only_home_and_a_long_tmpdir(tmp_path):
    """make_shards.py starts a local Ray and makes a set; a proxy that does not answer is not asked for local addresses."""
    home = tmp_path / "home"
    long = tmp_path / "scratch_of_a_user_with_a_long_name" / "slurm_job_1355700_of_a_long_partition"
    home.mkdir()
    long.mkdir(parents=True)
    script = (
        f'mount --bind {home} {home} && mount -o remount,ro,bind {home} && ! touch {home}/x 2>/dev/null && exec "$@"'
    )
    words = ["pde=poisson", "pde.points=8", "data.train=4", "data.test=2", f"data.path={tmp_path}/set"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | RAY_ENVIRONMENT
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, str(LAUNCH / "make_shards.py"), *words],
        env=kept | {"HOME": str(home), "TMPDIR": str(long), "http_proxy": DEAD_PROXY, "HTTPS_PROXY": DEAD_PROXY},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    assert Path(tmp_path, "set", "manifest.json").exists() and not list(home.iterdir())


def test_the_head_of_a_local_ray_keeps_a_short_record_of_calls(tmp_path):
    """Without a limit it grows by 4 KB a call, up to 100,000 calls."""
    environment = {**os.environ, **RAY_ENVIRONMENT, "HOME": str(tmp_path), "RAY_ADDRESS": ""}
    environment.pop("RAY_task_events_max_num_task_in_gcs", None)
    done = subprocess.run(
        [sys.executable, "-c", SHORT_RECORD], env=environment, capture_output=True, text=True, timeout=120
    )
    assert "['RAY_task_events_max_num_task_in_gcs=1000']" in done.stdout, done.stderr[-2000:]
