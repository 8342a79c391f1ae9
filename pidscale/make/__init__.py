"""Shard sets from an equation: samples solved in parallel and written as records."""
