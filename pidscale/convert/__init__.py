"""Shard sets from other people's files: what is asked, what is read, what the result is worth."""
