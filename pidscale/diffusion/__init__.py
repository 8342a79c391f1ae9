"""Noise levels, solvers of the probability-flow ODE and the denoising objective. Knows no ranks, files or equations."""
