"""Inspects shard sets: verifies files and samples, describes a set, and gives the command that finishes one."""
