"""Output shared by several subcommands: a progress line, and the residual of fields. Knows no computations."""

from __future__ import annotations

from collections.abc import Mapping

from pidscale.meter import ProgressLine


class Progress:
    """A callable that shows `done` of `total` on one line, starting with the first call."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.line: ProgressLine | None = None

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show `done` of `total` and a note."""
        if self.line is None:
            self.line = ProgressLine(self.label, total)
        self.line.total = total
        self.line.show(done, note)

    def close(self) -> None:
        """End the line if it has been started."""
        if self.line is not None:
            self.line.close()


def residual_text(norms: Mapping[str, float]) -> str:
    """Return the norms of a residual as text: `l2 0.65, dual 0.095, boundary 0.013`."""
    return ", ".join(f"{norm} {norms[norm]:.3g}" for norm in ("l2", "dual", "boundary"))
