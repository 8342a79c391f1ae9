"""DeepSpeed uses the GPU that Ray gave the worker, although it reads LOCAL_RANK, which Ray counts otherwise."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pidscale.config import UserError
from pidscale.engine import zero
from pidscale.parallel.mesh import Mesh

SETTINGS = zero.ZeroSettings(1, 1, 1, 0.0, {})


def _stand_in(monkeypatch, device=None):
    """A DeepSpeed that takes the device of LOCAL_RANK as the real one does, or the one given."""
    monkeypatch.setenv("LOCAL_RANK", "2")

    def initialize(**_):
        used = device or torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        return (SimpleNamespace(device=used),)

    monkeypatch.setattr(zero, "_import_deepspeed", lambda mesh: SimpleNamespace(initialize=initialize))


def test_deepspeed_takes_the_device_of_the_mesh(monkeypatch):
    """The third worker of a host with 16 GPUs: Ray sorts their numbers as text, so that it has the ninth in this order."""
    _stand_in(monkeypatch)
    made = zero.Zero(nn.Linear(2, 2), SETTINGS, Mesh(2, 16, torch.device("cuda", 8)))
    assert made.engine.device == torch.device("cuda", 8)


def test_another_device_is_one_line(monkeypatch):
    _stand_in(monkeypatch, torch.device("cuda", 2))
    with pytest.raises(UserError, match=r"^rank 2: DeepSpeed uses cuda:2, but Ray gave it cuda:8$"):
        zero.Zero(nn.Linear(2, 2), SETTINGS, Mesh(2, 16, torch.device("cuda", 8)))


def test_on_cpus_nothing_changes(monkeypatch):
    _stand_in(monkeypatch, torch.device("cpu"))
    zero.Zero(nn.Linear(2, 2), SETTINGS, Mesh(2, 16, torch.device("cpu")))
    assert os.environ["LOCAL_RANK"] == "2"
