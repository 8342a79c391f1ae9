"""Training of the teacher: from shards to a consolidated denoiser."""
