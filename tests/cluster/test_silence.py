"""A loop that reports nothing for unusually long is spoken of."""

from __future__ import annotations

from pidscale.cluster.bulletin import SILENT, Silence


def said(reports: list[tuple[float, int | None]], until: float) -> list[float]:
    """The times at which silence is spoken of, looked for every second, for reports (time, step)."""
    silence = Silence()
    latest: int | None = None
    found = []
    for now in range(int(until)):
        latest = next((step for at, step in reversed(reports) if at <= now), None)
        if silence.after(latest, float(now)):
            found.append(float(now))
    return found


def test_a_loop_that_hangs_is_spoken_of_again_and_again():
    assert said([(2, 10), (4, 20), (6, 30)], 6 + 3.5 * SILENT) == [6 + SILENT, 6 + 2 * SILENT, 6 + 3 * SILENT]


def test_a_loop_that_reports_as_usual_is_not():
    assert said([(t, t) for t in range(0, 300, 20)], 300) == []


def test_long_steps_are_usual_after_the_first():
    reports = [(t, t) for t in range(0, 1000, 100)]
    assert said(reports, 1000) == [SILENT, 2 * SILENT, 3 * SILENT]


def test_a_loop_that_never_begins_is_spoken_of():
    assert said([], 65) == [SILENT, 2 * SILENT]
