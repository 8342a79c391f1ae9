"""Noise schedules, solvers of the probability-flow ODE, units of the model and the denoising loss. Knows no networks."""
