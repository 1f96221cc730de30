"""How good are detections? Compares them with field annotations: rates, positions, counts, errors to look at.

The steps of a comparison: `annotations.files` (the features of each image) → `pairing` (pairs of files;
`common_plane`, `plots`) → `labels` and `criterion` (what is compared with what) → `judging` (one image) →
`pooling` and `remarks` (all together) → `report`. `evaluating` runs them.
"""
