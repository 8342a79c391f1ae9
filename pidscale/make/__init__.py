"""Makes shard sets from an equation: samples are solved in parallel and written as records."""
