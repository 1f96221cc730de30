"""Where pixels lie: Window and Grid, and the only step between pixel and map coordinates.

Pixel coordinates are continuous, x right, y down, float64; (0, 0) is the outer corner of the first pixel
and its centre is (0.5, 0.5). World coordinates are those of the grid's affine transform, in its CRS when it
has one. Nothing here reads files; `raster` makes grids, everything else passes them on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from ecodetect.errors import GridError

Floats = NDArray[np.float64]
Affine6 = tuple[float, float, float, float, float, float]
IDENTITY: Affine6 = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
WGS84 = CRS.from_epsg(4326)


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rectangle of whole pixels, half-open: x ≤ column < x + width, y ≤ row < y + height."""

    x: int
    y: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 0 or self.height < 0:
            raise GridError(f"A window can't be {self.width} x {self.height} px; sizes start at 0.")

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def bottom(self) -> int:
        return self.y + self.height

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    def grown(self, margin: int) -> Window:
        """This window with `margin` more pixels on each side (it may leave the raster)."""
        return Window(self.x - margin, self.y - margin, self.width + 2 * margin, self.height + 2 * margin)

    def shifted(self, dx: int, dy: int) -> Window:
        return Window(self.x + dx, self.y + dy, self.width, self.height)

    def clipped(self, other: Window) -> Window:
        """The part of this window inside `other`; of size 0 when they don't meet."""
        x0, y0 = max(self.x, other.x), max(self.y, other.y)
        x1, y1 = min(self.right, other.right), min(self.bottom, other.bottom)
        return Window(x0, y0, max(0, x1 - x0), max(0, y1 - y0))

    def owns(self, xy: Floats) -> NDArray[np.bool_]:
        """Which points lie inside, half-open.

        xy : float64, shape (N, 2), pixels of the grid that the window is cut from.
        Returns bool, shape (N,); N = 0 gives an empty array.
        """
        x, y = xy[:, 0], xy[:, 1]
        inside: NDArray[np.bool_] = (x >= self.x) & (x < self.right) & (y >= self.y) & (y < self.bottom)
        return inside


