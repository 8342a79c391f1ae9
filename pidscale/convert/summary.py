"""The report of a conversion on the terminal: what was mapped, the quality of the set, notes and warnings.

Must not measure anything.
"""

from __future__ import annotations

from pathlib import Path

from pidscale.convert.convert import ConvertedSet
from pidscale.convert.quality import Quality
from pidscale.convert.request import ConversionRequest
from pidscale.convert.sample_reader import Pick
from pidscale.meter import ProgressLine
from pidscale.pde import build_pde
from pidscale.pde.base import Pde


class StageProgress:
    """Shows one progress line for each stage."""

    def __init__(self) -> None:
        self._stage = ""
        self._line = ProgressLine("", 0)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` samples of a stage are done."""
        if stage != self._stage:
            self._stage = stage
            self._line = ProgressLine(stage, total)
        self._line.show(done)
        if done == total:
            self._line.close()


def summary_lines(request: ConversionRequest, converted: ConvertedSet, quality: Quality) -> list[str]:
    """Return the report of a conversion.

    Args:
        request: The arguments of the conversion.
        converted: Its result.
        quality: The quality of the set.

    Returns:
        The lines; the last one holds the settings that train on the set.
    """
    reader = converted.reader
    grid = converted.grid
    manifest = converted.manifest
    counts = ", ".join(f"{split} {one.samples}" for split, one in sorted(manifest.splits.items(), reverse=True))
    form = " x ".join(map(str, grid.shape)) + {"strip": " (times x points)"}.get(grid.kind, "")
    frames = f", {len(reader.times)} frames" if reader.sample_axes == "TYX" else ""
    warnings = (*converted.warnings, *quality.warnings(converted.pde, reader.picks[-1].scale))
    return [
        f"{_files(converted)} ({reader.source.layout}, {reader.count} samples) -> {request.out}",
        f"  {converted.pde.name}: {'; '.join(_mapped(pick) for pick in reader.picks)}",
        f"  {grid.kind} grid {form}{frames}; {counts}; {converted.copies} copies omitted",
        f"  params: {', '.join(f'{k}={v}' for k, v in manifest.params.items())}",
        *quality.table(),
        *(f"note: {note}" for note in converted.notes),
        *(f"warning: {warning}" for warning in warnings),
        f"train on it: {_settings(request, converted.pde)}",
    ]


def _files(converted: ConvertedSet) -> str:
    count = len(converted.reader.source.files)
    return f"{converted.label}: {count} files" if count else Path(converted.label).name


def _mapped(pick: Pick) -> str:
    component = "" if pick.component is None else f":{pick.component}"
    scale = "" if pick.scale == 1 else f" x {pick.scale:g}"
    return f"{pick.slot} <- {pick.array.name}{component} [{', '.join(pick.axes)}]{scale}"


def _settings(request: ConversionRequest, pde: Pde) -> str:
    """Return the settings of a run on the set, with those parameters that differ from the equation's defaults."""
    defaults = build_pde(pde.name).params_dict()
    params = [f"pde.params.{key}={value}" for key, value in pde.params_dict().items() if value != defaults[key]]
    named = f"pde=own pde.name={pde.name}" if ":" in pde.name else f"pde={pde.name}"  # an equation of the user's own
    return " ".join([named, *params, "pde.points=null", f"data.path={request.out}"])
