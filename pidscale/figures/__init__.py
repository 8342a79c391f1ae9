"""Pictures of fields and answers."""
