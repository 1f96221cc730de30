"""ecodetect: where are they, and how many? Detection of individuals in rasters, tile by tile.

The map of the house, from the ground up:

errors → grid, sizes → layer, detections, chip → tiling → merging → formats → annotations → raster
→ detectors → journal → scanning → the command line (`ecodetect_cli`).

`scan("ortho.tif", model="threshold")` is the main job; docs/concepts.md explains the words.
"""

__version__ = "0.1.0"
