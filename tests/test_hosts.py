"""A Ray cluster of two hosts: a host that is lost and comes back, a host that never joins, and a busy cluster.

Hosts are namespaces; these tests are skipped where namespaces cannot be created (no root, no iproute2).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pidscale.make.make import make_shard_set
from pidscale.pde import build_pde
from tests import small
from tests.distill.test_rollout import write_teacher
from tests.hosts import ADDRESSES, LACKING, POSSIBLE, Host, Switch
from tests.pair import HEAD, TOKEN, driver, ended, progress, running, until, wait
from tests.scripts import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.skipif(not POSSIBLE, reason=LACKING)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with running(tmp_path_factory.mktemp("hosts")) as made:
        yield made


def test_a_run_shrinks_when_a_host_is_lost_or_about_to_leave_and_grows_when_it_is_back(pair, record_property):
    """A loss is reported with its traceback, one worker goes on after `shrink_after`, and two after a checkpoint."""
    more = ["cluster.max_failures=1", "cluster.wait=120", "cluster.min_workers=1", "cluster.shrink_after=3"]
    process, log = pair.train("lost", "teacher.steps=100000", *more)
    checkpoints = pair.folder / "runs" / "lost" / "checkpoints" / "teacher"
    wait(lambda: (checkpoints / "step_00000010" / "manifest.json").exists(), process, log)
    pair.hosts["two"].close()
    lost = (
        r"worker [01] on host (?:one: lost its connection to worker [01] on host two|two: lost) \(.*?(\S+)\); failure"
    )
    record_property("seconds_to_notice", until(log, lost, process))
    room = r"waiting for room \(\d+ of cluster.wait=120 s\): cluster.workers=2: 2 x 1 CPU do not fit on [12] host"
    record_property("seconds_to_wait_for_room", until(log, room, process))
    until(log, r"do not fit on [12] host.*; goes on with cluster.workers=1: 1 x 1 CPU", process)
    said = log.read_text()
    assert re.search(r"failure 1 of cluster.max_failures=1; goes on from step \d+0", said), said
    kept = re.search(lost, said)
    assert kept and re.search("Traceback|Error", Path(kept[1]).read_text())
    record_property("seconds_to_go_on", progress(process, log))
    pair.plug_in("two")
    pair.ray("two", f"--address={HEAD}")
    until(log, r"the cluster has room for 2 workers: 1 become 2 at the next checkpoint", process)
    until(log, r"teacher stopped at step \d+0 of 100000 with a checkpoint", process)
    record_property("seconds_to_grow", progress(process, log))
    newest = sorted(checkpoints.glob("step_????????/manifest.json"))[-1]
    step = int(newest.parent.name[5:])
    wait(lambda: (checkpoints / f"step_{step + 20:08d}" / "manifest.json").exists(), process, log)
    worlds = {json.loads(path.read_text())["world"] for path in checkpoints.glob("step_????????/manifest.json")}
    assert 2 in worlds, worlds

    notice = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot", "--deadline-remaining-seconds=60"]
    drain = pair.folder / "drain.log"
    pair.hosts["two"].run("ray", "drain-node", f"--address={HEAD}", *notice, log=drain, **TOKEN)
    record_property("seconds_to_leave", until(log, "host two is about to leave the cluster", process))
    until(log, r"(?s)about to leave.*teacher stopped at step \d+ of 100000.*goes on with cluster.workers=1", process)
    progress(process, log)
    os.kill(driver(process), signal.SIGTERM)
    ended(process, log)
    assert "with a checkpoint" in log.read_text() and "failure 2" not in log.read_text()
    pair.replace_second()


STORE = {  # of the object store on host one, which both hosts reach and which no disk is behind
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ENDPOINT_URL": f"http://{ADDRESSES['one']}:9000",
}
IN_STORE = """
import json, sys
from pathlib import Path
import boto3
client = boto3.client("s3")
if sys.argv[1] == "fill":
    client.create_bucket(Bucket="all")
    for path in Path(sys.argv[2]).iterdir():
        client.put_object(Bucket="all", Key=f"set/{path.name}", Body=path.read_bytes())
else:
    keys = [one["Key"] for one in client.list_objects_v2(Bucket="all", Prefix="runs/")["Contents"]]
    manifests = [key for key in keys if key.endswith("/manifest.json")]
    worlds = [json.loads(client.get_object(Bucket="all", Key=key)["Body"].read())["world"] for key in manifests]
    print(json.dumps({"keys": keys, "worlds": worlds}))
