"""Looking after a shard set: verification, sample checks, and a description of what it holds."""
