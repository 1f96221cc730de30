"""Rasters by address: a relay process between GDAL and the servers."""
