"""What is known of an annotated raster, in pixels of the grid that a model sees it in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.annotations.annotated_raster import AnnotatedRaster, object_px
from ecodetect.annotations.contract import class_of
from ecodetect.annotations.sample import Objects
from ecodetect.grid import Floats, Grid, Window
from ecodetect.region import Region

_REACH = 1.0  # an object belongs to a sample if its centre is at most this many of its sizes outside
POINT_REACH_PX = 16.0  # and an object without a size this many pixels


@dataclass(frozen=True, eq=False, slots=True)
class Ground:
    """The part of a raster that one side of a split may use, in its native pixels.

    seen : pixels that may be used; outside, a sample is masked.
    counted : the part of it in which objects are learned or judged; the rest is ignored.
    """

    seen: Region
    counted: Region


@dataclass(frozen=True, eq=False, slots=True)
class Laid:
    """What is known of a raster, in pixels of its working grid.

    objects : individuals that lie on the ground.
    known : where annotation is complete; None: nowhere.
    ignored : shapes that are neither right nor wrong.  tree : of these.
    edge_px : width of the strip along the raster's edge in which nothing is learned.
    typical_px : width of a usual individual.
    ground : the part that may be used; None: all.
    """

    objects: Objects
    known: Region | None
    ignored: NDArray[np.object_]
    edge_px: float
    typical_px: float
    ground: Ground | None = None
    tree: shapely.STRtree = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", shapely.STRtree(self.ignored))

    def within(self, ground: Ground | None, grid: Grid) -> Laid:
        """The same on the ground of one side of a split: what is marked elsewhere is ignored.

        ground : in native pixels.  grid : the working grid.
        """
        if ground is None:
            return self
        there = Ground(ground.seen.moved_to(grid), ground.counted.moved_to(grid))
        counted = there.counted.contains(self.objects.xy)
        strangers = footprints(self.objects[~counted], self.typical_px / 2)
        ignored = _array([*self.ignored, *shapely.box(*strangers.T).tolist()])
        return replace(self, objects=self.objects[counted], ignored=ignored, ground=there)

    def ignored_in(self, window: Window) -> NDArray[np.object_]:
        """The ignored shapes that may meet a window."""
        shapes: NDArray[np.object_] = self.ignored[
            self.tree.query(shapely.box(window.x, window.y, window.right, window.bottom))
        ]
        return shapes

    @property
    def useful(self) -> tuple[Floats, shapely.Geometry | None]:
        """Where there is anything to learn: boxes (N, 4) around objects, and known ground; None: nowhere."""
        boxes = footprints(self.objects, POINT_REACH_PX)
        known = self.counted
        if known is None or known.is_empty or (known.area == 0 and not len(boxes)):
            return boxes, None
        shapely.prepare(known)
        return boxes, known

    @property
    def counted(self) -> shapely.Geometry | None:
        """The ground on which annotation is complete and counts; None: nowhere."""
        if self.known is None or self.ground is None:
            return None if self.known is None else self.known.shape
        return self.known.shape.intersection(self.ground.counted.shape)


def lay(source: AnnotatedRaster, grid: Grid, number: Mapping[str, int], *, is_shaped: bool) -> Laid:
    """Annotations moved to the working grid.

    number : of each class.  is_shaped : objects have their outlines.
    """
    a, b, c, d, e, f = grid.pixels_from(source.grid)
    matrix, step = np.array([[a, b], [d, e]]).T, np.array([c, f])

    def moved(xy: Floats) -> Floats:
        there: Floats = xy @ matrix + step
        return there

    marked = source.annotations
    scale = float(np.sqrt(abs(a) * abs(e)))
    boxes = _moved_boxes(source.boxes, moved)
    boxes[~(boxes[:, 2:] > boxes[:, :2]).all(axis=1)] = np.nan
    gsd = grid.gsd_mean
    accuracy = np.zeros(len(marked)) if gsd is None else marked.accuracy_m / gsd
    label = np.array([number.get(class_of(str(name)), -1) for name in marked.label], np.int64)
    kept = source.kept & (label >= 0)
    outlines = outlines_of(shapely.transform(marked.geometry, moved), boxes) if is_shaped else None
    every = Objects(moved(source.xy), boxes, label, np.nan_to_num(accuracy, nan=0.0), outlines)
    typical = object_px([source]) * scale
    shapes = [shapely.transform(shape, moved) for shape in source.ignored]
    for shape, size in zip(marked.geometry[~kept], every.size[~kept], strict=True):
        there = shapely.transform(shape, moved)
        radius = np.nanmean(size) / 2 if np.isfinite(size).any() else typical / 2
        shapes.append(there if there.area > 0 else there.buffer(radius))
    known = None if source.complete is None else source.complete.moved_to(grid)
    return Laid(every[kept], known, _array(shapes), source.edge_px * scale, typical)


def _array(shapes: list[shapely.Geometry]) -> NDArray[np.object_]:
    found = np.empty(len(shapes), dtype=object)
    found[:] = shapes
    return found


def _moved_boxes(boxes: Floats, moved: Callable[[Floats], Floats]) -> Floats:
    """Boxes (N, 4) in another grid, whose axes are parallel but may run the other way."""
    one, other = moved(boxes[:, :2]), moved(boxes[:, 2:])
    return np.concatenate([np.minimum(one, other), np.maximum(one, other)], axis=1)


def outlines_of(shapes: NDArray[np.object_], boxes: Floats) -> NDArray[np.object_]:
    """Areas as they are; of what has a size but no area (a point with a radius) the circle."""
    found = np.array(shapely.make_valid(shapes), dtype=object)
    for row in np.flatnonzero(shapely.area(found) == 0):
        x0, y0, x1, y1 = boxes[row]
        middle = shapely.Point((x0 + x1) / 2, (y0 + y1) / 2) if np.isfinite(boxes[row]).all() else None
        found[row] = shapely.Polygon() if middle is None else middle.buffer((x1 - x0 + y1 - y0) / 4)
    return found


def footprints(objects: Objects, radius: float) -> Floats:
    """Boxes of objects, (N, 4); `radius` around those without a size."""
    around = np.concatenate([objects.xy - radius, objects.xy + radius], axis=1)
    boxes: Floats = np.where(np.isfinite(objects.box), objects.box, around)
    return boxes


def near(objects: Objects, window: Window) -> Objects:
    """The objects that reach into a window with what is learned of them, in its pixels."""
    reach = np.where(np.isfinite(objects.size), objects.size * _REACH, POINT_REACH_PX)
    x, y = objects.xy[:, 0], objects.xy[:, 1]
    near = (x >= window.x - reach[:, 0]) & (x <= window.right + reach[:, 0])
    near &= (y >= window.y - reach[:, 1]) & (y <= window.bottom + reach[:, 1])
    return objects[near].shifted(np.array([-window.x, -window.y]))


def paint(mask: NDArray[np.bool_], shapes: NDArray[np.object_], window: Window) -> None:
    """Set the pixels under shapes; what is thinner than a pixel takes those that it touches."""
    if len(shapes):
        shape = shapely.union_all(shapely.make_valid(shapes))
        mask |= Region(shape, Grid(window.width, window.height)).pixels(window)


def at_edge(width: float, window: Window, grid: Grid) -> NDArray[np.bool_]:
    """Which pixels of a window are less than `width` from the raster's edge."""
    x = np.arange(window.x, window.right) + 0.5
    y = np.arange(window.y, window.bottom) + 0.5
    across: NDArray[np.bool_] = ((x < width) | (x > grid.width - width))[None, :]
    return across | ((y < width) | (y > grid.height - width))[:, None]
