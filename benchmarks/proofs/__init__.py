"""Checks against what is known exactly: closed forms, manufactured solutions, damaged files, fingerprints."""
