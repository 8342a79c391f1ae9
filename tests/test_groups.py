"""Groups of workers that share each field: a warning names those that two hosts hold."""

from __future__ import annotations

import pytest

from pidscale.cluster.bulletin import Place, Reports, Watch
from pidscale.cluster.groups import across_hosts

A, B, OTHER_A = Place("a", "10.0.0.1"), Place("b", "10.0.0.2"), Place("a", "10.0.0.3")


@pytest.mark.parametrize(
    ("places", "workers", "space", "named"),
    [
        ([A, A, A, B], 4, 2, "workers 2 to 3 (a, b) share"),
        ([A, B, B, A], 4, 2, "workers 0 to 1 (a, b); 2 to 3 (b, a) share"),
        ([A, A, A, B], 4, 4, "workers 0 to 3 (a, b) share"),
        ([A, OTHER_A], 2, 2, "workers 0 to 1 (a, a) share"),  # two hosts of one name
        ([A, B] * 6, 12, 2, "6 to 7 (a, b) and 2 more groups share"),
        ([A, A, B, B], 4, 2, ""),
        ([A, B], 2, 1, ""),
        ([A, B], 4, 4, ""),  # two of four have not started
    ],
)
def test_groups_that_cross_hosts_are_named(places, workers, space, named):
    line = across_hosts(dict(enumerate(places)), workers, space)
    if not named:
        assert line == ""
        return
    assert line.startswith(f"warning: cluster.space={space}: workers ") and named in line
    assert f"a multiple of {space} workers" in line


def test_the_driver_says_it_once(monkeypatch, capsys):
    def read(*_, **__):
        return Reports(places={0: A, 1: B})

    monkeypatch.setattr("pidscale.cluster.bulletin.ray.get", read)
    monkeypatch.setattr(Watch, "_wait", lambda self: None)
    bulletin = type("Bulletin", (), {"read": type("Method", (), {"remote": staticmethod(lambda: None)})})
    watch = Watch("teacher", bulletin, bool, str, lambda: None, 60.0, lambda places: across_hosts(places, 2, 2))
    for _ in range(3):
        watch._read()
    assert capsys.readouterr().out.count("warning: cluster.space=2: workers 0 to 1 (a, b)") == 1
