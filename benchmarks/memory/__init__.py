"""Peak memory of whole commands, and of their largest steps."""
