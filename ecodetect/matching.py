"""Matches detections with true individuals, one to one, by a named criterion.

A criterion gives the possible pairs (`by_distance`, `by_iou`, `by_inside`). `assign` picks a maximum matching
and, among those, the one with the least sum of costs. `ranked` picks as COCO does, highest score first, as a
precision-recall curve needs. `near`, `covered` and `within` find the detections that match an ignored truth
and don't count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from ecodetect import assignment
from ecodetect.errors import UserError
from ecodetect.grid import Floats
from ecodetect.layer import Geometries

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]

_ROUNDING = 1e-9  # tolerance for pairs at the limit
MOST_PAIRS = 10_000_000  # some 200 bytes each, and minutes where all hang together
MOST_MEETING = 50_000_000  # shapes that overlap are measured at some 200,000 a second
PAIRS_AT_ONCE = 50_000_000  # that a batch may find at the most
SHAPES_AT_ONCE = 200_000
COUNTED_AT_ONCE = 10_000


@dataclass(frozen=True, eq=False, slots=True)
class Candidates:
    """Pairs that a criterion allows.

    criterion : its name with the limit, such as "distance ≤ 3 m".
    detection, truth : int64 (P,), rows of each pair; pairs that lie together follow each other.
    value : float64 (P,), what was compared: a distance, an IoU; by `by_inside` the distance of the centres.
    cost : float64 (P,) in [0, 1], less is nearer.
    n_detections, n_truths : numbers of rows on both sides.
    """

    criterion: str
    detection: Rows
    truth: Rows
    value: Floats
    cost: Floats
    n_detections: int
    n_truths: int

    def __len__(self) -> int:
        return len(self.detection)

    def __getitem__(self, rows: Flags | Rows) -> Candidates:
        """Those of a boolean mask or an index array."""
        return Candidates(
            self.criterion,
            self.detection[rows],
            self.truth[rows],
            self.value[rows],
            self.cost[rows],
            self.n_detections,
            self.n_truths,
        )


@dataclass(frozen=True, eq=False, slots=True)
class Matching:
    """Pairs of a detection and a truth, one to one.

    criterion : as in Candidates.
    detection, truth : int64 (M,), rows of each pair, by detection.
    value : float64 (M,), as in Candidates.
    n_detections, n_truths : numbers of rows on both sides.
    """

    criterion: str
    detection: Rows
    truth: Rows
    value: Floats
    n_detections: int
    n_truths: int

    def __len__(self) -> int:
        return len(self.detection)

    @property
    def is_true(self) -> Flags:
        """Which detections have a truth, (n_detections,)."""
        flags = np.zeros(self.n_detections, np.bool_)
        flags[self.detection] = True
        return flags

    @property
    def is_found(self) -> Flags:
        """Which truths have a detection, (n_truths,)."""
        flags = np.zeros(self.n_truths, np.bool_)
        flags[self.truth] = True
        return flags


# -- criteria ----------------------------------------------------------------------------------------------


def by_distance(
    detections: Floats, truths: Floats, limit: ArrayLike, *, unit: str, metres_per_pixel: Floats | None = None
) -> Candidates:
    """Pairs of positions not farther apart than the limit.

    detections, truths : float64 (N, 2) and (M, 2), pixels of one grid.
    limit : one distance, or one for each truth (M,), in `unit`.
    unit : "m" or "px".
    metres_per_pixel : float64 (M, 2, 2), `Grid.metres_per_pixel` at the truths, for distances in metres.
    """
    limits = np.broadcast_to(np.asarray(limit, np.float64), (len(truths),))
    shown = np.unique(limits)
    criterion = "distance"
    if len(shown):
        span = f"{shown[0]:g}" if len(shown) == 1 else f"{shown[0]:.4g} to {shown[-1]:.4g}"
        criterion = f"distance ≤ {span} {unit}"
    empty = np.empty(0, np.int64)
    if not len(detections) or not len(truths):
        return _candidates(criterion, empty, empty, np.empty(0), np.empty(0), detections, truths)
    reach = limits * (1 + _ROUNDING)
    if metres_per_pixel is not None:
        # Pixels may be narrower than high: search as far as the shorter step asks for, then measure.
        reach = reach / np.linalg.svd(metres_per_pixel, compute_uv=False)[:, -1]
    reach = np.broadcast_to(reach, limits.shape)
    size = np.frexp(reach)[1]  # what is looked for together reaches almost as far
    here, there = _neighbours_together(detections), _neighbours_together(truths)
    there = there[np.argsort(size[there], kind="stable")]
    detections, truths, limits, reach = detections[here], truths[there], limits[there], reach[there]
    ground = None if metres_per_pixel is None else metres_per_pixel[there]
    tree = cKDTree(detections)
    parts: list[tuple[Rows, Rows, Floats]] = []
    for rows in _sparing(tree, truths, reach, size[there], criterion):
        some = cKDTree(truths[rows])
        found = tree.sparse_distance_matrix(some, reach[rows].max(), output_type="ndarray")
        detection, truth = found["i"], found["j"] + rows.start
        step = detections[detection] - truths[truth]
        if ground is not None:
            step = np.einsum("nij,nj->ni", ground[truth], step)
        distance = np.hypot(step[:, 0], step[:, 1])
        near = distance <= limits[truth] * (1 + _ROUNDING)
        parts.append((detection[near], truth[near], distance[near]))
    detection, truth, distance = (np.concatenate(side) for side in zip(*parts, strict=True))
    detection, truth = here[detection], there[truth]
    return _candidates(criterion, detection, truth, distance, _scaled(distance), detections, truths)


def _neighbours_together(places: Floats) -> Rows:
    """The order, (N,), in which positions near each other follow each other: in √N strips of as many.

    Of 10⁶ in any order each look at a neighbour is one at another place of the memory, twice as slow.
    """
    order = np.argsort(places[:, 0])
    y = places[order, 1]
    edges = np.sort(y)[:: int(np.ceil(len(y) ** 0.5))]
    # Numbers of strips fit into 16 bits, which are sorted without comparing.
    return order[np.argsort(np.searchsorted(edges, y).astype(np.uint16), kind="stable")]


def by_iou(detections: Geometries, truths: Geometries, limit: float, *, name: str = "IoU") -> Candidates:
    """Pairs of shapes whose intersection is at least `limit` of their union.

    detections, truths : (N,) and (M,) valid shapely polygons in one plane.
    name : what the criterion is called.
    """
    criterion = f"{name} ≥ {limit:g}"
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    number = 0
    for detection, truth, common in _common_areas(detections, truths):
        union = shapely.area(detections[detection]) + shapely.area(truths[truth]) - common
        iou = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
        good = (iou >= limit - _ROUNDING) & (iou > 0)
        parts.append((detection[good], truth[good], iou[good]))
        number += len(parts[-1][0])
        _check_number(number, criterion)
    detection, truth, iou = (np.concatenate(side) for side in zip(*parts, strict=True))
    return _candidates(criterion, detection, truth, iou, 1 - iou, detections, truths)


def by_inside(detections: Geometries, truths: Geometries) -> Candidates:
    """Pairs of which one lies in the other.

    The centre of the detection lies in the truth's polygon; or the truth is a point and lies in the
    detection's polygon. Nearer centres go first. Shapes as in `by_iou`, or points.
    """
    there, here = centres(detections), centres(truths)
    is_area = shapely.area(truths) > 0
    pairs = [np.empty((2, 0), np.int64)]
    number = 0
    shapes = np.flatnonzero(is_area)
    for truth, detection in _meeting(truths[shapes], shapely.points(there)):
        pairs.append(np.stack([detection, shapes[truth]]))
        number += len(truth)
        _check_number(number, "inside")
    marks = np.flatnonzero(~is_area)
    for detection, truth in _meeting(detections, truths[marks]):
        pairs.append(np.stack([detection, marks[truth]]))
        number += len(truth)
        _check_number(number, "inside")
    detection, truth = np.concatenate(pairs, axis=1).astype(np.int64)
    step = there[detection] - here[truth]
    distance = np.hypot(step[:, 0], step[:, 1])
    return _candidates("inside", detection, truth, distance, _scaled(distance), detections, truths)


def _candidates(
    criterion: str,
    detection: Rows,
    truth: Rows,
    value: Floats,
    cost: Floats,
    detections: ArrayLike,
    truths: ArrayLike,
) -> Candidates:
    n, m = len(np.asarray(detections)), len(np.asarray(truths))
    return Candidates(criterion, detection, truth, value, cost, n, m)


def _scaled(distance: Floats) -> Floats:
    """Distances as costs in [0, 1]."""
    farthest = distance.max(initial=0.0)
    return distance / farthest if farthest > 0 else distance


def _common_areas(some: Geometries, others: Geometries) -> Iterator[tuple[Rows, Rows, Floats]]:
    """Pairs of shapes that meet, and the area of their intersection, batch by batch."""
    met = 0
    for one, other in _meeting(some, others):
        met += len(one)
        if met > MOST_MEETING:
            raise UserError(
                f"More than {MOST_MEETING:,} pairs of shapes overlap, too many to measure each; judge a part"
                " of the ground, or compare positions.",
                parameter=("area", "within"),
            )
        common = shapely.area(shapely.intersection(some[one], others[other]))
        yield one, other, np.asarray(common, np.float64)


def _meeting(
    some: Geometries, others: Geometries, predicate: str = "intersects", distance: Floats | None = None
) -> Iterator[tuple[Rows, Rows]]:
    """Pairs of shapes of which the first has this relation to the second, batch by batch.

    distance : for "dwithin", of each of `some`.
    """
    if not len(some) or not len(others):
        return
    tree = shapely.STRtree(others)
    size = max(1, PAIRS_AT_ONCE // len(others))  # all with all others can be held
    for start in range(0, len(some), size):
        rows = slice(start, start + size)
        one, other = tree.query(some[rows], predicate, None if distance is None else distance[rows])
        for first in range(0, len(one), SHAPES_AT_ONCE):
            part = slice(first, first + SHAPES_AT_ONCE)
            yield one[part].astype(np.int64) + start, other[part].astype(np.int64)


def _sparing(
    tree: cKDTree, truths: Floats, reach: Floats, size: NDArray[np.int32], criterion: str
) -> Iterator[slice]:
    """Rows of truths of one size to look at together, so few that all that lie within reach can be held.

    Raises UserError for more pairs than can be compared.
    """
    number = 0
    for start in range(0, len(truths), COUNTED_AT_ONCE):
        rows = slice(start, min(start + COUNTED_AT_ONCE, len(truths)))
        counts = tree.query_ball_point(truths[rows], reach[rows], return_length=True)
        number += int(counts.sum())
        _check_number(number, criterion)
        cuts = np.flatnonzero(np.diff(np.cumsum(counts) // SHAPES_AT_ONCE) | np.diff(size[rows])) + 1
        ends = [*(start + cuts).tolist(), rows.stop]
        yield from (slice(*each) for each in pairwise([start, *ends]))


def _check_number(number: int, criterion: str) -> None:
    """Raise UserError for more pairs than can be compared with each other."""
    if number > MOST_PAIRS:
        raise UserError(
            f"More than {MOST_PAIRS:,} pairs of a detection and an annotation fit ({criterion}), too many to"
            " tell who is who; take a narrower criterion, or judge a part of the ground.",
            parameter=("within", "area"),
        )


def centres(shapes: Geometries) -> Floats:
    """Centroids, float64 (N, 2): the middle of a box, a point itself; NaN for what is empty.

    Not the middle of the bounding box, which one pixel of a ragged outline moves (nuclei in tissue: F1 within
    6 px 0.82 by boxes, 0.85 by centroids, within 9 px 0.87 by both).
    """
    are_points = np.asarray(shapely.get_type_id(shapes) == shapely.GeometryType.POINT)
    at = shapes if are_points.all() else shapely.centroid(shapes)  # of points it's as slow as of shapes
    return np.column_stack([shapely.get_x(at), shapely.get_y(at)]).astype(np.float64)


# -- what ignored truths absorb ----------------------------------------------------------------------------


def near(
    detections: Floats, ignored: Geometries, limit: ArrayLike, *, metres_per_pixel: Floats | None = None
) -> Flags:
    """Which positions (N, 2) lie in an ignored shape or not farther than the limit from it.

    limit, metres_per_pixel : as in `by_distance`, for each ignored one.
    """
    flags = np.zeros(len(detections), np.bool_)
    if not len(detections) or not len(ignored):
        return flags
    limits = np.broadcast_to(np.asarray(limit, np.float64), (len(ignored),)) * (1 + _ROUNDING)
    reach = limits
    if metres_per_pixel is not None:
        reach = limits / np.linalg.svd(metres_per_pixel, compute_uv=False)[:, -1]
    points = shapely.points(detections)
    for truth, detection in _meeting(ignored, points, "dwithin", np.broadcast_to(reach, limits.shape)):
        # From the position to the nearest place of the shape, measured on the ground.
        lines = shapely.get_coordinates(shapely.shortest_line(points[detection], ignored[truth]))
        step = (lines[1::2] - lines[::2]) if len(lines) else np.empty((0, 2))
        if metres_per_pixel is not None:
            step = np.einsum("nij,nj->ni", metres_per_pixel[truth], step)
        flags[detection[np.hypot(step[:, 0], step[:, 1]) <= limits[truth]]] = True
    return flags


def covered(detections: Geometries, ignored: Geometries, share: float) -> Flags:
    """Which shapes have at least `share` of their area in one ignored shape: COCO's rule for crowds."""
    flags = np.zeros(len(detections), np.bool_)
    for detection, _, common in _common_areas(detections, ignored):
        area = shapely.area(detections[detection])
        flags[detection[(common >= (share - _ROUNDING) * area) & (common > 0)]] = True
    return flags


