"""How good are they? Detections against field annotations: rates, positions, counts, errors to look at.

The way of a comparison: `annotation_files` (the features of each image) → `pairing` (which belong
together; `common_plane`, `plots`) → `labels` and `criterion` (what is compared with what) → `judging` (one
image) → `pooling` and `remarks` (all together) → `report`. `evaluating` goes this way.
"""

from ecodetect.evaluation.criterion import Criterion
from ecodetect.evaluation.evaluating import evaluate
from ecodetect.evaluation.report import Evaluation

__all__ = ["Criterion", "Evaluation", "evaluate"]
