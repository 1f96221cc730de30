"""Tables of positions: CSV and its kin."""
