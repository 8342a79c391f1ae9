"""Sources of the teacher's endpoints: computed within the step, ahead of it, by actors, or read from a set."""
