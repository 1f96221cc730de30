"""Outlines in three stages: regions are proposed, each is classified, and its object is outlined.

For crowns, shrubs and cells whose area matters. It learns from polygons; a point with a radius counts as a
circle, a box as a box. Source: Mask R-CNN (He et al. 2017, arXiv:1703.06870) on a feature pyramid (Lin
et al. 2017, arXiv:1612.03144), torchvision's implementation; see `networks.detection` for what is different.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.bundle.card import Card
from ecodetect.bundle.file import Bundle
from ecodetect.detectors import boxes, torchvision_boxes
from ecodetect.detectors.learned import Answer, Arrays, Outputs
from ecodetect.detectors.learned_detector import LearnedDetector
from ecodetect.detectors.protocol import Scene
from ecodetect.detectors.torchvision_boxes import Options
from ecodetect.grid import Floats, Grid, Window
from ecodetect.region import Region

if TYPE_CHECKING:
    from ecodetect.annotations.sample import Sample

_INSIDE = 0.5  # parts of a box with a higher probability belong to its object
_STRAIGHT_PX = 0.25  # an outline has as few corners as keep it within this


def targets(sample: Sample, card: Card) -> Arrays:
    """As `boxes.targets`, and masks (n, H, W): 1 in each object."""
    objects = sample.objects[boxes.is_learned(sample)]
    height, width = sample.valid.shape
    shapes = shapely.box(*objects.box.T) if objects.shape is None else objects.shape
    masks = np.zeros((len(objects), height, width), np.float32)
    for mask, shape in zip(masks, np.reshape(shapes, -1), strict=True):
        mask += pixels_of(shape, width, height)
    return {**torchvision_boxes.targets(sample, card), "masks": masks}


def pixels_of(shape: shapely.Geometry, width: int, height: int) -> NDArray[np.bool_]:
    """Pixels with their centre in a shape, (H, W)."""
    return Region(shapely.make_valid(shape), Grid(width, height)).pixels(Window(0, 0, width, height))


def outlined(outputs: Outputs, found: Sequence[Answer]) -> list[Answer]:
    """The outline of the object in each box.

    outputs : of the network; the second (N, D, M, M), rows as the boxes'.
    """
    answers = []
    for masks, boxed in zip(outputs[1], found, strict=True):
        shapes = np.empty(len(boxed.score), dtype=object)
        shapes[:] = [_outline(mask, each) for mask, each in zip(masks, boxed.geometry, strict=False)]
        answers.append(boxed._replace(geometry=shapes))
    return answers


def _outline(mask: NDArray[np.float32], box: Floats) -> shapely.Polygon:
    """The largest part of a mask (M, M) above one half, in its box; the box itself where there is none."""
    from skimage.measure import find_contours

    x0, y0, x1, y1 = box
    whole = shapely.box(*box)
    rows, columns = mask.shape
    rings = find_contours(np.pad(mask, 1), _INSIDE)  # type: ignore[no-untyped-call]
    rings = [ring for ring in rings if len(ring) >= 4]
    if not rings:
        return whole
    ring = max(rings, key=lambda ring: abs(float(np.sum(ring[:-1, 0] * np.diff(ring[:, 1])))))
    # The middle of the first part is at 1 in the padded mask, and lies half a part inside.
    x = np.clip(x0 + (ring[:, 1] - 0.5) / columns * (x1 - x0), x0, x1)
    y = np.clip(y0 + (ring[:, 0] - 0.5) / rows * (y1 - y0), y0, y1)
    best = shapely.Polygon(np.column_stack([x, y]))
    smooth = shapely.simplify(best, _STRAIGHT_PX)
    return smooth if isinstance(smooth, shapely.Polygon) and smooth.is_valid and smooth.area > 0 else whole


def build(
    options: Options, scene: Scene, bundle: Bundle, *, device: str = "auto", threads: int | None = None
) -> LearnedDetector:
    """The detector of a bundle for a scene; raises UserError where they don't fit."""
    return torchvision_boxes.build(options, scene, bundle, device=device, threads=threads, outlined=outlined)


KIND = replace(
    torchvision_boxes.FASTER_RCNN,
    name="mask_rcnn",
    purpose=__doc__,
    card_options=partial(torchvision_boxes.card_options, name="mask_rcnn"),
    build=build,
    targets=targets,
    needs_shapes=True,
    augmentations={"scale": 0.4},  # outlines can be rotated
)
