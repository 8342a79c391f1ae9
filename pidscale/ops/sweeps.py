"""Deferred correction of a sequence of states in time: sweeps that follow the error of a guess from state to state.

A sweep solves d' = F(u + d) - F(u) - R for the correction d, where F is the rate of change, u the guess (between its states a
cubic) and R the residual of each interval. The part of F that is diagonal in waves is integrated exactly, the rest by the
classical Runge-Kutta method of fourth order on it (Lawson, 1967). A wave that decays within an interval is no cubic between
states, so that part of its residual stays. It is taken away afterwards by solving for the decay alone, with the mean over
each interval that the residual itself takes. A guess without residual is not changed. Knows no equations and no ranks.

Shapes: u_BF... states at even times; u_BI... one entry for each interval; u_B... a single state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pidscale.caller import kept
from pidscale.ops.evolution import one_step_residual, solve_decay
from pidscale.ops.gate import Gate, pick
from pidscale.ops.window import Window

Form = Callable[[Tensor], Tensor]
STABLE = 2.7  # largest decay in a substep with which the Runge-Kutta method is stable
STIFF = 0.1  # decay in an interval from which on waves are solved by the residual's own mean


@dataclass(frozen=True)
class Waves:
    """A transform to waves in which the linear part of a rate is diagonal.

    Attributes:
        exponents: Factor of each wave in the linear part, at most 0; broadcast against a spectrum, or a scalar 0 if no part
            is diagonal.
        spectrum: Transform of a state.
        state: Its inverse.
    """

    exponents: Tensor
    spectrum: Form
    state: Form


@dataclass(frozen=True)
class Sweeps:
    """Sweeps for one rate of change.

    Attributes:
        rate: Rate of change of states [B, F, ...], each of them alone, from these and the samples' parameters [B, P].
        waves: Waves in which a linear part of the rate is diagonal.
        interval: Time between two states.
        substeps: Steps of the Runge-Kutta method in an interval.
        size: Size of a residual of each sample [B], summed over all processes that share a field.
        times: Window whose rows are the times; None where every process holds all times.
    """

    rate: Callable[[Tensor, Tensor], Tensor]
    waves: Waves
    interval: float
    substeps: int
    size: Form
    times: Window | None = None

    def correct(self, u_BF: Tensor, params_BP: Tensor, steps: int) -> Tensor:
        """Return the guess after sweeps. A sweep that raises the size of a sample's residual leaves this sample as it was.

        Args:
            u_BF: The guess, the rows at hand where rows are times [B, F, ...].
            params_BP: Parameters of each sample.
            steps: Number of sweeps.

        Returns:
            States [B, F, ...], the first one unchanged.
        """
        gate = Gate()
        guess = _Guess.of(gate(u_BF), gate(params_BP), self)
        size = self.size(guess.residual_BI)
        moved_any = torch.zeros_like(size, dtype=torch.bool)
        for _ in range(steps):
            inner = Gate()
            moved = self._swept(guess.gated(inner))
            moved_size = self.size(moved.residual_BI)
            better = moved_size < size  # False for what is not finite
            inner.passes_B = better
            if not torch.compiler.is_compiling() and not better.any():
                break  # so would all further sweeps end
            guess = guess.replaced(better, moved)
            size = torch.where(better, moved_size, size)
            moved_any = moved_any | better
        gate.passes_B = moved_any
        return pick(moved_any, guess.u_BF, u_BF)

    def _swept(self, guess: _Guess) -> _Guess:
        """Return the guess after one sweep."""
        moved = _Guess.of(guess.u_BF + self._advance(guess), guess.params_BP, self)
        if self.waves.exponents.ndim == 0:
            return moved
        return _Guess.of(moved.u_BF + self._settle(moved), guess.params_BP, self)

    def _advance(self, guess: _Guess) -> Tensor:
        """Return the correction that follows the error from state to state, in the shape of the guess."""
        start = torch.zeros_like(guess.u_BF[:, 0])
        if self.times is not None:
            start.requires_grad_(guess.u_BF.requires_grad)  # so that its exchange is part of the graph of every rank
            start = self.times.from_above(start)
        ends = self._march(guess, start)
        own = torch.cat([start[:, None], ends], dim=1)[:, : guess.u_BF.shape[1]]
        return own if self.times is None else self.times.to_below(ends[:, -1], own)

    def _settle(self, guess: _Guess) -> Tensor:
        """Return the correction of waves that decay within an interval, in the shape of the guess. Two transposes."""
        decay = -self.waves.exponents
        missing = -guess.residual_BI
        if self.times is None:
            modes = self.waves.spectrum(missing)
        else:
            all_waves = self.waves.spectrum(functional.pad(missing, (0, 0, 0, int(self.times.last))))
            modes = self.times.to_columns(all_waves)[:, :-1]
            decay = decay[self.times.columns(len(decay))]
        found = solve_decay(modes * (decay * self.interval > STIFF), torch.ones_like(decay), decay, self.interval)
        if self.times is not None:
            found = self.times.to_rows(found, len(self.waves.exponents))
        return self.waves.state(found)

    def _march(self, guess: _Guess, start_B: Tensor) -> Tensor:
        """Return the correction at the end of every interval, [B, I, ...], from that at the beginning of the first."""
        dt = self.interval / self.substeps
        half = (self.waves.exponents * (dt / 2)).exp()
        knots, rates = guess.knots(self)
        found: list[Tensor] = []
        modes = self.waves.spectrum(start_B)
        for interval in range(guess.residual_BI.shape[1]):
            left = guess.residual_BI[:, interval]

            def slope(modes: Tensor, knot: int, n: int = interval, left: Tensor = left) -> Tensor:
                state = knots[knot][:, n] + self.waves.state(modes)
                moved = self.rate(state[:, None], guess.params_BP)[:, 0] - rates[knot][:, n]
                return self.waves.spectrum(moved - left) - self.waves.exponents * modes

            for step in range(0, 2 * self.substeps, 2):
                first = slope(modes, step)
                second = slope(half * (modes + dt / 2 * first), step + 1)
                third = slope(half * modes + dt / 2 * second, step + 1)
                fourth = slope(half * (half * modes + dt * third), step + 2)
                modes = half * (half * (modes + dt / 6 * first) + dt / 3 * (second + third)) + dt / 6 * fourth
            found.append(self.waves.state(modes))
        return torch.stack(found, dim=1)


@dataclass(frozen=True)
class _Guess:
    """States with what is known of them.

    Attributes:
        u_BF: The states at hand.
        rows_BF: The same with those of neighbours where rows are times.
        rates_BF: Rate of change of these.
        residual_BI: Residual of the intervals that begin at the states at hand.
        params_BP: Parameters of each sample.
    """

    u_BF: Tensor
    rows_BF: Tensor
    rates_BF: Tensor
    residual_BI: Tensor
    params_BP: Tensor

    @classmethod
    def of(cls, u_BF: Tensor, params_BP: Tensor, sweeps: Sweeps) -> _Guess:
        """Return what is known of states. One message to each neighbour where rows are times."""
        if sweeps.times is None:
            rows = u_BF
            rates = sweeps.rate(u_BF, params_BP)
        else:
            rows, rates = sweeps.times.line_up(u_BF, 1, 2, lambda rows: sweeps.rate(rows, params_BP))
        begins, ends = _ends(sweeps)
        return cls(u_BF, rows, rates, one_step_residual(rows, rates, sweeps.interval, begins, ends), params_BP)

    def replaced(self, which_B: Tensor, other: _Guess) -> _Guess:
        """Return this guess with some samples of another one."""
        return _Guess(*(pick(which_B, new, own) for new, own in zip(other.parts, self.parts, strict=True)))

    def gated(self, gate: Gate) -> _Guess:
        """Return this guess behind a gate for gradients."""
        return _Guess(*map(gate, self.parts))

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """States, rows, rates, residual and parameters."""
        return self.u_BF, self.rows_BF, self.rates_BF, self.residual_BI, self.params_BP

    def knots(self, sweeps: Sweeps) -> tuple[list[Tensor], list[Tensor]]:
        """Return states [B, I, ...] at even times of all intervals, both ends included, and their rates of change."""
        begins, ends = _ends(sweeps)
        first = 1 - begins
        count = self.residual_BI.shape[1]
        parts = [part / (2 * sweeps.substeps) for part in range(1, 2 * sweeps.substeps)]
        inner = [between(self.rows_BF, part, begins, ends) for part in parts]
        outer = [part[:, first + i : first + i + count] for i in (0, 1) for part in (self.rows_BF, self.rates_BF)]
        inner_rates = sweeps.rate(torch.cat(inner, dim=1), self.params_BP).split(count, dim=1)
        return [outer[0], *inner, outer[2]], [outer[1], *inner_rates, outer[3]]


def _ends(sweeps: Sweeps) -> tuple[bool, bool]:
    """Return whether the first and whether the last time is at hand."""
    return (True, True) if sweeps.times is None else (sweeps.times.first, sweeps.times.last)


def between(u_BF: Tensor, part: float, begins: bool = True, ends: bool = True) -> Tensor:
    """Return states at a part of each interval, from the cubic through four states.

    Args:
        u_BF: States at even times [B, F, ...].
        part: Part of the interval, 0 to 1.
        begins: Whether the first state is the first of the whole sequence; otherwise its interval is left out.
        ends: Whether the last state is the last of the whole sequence; otherwise its interval is left out.

    Returns:
        States [B, F - 1, ...], or fewer where intervals are left out.
    """
    count = u_BF.shape[1] - 3  # cubics
    inner = _cubic(u_BF, 1 + part, count)
    first = [_cubic(u_BF[:, :4], part, 1)] * begins
    last = [_cubic(u_BF[:, -4:], 2 + part, 1)] * ends
    return torch.cat([*first, inner, *last], dim=1)


def _cubic(u_BF: Tensor, at: float, count: int) -> Tensor:
    """Return the cubics through states n to n + 3 at n + `at`, for the first `count` numbers n."""
    total = torch.zeros_like(u_BF[:, :count])
    for i in range(4):
        weight = math.prod((at - j) / (i - j) for j in range(4) if j != i)
        total = total + weight * u_BF[:, i : i + count]
    return total


@kept(64)
def stable_substeps(speed: float, diffusivity: float, wave_number: float, interval: float) -> int:
    """Return the least number of substeps with which no wave that is advected and diffused grows.

    Args:
        speed: Largest speed.
        diffusivity: Diffusivity.
        wave_number: Largest angular wave number of the grid.
        interval: Time between two states.

    Returns:
        Number of substeps, at most 64.
    """
    waves = torch.linspace(0.0, wave_number, 257, dtype=torch.float64)
    for count in range(1, 64):
        turn = 1j * speed * waves * interval / count
        growth = (1 + turn + turn**2 / 2 + turn**3 / 6 + turn**4 / 24).abs()
        if float((growth * (-diffusivity * waves**2 * interval / count).exp()).max()) <= 1 + 1e-9:
            return count
    return 64
