"""Ranks and the messages that they exchange. Knows no physics and no models."""
