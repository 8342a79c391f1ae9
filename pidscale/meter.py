"""Where a step's time goes, what TensorBoard is told, and the live line of a terminal. Knows no models and no ranks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np


class StepTimer:
    """Seconds spent in named parts since the last `take`. On a GPU, pass `synchronise` so that parts own their work."""

    def __init__(self, synchronise: Any = None) -> None:
        self.parts: dict[str, float] = {}
        self.total: dict[str, float] = {}  # since the start, of what was taken
        self.synchronise = synchronise

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Time the body as the part `name`."""
        start = time.perf_counter()
        yield
        if self.synchronise is not None:
            self.synchronise()
        self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - start

    def take(self) -> dict[str, float]:
        """Return the seconds by part and start anew."""
        parts, self.parts = self.parts, {}
        self.total = {name: self.total.get(name, 0.0) + parts.get(name, 0.0) for name in (*self.total, *parts)}
        return parts

    def share(self, name: str) -> float:
        """The share of all time that was taken so far which went into a part."""
        return self.total.get(name, 0.0) / max(sum(self.total.values()), 1e-9)


def rates(
    parts: Mapping[str, float], steps: int, seconds: float, batch: int, waiting: str = "wait"
) -> dict[str, float]:
    """Scalars of a stretch of steps: seconds a step by part and in all, fields a second, the share of waiting for data."""
    shares = {f"time/{name}": value / steps for name, value in parts.items()}
    shares["time/wait_share"] = parts.get(waiting, 0.0) / seconds
    return shares | {"time/step": seconds / steps, "train/fields_per_second": steps * batch / seconds}


class Board:
    """A TensorBoard event file, or nothing at all where `folder` is None (every rank but the first).

    first_step: finished steps that an earlier attempt wrote of; what it wrote of later ones is forgotten. say: told once of a
    file that cannot be written (no room, read-only, folder gone); what comes after it is not written, and nothing else ends.
    """

    def __init__(self, folder: Path | None, first_step: int = 0, say: Callable[[str], None] = print) -> None:
        self.folder, self.say = folder, say
        self.writer: Any = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            with self._spared():
                self.writer = SummaryWriter(str(folder), purge_step=first_step + 1)

    @contextmanager
    def _spared(self) -> Iterator[Any]:
        """The writer, for a body that does not end the run; None where there is none."""
        try:
            yield self.writer
        except OSError as error:
            self.writer = None
            self.say(
                f"warning: {self.folder}: {error.strerror or error}; TensorBoard gets no more until the next start, training "
                "goes on"
            )

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write scalars."""
        for name, value in values.items():
            with self._spared() as writer:
                if writer is not None:
                    writer.add_scalar(name, value, step)

    def image(self, name: str, picture_YX3: np.ndarray | None, step: int) -> None:
        """Write one picture, uint8 [Y, X, 3]; nothing where this rank has none."""
        with self._spared() as writer:
            if writer is not None and picture_YX3 is not None:
                writer.add_image(name, picture_YX3, step, dataformats="HWC")

    def text(self, name: str, text: str) -> None:
        """Write a text, shown as a code block."""
        with self._spared() as writer:
            if writer is not None:
                writer.add_text(name, "    " + text.replace("\n", "\n    "))

    def hparams(self, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Write the table row of this run: settings flattened to scalars, and its final metrics."""
        with self._spared() as writer:
            if writer is not None:
                flat = {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in settings.items()}
                writer.add_hparams(flat, dict(metrics), run_name=".")

    def flush(self) -> None:
        """Bring to disk what was written: before a checkpoint, so that a resumed run has no gap."""
        with self._spared() as writer:
            if writer is not None:
                writer.flush()

    def close(self) -> None:
        """Flush and close."""
        with self._spared() as writer:
            if writer is not None:
                writer.close()


class ProgressLine:
    """A live line on a terminal; one line every `every` seconds where the output is a file or a job's log."""

    def __init__(self, label: str, total: int, out: TextIO | None = None, every: float = 15.0) -> None:
        self.label, self.total, self.every = label, total, every
        self.out = out or sys.stdout
        self.live = self.out.isatty()
        self.first: tuple[float, int] | None = None
        self.written, self.shown = 0.0, -1

    def show(self, done: int, note: str = "") -> None:
        """Show `done` of `total`; the remaining time is that of the steps seen by this line."""
        now = time.monotonic()
        if self.first is None:
            self.first = (now, done)
        if done == self.shown or (done < self.total and now - self.written < (0.2 if self.live else self.every)):
            return
        self.written, self.shown = now, done
        share = done / max(1, self.total)
        bar = "#" * round(24 * share) + "." * (24 - round(24 * share))
        line = f"{self.label} [{bar}] {done}/{self.total} {self._remaining(now, done)} {note}"
        self.out.write(f"\r{line:<110}" if self.live else line + "\n")
        self.out.flush()

    def _remaining(self, now: float, done: int) -> str:
        assert self.first is not None
        seconds, steps = now - self.first[0], done - self.first[1]
        if steps <= 0 or seconds <= 0:
            return "ETA --:--"
        left = seconds / steps * (self.total - done)
        return f"{steps / seconds:.1f}/s ETA {int(left // 60):02d}:{int(left % 60):02d}"

    def close(self) -> None:
        """End the line."""
        if self.live and self.first is not None:
            self.out.write("\n")
            self.out.flush()
