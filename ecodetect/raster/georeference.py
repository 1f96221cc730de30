"""The Grid of a raster from what its file says of its place: transform, CRS, ground control points.

Nothing here reads files; `raster` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from pyproj import CRS
from pyproj.exceptions import CRSError

from ecodetect.errors import GridError
from ecodetect.grid import IDENTITY, Affine6, Floats, Grid, describe_crs
from ecodetect.notes import Note

# Control points further than this from the fitted plane, as a share of the shorter side, place nothing.
_LOOSE = 0.05
# Farther from the origin, in pixels, metres or feet, lies no place on a planet.
_FARTHEST = 1e12


def place(
    width: int,
    height: int,
    transform: Affine6,
    wkt: str | None,
    control: Sequence[tuple[float, float, float, float]] = (),
    control_wkt: str | None = None,
    *,
    has_rpc: bool = False,
) -> tuple[Grid, list[Note]]:
    """The Grid, and notes that don't name the raster.

    transform : the file's; `IDENTITY` where it has none.
    wkt, control_wkt : CRS of the transform and of the control points, as WKT, or None.
    control : (column, row, x, y) of each ground control point, pixels and coordinates of `control_wkt`.
    has_rpc : whether the file has rational polynomial coefficients, which we don't use.
    """
    notes: list[Note] = []
    if transform == IDENTITY and control:
        fitted = _fit(control)
        if fitted is None:
            text = f"its ground control points ({len(control)}) don't span a plane and are not used."
            notes.append(Note("control-points-unused", text, kind="doubt"))
        elif fitted[1] > _LOOSE * min(width, height):
            text = (
                f"its {len(control)} ground control points are not used: they lie {fitted[1]:.2g} px (rms) "
                "from a plane."
            )
            notes.append(Note("control-points-unused", text, kind="doubt"))
        else:
            transform, residual_px = fitted
            wkt = control_wkt
            text = (
                f"placed by a plane through its {len(control)} ground control points, which lie "
                f"{residual_px:.2g} px (rms) from it."
            )
            notes.append(Note("control-points", text, kind="choice"))
    crs, problem = _crs(wkt)
    if problem:
        notes.append(problem)
    if transform == IDENTITY:
        if crs is not None:
            crs = None
            notes.append(Note("no-transform", "it has a CRS but no transform: coordinates are pixels."))
        elif has_rpc:
            text = "it is placed only by RPCs, which are not used: coordinates are pixels."
            notes.append(Note("no-transform", text))
        else:
            notes.append(Note("no-transform", "it has no CRS and no transform: coordinates are pixels."))
    elif crs is None and not problem:
        notes.append(Note("no-crs", "it has no CRS: coordinates are those of its transform."))
    try:
        grid = Grid(width, height, transform, crs)
    except GridError:
        text = f"its transform {transform} can't be inverted: coordinates are pixels."
        notes.append(Note("transform-unusable", text, kind="doubt"))
        return Grid(width, height), notes
    if varying := _variation(grid):
        notes.append(varying)
    return grid, notes


@lru_cache(maxsize=64)  # the rasters of a folder share their CRS
def _crs(wkt: str | None) -> tuple[CRS | None, Note | None]:
    if not wkt:
        return None, None
    try:
        crs = CRS.from_wkt(wkt)
    except CRSError:
        text = "its CRS can't be understood: coordinates are those of its transform."
        return None, Note("crs-unusable", text, kind="doubt")
    if crs.is_geocentric:
        text = (
            f"its CRS, {describe_crs(crs)}, counts from the centre of the Earth, which places no picture: "
            "coordinates are those of its transform."
        )
        return None, Note("crs-unusable", text, kind="doubt")
    return crs, None


def _fit(control: Sequence[tuple[float, float, float, float]]) -> tuple[Affine6, float] | None:
    """The affine transform that fits control points best, and how far they lie from it in pixels (rms)."""
    points = np.asarray(control, np.float64)
    if not (np.abs(points) < _FARTHEST).all():  # NaN isn't either
        return None
    columns_rows, world = points[:, :2], points[:, 2:]
    middle = columns_rows.mean(axis=0)
    design = np.column_stack([columns_rows - middle, np.ones(len(points))])
    if np.linalg.matrix_rank(design) < 3:
        return None
    offset = world.mean(axis=0)  # keeps the digits of large eastings and northings
    solution: Floats = np.linalg.lstsq(design, world - offset, rcond=None)[0]  # (3, 2)
    linear = solution[:2].T
    if np.linalg.matrix_rank(linear) < 2:
        return None
    residuals = np.linalg.solve(linear, (world - offset - design @ solution).T)
    c, f = solution[2] + offset - linear @ middle
    (a, b), (d, e) = linear
    transform = (float(a), float(b), float(c), float(d), float(e), float(f))
    residual_px = float(np.sqrt((residuals**2).sum(axis=0).mean()))
    return (transform, residual_px) if np.isfinite([*transform, residual_px]).all() else None


def _variation(grid: Grid) -> Note | None:
    """A note when the size of a pixel on the ground varies by more than 5 % over the raster."""
    if grid.crs is None:
        return None
    w, h = grid.width, grid.height
    places = [(w / 2, h / 2), (0, 0), (w, 0), (0, h), (w, h), (w / 2, 0), (w / 2, h)]
    jacobian = grid.metres_per_pixel(places)
    sizes = np.hypot(jacobian[:, 0], jacobian[:, 1])  # (places, 2): along x, along y
    if not np.isfinite(sizes[0]).all() or (sizes[0] == 0).any():
        return None
    low, high = np.nanmin(sizes, axis=0), np.nanmax(sizes, axis=0)
    if (high <= 1.05 * low).all():
        return None
    along = int(np.argmax(high / np.maximum(low, 1e-12)))
    text = (
        f"the size of a pixel on the ground varies over it, from {low[along]:.3g} to {high[along]:.3g} m; "
        f"{sizes[0, along]:.3g} m, that of its centre, is used."
    )
    return Note("pixel-size-varies", text, kind="doubt")
