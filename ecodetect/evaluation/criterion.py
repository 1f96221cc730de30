"""When a detection can match a truth: the criterion, completed from the geometries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import shapely

from ecodetect import matching
from ecodetect.errors import UserError
from ecodetect.evaluation.pairing import Pair, Pairs
from ecodetect.grid import Floats
from ecodetect.layer import Geometries
from ecodetect.matching import Candidates, Flags, Rows
from ecodetect.sizes import Length


@dataclass(frozen=True, slots=True)
class Criterion:
    """When a detection can match a truth: within `limit`, with an IoU of at least `limit`, or inside.

    limit : metres or pixels; None: each annotation's own radius and accuracy.
    is_of_boxes : IoU of the bounding boxes, because one side has only boxes: a round outline fills no more
        than 79 % of its box.
    """

    kind: Literal["distance", "iou", "inside"]
    limit: Length | float | None = None
    is_of_boxes: bool = False


def completed(criterion: Criterion | None, pairs: Pairs) -> Criterion:
    """The criterion, chosen from the geometries if none is given, and the shapes that it compares."""
    found, there = (
        np.concatenate([getattr(pair, side).geometry for pair in pairs]) for side in ("detections", "truths")
    )
    are_shapes = [len(side) > 0 and bool((shapely.area(side) > 0).all()) for side in (found, there)]
    if criterion is None:
        if not any(are_shapes):
            return Criterion("distance")
        criterion = Criterion("iou", 0.5) if all(are_shapes) else Criterion("inside")
    if criterion.kind == "iou" and _are_boxes(found) != _are_boxes(there):
        return replace(criterion, is_of_boxes=True)
    return criterion


def _are_boxes(shapes: Geometries) -> bool:
    full = shapely.area(shapely.envelope(shapes))
    return bool((shapely.area(shapes) >= full * (1 - 1e-6)).all())


def candidates(pair: Pair, criterion: Criterion, counted: Rows) -> tuple[Candidates, Flags]:
    """Pairs of detections and counted truths, and which detections ignored truths would take."""
    own, truths = pair.detections, pair.truths
    doubtful = np.concatenate([np.delete(truths.geometry, counted), pair.ignored])
    shapes, real = own.geometry, truths.geometry[counted]
    if criterion.kind == "iou":
        for what, each in (("detections", shapes), ("annotations", real)):
            if len(each) and not (shapely.area(each) > 0).all():
                raise UserError(
                    f"The {what} of {pair.name} are points, which have no IoU; compare by distance, or by"
                    " what lies inside.",
                    parameter=("within", "inside"),
                )
        share = criterion.limit
        assert isinstance(share, float)
        doubtful = doubtful[shapely.area(doubtful) > 0]
        if criterion.is_of_boxes:
            shapes, real = shapely.envelope(shapes), shapely.envelope(real)
        name = "IoU of bounding boxes" if criterion.is_of_boxes else "IoU"
        return matching.by_iou(shapes, real, share, name=name), matching.covered(shapes, doubtful, share)
    if criterion.kind == "inside":
        if len(shapes) and len(real) and not (shapely.area(shapes).any() or shapely.area(real).any()):
            raise UserError(
                f"{pair.name} has points only, and nothing lies inside a point; compare by distance.",
                parameter="within",
            )
        return matching.by_inside(shapes, real), matching.within(shapes, doubtful)
    unit, limits = _limits(pair, criterion, counted)
    places, here = matching.centres(shapes), matching.centres(real)
    of_doubtful = np.concatenate([np.delete(limits, counted), np.full(len(pair.ignored), _widest(limits))])
    ground = there = None
    if unit == "m":
        ground = pair.grid.metres_per_pixel(here)
        there = pair.grid.metres_per_pixel(matching.centres(doubtful))
    pairs = matching.by_distance(places, here, limits[counted], unit=unit, metres_per_pixel=ground)
    return pairs, matching.near(places, doubtful, of_doubtful, metres_per_pixel=there)


def _widest(limits: Floats) -> float:
    return float(limits.max()) if len(limits) else 0.0


def _limits(pair: Pair, criterion: Criterion, counted: Rows) -> tuple[str, Floats]:
    """The unit, and the largest distance from each truth: the limit plus the truth's own accuracy."""
    truths, limit = pair.truths, criterion.limit
    gsd = pair.grid.gsd_mean
    accuracy = np.nan_to_num(truths.accuracy_m)
    if isinstance(limit, Length):
        if limit.unit == "m" and gsd is None:
            raise UserError(
                f"The distance is {limit}, but {pair.name} has no CRS: state its pixel size, or give the"
                " distance in px.",
                parameter="gsd",
            )
        if limit.unit == "px" and not pair.has_pixels:
            raise UserError(
                f"The distance is {limit}, but without a raster there are no pixels; name the raster.",
                parameter="image",
            )
        if limit.unit == "px":
            return "px", limit.value + (accuracy / gsd if gsd is not None else 0 * accuracy)
        return "m", limit.value + accuracy
    own = np.where(np.isfinite(truths.radius_px), truths.radius_px, 0.0)
    own = own * gsd + accuracy if gsd is not None else own
    without = int(np.count_nonzero(~(own[counted] > 0)))
    if without:
        raise UserError(
            f"Neither radius nor accuracy is known of {without} of {len(counted)} annotations of {pair.name};"
            " state how far off a detection may be (3m, 10px).",
            parameter="within",
        )
    return "px" if gsd is None else "m", own
