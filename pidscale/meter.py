"""The time of a step by section, the events of TensorBoard, and the progress line. Knows no models and no ranks."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pidscale.config import UserError

LOG_SECONDS = "PIDSCALE_LOG_SECONDS"  # environment variable: seconds between two progress lines of a file or log


class StepTimer:
    """Seconds spent in named sections since the last `take`.

    Args:
        synchronise: Called at the end of a section to wait for a GPU, so that a section includes the work it has queued.
    """

    def __init__(self, synchronise: Callable[[], object] | None = None) -> None:
        self.parts: dict[str, float] = {}  # seconds by section since the last `take`
        self.total: dict[str, float] = {}  # seconds by section that were taken since the start
        self.synchronise = synchronise

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Add the time of the body to the section `name`."""
        start = time.perf_counter()
        yield
        if self.synchronise is not None:
            self.synchronise()
        self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - start

    def take(self) -> dict[str, float]:
        """Return the seconds by section and start again at zero."""
        parts, self.parts = self.parts, {}
        self.total = {name: self.total.get(name, 0.0) + parts.get(name, 0.0) for name in (*self.total, *parts)}
        return parts

    def share(self, name: str) -> float:
        """Return the share of a section in all the time taken so far."""
        return self.total.get(name, 0.0) / max(sum(self.total.values()), 1e-9)


def rates(
    ranks: Sequence[Mapping[str, float]], steps: int, seconds: float, batch: int, waiting: str = "wait"
) -> dict[str, float]:
    """Return the rates of a number of steps as scalars for TensorBoard.

    The sections are those of the first rank. Beside each is the time of the rank that spent most on it, and its number: a
    slow rank is the one with most time in `data` or a network, and the others wait for it in `optimiser`.

    Args:
        ranks: Seconds by section, for each rank.
        steps: Number of steps.
        seconds: Duration of all of them.
        batch: Samples of a step.
        waiting: Section that waits for data.

    Returns:
        Seconds a step by section and in all, fields a second, and the share of waiting; with several ranks also the largest
        share of waiting, and the slowest rank by section.
    """
    parts = ranks[0]
    shares = {f"time/{name}": value / steps for name, value in parts.items()}
    shares["time/wait_share"] = parts.get(waiting, 0.0) / seconds
    if len(ranks) > 1:
        for name in parts:
            spent = [own.get(name, 0.0) for own in ranks]
            shares[f"slowest/{name}"] = max(spent) / steps
            shares[f"slowest/{name}_rank"] = spent.index(max(spent))
        shares["slowest/wait_share"] = max(own.get(waiting, 0.0) for own in ranks) / seconds
    return shares | {"time/step": seconds / steps, "train/fields_per_second": steps * batch / seconds}


