"""What a set of generated fields is worth beside a set of true ones. Knows no models, files or ranks.

Fields here are normalised (standard deviation 0.5 for each channel) unless a docstring says physical, so that distances
mean the same for every equation and every unit. Shapes: x_NCYX sets of fields.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.caller import exactly, kept

DIRECTIONS = 256  # random directions of a sliced distance
PATCH, PATCHES = 5, 16  # points a side of a patch, patches drawn from each field


@exactly
def mean_error(x_NCYX: Tensor, truth_NCYX: Tensor) -> float:
    """MMSE: mean over points of the squared difference of the pointwise means (Cheng et al., ECI-sampling, 2025)."""
    return float((x_NCYX.mean(dim=0) - truth_NCYX.mean(dim=0)).square().mean())


@exactly
def deviation_error(x_NCYX: Tensor, truth_NCYX: Tensor) -> float:
    """SMSE: the same for the pointwise standard deviations."""
    return float((x_NCYX.std(dim=0) - truth_NCYX.std(dim=0)).square().mean())


@exactly
def variance_ratio(x_NCYX: Tensor, truth_NCYX: Tensor) -> list[float]:
    """Variance about the pointwise mean, summed over points, of each channel relative to the truth's."""
    ratio = x_NCYX.var(dim=0).flatten(1).sum(dim=1) / truth_NCYX.var(dim=0).flatten(1).sum(dim=1)
    return [float(value) for value in ratio]


@kept(8)
def _directions(dimension: int, stream: str) -> Tensor:
    """Unit vectors [DIRECTIONS, dimension]; drawing them costs seconds, and every distance of a report takes the same."""
    draws = seeds.normal(0, f"metrics/{stream}", range(DIRECTIONS), (1, 1, dimension)).reshape(DIRECTIONS, dimension)
    return draws / draws.norm(dim=1, keepdim=True)


@exactly
def sliced_wasserstein(x_ND: Tensor, truth_ND: Tensor, stream: str = "directions") -> float:
    """Sliced 2-Wasserstein distance of two sets of equal size: root mean square over fixed random directions."""
    directions = _directions(x_ND.shape[1], stream).T
    x, truth = (x_ND @ directions).sort(dim=0).values, (truth_ND @ directions).sort(dim=0).values
    return float((x - truth).square().mean().sqrt())


@exactly
def sliced_floor(pool_ND: Tensor, pairs: int = 20) -> float:
    """The distance of two independent halves of a pool of truths: what sampling alone costs. Mean over `pairs` splits."""
    half = len(pool_ND) // 2
    total = 0.0
    for pair in range(pairs):
        order = torch.from_numpy(seeds.permutation(0, "metrics/halves", pair, len(pool_ND)))
        total += sliced_wasserstein(pool_ND[order[:half]], pool_ND[order[half : 2 * half]])
    return total / pairs


def excess(distance: float, floor: float) -> float:
    """What a distance holds beyond its floor, sqrt(max(0, d^2 - floor^2))."""
    return math.sqrt(max(0.0, distance**2 - floor**2))


@exactly
def patches(x_NCYX: Tensor) -> Tensor:
    """Fixed random 5 x 5 patches of all channels, [N * PATCHES, C * 25]."""
    windows = x_NCYX.unfold(2, PATCH, 1).unfold(3, PATCH, 1)
    rows, columns = windows.shape[2], windows.shape[3]
    draws = seeds.uniform(0, "metrics/patches", range(len(x_NCYX)), 2 * PATCHES)
    y, x = (draws[:, :PATCHES] * rows).long(), (draws[:, PATCHES:] * columns).long()
    sample = torch.arange(len(x_NCYX))[:, None].expand_as(y)
    return windows[sample, :, y, x].reshape(len(x_NCYX) * PATCHES, -1)


@exactly
def spectrum(x_NCYX: Tensor) -> Tensor:
    """Mean power of each channel in shells of wave number, [C, shells], of the fields about their mean."""
    power = torch.fft.rfft2(x_NCYX - x_NCYX.mean(dim=0), norm="ortho").abs().square().mean(dim=0)
    height, width = x_NCYX.shape[-2:]
    ky = torch.fft.fftfreq(height, d=1.0 / height, dtype=torch.float32)
    kx = torch.fft.rfftfreq(width, d=1.0 / width, dtype=torch.float32)
    shell = torch.sqrt(ky[:, None] ** 2 + kx[None, :] ** 2).round().long()
    shells = min(height, width) // 2 + 1
    inside = shell < shells
    sums = power.new_zeros(power.shape[0], shells).index_add_(1, shell[inside], power[:, inside])
    counts = power.new_zeros(shells).index_add_(0, shell[inside], power.new_ones(int(inside.sum())))
    return sums / counts


@exactly
def spectrum_error(x_NCYX: Tensor, truth_NCYX: Tensor) -> float:
    """Mean over channels and shells of |ln(power / true power)|."""
    ratio = spectrum(x_NCYX).clamp_min(1e-12) / spectrum(truth_NCYX).clamp_min(1e-12)
    return float(ratio.log().abs().mean())


@exactly
def solution_error(u: Tensor, solved: Tensor) -> float:
    """Mean over samples of |u - S(input)| / |S(input)|, physical solution values [N, ...]; the primary figure."""
    difference = (u - solved).double().flatten(1).norm(dim=1)
    return float((difference / solved.double().flatten(1).norm(dim=1)).mean())


@exactly
def nearest(x_NCYX: Tensor, training_NCYX: Tensor, chunk: int = 256) -> Tensor:
    """Distance of each field to its nearest training field relative to its own norm, [N]: small means memorised."""
    flat, training = x_NCYX.flatten(1), training_NCYX.flatten(1)
    closest = torch.cat([torch.cdist(part, training).min(dim=1).values for part in flat.split(chunk)])
    return closest / flat.norm(dim=1)


@exactly
def distribution_row(
    x_NCYX: Tensor, truth_NCYX: Tensor, floors: Sequence[float], names: Sequence[str]
) -> dict[str, object]:
    """Every distributional measure of a set. floors: of all channels together. names: of the channels."""
    swd = sliced_wasserstein(x_NCYX.flatten(1), truth_NCYX.flatten(1))
    return {
        "mmse": mean_error(x_NCYX, truth_NCYX),
        "smse": deviation_error(x_NCYX, truth_NCYX),
        "swd": swd,
        "swd_floor": floors[0],
        "swd_excess": excess(swd, floors[0]),
        "swd_by_channel": {
            name: sliced_wasserstein(x_NCYX[:, c].flatten(1), truth_NCYX[:, c].flatten(1))
            for c, name in enumerate(names)
        },
        "patch_swd": sliced_wasserstein(patches(x_NCYX), patches(truth_NCYX), "patch directions"),
        "variance_ratio": dict(zip(names, variance_ratio(x_NCYX, truth_NCYX), strict=True)),
        "spectrum_error": spectrum_error(x_NCYX, truth_NCYX),
    }