@dataclass(frozen=True, slots=True)
class Grid:
    """Shape, affine transform and CRS: the place of an array of pixels.

    width, height : pixels.
    transform : (a, b, c, d, e, f) with X = a·x + b·y + c and Y = d·x + e·y + f, as in `affine.Affine`.
    crs : horizontal CRS in x, y order (easting/northing, lon/lat), or None.
    stated_gsd : metres per pixel as the user states them, where the raster doesn't say; None otherwise.
    orientation : of a whole photograph, how viewers turn it (EXIF, 1 to 8; 1: as stored). Its pixels stay as
        they are stored, and grids that differ in this alone are equal; annotations made on what is shown go
        by it.
    """

    width: int
    height: int
    transform: Affine6 = IDENTITY
    crs: CRS | None = None
    stated_gsd: tuple[float, float] | None = None
    orientation: int = field(default=1, compare=False, repr=False)
    _gsd: list[tuple[float, float] | None] = field(default_factory=list, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise GridError(f"A grid of {self.width} x {self.height} px has no pixels.")
        a, b, _, d, e, _ = self.transform
        det = a * e - b * d
        if not all(map(math.isfinite, self.transform)) or det == 0:
            raise GridError(f"The transform {self.transform} can't be inverted, so pixels have no place.")
        if self.crs is not None:
            object.__setattr__(self, "crs", horizontal(self.crs))

    # -- frame ---------------------------------------------------------------------------------------------

    @property
    def frame(self) -> Literal["crs", "affine", "pixel"]:
        """What world coordinates are: those of a CRS, of a transform without CRS, or pixels."""
        if self.crs is not None:
            return "crs"
        return "pixel" if self.transform == IDENTITY else "affine"

    @property
    def window(self) -> Window:
        """The whole grid as a window."""
        return Window(0, 0, self.width, self.height)

    def crop(self, window: Window) -> Grid:
        """The grid of a window, which may lie partly or wholly outside."""
        a, b, c, d, e, f = self.transform
        x, y = window.x, window.y
        moved = (a, b, a * x + b * y + c, d, e, d * x + e * y + f)
        return Grid(window.width, window.height, moved, self.crs, self.stated_gsd)

    def resampled(self, gsd_m: float) -> Grid:
        """The same ground at `gsd_m` metres per pixel: outer corner fixed, size rounded up.

        Raises GridError when the size of this grid's pixels is unknown.
        """
        gsd = self.gsd
        if gsd is None:
            raise GridError("The ground size of a pixel is unknown (no CRS); state it.", parameter="gsd")
        fx, fy = gsd_m / gsd[0], gsd_m / gsd[1]
        if abs(fx - 1) < 1e-6 and abs(fy - 1) < 1e-6:
            return self
        a, b, c, d, e, f = self.transform
        # A pixel of float noise must not add a row: 1e-6 of a pixel is the contract's own precision.
        width = max(1, math.ceil(self.width / fx - 1e-6))
        height = max(1, math.ceil(self.height / fy - 1e-6))
        stated = (gsd_m, gsd_m) if self.stated_gsd else None
        return Grid(width, height, (a * fx, b * fy, c, d * fx, e * fy, f), self.crs, stated)

    def reduced(self, factor: float) -> Grid:
        """The same ground with `factor` times fewer pixels along each side (more below 1): for rasters of
        any GSD.

        Outer corner fixed, size rounded up, as in `resampled`.
        """
        if factor == 1:
            return self
        a, b, c, d, e, f = self.transform
        width = max(1, math.ceil(self.width / factor - 1e-6))
        height = max(1, math.ceil(self.height / factor - 1e-6))
        stated = (self.stated_gsd[0] * factor, self.stated_gsd[1] * factor) if self.stated_gsd else None
        return Grid(width, height, (a * factor, b * factor, c, d * factor, e * factor, f), self.crs, stated)

    def with_gsd(self, gsd_m: float, height_m: float | None = None) -> Grid:
        """This grid with a stated size of its pixels on the ground, in metres; square unless stated."""
        return replace(self, stated_gsd=(gsd_m, height_m or gsd_m), _gsd=[])

    # -- pixels and world ----------------------------------------------------------------------------------

    def to_world(self, xy: ArrayLike) -> Floats:
        """World coordinates of pixel positions.  xy : (N, 2) pixels.  Returns float64 (N, 2)."""
        p = np.asarray(xy, dtype=np.float64)
        a, b, c, d, e, f = self.transform
        return np.stack([a * p[:, 0] + b * p[:, 1] + c, d * p[:, 0] + e * p[:, 1] + f], axis=1)

    def to_pixel(self, xy_world: ArrayLike) -> Floats:
        """Pixel positions of world coordinates (the inverse of `to_world`).  (N, 2) -> float64 (N, 2)."""
        p = np.asarray(xy_world, dtype=np.float64)
        a, b, c, d, e, f = self.transform
        det = a * e - b * d
        dx, dy = p[:, 0] - c, p[:, 1] - f
        return np.stack([(e * dx - b * dy) / det, (a * dy - d * dx) / det], axis=1)

    def pixels_from(self, other: Grid) -> Affine6:
        """The affine step from pixels of `other` to pixels of this grid, both on the same ground.

        Raises GridError when they don't share a CRS.
        """
        if self.crs != other.crs:
            raise GridError(f"Grids differ: {describe_crs(self.crs)} and {describe_crs(other.crs)}.")
        if self.transform == other.transform:
            return IDENTITY
        origin, right, down = self.to_pixel(other.to_world([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]))
        (ax, ay), (dx, dy) = right - origin, down - origin
        return (float(ax), float(dx), float(origin[0]), float(ay), float(dy), float(origin[1]))

    # -- the ground ----------------------------------------------------------------------------------------

    @property
    def has_lonlat(self) -> bool:
        """Whether positions can be given as WGS 84 longitude and latitude."""
        return self.crs is not None and _to_lonlat(self.crs) is not None

    def to_lonlat(self, xy: ArrayLike) -> Floats:
        """WGS 84 longitude and latitude in degrees of pixel positions: lon in [-180, 180], lat in [-90, 90].

        xy : (N, 2) pixels.  Returns float64 (N, 2); rows without a place on the Earth are NaN.
        Raises GridError when the CRS has no way to WGS 84.
        """
        return lonlat_of(self.to_world(xy), self.crs)

    @property
    def gsd(self) -> tuple[float, float] | None:
        """Metres on the ground per pixel along x and y, at the grid's centre; None when unknown.

        Measured on the CRS's own ellipsoid, so that lat/lon and Web Mercator are right too.
        """
        if self.stated_gsd is not None:
            return self.stated_gsd
        if not self._gsd:
            self._gsd.append(self._measured_gsd())
        return self._gsd[0]

    @property
    def gsd_mean(self) -> float | None:
        """Side in metres of a square as large as a pixel; None when unknown."""
        return None if self.gsd is None else math.sqrt(self.gsd[0] * self.gsd[1])

    def _measured_gsd(self) -> tuple[float, float] | None:
        if self.crs is None:
            return None
        # A raster like a full-disk satellite image has corners off the Earth; its centre is on it.
        jacobian = self.metres_per_pixel([(self.width / 2, self.height / 2)])[0]
        gx, gy = np.hypot(jacobian[0, 0], jacobian[1, 0]), np.hypot(jacobian[0, 1], jacobian[1, 1])
        return (float(gx), float(gy)) if np.isfinite(gx) and np.isfinite(gy) and gx > 0 and gy > 0 else None

    def metres_per_pixel(self, xy: ArrayLike) -> Floats:
        """How a step of one pixel moves on the ground, at each position.

        xy : (N, 2) pixels.  Returns float64 (N, 2, 2): J with (metres east, metres north) = J @ (dx, dy); NaN
        where the ground is unknown. |det J| is the ground area of a pixel in m².
        """
        p = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
        if self.stated_gsd is not None:
            gx, gy = self.stated_gsd
            return np.broadcast_to(np.array([[gx, 0.0], [0.0, -gy]]), (len(p), 2, 2)).copy()
        if self.crs is None:
            return np.full((len(p), 2, 2), np.nan)
        a, b, _, d, e, _ = self.transform
        linear = np.array([[a, b], [d, e]])
        geodetic = _to_own_geodetic(self.crs)
        if geodetic is None:  # an engineering CRS: a plane with a unit
            return np.broadcast_to(linear * _unit_m(self.crs), (len(p), 2, 2)).copy()
        half = 0.5 * np.array([(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)])
        around = (p + half[:, None]).reshape(-1, 2)  # all positions at once: a call costs more than a point
        lonlat = _transformed(geodetic, self.to_world(around)).reshape(4, len(p), 2)
        lat = np.radians((lonlat[0][:, 1] + lonlat[1][:, 1] + lonlat[2][:, 1] + lonlat[3][:, 1]) / 4)
        ellipsoid = self.crs.ellipsoid
        assert ellipsoid is not None
        major, minor = ellipsoid.semi_major_metre, ellipsoid.semi_minor_metre
        ecc2 = 1 - (minor / major) ** 2
        root = np.sqrt(1 - ecc2 * np.sin(lat) ** 2)
        meridian, normal = (
            major * (1 - ecc2) / root**3,
            major / root,
        )  # radii of curvature (Snyder 1987, p. 24)
        out = np.empty((len(p), 2, 2))
        for column, (plus, minus) in enumerate(((lonlat[0], lonlat[1]), (lonlat[2], lonlat[3]))):
            step = np.radians(plus - minus)
            dlon = (step[:, 0] + np.pi) % (2 * np.pi) - np.pi
            out[:, 0, column] = dlon * normal * np.cos(lat)
            out[:, 1, column] = step[:, 1] * meridian
        return out

    def assert_same(self, other: Grid) -> None:
        """Raise GridError, showing both sides, unless the grids are equal."""
        if self != other:
            raise GridError(f"Grids differ: {self.describe()} and {other.describe()}; resample one first.")

    def describe(self) -> str:
        """Size, pixel size and CRS in words."""
        a, b, _, d, e, _ = self.transform
        size = f"{math.hypot(a, d):.6g} x {math.hypot(b, e):.6g}"
        return f"{self.width} x {self.height} px of {size}, {describe_crs(self.crs)}"


def horizontal(crs: CRS) -> CRS:
    """The horizontal part of a CRS: heights are ignored."""
    while crs.is_compound:
        crs = crs.sub_crs_list[0]
    if crs.is_geographic and len(crs.axis_info) == 3:
        crs = crs.to_2d()
    return crs


def describe_crs(crs: CRS | None) -> str:
    """Name and code of a CRS for people."""
    if crs is None:
        return "no CRS"
    authority = authority_of(crs)
    return f"{crs.name} ({authority})" if authority else str(crs.name)


@lru_cache(maxsize=64)
def authority_of(crs: CRS) -> str | None:
    """Registered name of a CRS, such as EPSG:32630; None where it has none."""
    found = registered(crs, 100)
    return ":".join(found) if found else None


def registered(crs: CRS, confidence: int, authority: str | None = None) -> tuple[str, str] | None:
    """Authority and code of a CRS that is registered; None where there is none that is surely the same.

    confidence : of PROJ, in percent.  authority : only this one.
    """

    def found(one: CRS) -> tuple[str, str] | None:
        known: tuple[str, str] | None = one.to_authority(auth_name=authority, min_confidence=confidence)
        return known

    # One with a transformation of its own (TOWGS84), on a datum that nobody knows, would be compared with all
    # there are, for 14 s.
    if crs.is_bound and crs.source_crs is not None and found(crs.source_crs) is None:
        return None
    return found(crs)


# Beyond these a latitude or longitude isn't the overhang of a global grid but a mistake.
_POLE_DEG, _TURNS_DEG = 100.0, 720.0


def lonlat_of(xy_world: Floats, crs: CRS | None) -> Floats:
    """WGS 84 longitude, latitude in degrees of positions in `crs`; see `Grid.to_lonlat`."""
    transformer = None if crs is None else _to_lonlat(crs)
    if transformer is None:
        raise GridError(f"{describe_crs(crs)} has no longitude and latitude on the Earth.")
    lonlat = _transformed(transformer, xy_world)
    lon, lat = lonlat[:, 0], lonlat[:, 1]
    if ((lon >= -180) & (lon <= 180) & (lat >= -90) & (lat <= 90)).all():
        return lonlat
    wrapped = np.where((lon < -180) | (lon > 180), (lon + 180) % 360 - 180, lon)
    # Global grids reach half a pixel beyond the poles; the place meant is the pole.
    placed = np.stack([wrapped, np.clip(lat, -90.0, 90.0)], axis=1)
    placed[(np.abs(lat) > _POLE_DEG) | (np.abs(lon) > _TURNS_DEG)] = np.nan
    return placed


def transformed(xy: Floats, source: CRS, target: CRS) -> Floats:
    """Positions in another CRS, (N, 2) -> (N, 2), x before y; NaN where there is no answer.

    Raises GridError when no transformation is known.
    """
    transformer = _between(horizontal(source), horizontal(target))
    if transformer is None:
        raise GridError(f"There is no transformation from {describe_crs(source)} to {describe_crs(target)}.")
    return _transformed(transformer, xy)


def _transformed(transformer: Transformer, xy: Floats) -> Floats:
    x, y = transformer.transform(xy[:, 0], xy[:, 1])
    out = np.stack([np.asarray(x, np.float64), np.asarray(y, np.float64)], axis=1)
    out[~(np.isfinite(x) & np.isfinite(y))] = np.nan
    return out


@lru_cache(maxsize=64)
def _between(source: CRS, target: CRS) -> Transformer | None:
    try:
        # Grids of the datum shift may be absent offline; PROJ then takes the best shift it has.
        return Transformer.from_crs(source, target, always_xy=True)
    except ProjError:
        return None


def _to_lonlat(crs: CRS) -> Transformer | None:
    return _between(crs, WGS84)


@lru_cache(maxsize=64)
def _to_own_geodetic(crs: CRS) -> Transformer | None:
    geodetic = crs.geodetic_crs
    return None if geodetic is None or crs.ellipsoid is None else _between(crs, horizontal(geodetic))


def _unit_m(crs: CRS) -> float:
    axis = crs.axis_info
    return float(axis[0].unit_conversion_factor) if axis else 1.0
