"""Numbers for a paper: plots drawn on a scan's ground, and the number of individuals with its interval."""
