"""Ranks and what they exchange. Knows no physics and no models."""
