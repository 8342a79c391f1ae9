"""Shard sets of fields on disk: the format, writing, reading and the order of samples. Knows bytes, not equations."""
