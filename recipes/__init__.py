"""How each shipped model is made; README.md says with which data."""
