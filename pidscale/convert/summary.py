"""What a conversion tells on the terminal: what was mapped, what it is worth, what to mind. Must not measure anything."""

from __future__ import annotations

from pathlib import Path

from pidscale.convert.convert import Converted
from pidscale.convert.quality import Worth
from pidscale.convert.reading import Pick
from pidscale.convert.request import Asked
from pidscale.meter import ProgressLine
from pidscale.pde import build_pde
from pidscale.pde.base import Pde


class Lines:
    """One progress line for each stage."""

    def __init__(self) -> None:
        self._stage, self._line = "", ProgressLine("", 0)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show `done` of `total` samples of a stage."""
        if stage != self._stage:
            self._stage, self._line = stage, ProgressLine(stage, total)
        self._line.show(done)
        if done == total:
            self._line.close()


def told(asked: Asked, converted: Converted, worth: Worth) -> list[str]:
    """The report, line by line."""
    reading, grid, manifest = converted.reading, converted.grid, converted.manifest
    counts = ", ".join(f"{split} {one.samples}" for split, one in sorted(manifest.splits.items(), reverse=True))
    form = " x ".join(map(str, grid.shape)) + {"strip": " (times x places)"}.get(grid.kind, "")
    frames = f", {len(reading.times)} frames" if reading.target == "TYX" else ""
    warnings = (*converted.warnings, *worth.warnings(converted.pde, reading.picks[-1].scale))
    return [
        f"{_files(converted)} ({reading.source.layout}, {reading.count} samples) -> {asked.out}",
        f"  {converted.pde.name}: {'; '.join(_mapped(pick) for pick in reading.picks)}",
        f"  {grid.kind} grid {form}{frames}; {counts}; {converted.dropped} copies left out",
        f"  params: {', '.join(f'{k}={v}' for k, v in manifest.params.items())}",
        *worth.table(),
        *(f"note: {note}" for note in converted.notes),
        *(f"warning: {warning}" for warning in warnings),
        f"train on it: {_settings(asked, converted.pde)}",
    ]


def _files(converted: Converted) -> str:
    count = len(converted.reading.source.files)
    return f"{converted.word}: {count} files" if count else Path(converted.word).name


def _mapped(pick: Pick) -> str:
    component = "" if pick.component is None else f":{pick.component}"
    scale = "" if pick.scale == 1 else f" x {pick.scale:g}"
    return f"{pick.slot} <- {pick.array.name}{component} [{', '.join(pick.axes)}]{scale}"


def _settings(asked: Asked, pde: Pde) -> str:
    """The settings of a run on the set: only the parameters that are not the equation's own."""
    usual = build_pde(pde.name).params_dict()
    params = [f"pde.params.{key}={value}" for key, value in pde.params_dict().items() if value != usual[key]]
    named = f"pde=own pde.name={pde.name}" if ":" in pde.name else f"pde={pde.name}"  # an equation of the user's own
    return " ".join([named, *params, "pde.points=null", f"data.path={asked.out}"])
