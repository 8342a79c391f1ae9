"""A run's folder: its phases, what is printed before a start, memory plan, reporting, damaged samples."""
