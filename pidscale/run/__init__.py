"""A run: its folder and phases, checks and the memory plan before a start, progress, damaged samples."""
