"""A run that is killed at any moment and started again ends with the same bytes."""

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


def test_a_set_killed_at_twenty_moments_ends_with_the_same_bytes(tmp_path):
    processes = multiprocessing.get_context("forkserver")  # its children start fast: torch is already imported
    processes.set_forkserver_preload(["pidscale.make.make"])
    warm = processes.Process(target=make, args=(tmp_path / "warm",))
    warm.start()
    warm.join()
    began = time.monotonic()
    whole = processes.Process(target=make, args=(tmp_path / "whole",))
    whole.start()
    whole.join()
    interval = (time.monotonic() - began) / FILES  # seconds a file
    expected = contents(tmp_path / "whole")
    assert whole.exitcode == 0 and len(expected) == FILES
    check_set(load_manifest(tmp_path / "whole"), tmp_path / "whole", contents=True)
    draw = random.Random(0)
    unfinished = 0
    for attempt in range(KILLS):
        root = tmp_path / str(attempt)
        maker = processes.Process(target=make, args=(root,))
        maker.start()
        there = draw.randrange(FILES - 2)  # progress is counted in files: seconds depend on the machine
        while maker.is_alive() and len(list(root.glob("[!.]*"))) < there:
            time.sleep(0.001)
        time.sleep(interval * draw.random())
        with suppress(ProcessLookupError):  # it may have finished
            os.kill(maker.pid, signal.SIGKILL)
        maker.join()
        unfinished += not (root / "manifest.json").exists()
        again = processes.Process(target=make, args=(root,))
        again.start()
        again.join()
        assert again.exitcode == 0 and contents(root) == expected, attempt
    assert unfinished >= KILLS // 2  # most were killed before the end


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_conversion_ends_with_one_line(tmp_path, number, status):
    draw = np.random.default_rng(0)
    out = tmp_path / "set"
    fields = {"permeability": 3 + 9 * draw.integers(0, 2, (3000, 17, 17)), "pressure": draw.random((3000, 17, 17))}
    np.savez(tmp_path / "big.npz", **fields)
    words = [f"source={tmp_path / 'big.npz'}", f"out={out}", "pde=darcy", "samples_per_shard=3", "force=true"]
    process = subprocess.Popen(
        [sys.executable, str(LAUNCH / "convert.py"), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )
    while not list(out.glob("train-*.tar")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (status, "interrupted; run the same command again to continue\n")
    assert not list(out.glob(".*.tmp")) and not (out / "manifest.json").exists()
