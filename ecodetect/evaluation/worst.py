"""The worst errors as a picture: false positives with the highest scores and the largest false negatives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ecodetect.detections import Detections
from ecodetect.errors import UserError
from ecodetect.evaluation.judging import ABSORBED, FALSE, OUTSIDE, TRUE, JudgedImage
from ecodetect.grid import Floats
from ecodetect.layer import Geometries
from ecodetect.matching import Flags
from ecodetect.pictures.sheet import Cut, Panel, draw_panels
from ecodetect.raster.reading import Raster

# Classes of what is drawn; their numbers are colours: white only for what is right, so that errors stand out.
_FALSE, _MISSED, _UNJUDGED, _TRUE, _ITS_TRUTH = 0, 1, 2, 4, 7
_CLASSES = ("false", "missed", "not judged", "", "true", "", "", "its annotation")
_GROUND = 1.5  # times more ground than on a sheet of detections, to show the reason of an error
_UNSIZED_PX = (12.0, 60.0)  # least and largest radius for individuals of unknown size
_KEYS = [(n, _CLASSES[n]) for n in (_FALSE, _MISSED, _TRUE, _ITS_TRUTH, _UNJUDGED)]


def draw_worst(
    judged: Sequence[JudgedImage], criterion: str, path: str | os.PathLike[str], *, most: int = 60
) -> None:
    """Draw cut-outs of the worst errors, half of each kind where there are so many.

    Missed individuals of unknown size are sampled evenly. All other detections and annotations around an
    error are drawn too, to show its reason.
    Raises UserError where an image has no raster to cut them from.
    """
    bare = next((each for each in judged if each.pair.image is None), None)
    if bare is not None:
        raise UserError(
            f"A sheet of errors is cut from rasters; name that of {bare.pair.name}.", parameter="image"
        )
    spots = [_Spots(each, number) for number, each in enumerate(judged)]
    false = [(spot, row) for spot in spots for row in np.flatnonzero(spot.is_false).tolist()]
    missed = [(spot, row) for spot in spots for row in np.flatnonzero(spot.is_missed).tolist()]
    room = max(most // 2, most - len(missed)), max(most // 2, most - len(false))
    by_score = _picked([spot.score[row] for spot, row in false], room[0])
    by_size = _picked([spot.diameter[row] for spot, row in missed], room[1])
    several = len(judged) > 1
    panels = []
    kinds = (("false", "surest", false, by_score), ("missed", "largest", missed, by_size))
    for what, order, found, chosen in kinds:
        cuts = [found[n][0].cut(found[n][1], several=several) for n in chosen]
        values = [found[n][0].value(what)[found[n][1]] for n in chosen]
        panels.append(Panel(_heading(len(found), what, values, order), cuts))
    n_true = sum(int(np.count_nonzero(each.outcome == TRUE)) for each in judged)
    rule = criterion.replace("≤", "up to").replace("≥", "of at least")  # the font has no such signs
    facts = [f"{n_true:,} true, {len(false):,} false, {len(missed):,} missed ({rule})"]
    title = f"Errors in {len(judged)} images" if several else f"Errors in {Path(_image(judged[0])).name}"
    paths = {spot.name: _image(spot.judged) for spot in spots}
    pairs = {spot.name: spot.judged.pair for spot in spots}

    def opened(name: str) -> AbstractContextManager[Raster]:
        return pairs[name].options.opened(paths[name])

    shown = [panel for panel in panels if panel.cuts]
    draw_panels(shown, path, title=title, facts=facts, opened=opened, keys=_KEYS, ground=_GROUND)


def _image(each: JudgedImage) -> str:
    assert each.pair.image is not None
    return each.pair.image


def _heading(total: int, what: str, values: Sequence[float], most: str) -> str:
    n, known = len(values), np.array([value for value in values if np.isfinite(value)])
    if not len(known):
        return f"{n} of {total:,} {what}" if n < total else f"All {n} {what}"
    span = " to ".join(dict.fromkeys(f"{value:.3g}" for value in (known.min(), known.max())))
    which = f"The {n} {most} of {total:,} {what}" if n < total else f"All {n} {what}, {most} first"
    return f"{which}: {'score' if what == 'false' else 'diameter'} {span}"


def _picked(values: Sequence[float], most: int) -> list[int]:
    """Positions of the highest, highest first; where nothing has a value, an even sample of all."""
    known = np.array(values, np.float64)
    if not np.isfinite(known).any():
        n = len(known)
        return sorted({round(x) for x in np.linspace(0, n - 1, min(n, most)).tolist()})
    order = np.argsort(-np.nan_to_num(known, nan=-np.inf), kind="stable")
    return [int(row) for row in order[:most]]


class _Spots:
    """Everything drawn on one image: detections, then truths that count, then those that don't."""

    def __init__(self, judged: JudgedImage, number: int) -> None:
        pair = judged.pair
        self.judged = judged
        self.name = f"{number} {pair.name}"
        n, m = len(pair.detections), len(judged.counted)
        doubtful = np.concatenate([np.delete(pair.truths.geometry, judged.counted), pair.ignored])
        there = pair.truths.geometry[judged.counted]
        own_sizes, true_sizes = judged.sizes()
        outcome = judged.outcome
        label = np.full(n + m + len(doubtful), _UNJUDGED, np.int64)
        label[:n][outcome == FALSE], label[:n][outcome == TRUE] = _FALSE, _TRUE
        label[:n][(outcome == ABSORBED) | (outcome == OUTSIDE)] = _UNJUDGED
        label[n : n + m] = np.where(judged.missed, _MISSED, _ITS_TRUTH)
        self.is_false: Flags = label == _FALSE
        self.is_missed: Flags = label == _MISSED
        nothing = np.full(len(doubtful), np.nan)
        self.score: Floats = np.concatenate([judged.score, np.full(m, np.nan), nothing])
        self.diameter: Floats = np.concatenate([own_sizes, true_sizes, nothing])
        blank = np.full(len(doubtful), "", object)
        self.label: NDArray[np.object_] = np.concatenate(
            [pair.detections.label, pair.truths.label[judged.counted], blank]
        )
        self.why: NDArray[np.object_] = np.concatenate([judged.why, judged.why_missed, blank])
        radius = np.concatenate([pair.detections.radius_px, pair.truths.radius_px[judged.counted], nothing])
        shapes = _drawn((pair.detections.geometry, there, doubtful), radius)
        self.all = Detections(pair.grid, "polygon", shapes, np.zeros(len(shapes)), label, _CLASSES)

    def value(self, what: str) -> Floats:
        """The values that errors of a kind are sorted by."""
        return self.score if what == "false" else self.diameter

    def cut(self, row: int, *, several: bool) -> Cut:
        """The cut-out of an object.  several : whether there are several images, so that it names one."""
        pair = self.judged.pair
        unit = "px" if pair.grid.gsd is None else "m"
        size = f"{self.diameter[row]:.3g} {unit}" if np.isfinite(self.diameter[row]) else ""
        score = f"{self.score[row]:.2f}" if np.isfinite(self.score[row]) else ""
        left, right = (score, size) if self.is_false[row] else (size, "")
        label = str(self.label[row]) if len(self.judged.names) > 1 else ""
        below = ", ".join(filter(None, (label, pair.name if several else "")))
        one = self.all[row : row + 1]
        return Cut(self.name, pair.grid, one, left, str(self.why[row]) or right, below, self.all)


