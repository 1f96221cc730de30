"""Training: from annotations on rasters to a bundle, one loop for all detectors.

Annotations are laid on rasters, split by place and cut into samples in `annotations`. Here `recipe` leads
through a training: `beginning`, `case`, `planning`, `drawing` with `augmentation`, `loop`, `selection`,
`finishing`, `report`.
"""
