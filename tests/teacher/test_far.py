"""Training on shards in a real object store: the line to it is cut for a while; then an object is damaged."""

from __future__ import annotations

import threading

import torch
from safetensors.torch import load_file

from pidscale.config import UserError
from pidscale.parallel.mesh import Mesh
from pidscale.run.reporting import Reporter
from pidscale.teacher import loop
from tests import s3, small
from tests.ranks import spawn


def _trained(rank, world, address, shards, folder, steps):
    settings = small.settings(
        shards,
        folder,
        teacher={"steps": steps, "evaluate_every": 1000},
        data={"path": address, "patience": 60.0, "prefetch": 1},
    )
    mark = folder / "two"

    def progress(done, total, note):
        if done == 2:
            mark.touch()

    try:
        loop.train(settings, folder / "run", Mesh(rank, world), Reporter(progress))
    except UserError as error:
        return str(error)
    return "trained"


def test_a_cut_line_is_waited_for_and_a_damaged_object_is_named(small_shards, tmp_path):
    here, far = tmp_path / "here", tmp_path / "far"
    here.mkdir(), far.mkdir()
    assert spawn(_trained, 1, str(small_shards), small_shards, here, 10, timeout=200) == ["trained"]
    with s3.running() as server:
        address = server.upload(small_shards, "set")
        cuts = []

        def cut():
            while not (far / "two").exists():
                if stop.wait(0.002):
                    return
            server.line.cut()
            cuts.append(1)
            stop.wait(2.0)
            server.line.mend()

        stop = threading.Event()
        thread = threading.Thread(target=cut)
        thread.start()
        assert spawn(_trained, 1, address, small_shards, far, 10, timeout=200) == ["trained"]
        stop.set()
        thread.join()
        assert cuts == [1]
        ours, theirs = (load_file(f / "run" / "teacher" / "weights.safetensors") for f in (here, far))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)

        data = bytearray(server.get("set/train-00001.tar"))
        for at in range(2000, len(data), 500):
            data[at] ^= 1
        server.put("set/train-00001.tar", bytes(data))
        again = tmp_path / "again"
        again.mkdir()
        (said,) = spawn(_trained, 1, address, small_shards, again, 10, timeout=200)
        assert said.startswith(f"{address}/train-00001.tar: sample ") and "fails its checksum" in said
