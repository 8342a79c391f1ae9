"""A maker that is killed at any moment is started again and ends with the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from pidscale.make.make import make_shard_set
from pidscale.pde import build_pde
from pidscale.records.check import check_set, load_manifest
from tests.scripts import LAUNCH

KILLS = 20
FILES = 2 * 10 + 2  # ten shards with an index each, the request and the manifest


def make(root: Path) -> None:
    pde = build_pde("darcy")
    make_shard_set(
        pde, root, {"train": 96, "test": 24}, grid=pde.grid(32), seed=5, samples_per_shard=12, parallel=False
    )


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


def test_killed_at_twenty_moments_the_set_is_the_same(tmp_path):
    processes = multiprocessing.get_context("forkserver")  # children start in no time: torch is there already
    processes.set_forkserver_preload(["pidscale.make.make"])
    warm = processes.Process(target=make, args=(tmp_path / "warm",))
    warm.start()
    warm.join()
    began = time.monotonic()
    whole = processes.Process(target=make, args=(tmp_path / "whole",))
    whole.start()
    whole.join()
    between, expected = (time.monotonic() - began) / FILES, contents(tmp_path / "whole")
    assert whole.exitcode == 0 and len(expected) == FILES
    check_set(load_manifest(tmp_path / "whole"), tmp_path / "whole", contents=True)
    draw, broken = random.Random(0), 0
    for attempt in range(KILLS):
        root = tmp_path / str(attempt)
        maker = processes.Process(target=make, args=(root,))
        maker.start()
        there = draw.randrange(FILES - 2)  # how far it has come, not how long it took: seconds follow the machine
        while maker.is_alive() and len(list(root.glob("[!.]*"))) < there:
            time.sleep(0.001)
        time.sleep(between * draw.random())
        with suppress(ProcessLookupError):  # it may have ended
            os.kill(maker.pid, signal.SIGKILL)
        maker.join()
        broken += not (root / "manifest.json").exists()
        again = processes.Process(target=make, args=(root,))
        again.start()
        again.join()
        assert again.exitcode == 0 and contents(root) == expected, attempt
    assert broken >= KILLS // 2  # most were killed at work


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_conversion_that_is_interrupted_says_so_in_one_line(tmp_path, number, status):
    draw, out = np.random.default_rng(0), tmp_path / "set"
    fields = {"permeability": 3 + 9 * draw.integers(0, 2, (3000, 17, 17)), "pressure": draw.random((3000, 17, 17))}
    np.savez(tmp_path / "big.npz", **fields)
    words = [f"source={tmp_path / 'big.npz'}", f"out={out}", "pde=darcy", "samples_per_shard=3", "force=true"]
    process = subprocess.Popen(
        [sys.executable, str(LAUNCH / "convert.py"), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(out.glob("train-*.tar")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (status, "interrupted; run the same command again to continue\n")
    assert not list(out.glob(".*.tmp")) and not (out / "manifest.json").exists()
