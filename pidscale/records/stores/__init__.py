"""Stores of the files of a set: a folder of this machine, an object store, and a cache of one. Know names and bytes only."""
