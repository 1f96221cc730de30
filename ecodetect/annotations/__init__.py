"""Field annotations: read from files and folders, laid on rasters, cut into samples, split by place."""
