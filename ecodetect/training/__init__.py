"""Training: from annotations on rasters to a bundle, one loop for all detectors.

`annotations` lays annotations on rasters, splits them by place and cuts samples. Here `recipe` runs a
training: `beginning`, `case`, `planning`, `drawing` with `augmentation`, `loop`, `selection`, `finishing`,
`report`.
"""
