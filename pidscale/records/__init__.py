"""Shard sets of fields: their format, writing, reading, checking, repair, and the order of samples. Knows no equations."""
