"""Training: from annotations on rasters to a bundle, one loop for all detectors.

sources (rasters with annotations) → splits (whose ground is it) → samples (chips) → augmentation → loop.
Detectors give targets and losses.
"""

PASSES = 40  # over the ground; a standstill ends it sooner
PATCH_PASSES = 16  # over pictures by class, for a network that knows pictures already
LEAST_STEPS, MOST_STEPS = 300, 12_000
STEP_PX = 150_000  # pixels in a step: of a fixed number of passes, more and smaller steps learn more
