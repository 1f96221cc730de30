"""Rasters by address: a process of ours between GDAL and the servers."""
