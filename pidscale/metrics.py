"""Measures of a set of generated fields against a set of truths. Knows no models, no files and no ranks.

Fields are normalised (standard deviation 0.5 for each channel) unless a docstring says physical, so that distances mean the
same for every equation and every unit. Shapes: x_NCYX sets of fields.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.caller import exactly, kept

DIRECTIONS = 256  # random directions of a sliced distance
PATCH = 5  # points a side of a patch
PATCHES = 16  # patches that are drawn from each field
FEATURE_SHELLS = 8  # shells of wave numbers among the features of a field
LEAST_POWER = 1e-12  # of a shell, whose logarithm is taken
LEAST_DEVIATION = 1e-6  # of a feature over the truths


@exactly
def mean_error(x_NCYX: Tensor, truth_NCYX: Tensor) -> float:
    """Return the MMSE, the mean over points of the squared difference of the pointwise means (Cheng et al., 2025)."""
    return float((x_NCYX.mean(dim=0) - truth_NCYX.mean(dim=0)).square().mean())


@exactly
def deviation_error(x_NCYX: Tensor, truth_NCYX: Tensor) -> float:
    """Return the SMSE, the mean over points of the squared difference of the pointwise standard deviations."""
    return float((x_NCYX.std(dim=0) - truth_NCYX.std(dim=0)).square().mean())


@exactly
def variance_ratio(x_NCYX: Tensor, truth_NCYX: Tensor) -> list[float]:
    """Return the variance about the pointwise mean, summed over points, of each channel relative to the truths."""
    ratio = x_NCYX.var(dim=0).flatten(1).sum(dim=1) / truth_NCYX.var(dim=0).flatten(1).sum(dim=1)
    return [float(value) for value in ratio]


@kept(8)
def _directions(dimension: int, stream: str) -> Tensor:
    """Return unit vectors [DIRECTIONS, dimension], cached because drawing them takes seconds."""
    draws = seeds.normal(0, f"metrics/{stream}", range(DIRECTIONS), (1, 1, dimension)).reshape(DIRECTIONS, dimension)
    return draws / draws.norm(dim=1, keepdim=True)


@exactly
def sliced_wasserstein(x_ND: Tensor, truth_ND: Tensor, stream: str = "directions") -> float:
    """Return the sliced 2-Wasserstein distance of two sets of equal size, root mean square over fixed random directions.

    Args:
        x_ND: Generated samples as vectors.
        truth_ND: Truths as vectors.
        stream: Name of the random stream of the directions.

    Returns:
        Distance.
    """
    directions = _directions(x_ND.shape[1], stream).T
    x = (x_ND @ directions).sort(dim=0).values
    truth = (truth_ND @ directions).sort(dim=0).values
    return float((x - truth).square().mean().sqrt())


@exactly
def sliced_floor(pool_ND: Tensor, pairs: int = 20) -> float:
    """Return the distance of two independent halves of a pool of truths, which sampling alone causes.

    Args:
        pool_ND: Truths as vectors.
        pairs: Number of random divisions into halves, over which the mean is taken.

    Returns:
        Mean distance.
    """
    half = len(pool_ND) // 2
    total = 0.0
    for pair in range(pairs):
        order = torch.from_numpy(seeds.permutation(0, "metrics/halves", pair, len(pool_ND)))
        total += sliced_wasserstein(pool_ND[order[:half]], pool_ND[order[half : 2 * half]])
    return total / pairs


def excess(distance: float, floor: float) -> float:
    """Return the part of a distance that exceeds its floor, sqrt(max(0, d^2 - floor^2))."""
    return math.sqrt(max(0.0, distance**2 - floor**2))


@exactly
def patches(x_NCYX: Tensor) -> Tensor:
    """Return patches of 5 x 5 points of all channels at fixed random places, [N * PATCHES, C * 25]."""
    windows = x_NCYX.unfold(2, PATCH, 1).unfold(3, PATCH, 1)
    rows, columns = windows.shape[2:4]
    draws = seeds.uniform(0, "metrics/patches", range(len(x_NCYX)), 2 * PATCHES)
    y = (draws[:, :PATCHES] * rows).long()
    x = (draws[:, PATCHES:] * columns).long()
    sample = torch.arange(len(x_NCYX))[:, None].expand_as(y)
    return windows[sample, :, y, x].reshape(len(x_NCYX) * PATCHES, -1)


@exactly
def spectrum(x_NCYX: Tensor) -> Tensor:
    """Return the mean power of each channel in shells of wave numbers, [C, shells], of the fields about their mean."""
    return _shells(x_NCYX - x_NCYX.mean(dim=0)).mean(dim=0)


def _shells(x_NCYX: Tensor) -> Tensor:
    """Return the power of each field and channel in shells of wave numbers, [N, C, shells]."""
    power = torch.fft.rfft2(x_NCYX, norm="ortho").abs().square()
    height, width = x_NCYX.shape[-2:]
    ky = torch.fft.fftfreq(height, d=1.0 / height, dtype=torch.float32)
    kx = torch.fft.rfftfreq(width, d=1.0 / width, dtype=torch.float32)
    shell = torch.sqrt(ky[:, None] ** 2 + kx[None, :] ** 2).round().long()
    shells = min(height, width) // 2 + 1
    inside = shell < shells
    sums = power.new_zeros(*power.shape[:2], shells).index_add_(2, shell[inside], power[..., inside])
    counts = power.new_zeros(shells).index_add_(0, shell[inside], power.new_ones(int(inside.sum())))
    return sums / counts


@exactly
def features(x_NCYX: Tensor) -> Tensor:
    """Return features of each field, float64 [N, F]: of every channel its mean, and the logarithm of its power in shells.

    The shells are the first FEATURE_SHELLS beyond wave number 0.
    """
    x = x_NCYX.double()
    means = x.mean(dim=(2, 3))
    power = _shells(x - means[:, :, None, None])[..., 1 : 1 + FEATURE_SHELLS]
    return torch.cat([means, power.clamp_min(LEAST_POWER).log().flatten(1)], dim=1)


@exactly
def feature_distance(x_NCYX: Tensor, truth_NCYX: Tensor) -> float:
    """Return the Frechet distance between two sets in their `features`, each relative to its deviation over the truths.

    Both sets are taken for normal distributions, as in the Frechet inception distance, which has a trained network where this
    has `features`. The square is averaged over features, so that 1 is a shift of all of them by a standard deviation.

    Args:
        x_NCYX: Generated fields, two or more.
        truth_NCYX: Truths, two or more.

    Returns:
        The distance; 0 for equal sets, NaN for fields that are not finite. Two sets of the same law have one above 0, which
        falls with their size.
    """
    of_truth = features(truth_NCYX)
    if not x_NCYX.isfinite().all():
        return math.nan
    scale = of_truth.std(dim=0).clamp_min(LEAST_DEVIATION)
    made = features(x_NCYX) / scale
    true = of_truth / scale
    root = _root(torch.cov(true.T))
    cross = _root(root @ torch.cov(made.T) @ root)
    square = (made.mean(dim=0) - true.mean(dim=0)).square().sum()
    square = square + torch.cov(made.T).trace() + torch.cov(true.T).trace() - 2 * cross.trace()
    return math.sqrt(max(0.0, float(square) / made.shape[1]))


def _root(symmetric_FF: Tensor) -> Tensor:
    """Return the square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh((symmetric_FF + symmetric_FF.T) / 2)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


