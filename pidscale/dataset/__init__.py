"""A shard set opened for training, and what makers and converters share: holding a folder, shards, floors, Ray tasks."""
