"""Formats that a GIS opens in the right place."""
