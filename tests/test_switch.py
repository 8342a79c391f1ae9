"""Hosts in namespaces: a lost one is gone from the network at once, however long the system keeps its namespace.

Sockets that were connected to a host that was lost before do so for a minute: what they have to send is repeated.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hosts import ADDRESSES, LACKING, POSSIBLE, Host, Switch

ASK = f"""import socket
try:
    socket.create_connection(("{ADDRESSES["two"]}", 7000), timeout=10)
except OSError as error:
    print("answered" if isinstance(error, ConnectionRefusedError) else "silent")"""


@pytest.mark.skipif(not POSSIBLE, reason=LACKING)
def test_nothing_answers_at_the_address_of_a_lost_host(tmp_path: Path) -> None:
    switch, one, two = Switch(), Host("one", tmp_path / "one"), Host("two", tmp_path / "two")
    log = tmp_path / "log"
    try:
        for host in (one, two):
            switch.plug(host)
        with open(f"/proc/{two.first}/ns/net"):  # keeps the namespace
            one.run("python", "-c", ASK, log=log)
            two.close()
            one.run("python", "-c", ASK, log=log)
    finally:
        for each in (one, two, switch):
            each.close()
    assert log.read_text().split() == ["answered", "silent"]
