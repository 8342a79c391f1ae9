"""The launch scripts as processes of their own, a run of seconds for them, and ways to end them early.

Whatever a script started is ended with it, by process number. Knows no models and no equations.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import RAY_ENVIRONMENT

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = ROOT / "launch"
TINY = [
    "pde.points=16",
    "data.train=48",
    "data.test=16",
    "data.samples_per_shard=16",
    "model.change.width=8",
    "model.change.multipliers=[1,2]",
    "model.change.embedding=16",
    "teacher.steps=40",
    "teacher.lr=2.0e-3",
    "teacher.global_batch=8",
    "teacher.micro_batch=2",
    "teacher.log_every=1",
    "teacher.checkpoint_every=10",
    "teacher.evaluate_every=30",
    "teacher.evaluate_samples=4",
    "teacher.evaluate_steps=3",
    "distill.steps=30",
    "distill.lr=1.0e-3",
    "distill.global_batch=8",
    "distill.micro_batch=2",
    "distill.chunk=2",
    "distill.log_every=1",
    "distill.checkpoint_every=10",
    "distill.solver_steps=3",
    "distill.scale_steps=3",
    "distill.scale_samples=16",
    "distill.buffer_rows=4",
    "distill.reuse=3",
    "evaluate.samples=8",
    "evaluate.batch=8",
    "evaluate.teacher_steps=[3]",
]


def tiny(folder, name, *more):
    """Arguments of a run of seconds; `more` replaces some."""
    own = [f"data.path={folder / 'shards'}", f"run.folder={folder / 'runs'}", f"run.name={name}"]
    given = dict(argument.split("=", 1) for argument in [*TINY, *own, *more])
    return [f"{key}={value}" for key, value in given.items()]


# ---- scripts as processes of their own


def start(script, arguments, log):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | RAY_ENVIRONMENT
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    return subprocess.Popen(
        [sys.executable, str(LAUNCH / f"{script}.py"), *arguments],
        cwd=log.parent,
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=log.open("w"),
        stderr=log.with_suffix(".err").open("w"),
        start_new_session=True,
    )


def finish(process, log, code=0, timeout=400):
    """Wait for a script, and return what it said."""
    try:
        found = process.wait(timeout)
    finally:
        kill(process)
    said, errors = log.read_text(), log.with_suffix(".err").read_text()
    assert found == code, f"{process.args[1]} ended with {found}\n{said[-3000:]}\n{errors[-3000:]}"
    return said, errors


def family(pid):
    """A process and all that came from it, by their parents in /proc, with their start times."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents[int(folder.name)] = (int(fields[1]), fields[19])
    found, grew = {pid}, True
    while grew:
        more = {child for child, (parent, _) in parents.items() if parent in found} - found
        found, grew = found | more, bool(more)
    return {child: parents[child][1] for child in found if child in parents}


def kill(process):
    """SIGKILL for a script, then for what it started and left behind."""
    started = family(process.pid)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    for pid, born in started.items():
        if family(pid).get(pid) == born and pid != process.pid:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def wait_for(condition, process, log):
    """Until something is so, as long as the script is at work."""
    until = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, (log.read_text(), log.with_suffix(".err").read_text())
        assert time.monotonic() < until, f"not so within 600 s: {log}"
        time.sleep(0.01)


def interrupt(script, arguments, log, checkpoint, how):
    """Start a script and end it by a signal as soon as a checkpoint is there."""
    process = start(script, arguments, log)
    try:
        wait_for((checkpoint / "manifest.json").exists, process, log)
        if how == signal.SIGKILL:
            kill(process)
            return None
        os.kill(process.pid, how)
        return finish(process, log, code=2)
    finally:
        kill(process)


def contents(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
