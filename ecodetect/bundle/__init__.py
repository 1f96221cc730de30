"""The model file, its card, and how a model sees a raster."""
