"""A set in a few lines: what it holds, where it came from, and the command that finishes one which was begun."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from pidscale.config import UserError
from pidscale.pde import PDES, stored_pde
from pidscale.records.layout import Manifest, is_number


def describe_set(manifest: Manifest, where: str) -> list[str]:
    """What a manifest says, line by line. where: the set's folder or address."""
    grid, norms = manifest.grid, manifest.normaliser
    height, width = grid["shape"]
    long_y, long_x = grid["extent"]
    lines = [
        f"{where}: shard set, format version {manifest.version}",
        f"  equation   {manifest.equation}",
        f"  params     {', '.join(f'{key}={value}' for key, value in manifest.params.items()) or 'none'}",
        f"  grid       {grid['kind']} {height} x {width}, extent {long_y:g} x {long_x:g}, boundary {grid['boundary']}",
    ]
    broad = max(len(channel.name) for channel in manifest.channels)
    for channel, mean, std in zip(manifest.channels, norms["mean"], norms["std"], strict=True):
        told = f"{channel.name:<{broad}}  [{channel.unit}] {channel.role:<8}"
        lines.append(f"  channel    {told}  mean {mean:.6g}, std {std:.6g}")
    for name, split in sorted(manifest.splits.items(), reverse=True):
        size, count = sum(entry.bytes for entry in split.shards), len(split.shards)
        seeds = f"seeds {split.seeds[0]} to {split.seeds[1] - 1}"
        lines.append(f"  split      {name}: {split.samples} samples in {_shards(count)}, {size} bytes, {seeds}")
    for name, floors in sorted(manifest.truth_residual.items(), reverse=True):
        lines.append(f"  residual   {name}: {_floors(floors)}")
    return [*lines, f"  data_hash  {manifest.data_hash}", f"  made       {_origin(manifest.request)}"]


def _shards(count: int) -> str:
    return f"{count} shard{'s' * (count != 1)}"


def _floors(floors: object) -> str:
    """The rms and the largest residual in each norm; a damaged manifest may hold anything here."""
    if not isinstance(floors, dict) or not all(map(is_number, floors.values())):
        return f"{floors!r}, expected a number for each norm"
    norms = [norm for norm in sorted(floors) if f"max_{norm}" in floors]
    return ", ".join(f"{norm} {floors[norm]:.2g} (at most {floors[f'max_{norm}']:.2g})" for norm in norms)


def _origin(request: Mapping[str, Any]) -> str:
    source = request.get("source")
    if isinstance(source, dict) and isinstance(source.get("files"), list):
        return (
            f"from {len(source['files'])} files ({source.get('layout')}) by `pidscale convert`; its request names them"
        )
    if isinstance(source, dict):
        told = f"{source.get('layout')}, {source.get('bytes')} bytes, SHA-256 {source.get('sha256')}"
        return f"from the file {source.get('file')} ({told}) by `pidscale convert`"
    if "seed" in request:
        return f"from seed {request['seed']}, {request.get('samples_per_shard')} samples a shard, by `pidscale make-shards`"
    return "unknown: its request names neither a seed nor a file"


def how_to_finish(request: Mapping[str, Any], root: str) -> str:
    """The command that finishes the set of this request in the folder `root`, as far as the request tells."""
    source = request.get("source")
    if isinstance(source, dict):
        return f"`pidscale convert source={source.get('file', 'FILES')} out={root}` and the words that began it"
    try:
        name, samples, points = request["equation"], request["samples"], _points(request)
        words = [f"pde={name}"] if name in PDES else ["pde=own", f"pde.name={name}"]
        words += [f"pde.params.{key}={value}" for key, value in request["params"].items()]
        words += [f"pde.points={points}", f"data.path={root}", f"data.seed={request['seed']}"]
        words += [f"data.{split}={samples[split]}" for split in ("train", "test")]
        words.append(f"data.samples_per_shard={request['samples_per_shard']}")
    except (KeyError, StopIteration, UserError, AttributeError, TypeError, ValueError):
        return "`pidscale make-shards` and the settings that began it, which its request.json holds"
    return f"`pidscale make-shards {shlex.join(words)}`"


def _points(request: Mapping[str, Any]) -> int:
    """Points a side for which the equation's own grid is that of the request. StopIteration if there is none."""
    pde = stored_pde("request.json", request["equation"], request["params"])
    return next(int(n) for n in request["grid"]["shape"] if pde.grid(int(n)).describe() == request["grid"])
