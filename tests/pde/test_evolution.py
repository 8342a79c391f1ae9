"""Equations in time: solvers against independent integrators, parts of the residuals, and stationary states."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from pidscale.config import UserError
from pidscale.ops.evolution import interval_means, one_step_residual
from pidscale.pde import build_pde
from pidscale.pde.base import truths
from pidscale.pde.evolution import Evolution, stationary_scales
from pidscale.pde.random_fields import cosine_cells, periodic_field, periodic_line
from pidscale.pde.residuals import residual_rms
from pidscale.pde.solve.periodic import burgers, standing_waves, vortices

NAMES = ["advection_diffusion", "heat", "navier_stokes", "reaction_diffusion", "wave"]


def evolution(name: str, **params: object) -> Evolution:
    pde = build_pde(name, params)
    assert isinstance(pde, Evolution)
    return pde


# ---- time


@pytest.mark.parametrize("power", [0, 1, 2, 3])
def test_interval_means_of_cubics_are_exact(power: int) -> None:
    times = torch.linspace(0.5, 1.7, 7, dtype=torch.float64)
    primitive = times ** (power + 1) / (power + 1)
    expected = (primitive[1:] - primitive[:-1]) / 0.2
    torch.testing.assert_close(interval_means((times**power)[None])[0], expected)


def test_a_step_residual_is_change_minus_mean_rate() -> None:
    times = torch.linspace(0, 1, 6, dtype=torch.float64)
    assert one_step_residual((times**3)[None], (3 * times**2)[None], 0.2).abs().max() < 1e-12
    torch.testing.assert_close(
        one_step_residual(times[None], torch.zeros(1, 6).double(), 0.2), torch.ones(1, 5).double()
    )


# ---- solvers, each against other numerics


def test_vorticity_agrees_with_a_dense_fourier_integrator() -> None:
    """The same equation written with derivatives by Fourier matrices, integrated by scipy to 1e-10."""
    n = 16
    nu = 0.01
    w0 = periodic_field(0, "t", 0, (n, n), 6.0, 6.0)
    phase = 2 * np.pi * np.add.outer(np.arange(n) / n, np.arange(n) / n)
    force = 0.1 * (np.sin(phase) + np.cos(phase))
    k = 2 * np.pi * np.fft.fftfreq(n, 1 / n)
    back = np.fft.ifft(np.eye(n), axis=0)
    derive = np.real(back @ np.diag(1j * np.where(np.arange(n) == n // 2, 0, k)) @ np.fft.fft(np.eye(n), axis=0))
    second = np.real(back @ np.diag(-(k**2)) @ np.fft.fft(np.eye(n), axis=0))
    laplacian = np.kron(second, np.eye(n)) + np.kron(np.eye(n), second)
    stream = np.linalg.pinv(-laplacian, rcond=1e-10)
    low = np.abs(k) < 2 * np.pi * n / 3
    mask = np.outer(low, low)

    def cut(field: np.ndarray) -> np.ndarray:
        return np.real(np.fft.ifft2(mask * np.fft.fft2(field)))

    def rate(_: float, flat: np.ndarray) -> np.ndarray:
        w = flat.reshape(n, n)
        psi = (stream @ flat).reshape(n, n)
        advected = (derive @ psi) * (w @ derive.T) - (psi @ derive.T) * (derive @ w)
        return (cut(force - advected) + nu * (laplacian @ flat).reshape(n, n)).ravel()

    times = np.array([0.0, 0.3, 0.6])
    expected = solve_ivp(rate, (0, 0.6), cut(w0).ravel(), "DOP853", times, rtol=1e-10, atol=1e-12).y.T
    found = vortices(cut(w0), nu, force, times)
    assert np.abs(found.reshape(3, -1) - expected).max() < 1e-6 * np.abs(expected).max()
    assert np.abs(found[2] - found[0]).max() > 0.05  # the flow has changed


def test_burgers_agrees_with_central_differences() -> None:
    """Fourth-order central differences on 512 points, integrated by scipy; ours on 256."""
    fine = periodic_line(0, "t", 0, 512, 4.0, 7.0)

    def rate(_: float, u: np.ndarray) -> np.ndarray:
        first = (8 * (np.roll(u, -1) - np.roll(u, 1)) - (np.roll(u, -2) - np.roll(u, 2))) * 512 / 12
        second = (16 * (np.roll(u, -1) + np.roll(u, 1)) - (np.roll(u, -2) + np.roll(u, 2)) - 30 * u) * 512**2 / 12
        return 0.02 * second - u * first

    times = np.array([0.0, 0.2, 0.4])
    expected = solve_ivp(rate, (0, 0.4), fine, "LSODA", times, rtol=1e-8, atol=1e-10).y.T[:, ::2]
    assert np.abs(burgers(fine[::2], 0.02, times) - expected).max() < 2e-4


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("burgers", {"size": 2.0, "viscosity": 1e-3}),
        ("navier_stokes", {"force": 100.0}),
        ("navier_stokes", {"force": 100.0, "viscosity": 1e-5}),
        ("reaction_diffusion", {"source": -1.0, "diffusion_u": 1e-5}),
    ],
)
def test_truths_are_finite_at_the_ends_of_the_ranges(name: str, params: dict[str, float]) -> None:
    pde = build_pde(name, params)
    fields, _ = truths(pde, 0, range(2), pde.grid(16))
    assert fields.isfinite().all() and fields.abs().max() < 1e4


def test_a_burgers_field_is_solved_from_its_first_row_and_every_row_counts() -> None:
    pde = build_pde("burgers")
    grid = pde.grid(64)
    truth = pde.sample(0, 3, grid)[0]
    large = truth.copy()
    large[0, 0, :2] = (1e3, -50.0)
    solved, clipped = pde.solve(large, grid)
    assert clipped == 2 and np.isfinite(solved).all() and np.array_equal(solved[0, 0], large[0, 0])
    fields = torch.from_numpy(truth[None])
    for row in (0, 1, 31, 63):
        wrong = fields.clone()
        wrong[0, 0, row] += 0.05 * torch.sin(6.28 * torch.arange(64) / 64)
        assert residual_rms(pde, grid, wrong)["l2"] > 3 * residual_rms(pde, grid, fields)["l2"], row


def test_reaction_diffusion_agrees_with_an_integrator_on_ghost_cells() -> None:
    pde = evolution("reaction_diffusion", frames=4, duration=1.0, diffusion_u=0.02, diffusion_v=0.05)
    grid = pde.grid(12)
    start = 0.5 * np.stack([cosine_cells(0, s, 0, grid.shape, 3.0, 6.0) for s in ("u", "v")])

    def rate(_: float, flat: np.ndarray) -> np.ndarray:
        s = flat.reshape(2, 12, 12)
        g = np.pad(s, ((0, 0), (1, 1), (1, 1)), mode="edge")
        spread = (g[:, 2:, 1:-1] + g[:, :-2, 1:-1] + g[:, 1:-1, 2:] + g[:, 1:-1, :-2] - 4 * s) * 36.0
        u, v = s
        return np.stack([0.02 * spread[0] + u - u**3 - 5e-3 - v, 0.05 * spread[1] + u - v]).ravel()

    times = np.linspace(0, 1, 4)
    expected = solve_ivp(rate, (0, 1), start.ravel(), "DOP853", times, rtol=1e-10, atol=1e-12).y.T
    assert np.abs(pde.integrate(start, grid).reshape(4, -1) - expected).max() < 1e-5


def test_leapfrog_steps_converge_to_the_exact_waves() -> None:
    """Second differences in space and time converge to the exact waves at second order."""
    errors = []
    for n in (16, 32, 64):
        x = np.arange(n) / n
        u0 = np.add.outer(np.cos(2 * np.pi * x), np.sin(4 * np.pi * x)) + np.outer(np.sin(2 * np.pi * x), np.ones(n))
        ratio = 0.25  # speed dt / h

        def spread(u: np.ndarray) -> np.ndarray:
            return sum(np.roll(u, s, a) for s in (1, -1) for a in (0, 1)) - 4 * u

        before = u0
        now = u0 + ratio**2 / 2 * spread(u0)
        for _ in range(round(0.375 * n / ratio) - 1):
            before, now = now, 2 * now - before + ratio**2 * spread(now)
        errors.append(np.abs(standing_waves(u0, 1.0, np.array([0.375]))[0] - now).max())
    assert np.log2(errors[1] / errors[2]) == pytest.approx(2.0, abs=0.3)


# ---- residuals


@pytest.mark.parametrize("name", NAMES)
def test_stationary_states_score_one(name: str) -> None:
    pde = evolution(name)
    grid = pde.grid(32)
    fields, params = truths(pde, 7, range(24), grid)
    trivial = residual_rms(pde, grid, pde.trivial(fields), params)
    assert trivial["l2"] == pytest.approx(1.0, abs=0.25) and trivial["dual"] == pytest.approx(1.0, abs=0.3)
    assert pde.residual_scale == stationary_scales(pde)[0] > 0


@pytest.mark.parametrize("name", NAMES)
def test_an_error_in_any_frame_is_seen(name: str) -> None:
    """Whichever frame is wrong, the residual rises: none is skipped, as central differences would do."""
    pde = evolution(name)
    grid = pde.grid(24)
    fields, params = truths(pde, 0, [0], grid)
    floor = residual_rms(pde, grid, fields, params)["l2"]
    size = 0.05 * fields.std()
    species = len(pde.species)
    for frame in range(pde.frames):
        wrong = fields.clone()
        wrong[:, frame * species : (frame + 1) * species] += size * torch.sin(6.28 * torch.arange(24) / 24)
        assert residual_rms(pde, grid, wrong, params)["l2"] > max(3 * floor, 0.01), frame


@pytest.mark.parametrize("name", NAMES)
def test_smoothing_lowers_the_residual_and_keeps_the_first_frame(name: str) -> None:
    pde = evolution(name)
    grid = pde.grid(24)
    fields, params = truths(pde, 0, [0], grid)
    species = len(pde.species)
    wrong = fields.clone()
    wrong[:, species:] += 0.1 * fields.std() * torch.randn(fields[:, species:].shape, dtype=fields.dtype)
    smooth = pde.smooth(wrong, 3, grid, params)
    before, after = (residual_rms(pde, grid, f, params)["l2"] for f in (wrong, smooth))
    assert after < 0.7 * before
    assert torch.equal(smooth[:, :species], fields[:, :species])


def test_a_wave_has_a_residual_under_another_speed() -> None:
    right, wrong = evolution("wave"), evolution("wave", speed=1.1)
    grid = right.grid(32)
    fields = torch.from_numpy(right.sample(0, 0, grid)[0][None])
    assert residual_rms(right, grid, fields)["l2"] < 1e-10 < 0.05 < residual_rms(wrong, grid, fields)["l2"]


def test_few_frames_have_a_large_truncation_error() -> None:
    """The reason for eleven frames: with four, the truncation error of the same flow is several times as large."""
    floors = []
    for frames in (4, 11):
        pde = evolution("navier_stokes", frames=frames)
        grid = pde.grid(32)
        fields = torch.from_numpy(np.stack([pde.sample(0, i, grid)[0] for i in range(2)]))
        floors.append(residual_rms(pde, grid, fields)["l2"])
    assert floors[0] > 3 * floors[1]


@pytest.mark.parametrize("name", ["navier_stokes", "reaction_diffusion"])
def test_a_state_that_is_too_large_is_clipped_counted_and_solved(name: str) -> None:
    """A sample of an untrained generator must not end a report."""
    pde = evolution(name)
    grid = pde.grid(16)
    large = pde.initial(0, 0, grid)
    large[:, 3, 4:7] = (50.0, -1e3, 1e30)
    frames, clipped = pde.solve(large, grid)
    species = len(pde.species)
    assert clipped == 3 * species and np.isfinite(frames).all() and np.array_equal(frames[:species], large)
    assert np.array_equal(frames[species:], pde.solve(np.clip(large, -pde.largest, pde.largest), grid)[0][species:])


@pytest.mark.parametrize("params", [{"diffusion_v": 0.2}, {"diffusion_u": 0.2}, {"diffusion_v": 0.05}])
def test_the_solver_keeps_its_order_under_fast_diffusion(params: dict[str, float]) -> None:
    pde = evolution("reaction_diffusion", frames=21, **params)
    grid = pde.grid(24)
    fields, _ = truths(pde, 0, range(2), grid)
    assert residual_rms(pde, grid, fields)["l2"] < 0.005


def test_all_frames_of_a_flow_have_the_same_waves() -> None:
    """If the solver removed waves after the first frame, frames close in time would have a large residual."""
    pde = evolution("navier_stokes", frames=5, duration=0.01)
    grid = pde.grid(32)
    fields, _ = truths(pde, 0, range(2), grid)
    assert residual_rms(pde, grid, fields)["l2"] < 0.02


# ---- initial states


@pytest.mark.parametrize("draw", [periodic_field, cosine_cells])
def test_initial_fields_have_unit_mean_square_and_zero_mean(draw) -> None:
    fields = np.stack([draw(0, "law", i, (32, 32), 3.0, 10.0) for i in range(200)])
    assert np.sqrt(np.mean(fields**2)) == pytest.approx(1.0, rel=0.1)
    assert np.abs(fields.mean(axis=(1, 2))).max() < 1e-12


def test_a_coarse_periodic_grid_keeps_the_waves_of_the_same_draw() -> None:
    coarse, fine = (periodic_field(1, "s", 5, (n, n), 4.0, 6.0) for n in (65, 130))
    np.testing.assert_allclose(fine[::2, ::2], coarse, atol=1e-12)
    few, many = (periodic_field(1, "s", 5, (n, n), 4.0, 6.0) for n in (32, 64))
    assert np.corrcoef(few.ravel(), many[::2, ::2].ravel())[0, 1] > 0.9999


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("wave", {"speed": 0.0}, "pde.params.speed=0.0"),
        ("wave", {"frames": 3}, "pde.params.frames=3"),
        ("wave", {"frames": 11.0}, "pde.params.frames=11.0"),
        ("wave", {"duration": float("inf")}, "pde.params.duration=inf"),
        ("navier_stokes", {"viscosity": 0.0}, "pde.params.viscosity=0.0"),
        ("navier_stokes", {"force": float("nan")}, "pde.params.force=nan"),
        ("navier_stokes", {"alpha": 1.0}, "pde.params.alpha=1.0"),
        ("navier_stokes", {"tau": 0.0}, "pde.params.tau=0.0"),
        ("reaction_diffusion", {"diffusion_v": -1.0}, "pde.params.diffusion_v=-1.0"),
        ("reaction_diffusion", {"source": 3.0}, "pde.params.source=3.0"),
        ("reaction_diffusion", {"warm_up": -1.0}, "pde.params.warm_up=-1.0"),
        ("heat", {"diffusivity_low": 0.0}, "pde.params.diffusivity_low=0.0"),
        ("heat", {"diffusivity_high": float("nan")}, "pde.params.diffusivity_high=nan"),
        ("heat", {"diffusivity_low": 0.5}, "pde.params.diffusivity_low=0.5, diffusivity_high=0.005"),
        ("heat", {"diffusivity": 0.1}, "pde.params.diffusivity: heat"),
        ("heat", {"frames": 102}, "pde.params.frames=102"),
        ("heat", {"alpha": "4"}, "pde.params.alpha='4'"),
        ("advection_diffusion", {"speed": -0.1}, "pde.params.speed=-0.1"),
        ("advection_diffusion", {"speed": float("inf")}, "pde.params.speed=inf"),
        ("advection_diffusion", {"diffusivity_high": 11.0}, "pde.params.diffusivity_high=11.0"),
        ("advection_diffusion", {"diffusivity_high": 1e-4}, "pde.params.diffusivity_low=0.0005"),
        ("advection_diffusion", {"velocity_x": 1.0}, "pde.params.velocity_x: advection_diffusion"),
        ("advection_diffusion", {"duration": 0.0}, "pde.params.duration=0.0"),
        ("stokes", {"viscosity_low": 0.0}, "pde.params.viscosity_low=0.0"),
        ("stokes", {"viscosity_high": 1e-3}, "pde.params.viscosity_low=0.01, viscosity_high=0.001"),
        ("stokes", {"frequency_low": 9.0}, "pde.params.frequency_low=9, frequency_high=8"),
        ("stokes", {"frequency_high": 101.0}, "pde.params.frequency_high=101.0"),
        ("stokes", {"amplitude": float("nan")}, "pde.params.amplitude=nan"),
        ("stokes", {"amplitude": True}, "pde.params.amplitude=True"),
        ("stokes", {"frames": 11}, "pde.params.frames: stokes"),
    ],
)
def test_bad_parameters_are_refused_in_one_line(name: str, params: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as raised:
        build_pde(name, params)
    assert words in str(raised.value) and "\n" not in str(raised.value)