"""


@pytest.fixture
def store(pair):
    """Start an object store on host one, with the shard set in it; return a function that looks what lies there."""
    log = pair.folder / "store.log"
    one = pair.hosts["one"]
    server = one.start("python", "-m", "moto.server", "-H", ADDRESSES["one"], "-p", "9000", log=log)
    until(log, "Running on", server)
    one.run("python", "-c", IN_STORE, "fill", str(pair.folder / "shards"), log=log, **STORE)

    def look():
        seen = pair.folder / "seen.log"
        seen.unlink(missing_ok=True)
        one.run("python", "-c", IN_STORE, "look", log=seen, **STORE)
        return json.loads(seen.read_text().splitlines()[-1])

    yield look
    os.kill(driver(server), signal.SIGKILL)
    server.wait(20)


def test_hosts_that_share_no_disk_go_on_from_an_object_store_when_one_is_lost(pair, store, record_property):
    """Runs, scratch folders and caches lie in /dev/shm, of which each host has its own; the store alone is shared."""
    more = ["run.folder=s3://all/runs", "run.scratch=/dev/shm/copies", "data.path=s3://all/set"]
    more += ["data.cache=/dev/shm/cache", "cluster.max_failures=1", "cluster.wait=120", "cluster.min_workers=1"]
    more += ["cluster.shrink_after=3", "teacher.steps=100000"]
    more += [f"cluster.environment.{name}={value}" for name, value in STORE.items()]
    process, log = pair.train("far", *more, **STORE)
    until(log, r"\] [1-9]\d+/100000 ", process)
    pair.hosts["two"].close()
    until(log, r"failure 1 of cluster.max_failures=1; goes on from step \d+0", process)
    until(log, r"do not fit on [12] host.*; goes on with cluster.workers=1: 1 x 1 CPU", process)
    record_property("seconds_to_go_on", progress(process, log))
    pair.plug_in("two")  # with empty disks
    pair.ray("two", f"--address={HEAD}")
    stopped = (
        r"1 become 2 at the next checkpoint(?s:.*)stopped at step \d+0 of 100000 with a checkpoint in s3://all/runs"
    )
    until(log, stopped, process)
    progress(process, log)
    os.kill(driver(process), signal.SIGTERM)
    ended(process, log)
    assert "s3://all/runs/far: teacher was stopped; the same command goes on" in log.read_text()
    seen = store()
    assert {1, 2} & set(seen["worlds"]) and len(seen["worlds"]) <= 3, seen
    assert "runs/far/teacher.json" in seen["keys"] and not any(key.endswith(".lock") for key in seen["keys"])
    assert any("/tb/teacher/events" in key for key in seen["keys"])
    assert any(key.startswith("runs/far/errors/") for key in seen["keys"])
    assert not (pair.folder / "runs" / "far").exists()


def test_a_run_without_enough_hosts_says_so_at_once_and_ends(pair):
    process, log = pair.train("never", "cluster.workers=3", "teacher.global_batch=9", "cluster.wait=4")
    until(
        log,
        r"waiting for room \(0 of cluster.wait=4 s\): .*3 x 1 CPU do not fit on 2 hosts \(one: .*too small",
        process,
    )
    assert ended(process, log, 30) < 15
    assert "cluster.wait=4 s are over" in log.read_text() and not (pair.folder / "runs" / "never").exists()


HOLD = """
import ray, sys, time
ray.init(address="auto", log_to_driver=False)
held = ray.remote(num_cpus=1)(type("Held", (), {"there": lambda self: True})).remote()
print(ray.get(held.there.remote()), flush=True)
time.sleep(1000)
"""


def test_a_run_on_a_busy_cluster_says_so_at_once_and_can_be_stopped(pair):
    log = pair.folder / "hold.log"
    holder = pair.hosts["one"].start("python", "-c", HOLD, log=log, RAY_ADDRESS=HEAD, **TOKEN)
    until(log, "True", holder)
    process, log = pair.train("busy", "cluster.wait=600")
    until(log, r"waiting for room .*2 x 1 CPU do not fit on 2 hosts \(.*others hold the rest", process)
    assert "0 of 1 CPUs free" in log.read_text()
    os.kill(driver(process), signal.SIGTERM)
    assert ended(process, log, 20) < 10
    assert "stopped while it waited for room" in log.read_text() and not (pair.folder / "runs" / "busy").exists()
    os.kill(driver(holder), signal.SIGKILL)
    holder.wait(20)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of this checkout with its environment, and a small set and a teacher where docs/clusters.md expects them."""
    folder = tmp_path_factory.mktemp("readme") / "checkout"
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    pde = build_pde("darcy")
    sizes = {"train": 64, "test": 16}
    make_shard_set(pde, folder / "shards/darcy32", sizes, grid=pde.grid(32), seed=0, parallel=False)
    settings = small.settings(folder / "shards/darcy32", folder / "runs", "fno", pde={"points": 32})
    write_teacher(folder / "runs/demo/teacher", settings)
    return folder


def test_the_commands_of_a_first_submission_work_on_a_new_account(checkout, tmp_path):
    """Every line is run unchanged with an empty HOME: the job distils a student and writes checkpoints."""
    section = (ROOT / "docs" / "clusters.md").read_text().split("## A first submission")[1]
    block = section.split("```bash\n")[1].split("```")[0]
    assert "ray start --head" in block and "ray job submit" in block
    host = Host("one", tmp_path)
    switch = Switch()
    log = tmp_path / "block.log"
    try:
        switch.plug(host)
        plain = {"VIRTUAL_ENV": "", "RAY_ADDRESS": ""}
        process = host.start("bash", "-e", "-u", "-c", block, log=log, cwd=checkout, **plain)
        status = process.wait(500)
    finally:
        host.close()
        switch.close()
    said = log.read_text()
    assert status == 0 and "Traceback" not in said, said[-4000:]
    assert "succeeded" in said and "200/200" in said
    assert (checkout / "runs/job/student/card.json").exists()
    assert list((checkout / "runs/job/checkpoints/distill").glob("step_*/manifest.json"))
