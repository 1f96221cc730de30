"""In which frame the coordinates of a table are: the values decide where the names of its columns don't.

`x, y` may be pixels, map coordinates, or longitude and latitude, and a table may have several such groups of
columns. What lies in the raster is meant; where that leaves a choice, pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ecodetect.errors import LayerError
from ecodetect.formats.collecting import Unusable
from ecodetect.formats.tables.table_columns import PlaceKind
from ecodetect.grid import WGS84, Floats, Grid, describe_crs, transformed

_MOST_PIXELS = 1_000_000  # along a side: ten times the largest mosaics, less than most northings
Frame = Literal["pixel", "share", "map", "lonlat"]  # share: of the image's width and height
Places = Mapping[PlaceKind, Sequence[Any]]  # of rows: numbers, a shape, None (blank), or why it isn't a place


@dataclass(frozen=True, slots=True)
class Option:
    """One reading of the table: these columns, in that frame.

    is_exchanged : x stands where y should, and y where x should.
    """

    kind: PlaceKind
    frame: Frame
    is_exchanged: bool = False


def chosen(places: Places, grid: Grid | None, path: Path) -> Option:
    """The reading by which most rows lie in the raster; of equally good ones the first.

    Where by none of them anything does, but half of the rows do with x and y (longitude and latitude) the
    other way round, that is taken. Raises LayerError where there is more than one reading and by none of them
    anything lies in the raster, and for latitudes beyond 90 degrees that no raster explains.
    """
    kinds = [kind for kind, found in places.items() if any(map(_is_usable, found))] or list(places)
    if grid is None:
        if "lonlat" in kinds and not {"shape", "box", "sized box"} & set(kinds):
            _check_latitudes(places["lonlat"], path)
            return Option("lonlat", "lonlat")
        if kinds[0] == "map":
            raise LayerError(
                f"{path.name} has map coordinates without a CRS; name the raster they lie in.",
                parameter="image",
            )
        usable = [_centre(place) for place in places[kinds[0]] if _is_usable(place)]
        if usable and np.abs(usable).max() > _MOST_PIXELS:
            raise LayerError(
                f"{path.name} has coordinates too large for pixels; name the raster they lie in.",
                parameter="image",
            )
        if _are_shares(kinds[0], places[kinds[0]]):
            raise LayerError(
                f"{path.name} has boxes in shares of the image's size; name the image.",
                parameter="image",
            )
        return Option(kinds[0], "pixel")
    options = [Option(kind, frame) for kind in kinds for frame in _frames(kind, grid)]
    if not options:
        raise LayerError(
            f"{path.name} has longitude and latitude, but the raster has no CRS to place them in."
        )
    counts = [_count_inside(places[option.kind], option.frame, grid) for option in options]
    if not any(counts):
        for option in options:
            if option.frame in ("map", "lonlat") and _fit_exchanged(places[option.kind], option.frame, grid):
                return replace(option, is_exchanged=True)
    if len(options) > 1 and not any(counts):
        usable = [place for place in places[kinds[0]] if _is_usable(place)]
        if usable:
            raise LayerError(_nowhere(path, np.array([_centre(place) for place in usable]), grid))
    best = options[counts.index(max(counts))]
    if best.frame == "pixel" and _are_shares(best.kind, places[best.kind]):
        return Option(best.kind, "share")
    return best


def _frames(kind: PlaceKind, grid: Grid) -> tuple[Frame, ...]:
    if kind == "lonlat":
        return ("lonlat",) if grid.has_lonlat else ()
    if kind == "map":
        return ("map",)
    found: list[Frame] = ["pixel"]
    if grid.frame != "pixel":
        found.append("map")
    if grid.has_lonlat and grid.crs is not None and not grid.crs.is_geographic:
        found.append("lonlat")
    return tuple(found)


def _are_shares(kind: PlaceKind, places: Sequence[Any]) -> bool:
    """Whether all boxes lie in the first pixel, where they can only be shares of the image's size."""
    usable = [place for place in places if _is_usable(place)] if kind in ("box", "sized box") else []
    return bool(usable) and all(min(place) >= 0 and max(place) <= 1 for place in usable)


def _is_usable(place: Any) -> bool:
    return place is not None and not isinstance(place, Unusable)


def _centre(place: Any) -> tuple[float, float]:
    if isinstance(place, tuple):
        return (place[0] + place[-2]) / 2, (place[1] + place[-1]) / 2  # a point is its own corner
    x0, y0, x1, y1 = place.bounds
    return (x0 + x1) / 2, (y0 + y1) / 2


def _check_latitudes(places: Sequence[Any], path: Path) -> None:
    usable = np.array([_centre(place) for place in places if _is_usable(place)]).reshape(-1, 2)
    if (np.abs(usable[:, 1]) > 90).any():
        said = " They seem to be exchanged with the longitudes." if (np.abs(usable[:, 0]) <= 90).all() else ""
        raise LayerError(
            f"{path.name} has latitudes of {usable[:, 1].min():.6g} to {usable[:, 1].max():.6g}, beyond 90"
            f" degrees; fix the columns.{said}"
        )


def _fit_exchanged(places: Sequence[Any], frame: Frame, grid: Grid) -> bool:
    """Whether at least half of the places lie in the raster with x for y."""
    usable = sum(map(_is_usable, places))
    return usable > 0 and 2 * _count_inside(places, frame, grid, is_exchanged=True) >= usable


def _count_inside(places: Sequence[Any], frame: Frame, grid: Grid, *, is_exchanged: bool = False) -> int:
    usable = [place for place in places if _is_usable(place)]
    if not usable:
        return 0
    centres = np.array([_centre(place) for place in usable])
    xy = to_pixels(frame, grid)(centres[:, ::-1] if is_exchanged else centres)
    inside = (xy[:, 0] >= 0) & (xy[:, 0] <= grid.width) & (xy[:, 1] >= 0) & (xy[:, 1] <= grid.height)
    return int(np.count_nonzero(inside))


def to_pixels(frame: Frame, grid: Grid) -> Callable[[Floats], Floats]:
    """From numbers in a frame, (N, 2), to pixels of the grid."""
    if frame == "pixel":
        return lambda xy: xy
    if frame == "share":
        return lambda xy: xy * (grid.width, grid.height)
    if frame == "map":
        return grid.to_pixel
    crs = grid.crs
    assert crs is not None
    return lambda xy: grid.to_pixel(transformed(xy, WGS84, crs))


def _nowhere(path: Path, xy: Floats, grid: Grid) -> str:
    low, high = xy.min(axis=0), xy.max(axis=0)
    corners = grid.to_world([(0, 0), (grid.width, 0), (0, grid.height), (grid.width, grid.height)])
    (left, bottom), (right, top) = corners.min(axis=0), corners.max(axis=0)
    ground = ""
    if grid.frame != "pixel":
        ground = f" and not on its ground (x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}"
        ground += f" in {describe_crs(grid.crs)})"
    return (
        f"{path.name} has places at x {low[0]:.10g} to {high[0]:.10g}, y {low[1]:.10g} to {high[1]:.10g}: not"
        f" in the raster's {grid.width} x {grid.height} pixels{ground}; is it the right raster?"
    )
