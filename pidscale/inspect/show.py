"""A set in a few lines: what it holds, where it came from, and the command that finishes a set that was interrupted."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from pidscale.config import UserError
from pidscale.pde import PDES, stored_pde
from pidscale.records.json_checks import is_number
from pidscale.records.manifest import Manifest


def describe_set(manifest: Manifest, where: str) -> list[str]:
    """Describe a set.

    Args:
        manifest: The manifest of the set.
        where: Its folder or address.

    Returns:
        The lines.
    """
    grid = manifest.grid
    height, width = grid["shape"]
    extent_y, extent_x = grid["extent"]
    lines = [
        f"{where}: shard set, format version {manifest.version}",
        f"  equation   {manifest.equation}",
        f"  params     {', '.join(f'{key}={value}' for key, value in manifest.params.items()) or 'none'}",
        f"  grid       {grid['kind']} {height} x {width}, extent {extent_y:g} x {extent_x:g}, boundary {grid['boundary']}",
    ]
    longest = max(len(channel.name) for channel in manifest.channels)
    moments = zip(manifest.channels, manifest.normaliser["mean"], manifest.normaliser["std"], strict=True)
    for channel, mean, std in moments:
        described = f"{channel.name:<{longest}}  [{channel.unit}] {channel.role:<8}"
        lines.append(f"  channel    {described}  mean {mean:.6g}, std {std:.6g}")
    for name, split in sorted(manifest.splits.items(), reverse=True):
        size = sum(entry.bytes for entry in split.shards)
        shards = f"{len(split.shards)} shard{'s' * (len(split.shards) != 1)}"
        seeds = f"seeds {split.seeds[0]} to {split.seeds[1] - 1}"
        lines.append(f"  split      {name}: {split.samples} samples in {shards}, {size} bytes, {seeds}")
    for name, floors in sorted(manifest.truth_residual.items(), reverse=True):
        lines.append(f"  residual   {name}: {_floors(floors)}")
    return [*lines, f"  data_hash  {manifest.data_hash}", f"  made       {_origin(manifest.request)}"]


def _floors(floors: object) -> str:
    """Return the root mean square and the largest residual in each norm; a damaged manifest may hold anything here."""
    if not isinstance(floors, dict) or not all(map(is_number, floors.values())):
        return f"{floors!r}, expected a number for each norm"
    norms = [norm for norm in sorted(floors) if f"max_{norm}" in floors]
    return ", ".join(f"{norm} {floors[norm]:.2g} (at most {floors[f'max_{norm}']:.2g})" for norm in norms)


def _origin(request: Mapping[str, Any]) -> str:
    """Return what a set was made from."""
    source = request.get("source")
    if isinstance(source, dict) and isinstance(source.get("files"), list):
        return (
            f"from {len(source['files'])} files ({source.get('layout')}) by `pidscale convert`; its request names them"
        )
    if isinstance(source, dict):
        described = f"{source.get('layout')}, {source.get('bytes')} bytes, SHA-256 {source.get('sha256')}"
        return f"from the file {source.get('file')} ({described}) by `pidscale convert`"
    if "seed" in request:
        return f"from seed {request['seed']}, {request.get('samples_per_shard')} samples a shard, by `pidscale make-shards`"
    return "unknown: its request names neither a seed nor a file"


def finish_command(request: Mapping[str, Any], root: str) -> str:
    """Return the command that finishes a set, as far as its request determines it.

    Args:
        request: The request of the set.
        root: The folder of the set.

    Returns:
        The command, for a message.
    """
    source = request.get("source")
    if isinstance(source, dict):
        return f"`pidscale convert source={source.get('file', 'FILES')} out={root}` and the arguments that began it"
    try:
        name = request["equation"]
        samples = request["samples"]
        points = _points(request)
        words = [f"pde={name}"] if name in PDES else ["pde=own", f"pde.name={name}"]
        words += [f"pde.params.{key}={value}" for key, value in request["params"].items()]
        words += [f"pde.points={points}", f"data.path={root}", f"data.seed={request['seed']}"]
        words += [f"data.{split}={samples[split]}" for split in ("train", "test")]
        words.append(f"data.samples_per_shard={request['samples_per_shard']}")
    except (KeyError, StopIteration, UserError, AttributeError, TypeError, ValueError):
        return "`pidscale make-shards` and the settings that began it, which are in its request.json"
    return f"`pidscale make-shards {shlex.join(words)}`"


def _points(request: Mapping[str, Any]) -> int:
    """Return the number of points for which the equation's own grid is that of the request. Raises StopIteration if none."""
    pde = stored_pde("request.json", request["equation"], request["params"])
    return next(int(n) for n in request["grid"]["shape"] if pde.grid(int(n)).describe() == request["grid"])
