"""Converts foreign files into shard sets: the request, reading the files, writing the set, and its quality."""
