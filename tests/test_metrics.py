"""Measures against known values."""

from __future__ import annotations

import math

import pytest
import torch

from pidscale import metrics


def gaussian(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def test_equal_sets_have_zero_distance_in_any_order() -> None:
    x = gaussian(50, 30)
    assert metrics.sliced_wasserstein(x, x[torch.randperm(50)]) == pytest.approx(0, abs=1e-6)


def test_the_distance_of_a_shift_is_its_mean_projection() -> None:
    line = gaussian(40, 1)
    assert metrics.sliced_wasserstein(line, line + 0.7) == pytest.approx(0.7, rel=1e-5)
    x = gaussian(40, 20)
    shift = gaussian(1, 20, seed=1)
    expected = float(shift.norm()) / math.sqrt(20)  # root mean square over directions of the sphere
    assert metrics.sliced_wasserstein(x, x + shift) == pytest.approx(expected, rel=0.12)


def test_the_distance_of_a_wider_distribution_is_the_difference_of_widths() -> None:
    """W2 of N(0, 1) and N(0, 1.5^2) is 0.5 in every direction."""
    distance = metrics.sliced_wasserstein(gaussian(4000, 8), 1.5 * gaussian(4000, 8, seed=1))
    assert distance == pytest.approx(0.5, rel=0.05)


def test_the_floor_is_the_distance_of_independent_sets_and_falls_with_their_size() -> None:
    floors = {n: metrics.sliced_floor(gaussian(2 * n, 16), pairs=6) for n in (64, 1024)}
    for n, floor in floors.items():
        distance = metrics.sliced_wasserstein(gaussian(n, 16, seed=1), gaussian(n, 16, seed=2))
        assert floor == pytest.approx(distance, rel=0.25)
    assert 2.5 < floors[64] / floors[1024] < 6  # about the square root of 16


def test_excess_subtracts_squares() -> None:
    assert metrics.excess(5.0, 3.0) == pytest.approx(4.0)
    assert metrics.excess(1.0, 2.0) == 0.0


def test_pointwise_moments() -> None:
    truth = gaussian(300, 2, 4, 4)
    assert metrics.mean_error(truth + 0.3, truth) == pytest.approx(0.09, rel=1e-4)
    assert metrics.deviation_error(truth + 0.3, truth) == pytest.approx(0, abs=1e-10)
    expected = float((0.5 * truth.std(dim=0)).square().mean())
    assert metrics.deviation_error(1.5 * truth + 2, truth) == pytest.approx(expected, rel=1e-4)


def test_variance_ratio_is_by_channel_and_about_the_mean() -> None:
    truth = gaussian(40, 2, 5, 5)
    scaled = torch.stack([truth[:, 0] + 9.0, 0.5 * truth[:, 1]], dim=1)
    assert metrics.variance_ratio(scaled, truth) == pytest.approx([1.0, 0.25], rel=1e-4)


def test_a_plane_wave_lies_in_its_shell() -> None:
    n = 32
    y, x = torch.arange(n)[:, None] / n, torch.arange(n)[None, :] / n
    wave = torch.cos(2 * torch.pi * (4 * y + 3 * x))
    other = torch.cos(2 * torch.pi * (0 * y + 9 * x))
    fields = torch.stack([gaussian(20, 1, 1) * wave, gaussian(20, 1, 1, seed=1) * other], dim=1)
    power = metrics.spectrum(fields + 7.0)
    assert power.shape == (2, 17) and power.argmax(dim=1).tolist() == [5, 9]
    share = power / power.sum(dim=1, keepdim=True)
    assert share[0, 5] > 0.999 and share[1, 9] > 0.999


def test_white_noise_has_a_flat_spectrum_on_any_rectangle() -> None:
    power = metrics.spectrum(2.0 * gaussian(400, 1, 24, 40))
    assert power.shape == (1, 13)
    assert float((power - 4.0).abs().max()) < 0.5


def test_spectrum_error_is_the_mean_log_ratio() -> None:
    truth = gaussian(30, 2, 16, 16)
    scaled = torch.stack([truth[:, 0], 2 * truth[:, 1]], dim=1)
    assert metrics.spectrum_error(scaled, truth) == pytest.approx(math.log(4) / 2, rel=1e-3)
    assert metrics.spectrum_error(truth, truth) == 0


def test_solution_error_is_relative_to_each_sample() -> None:
    solved = torch.stack([torch.ones(1, 6, 6), 100 * torch.ones(1, 6, 6)])
    generated = torch.stack([1.3 * solved[0], 0.9 * solved[1]])
    assert metrics.solution_error(generated, solved) == pytest.approx((0.3 + 0.1) / 2, rel=1e-5)
    assert metrics.solution_error(solved, solved) == 0


def test_patches_are_cut_from_their_field() -> None:
    y, x = torch.arange(12.0)[:, None], torch.arange(20.0)[None, :]
    field = 100 * y + x
    cut = metrics.patches(torch.stack([field, field + 5000]).expand(3, 2, 12, 20))
    assert cut.shape == (3 * metrics.PATCHES, 2 * 25)
    offsets = (100 * torch.arange(5.0)[:, None] + torch.arange(5.0)).flatten()
    for patch in cut:
        corner = patch[0]
        assert 0 <= corner // 100 <= 7 and 0 <= corner % 100 <= 15
        assert torch.equal(patch, torch.cat([corner + offsets, corner + 5000 + offsets]))
    assert len({float(p[0]) for p in cut}) > 20


def test_nearest_finds_memorised_fields() -> None:
    training = gaussian(30, 2, 6, 6)
    fields = torch.cat([training[7:8], 1.1 * training[3:4], gaussian(1, 2, 6, 6, seed=5)])
    distance = metrics.nearest(fields, training, chunk=2)
    assert distance[0] < 2e-3 and distance[1].item() == pytest.approx(0.1 / 1.1, rel=1e-2) and distance[2] > 0.7


def test_a_row_has_every_distributional_measure() -> None:
    truth = gaussian(40, 2, 8, 8)
    generated = torch.stack([truth[:, 0] + 0.5, truth[:, 1]], dim=1)
    row = metrics.distribution_row(generated, truth, [0.01], ["a", "u"])
    assert row["swd_by_channel"]["a"] == pytest.approx(0.5, rel=0.2)
    assert row["swd_by_channel"]["u"] == pytest.approx(0, abs=1e-6)
    assert row["swd_excess"] == pytest.approx(metrics.excess(row["swd"], 0.01)) and row["swd_floor"] == 0.01
    assert row["variance_ratio"] == pytest.approx({"a": 1.0, "u": 1.0}, rel=1e-4)
    assert row["mmse"] == pytest.approx(0.125, rel=1e-3) and row["patch_swd"] > 0.05


def test_the_feature_distance_of_a_shift_is_that_of_the_means() -> None:
    """One of two channels is shifted by 0.5 deviations of its mean over the field; its 8 shells do not see it."""
    truth = gaussian(600, 2, 24, 24) + gaussian(600, 2, 1, 1, seed=1)
    shift = torch.tensor([0.5, 0.0])[:, None, None] * metrics.features(truth)[:, 0].std().float()
    assert metrics.feature_distance(truth, truth) == pytest.approx(0, abs=1e-6)
    assert metrics.feature_distance(truth + shift, truth) == pytest.approx(0.5 / math.sqrt(18), rel=1e-4)


def test_the_feature_distance_sees_a_wrong_spectrum_and_a_wrong_spread() -> None:
    truth = gaussian(600, 1, 24, 24) * (1 + 0.3 * gaussian(600, 1, 1, 1, seed=1).abs())
    other = gaussian(600, 1, 24, 24, seed=2) * (1 + 0.3 * gaussian(600, 1, 1, 1, seed=3).abs())
    floor = metrics.feature_distance(other, truth)
    mean = other.mean(dim=(2, 3), keepdim=True)
    smooth = mean + (other + other.roll(1, dims=3)) / 2  # less power at short waves alone
    alike = (other / other.std(dim=(2, 3), keepdim=True)) * truth.std()  # of the right mean power, but all of the same
    assert floor < 0.25 and metrics.feature_distance(smooth, truth) > 4 * floor
    assert metrics.feature_distance(alike, truth) > 2 * floor


def test_the_feature_distance_of_normal_features_is_the_closed_form() -> None:
    """W2 of N(m, A) and N(n, B), with matrices that do not commute."""
    draws = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3, 3, dtype=torch.float64, generator=draws) for _ in range(2))
    first, second = a @ a.T, b @ b.T
    root = metrics._root(first)
    torch.testing.assert_close(root @ root, first)
    values = torch.linalg.eigvals(first @ second).real.clamp_min(0).sqrt().sum()
    torch.testing.assert_close(metrics._root(root @ second @ root).trace(), values)
