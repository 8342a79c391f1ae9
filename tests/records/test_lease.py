"""The lock of a folder of an object store: between processes, after a killed owner, and with two that start at once."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from pidscale.config import UserError
from pidscale.records import lease, lock
from pidscale.records.lease import leased, tenant_of
from pidscale.records.lock import LOCK, record_of_this_process
from pidscale.records.stores.objects import Objects
from tests import s3

NUMBERS = itertools.count()
HOLD = """
import sys, time
from pidscale.records.lease import leased
from pidscale.records.stores.objects import Objects
with leased(Objects(sys.argv[1], 30.0, "run.folder")) as owner:
    print(bool(owner), flush=True)
    time.sleep(100)
"""


@pytest.fixture
def objects(server, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.2)
    monkeypatch.setattr(lock, "PATIENCE", 2.0)
    monkeypatch.setattr(lease, "_SETTLED", 0.3)
    return Objects(f"s3://{s3.BUCKET}/lock{next(NUMBERS)}", 30.0, "run.folder")


def _of_another_host(count: int) -> bytes:
    record = record_of_this_process("theirs", count) | {"host": "other 1234", "process": 7}
    return json.dumps(record).encode()


def test_one_process_holds_a_folder_and_leaves_nothing(objects):
    with leased(objects) as first:
        assert first is not None and first.holds()
        first.check()
        assert tenant_of(objects) == f"process {os.getpid()} on host {os.uname().nodename}"
        with leased(objects) as second:
            assert second is None
    assert objects.listed() == {}


def test_the_lock_of_a_killed_process_of_this_host_is_taken_at_once(objects):
    command = [sys.executable, "-c", HOLD, objects.address]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "True\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    began = time.monotonic()
    with leased(objects) as owner:
        assert owner is not None and owner.holds()
    assert time.monotonic() - began < lock.PATIENCE


def test_the_lock_of_another_host_is_taken_once_its_count_stands_still(objects, capsys):
    objects.write(LOCK, _of_another_host(1))
    ended = threading.Event()

    def beat() -> None:
        for count in itertools.count(2):
            if ended.wait(0.3):
                return
            objects.write(LOCK, _of_another_host(count))

    thread = threading.Thread(target=beat)
    thread.start()
    with leased(objects) as owner:
        assert owner is None
    assert tenant_of(objects) == "process 7 on host other"
    assert "looking for 2 s whether process 7 on host other still holds it" in capsys.readouterr().out
    ended.set()
    thread.join()
    with leased(objects) as owner:
        assert owner is not None and owner.holds()


def test_an_owner_that_was_replaced_writes_nothing_more(objects):
    with leased(objects) as owner:
        objects.write(LOCK, _of_another_host(1))
        assert owner is not None and not owner.holds()
        with pytest.raises(UserError, match="process 7 on host other has taken it over"):
            owner.check()
        time.sleep(0.6)  # its count is written no more
        assert json.loads(objects.content(LOCK))["token"] == "theirs"
    assert json.loads(objects.content(LOCK))["token"] == "theirs"


def test_a_lock_that_somebody_removed_is_not_said_to_be_taken(objects):
    with leased(objects) as owner:
        objects.remove([LOCK])
        with pytest.raises(UserError, match="is gone"):
            owner.check()


def test_of_two_that_start_at_once_one_gives_way(objects):
    owners = []
    both = threading.Barrier(2)

    def start() -> None:
        with leased(objects) as owner:
            owners.append(owner)
            both.wait(30)

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(owner is None for owner in owners) == [False, True]


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b'{"host": 3}', b"[" * 10**5, b'{"process": 1e400, "host": "x"}'])
def test_a_damaged_lock_stands_still_and_is_taken(objects, damage):
    objects.write(LOCK, damage)
    with leased(objects) as owner:
        assert owner is not None and owner.holds()
