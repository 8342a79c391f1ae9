"""What a student is trained to do: one file for each objective."""
