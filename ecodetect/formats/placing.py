"""Where the coordinates of a file lie: in its CRS, in the raster's, in pixels, or nowhere known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from ecodetect.errors import GridError, LayerError
from ecodetect.formats.collecting import exchanged_note
from ecodetect.formats.metadata import PIXEL_UP
from ecodetect.formats.usable import usable
from ecodetect.grid import WGS84, Floats, Grid, describe_crs, horizontal, registered, transformed
from ecodetect.layer import Geometries, Layer, Stream
from ecodetect.notes import Note


def frame_of(stream: Stream, batch: Layer | None) -> str:
    """What the coordinates of a stream are: `crs`, `affine` or `pixel`, as in `Grid.frame`.

    batch : its first batch, which says it where the stream leaves that to its batches. Features of an unknown
    plane count as `affine`.
    """
    if stream.frame_crs is not None:
        return "crs"
    grid = stream.grid or (None if batch is None else batch.grid)
    if grid is not None:
        return grid.frame
    return "affine" if batch is not None and batch.crs is None else "crs"


def upended(geometry: Geometries) -> Geometries:
    """Pixels with y downwards as pixels with y upwards, and back: as a GIS lays a raster without a place."""
    turned: Geometries = shapely.transform(geometry, lambda xy: xy * (1.0, -1.0))
    return turned


@dataclass(frozen=True, slots=True)
class StatedFrame:
    """What a file says about its coordinates.

    crs : what the file says, or what its format lays down (`is_assumed`); None where it says nothing.
    frame : what a file of ours says where there is no CRS: `pixel_up`, `pixel` or `affine`.
    """

    crs: CRS | None
    frame: str | None = None
    is_assumed: bool = False


def placed(
    geometry: Geometries,
    columns: Mapping[str, NDArray[Any]],
    states: StatedFrame,
    *,
    name: str,
    grid: Grid | None,
    notes: Sequence[Note] = (),
    metadata: Mapping[str, Any] | None = None,
) -> Layer:
    """The usable features of a file as a Layer, in the frame that its coordinates are in.

    name : of the file, for messages.
    grid : of the raster that the features belong to. Decides where the file says nothing, or what can't be.
    Raises LayerError for an assumed CRS that the coordinates contradict and that the raster doesn't resolve.
    """
    crs, is_assumed = states.crs, states.is_assumed
    is_upwards = states.frame == PIXEL_UP
    frame = "pixel" if is_upwards else states.frame
    is_planar = frame in ("pixel", "affine")
    stated = None if is_planar else crs
    in_degrees = stated is not None and stated.is_geographic
    shapes, rows, are_parts, remarks = usable(geometry, in_degrees=in_degrees)
    said = [*notes, *(remark.of(name) for remark in remarks)]
    if is_upwards:
        shapes = upended(shapes)
    elif not is_planar and grid is not None and _is_drawn_on(_centres(shapes), stated, grid):
        shapes, is_planar, frame = upended(shapes), True, "pixel"
        text = "its y are negative, as a GIS draws on a raster without a place; they were taken for pixels."
        said.append(Note("y-upwards", text, about=name, kind="choice"))
    pixels_of = grid if frame == "pixel" else None
    found: CRS | None = None
    if (
        not is_planar
        and stated is not None
        and grid is not None
        and _are_exchanged(_centres(shapes), stated, grid)
    ):
        shapes = shapely.transform(shapes, lambda xy: xy[:, ::-1])
        said.append(exchanged_note(name, in_degrees=in_degrees))
    if not is_planar:
        found, note = _resolved(_centres(shapes), name, stated, grid, is_assumed=is_assumed)
        if note:
            said.append(note.of(name))
    facts = dict(metadata or {})
    if found is not None and found.is_geographic and grid is not None:
        shapes = _on_the_same_turn(shapes, grid)
    kept = {column: values[rows] for column, values in columns.items()}
    if frame == "pixel" and grid is None:  # as other readers say it of pixels of an image that isn't known
        facts["frame"] = "pixel"
    # What we have written ourselves is one individual in pieces.
    separate = None if metadata else are_parts
    return Layer(shapes, kept, pixels_of, found, tuple(said), facts, separate)


def _resolved(
    centres: Floats, name: str, crs: CRS | None, grid: Grid | None, *, is_assumed: bool
) -> tuple[CRS | None, Note | None]:
    """The CRS of the coordinates and, where it was guessed or is missing, a note about it.

    centres : (N, 2), of the features, as the file has them. The others as in `placed`.
    """
    if crs is not None and (not is_assumed or _is_lonlat(centres)):
        if is_assumed and grid is not None and grid.crs is None and len(centres) and _fits(centres, grid):
            text = "it has no CRS, like the raster, whose coordinates its own were taken for."
            return None, Note("layer-crs-guessed", text, kind="choice")
        return _known(crs, grid), None
    if grid is None and is_assumed:
        raise LayerError(f"{name} {_contradiction(centres)}; give its CRS, or the raster it belongs to.")
    if not len(centres) or (grid is not None and grid.crs is None and not is_assumed):
        return None if grid is None else grid.crs, None
    if grid is None:
        return None, Note("layer-without-crs", "it has no CRS.")
    if _fits(centres, grid):
        where = describe_crs(grid.crs)
        text = f"it has no CRS; its coordinates lie in the raster, whose CRS was taken: {where}."
        return grid.crs, Note("layer-crs-guessed", text, kind="choice")
    if is_assumed:
        raise LayerError(f"{name} {_contradiction(centres)}, nor do they lie in the raster; give its CRS.")
    if grid.crs is not None and _is_lonlat(centres) and _fits(_moved(centres, WGS84, grid.crs), grid):
        text = "it has no CRS; its coordinates lie in the raster as longitude and latitude."
        return WGS84, Note("layer-crs-guessed", text, kind="choice")
    text = "it has no CRS, and its coordinates don't lie in the raster."
    return None, Note("layer-without-crs", text, kind="doubt")


def _are_exchanged(centres: Floats, crs: CRS, grid: Grid) -> bool:
    """Whether nothing lies in the raster as it stands, but at least half does with x and y exchanged."""
    if grid.crs is None or not len(centres):
        return False
    if _inside(centres, grid) or _inside(_moved(centres, crs, grid.crs), grid):
        return False
    return _fits(_moved(centres[:, ::-1], crs, grid.crs), grid)


def _contradiction(centres: Floats) -> str:
    x, y = centres[0]
    return f"has no CRS and its coordinates can't be longitude and latitude (the first is {x:.10g}, {y:.10g})"


def _centres(shapes: Geometries) -> Floats:
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    return np.asarray((bounds[:, :2] + bounds[:, 2:]) / 2, np.float64)


def _is_drawn_on(centres: Floats, crs: CRS | None, grid: Grid) -> bool:
    """Whether features were drawn in a GIS on a raster without a place, which lies below y = 0 there.

    Whatever CRS the layer was given then, it isn't that of the raster; but longitudes and latitudes that can
    be such stay what they say.
    """
    if grid.frame != "pixel" or not len(centres) or _fits(centres, grid):
        return False
    if crs is not None and crs.is_geographic and _is_lonlat(centres):
        return False
    return _fits(centres * (1.0, -1.0), grid)


def _is_lonlat(centres: Floats) -> bool:
    # Some tools write longitudes of 0 to 360°.
    return bool((np.abs(centres) <= (360, 90)).all())


def _fits(xy_world: Floats, grid: Grid) -> bool:
    """Whether at least half of the positions lie in the raster."""
    return _inside(xy_world, grid) * 2 >= len(xy_world)


def _inside(xy_world: Floats, grid: Grid) -> int:
    """How many of the positions lie in the raster."""
    x, y = grid.to_pixel(xy_world).T
    return int(np.count_nonzero((x >= 0) & (x <= grid.width) & (y >= 0) & (y <= grid.height)))


def _on_the_same_turn(shapes: Geometries, grid: Grid) -> Geometries:
    """Longitudes as a raster in degrees counts them that goes beyond 180°: -179.9° is 180.1° there."""
    if grid.crs is None or not grid.crs.is_geographic:
        return shapes
    corners = grid.to_world([(0, 0), (grid.width, 0), (0, grid.height), (grid.width, grid.height)])[:, 0]
    if corners.min() >= -180 and corners.max() <= 180:
        return shapes
    middle = (corners.min() + corners.max()) / 2
    moved: Geometries = shapely.transform(
        shapes, lambda xy: np.stack([xy[:, 0] + 360 * np.round((middle - xy[:, 0]) / 360), xy[:, 1]], axis=1)
    )
    return moved


def _moved(xy: Floats, source: CRS, target: CRS) -> Floats:
    try:
        return transformed(xy, source, target)
    except GridError:
        return np.full_like(xy, np.nan)


def _known(crs: CRS, grid: Grid | None) -> CRS:
    """The raster's own CRS, or EPSG's, where the file's is the same in other words (Esri WKT)."""
    flat = horizontal(crs)
    if grid is not None and grid.crs is not None and flat.equals(grid.crs, ignore_axis_order=True):
        return grid.crs
    code = registered(flat, 70, "EPSG")
    if code is None:
        return flat
    known = CRS.from_authority(*code)
    return grid.crs if grid is not None and grid.crs is not None and known == grid.crs else known