def within(detections: Geometries, ignored: Geometries) -> Flags:
    """Which detections `by_inside` would pair with an ignored truth."""
    flags = np.zeros(len(detections), np.bool_)
    flags[by_inside(detections, ignored).detection] = True
    return flags


def centred_in(truths: Geometries, ignored: Geometries) -> Flags:
    """Which truths have their centre in an ignored shape, so that they don't count."""
    flags = np.zeros(len(truths), np.bool_)
    areas = ignored[shapely.area(ignored) > 0]
    for truth, _ in _meeting(shapely.points(centres(truths)), areas, "within"):
        flags[truth] = True
    return flags


# -- picking -----------------------------------------------------------------------------------------------


def assign(candidates: Candidates) -> Matching:
    """A maximum matching: the largest one-to-one set of pairs, with the least sum of costs.

    10⁵ detections against 10⁵ truths take seconds. The answer doesn't depend on scores or on the order of
    pairs.
    """
    c = candidates
    return _matching(c, assignment.least(c.detection, c.truth, c.cost))


def ranked(candidates: Candidates, score: Floats) -> Matching:
    """Each detection, surest first, takes the nearest truth that is still free, as COCO's evaluation does.

    score : float64 (n_detections,). Among equal scores the earlier row goes first, among equally near truths
        the later row is taken (as in pycocotools).
    """
    c = candidates
    rank = np.empty(c.n_detections, np.int64)
    rank[np.argsort(-score, kind="stable")] = np.arange(c.n_detections)
    has_truth = np.zeros(c.n_detections, np.bool_)
    is_taken = np.zeros(c.n_truths, np.bool_)
    picked = []
    for pair in np.lexsort((-c.truth, c.cost, rank[c.detection])).tolist():
        detection, truth = c.detection[pair], c.truth[pair]
        if not has_truth[detection] and not is_taken[truth]:
            has_truth[detection] = is_taken[truth] = True
            picked.append(pair)
    return _matching(c, np.array(picked, np.int64))


def counting(has_truth: Flags, outside: Flags, absorbed: Flags) -> Flags:
    """Which detections count, (N,): those with a truth, and those without one where one would be marked.

    The one rule of training, evaluation and benchmarks: what has no truth is false where annotation is
    complete, and neither right nor wrong elsewhere, on ignored ground, or at a truth that doesn't count.
    outside : where it isn't complete.  absorbed : on ignored ground, or at a truth that doesn't count.
    """
    return has_truth | ~(outside | absorbed)


def _matching(c: Candidates, pairs: Rows) -> Matching:
    pairs = pairs[np.argsort(c.detection[pairs])]
    return Matching(
        c.criterion, c.detection[pairs], c.truth[pairs], c.value[pairs], c.n_detections, c.n_truths
    )
