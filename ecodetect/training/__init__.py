"""Training: from annotations on rasters to a bundle, one loop for all detectors.

sources (rasters with annotations) → splits (whose ground is it) → samples (chips) → augmentation → loop.
Detectors give targets and losses.
"""
