"""Calculus on grids: windows, finite differences, sine, cosine and Fourier transforms. Knows no ranks and no equations."""
