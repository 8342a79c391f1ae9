"""The tests; a package, so that spawned processes and Ray workers import its modules by name."""
