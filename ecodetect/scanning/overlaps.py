"""Overlapping rasters: which rasters of one layer show the same ground, and how many hectares of it.

Each raster has its footprint, or the searched part of it; rotated rasters too. Rasters that only touch, or
overlap by less than a pixel, don't count as overlapping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from ecodetect.errors import GridError
from ecodetect.grid import Grid, transformed
from ecodetect.notes import Note
from ecodetect.region import Region

# Equal-area: parallels and meridians stay straight, so touching rasters in degrees still touch.
_EQUAL_AREA = CRS.from_proj4("+proj=cea +datum=WGS84 +units=m +over")
_BETWEEN = 8  # points along an edge that becomes a curve
_MOST = 64  # rasters that one is compared with
_SAME = 1e-9  # of the ground: rounding


@dataclass(frozen=True, eq=False, slots=True)
class Footprint:
    """The searched part of a raster.

    name : of the raster.
    grid : its own, with a CRS.
    area : the searched part; None: all of it.
    """

    name: str
    grid: Grid
    area: Region | None = None

    def shape(self, crs: CRS, *, inset_px: float = 0.0) -> shapely.Geometry:
        """In coordinates of `crs`; empty where it has no place there.  inset_px : margin that is cut off."""
        width, height = self.grid.width, self.grid.height
        edge = min(inset_px, width / 4, height / 4)
        outline = shapely.box(edge, edge, width - edge, height - edge)
        if self.area is not None:
            searched = self.area.moved_to(self.grid).shape
            outline = shapely.intersection(outline, shapely.buffer(searched, -edge) if edge else searched)
        own = self.grid.crs
        assert own is not None
        if own == crs:
            return shapely.transform(outline, self.grid.to_world)
        outline = shapely.segmentize(outline, max(width, height) / _BETWEEN)
        try:
            moved = shapely.transform(
                outline, lambda xy: transformed(self.grid.to_world(xy), own, crs) if len(xy) else xy
            )
        except GridError:
            return shapely.Polygon()
        if not np.isfinite(shapely.get_coordinates(moved)).all():
            return shapely.Polygon()
        return shapely.make_valid(moved)


def overlapping(footprints: Sequence[Footprint]) -> NDArray[np.int64]:
    """Pairs of rasters that show the same ground, the lower number first, sorted: (P, 2).

    footprints : of the rasters of one layer; rasters without a CRS, or without a place on the ground, are
        left out.
    """
    placed = [number for number, each in enumerate(footprints) if _has_place(each.grid)]
    if len(placed) < 2:
        return np.empty((0, 2), np.int64)
    crs, _ = _plane([footprints[number] for number in placed])
    inside = np.array([footprints[number].shape(crs, inset_px=0.5) for number in placed], dtype=object)
    # The sum of all minus their union first: mostly there are none.
    if not _twice(inside) > _SAME * float(shapely.area(inside).sum()):
        return np.empty((0, 2), np.int64)
    one, two = shapely.STRtree(inside).query(inside, predicate="intersects")
    one, two = one[one < two], two[one < two]
    share = shapely.area(shapely.intersection(inside[one], inside[two])) > 0
    pairs: NDArray[np.int64] = np.array(placed, np.int64)[np.stack([one[share], two[share]], axis=1)]
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def overlap_note(footprints: Sequence[Footprint]) -> Note | None:
    """What is said of ground that several rasters of a layer show; None where there is none."""
    pairs = overlapping(footprints)
    if not len(pairs):
        return None
    placed = [each for each in footprints if _has_place(each.grid)]
    crs, factor = _plane(placed)
    whole = np.array([each.shape(crs) for each in placed], dtype=object)
    hectares = factor / 10_000
    one, two = pairs[0].tolist()
    return Note(
        "rasters-overlap",
        f"it overlaps {footprints[two].name}: {_said(_twice(whole) * hectares)} ha of ground are shown again"
        f" ({_said(_in_several(whole) * hectares)} of {_said(float(shapely.area(whole).sum()) * hectares)} ha"
        f" lie in several of these {len(placed)} rasters). Each individual there counts once, in the raster"
        " whose centre is nearest; write one file each to count for each, or state how well the rasters fit.",
        about=footprints[one].name,
        kind="choice",
        parameter="alignment",
    )


def _has_place(grid: Grid) -> bool:
    return grid.crs is not None and grid.gsd is not None


def _plane(placed: Sequence[Footprint]) -> tuple[CRS, float]:
    """The CRS that footprints are compared in, and square metres of ground per square unit."""
    first = placed[0].grid
    crs = first.crs
    assert crs is not None
    is_one = all(each.grid.crs == crs for each in placed)
    if not is_one or crs.is_geographic or _is_mercator(crs):
        return _EQUAL_AREA, 1.0
    a, b, _, d, e, _ = first.transform
    middle = [(first.width / 2, first.height / 2)]
    ground = abs(float(np.linalg.det(first.metres_per_pixel(middle))[0]))
    return crs, ground / abs(a * e - b * d)


def _is_mercator(crs: CRS) -> bool:
    """Whether areas grow towards the poles."""
    operation = crs.coordinate_operation
    method = "" if operation is None else str(operation.method_name).lower()
    return "mercator" in method and "transverse" not in method and "oblique" not in method


def _twice(shapes: NDArray[np.object_]) -> float:
    """The area that counts too often: the sum of all areas minus that of their union."""
    return float(shapely.area(shapes).sum() - shapely.area(shapely.union_all(shapes)))


def _in_several(shapes: NDArray[np.object_]) -> float:
    """The total area of each that others share.

    Where many lie in one place, only `_MOST` others are compared, which cover the same ground as all.
    """
    tree = shapely.STRtree(shapes)
    shared = 0.0
    for number, shape in enumerate(shapes):
        others = tree.query(shape)
        others = others[others != number][:_MOST]
        if len(others):
            shared += float(shapely.area(shapely.intersection(shape, shapely.union_all(shapes[others]))))
    return shared


def _said(hectares: float) -> str:
    return f"{hectares:,.0f}" if hectares >= 1000 else f"{hectares:.3g}"