@exactly
def spectrum_error(x_NCYX: Tensor, truth_NCYX: Tensor) -> float:
    """Return the mean over channels and shells of |ln(power / power of the truths)|."""
    ratio = spectrum(x_NCYX).clamp_min(1e-12) / spectrum(truth_NCYX).clamp_min(1e-12)
    return float(ratio.log().abs().mean())


@exactly
def solution_error(u: Tensor, solved: Tensor) -> float:
    """Return the mean over samples of |u - S(input)| / |S(input)|, the primary measure of accuracy.

    Args:
        u: Generated solutions, physical [N, ...].
        solved: S(input), numerical solutions for the generated inputs, physical [N, ...].

    Returns:
        Mean relative error.
    """
    difference = (u - solved).double().flatten(1).norm(dim=1)
    return float((difference / solved.double().flatten(1).norm(dim=1)).mean())


@exactly
def nearest(x_NCYX: Tensor, training_NCYX: Tensor, chunk: int = 256) -> Tensor:
    """Return the distance of each field to its nearest training field relative to its own norm.

    Args:
        x_NCYX: Generated fields.
        training_NCYX: Training fields.
        chunk: Number of generated fields that are compared at once.

    Returns:
        Distances [N]; a small one means that a field was memorised.
    """
    flat = x_NCYX.flatten(1)
    training = training_NCYX.flatten(1)
    closest = torch.cat([torch.cdist(part, training).min(dim=1).values for part in flat.split(chunk)])
    return closest / flat.norm(dim=1)


@exactly
def distribution_row(
    x_NCYX: Tensor, truth_NCYX: Tensor, floors: Sequence[float], names: Sequence[str]
) -> dict[str, object]:
    """Return every distributional measure of a set.

    Args:
        x_NCYX: Generated fields.
        truth_NCYX: As many truths.
        floors: Floors of the sliced distance, the first of which is that of all channels together.
        names: Names of the channels.

    Returns:
        Measures by name.
    """
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
