"""Markdown pages from benchmarks/results: `python -m benchmarks.pages`. No benchmark imports a page."""
