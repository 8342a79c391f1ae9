"""Each benchmark runs alone as `python -m benchmarks.NAME --json FILE` and prints a ratio measured in one run."""