class Board:
    """A TensorBoard event file, or nothing where `folder` is None (every rank but the first).

    An event file that cannot be written (disk full, read-only, folder deleted) is reported once; later events are dropped,
    and the run goes on.

    Args:
        folder: Folder of the event file.
        first_step: Finished steps whose events an earlier attempt has written; its events of later steps are discarded.
        say: Receives the warning about a file that cannot be written.
    """

    def __init__(self, folder: Path | None, first_step: int = 0, say: Callable[[str], None] = print) -> None:
        self.folder = folder
        self.say = say
        self.writer: Any = None
        self.written: set[tuple[str, int]] = set()  # tags and steps that are not written a second time
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            with self._guarded():
                self.writer = SummaryWriter(str(folder), purge_step=first_step + 1)

    @contextmanager
    def _guarded(self) -> Iterator[Any]:
        """Give the body the writer, or None where there is none; an error of the file does not end the run."""
        try:
            yield self.writer
        except OSError as error:
            self.writer = None
            self.say(
                f"warning: {self.folder}: {error.strerror or error}; no events for TensorBoard until the next start; "
                "training goes on"
            )

    def keep(self, step: int) -> None:
        """Keep the curves and pictures that earlier attempts wrote of a step: they are not written a second time.

        For an attempt that has only the results of the last step left to write. Reads all events of the folder.
        """
        with self._guarded() as writer:
            if writer is not None:
                from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

                events = EventAccumulator(
                    str(self.folder), size_guidance={"scalars": 1, "images": 1}
                )  # the last of each
                events.Reload()
                tags = events.Tags()
                kinds = ((events.Scalars, tags["scalars"]), (events.Images, tags["images"]))
                found = {(tag, read(tag)[-1].step) for read, names in kinds for tag in names}
                self.written = {(tag, last) for tag, last in found if last == step}

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write scalars of a step."""
        for name, value in values.items():
            with self._guarded() as writer:
                if writer is not None and (name, step) not in self.written:
                    writer.add_scalar(name, value, step)

    def image(self, name: str, picture_YX3: np.ndarray | None, step: int) -> None:
        """Write one picture of a step, uint8 [Y, X, 3]; None writes nothing."""
        with self._guarded() as writer:
            if writer is not None and picture_YX3 is not None and (name, step) not in self.written:
                writer.add_image(name, picture_YX3, step, dataformats="HWC")

    def text(self, name: str, text: str, step: int = 0) -> None:
        """Write a text, which is shown as a code block."""
        with self._guarded() as writer:
            if writer is not None:
                writer.add_text(name, "    " + text.replace("\n", "\n    "), step)

    def layout(self, groups: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Write which curves the tab "Custom Scalars" shows in a chart: regular expressions of tags, by group and chart."""
        charts = {
            group: {name: ["Multiline", list(tags)] for name, tags in own.items()} for group, own in groups.items()
        }
        with self._guarded() as writer:
            if writer is not None:
                writer.add_custom_scalars(charts)

    def hparams(self, settings: Mapping[str, Any], curves: Collection[str]) -> None:
        """Write the row of this run in the table of hyperparameters.

        Args:
            settings: The settings by name.
            curves: Names of the curves whose last values are its metrics; curves that the run does not have are omitted.
        """
        with self._guarded() as writer:
            if writer is not None:
                from torch.utils.tensorboard.summary import hparams

                flat = {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in settings.items()}
                for summary in hparams(flat, dict.fromkeys(curves)):
                    writer.file_writer.add_summary(summary)

    def flush(self) -> None:
        """Write all events to disk: before a checkpoint, so that a resumed run has no gap."""
        with self._guarded() as writer:
            if writer is not None:
                writer.flush()

    def close(self) -> None:
        """Flush and close."""
        with self._guarded() as writer:
            if writer is not None:
                writer.close()


def log_seconds() -> float:
    """Return the seconds between two progress lines of a file or log.

    Returns:
        PIDSCALE_LOG_SECONDS of the environment, or 15.

    Raises:
        UserError: PIDSCALE_LOG_SECONDS is not a number of seconds.
    """
    given = os.environ.get(LOG_SECONDS, "15")
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UserError(f"{LOG_SECONDS}={given}: expected a number of seconds, at least 0")
    return seconds


class ProgressLine:
    """A progress line that is updated in place on a terminal, and repeated from time to time in a file or log.

    A PIDSCALE_LOG_SECONDS that is not a number of seconds raises a UserError.

    Args:
        label: Text at the beginning of the line.
        total: Number of steps.
        out: Where it is written; None takes the standard output.
        every: Seconds between two lines of a file or log; None takes PIDSCALE_LOG_SECONDS, or 15.
    """

    def __init__(self, label: str, total: int, out: TextIO | None = None, every: float | None = None) -> None:
        self.label = label
        self.total = total
        self.every = log_seconds() if every is None else every
        self.out = out or sys.stdout
        self.live = self.out.isatty()
        self.first: tuple[float, int] | None = None  # time and step of the first call
        self.written = 0.0  # time of the last line
        self.shown = -1  # its step
        self.note = ""  # and its note

    def show(self, done: int, note: str = "") -> None:
        """Show that `done` steps are finished; the remaining time is estimated from the steps seen by this object.

        The last step is shown again if its note has changed.
        """
        now = time.monotonic()
        if self.first is None:
            self.first = (now, done)
        changed = done == self.total and note != self.note
        if (done == self.shown and not changed) or (
            done < self.total and now - self.written < (0.2 if self.live else self.every)
        ):
            return
        self.written = now
        self.shown = done
        self.note = note
        share = done / max(1, self.total)
        bar = "#" * round(24 * share) + "." * (24 - round(24 * share))
        line = f"{self.label} [{bar}] {done}/{self.total} {self._remaining(now, done)} {note}"
        self.out.write(f"\r{line:<110}" if self.live else line + "\n")
        self.out.flush()

    def _remaining(self, now: float, done: int) -> str:
        """Return the rate and the remaining time as text."""
        assert self.first is not None
        seconds = now - self.first[0]
        steps = done - self.first[1]
        if steps <= 0 or seconds <= 0:
            return "ETA --:--"
        left = seconds / steps * (self.total - done)
        return f"{steps / seconds:.1f}/s ETA {int(left // 60):02d}:{int(left % 60):02d}"

    def close(self) -> None:
        """End the line on a terminal."""
        if self.live and self.first is not None:
            self.out.write("\n")
            self.out.flush()
