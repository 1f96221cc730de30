"""Facts to know before working: of rasters, layers and models, and of training data."""
