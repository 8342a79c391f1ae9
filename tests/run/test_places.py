"""A run in an object store: its records, generators and lock, as two hosts with disks of their own see them."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pidscale.config import Settings, UserError
from pidscale.parallel.mesh import Mesh
from pidscale.run import places
from pidscale.run.phases import begin, due, finish, hold_run
from pidscale.run.places import fetch_teacher, home_of, is_made, open_shelf, run_folder, run_place
from pidscale.run.reporting import Reporter, Request, Stopped
from pidscale.teacher import loop
from tests import s3, small
from tests.distill.test_rollout import write_teacher
from tests.ranks import spawn

NUMBERS = itertools.count()
INPUTS = {"data": "1"}


@pytest.fixture
def hosts(server, small_shards, tmp_path) -> tuple[Settings, Settings]:
    """The settings of one run, as two hosts with disks of their own see it."""
    server.line.mend()
    made = small.settings(small_shards, tmp_path, run={"folder": f"s3://{s3.BUCKET}/runs{next(NUMBERS)}/"})
    one, two = (replace(made, run=replace(made.run, scratch=str(tmp_path / name))) for name in ("one", "two"))
    return one, two


def test_the_copy_of_a_run_lies_below_the_scratch_folder(hosts, tmp_path, monkeypatch):
    one, two = hosts
    assert run_folder(one).parents[1] == tmp_path / "one" and run_folder(one).name == "run"
    assert run_place(one) == run_place(two) == f"{one.run.folder.rstrip('/')}/run"
    elsewhere = replace(one, run=replace(one.run, folder="s3://other/runs"))
    assert run_folder(elsewhere) != run_folder(one)
    monkeypatch.setattr(places.tempfile, "gettempdir", lambda: str(tmp_path))
    default = run_folder(replace(one, run=replace(one.run, scratch="")))
    assert default.parents[1] == tmp_path / f"pidscale-{os.getuid()}"
    assert default.parents[1].stat().st_mode & 0o77 == 0


def test_what_one_host_records_another_reads(hosts):
    one, two = hosts
    changed = replace(two, teacher=replace(two.teacher, lr=7.0))
    with hold_run(one):
        assert begin("teacher", one, INPUTS)
        busy = r"runs\d+/run: process \d+ on host .* is working on this run"
        with pytest.raises(UserError, match=busy), hold_run(two):
            pass
    with hold_run(two):
        assert due("teacher", changed, INPUTS)  # no checkpoint yet, so other settings may be used
    write_teacher(run_folder(one) / "teacher", one)
    home = home_of(one, run_folder(one))
    home.push_generator("teacher")
    finish("teacher", one, INPUTS)
    with hold_run(two):
        assert not due("teacher", two, INPUTS)
        with pytest.raises(UserError, match=r"teacher.lr was 0.002 and is 7.0 now"):
            due("teacher", changed, INPUTS)
    assert fetch_teacher(two, run_folder(two)) == run_folder(two) / "teacher"
    theirs, own = (load_file(run_folder(host) / "teacher" / "weights.safetensors") for host in (one, two))
    assert theirs.keys() == own.keys() and all(torch.equal(theirs[name], own[name]) for name in own)


def test_the_copy_follows_the_store(hosts):
    """What is no longer in the store goes from the copy; a generator is fetched again once its card is another one."""
    one, two = hosts
    here, there = (home_of(host, run_folder(host)) for host in hosts)
    for name in ("a.json", "b.json"):
        here.folder.mkdir(parents=True, exist_ok=True)
        (here.folder / name).write_text(name)
        here.push(here.folder / name)
    there.pull()
    assert sorted(path.name for path in there.folder.glob("[!.]*")) == ["a.json", "b.json"]
    here.objects.remove(["b.json"])
    there.pull()
    assert sorted(path.name for path in there.folder.glob("[!.]*")) == ["a.json"]
    assert not is_made("teacher", two)
    for width in (8, 16):
        made = replace(one, model=replace(one.model, change=one.model.change | {"width": width}))
        write_teacher(here.folder / "teacher", made)
        here.push_generator("teacher")
        assert is_made("teacher", two)
        card = json.loads((there.folder / "teacher" / "card.json").read_text())
        assert card["architecture"]["width"] == width
    here.withdraw("teacher")
    assert not is_made("teacher", two) and not (there.folder / "teacher" / "card.json").exists()


def _train(rank, world, settings, folder, until):
    """Train until a step, or to the end; return whether it came to its end."""
    done = [0]
    home = home_of(settings, folder)
    home.pull()
    asked = lambda: Request.STOP if done[0] >= until else Request.NOTHING  # noqa: E731
    reporter = Reporter(progress=lambda step, total, note: done.__setitem__(0, step), asked=asked, keep=home.push)
    try:
        loop.train(settings, folder, Mesh(rank, world), reporter)
    except Stopped:
        return False
    home.push_generator("teacher")
    return True


def _plain(rank, world, settings, folder):
    loop.train(settings, folder, Mesh(rank, world), Reporter())


def test_a_run_goes_on_at_another_host_and_ends_as_one_in_a_folder(hosts, tmp_path, small_shards):
    """Two ranks train until step 8 on host one and go on, with nothing of its disk, on host two."""
    one, two = hosts
    plain = small.settings(small_shards, tmp_path / "plain")
    spawn(_plain, 2, plain, run_folder(plain), timeout=300)
    assert spawn(_train, 2, one, run_folder(one), 8, timeout=300) == [False, False]
    assert open_shelf(two, run_folder(two), "teacher").newest_step() == 8
    assert spawn(_train, 2, two, run_folder(two), 1000, timeout=300) == [True, True]
    assert is_made("teacher", one)
    wanted = load_file(run_folder(plain) / "teacher" / "weights.safetensors")
    for host in hosts:
        found = load_file(run_folder(host) / "teacher" / "weights.safetensors")
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert not list(Path(run_folder(two)).rglob("rank-*"))
