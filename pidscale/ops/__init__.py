"""Calculus on grids: windows, finite differences and sine or cosine transforms. Knows no ranks and no equations."""
