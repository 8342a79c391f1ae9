"""A worker whose host sees another disk under the run's path than the driver does ends the run before it trains."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from pidscale.cluster.worker import _check_shared
from pidscale.config import RunSettings, Settings, UserError
from pidscale.records.lock import held


def test_a_host_that_sees_another_folder_is_named(tmp_path):
    settings = replace(Settings(), run=RunSettings(name="a", folder=str(tmp_path)))
    (tmp_path / "a").mkdir()
    with held(tmp_path / "a") as owner:
        _check_shared(settings, owner)
        (tmp_path / "a").rename(tmp_path / "that of the driver")
        (tmp_path / "a").mkdir()
        words = f"{tmp_path}/a: host {socket.gethostname()} does not see what the driver has written there"
        with pytest.raises(UserError, match=words):
            _check_shared(settings, owner)
