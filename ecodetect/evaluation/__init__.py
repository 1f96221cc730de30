"""How good are they? Detections against field annotations: rates, positions, counts, errors to look at.

The way of a comparison: `annotations.annotation_file` (the features of each image) → `pairing` (which belong
together; `common_plane`, `plots`) → `labels` and `criterion` (what is compared with what) → `judging` (one
image) → `pooling` and `remarks` (all together) → `report`. `evaluating` goes this way.
"""
