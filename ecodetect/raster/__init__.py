"""Rasters: opened only where it is safe, described, and read window by window."""
