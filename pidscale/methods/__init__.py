"""Ways to ask a generator: each takes a generator and a question, and gives fields and their counted cost."""
