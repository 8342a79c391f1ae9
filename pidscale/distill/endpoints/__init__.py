"""Where the teacher's endpoints come from: made in the step, ahead of it, by actors, or stored."""
