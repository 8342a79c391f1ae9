"""Making shard sets: an equation's samples, solved in parallel and written as records."""