def _drawn(sides: Sequence[Geometries], radius: Floats) -> Geometries:
    """Polygons of all sides as they are; points as circles of their size, or of a typical size.

    sides : detections, truths, and what is neither; `radius` is of all of them, one after the other.
    """
    shapes: Geometries = np.concatenate(sides)
    area = shapely.area(shapes)
    own = np.where(area > 0, np.sqrt(area / np.pi), radius)
    is_known = np.isfinite(own) & (own > 0)
    if is_known.all():
        usual = 0.0
    elif is_known.any():
        usual = float(np.median(own[is_known]))
    else:
        usual = _radius_of_spacing(sides)
    is_point = area == 0
    shapes[is_point] = shapely.buffer(
        shapely.centroid(shapes[is_point]), np.where(is_known, own, usual)[is_point]
    )
    return shapes


def _radius_of_spacing(sides: Sequence[Geometries]) -> float:
    """Radii of individuals of unknown size: a third of the distance to their neighbours.

    A neighbour is of the same side, because a detection lies on its truth. The radius is limited so that a
    cut-out shows an individual and its surroundings, even if neighbours are very near or far.
    """
    spaces = []
    for side in sides:
        xy = shapely.get_coordinates(shapely.centroid(side))
        if len(xy) > 2:
            near = cKDTree(xy).query(xy, k=2)[0][:, 1]
            spaces.append(near[np.isfinite(near) & (near > 0)])
    every = np.concatenate([np.empty(0), *spaces])
    return float(np.clip(np.median(every) / 3, *_UNSIZED_PX)) if len(every) else _UNSIZED_PX[0]
