"""Time, bytes and memory of one part at a time, each compared with an alternative in the same run."""
