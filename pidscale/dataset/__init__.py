"""A set opened for training, and what makers and converters share: claiming, publishing, floors, Ray tasks."""
