"""`make docs-check` (`python -m tests.docs`): every command of every page, run as a reader would run it."""
