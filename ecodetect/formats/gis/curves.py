"""Curved geometries made straight: WKB and WKT with arcs and surfaces, as GIS and CAD programs write them.

GEOS knows neither arcs nor surfaces of facets. QGIS draws a circle as a CurvePolygon; geodatabases, GML and
PostGIS have compound curves, multi-surfaces and, from three dimensions, polyhedral surfaces and TINs. Here an
arc becomes chords of at most two degrees, which takes 0.02 % off a circle's area. Heights are dropped.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import shapely

from ecodetect.formats.tangled import is_tangled
from ecodetect.grid import Floats

_STEP = math.radians(2.0)  # of a chord
_DEEPEST = 32  # geometries in geometries
_NAMES = {
    "POINT": 1, "LINESTRING": 2, "POLYGON": 3, "MULTIPOINT": 4, "MULTILINESTRING": 5, "MULTIPOLYGON": 6,
    "GEOMETRYCOLLECTION": 7, "CIRCULARSTRING": 8, "COMPOUNDCURVE": 9, "CURVEPOLYGON": 10, "MULTICURVE": 11,
    "MULTISURFACE": 12, "CURVE": 13, "SURFACE": 14, "POLYHEDRALSURFACE": 15, "TIN": 16, "TRIANGLE": 17,
}  # fmt: skip
_POINT, _LINE, _POLYGON, _POINTS, _ARCS, _COMPOUND, _CURVED = 1, 2, 3, 4, 8, 9, 10
_FACETS, _TIN, _TRIANGLE = 15, 16, 17
_OF_POSITIONS = (_LINE, _ARCS)
_OF_RINGS = (_POLYGON, _TRIANGLE)


def is_curved(wkb: bytes) -> bool:
    """Whether WKB is of a kind that GEOS doesn't know, by its outermost type."""
    if len(wkb) < 5 or wkb[0] not in (0, 1):
        return False
    code = int.from_bytes(wkb[1:5], "little" if wkb[0] else "big") & 0x0FFFFFFF
    # From 7 on: a collection may hold curves.
    return code % 1000 >= 7


def from_wkb(wkb: bytes) -> Any:
    """The geometry in WKB (ISO or EWKB) with arcs made straight; ValueError where it can't be read."""
    try:
        return _finished(_Wkb(wkb).geometry(0)[1])
    except (struct.error, IndexError, OverflowError, shapely.errors.GEOSException) as error:
        raise ValueError("damaged WKB") from error


def from_wkt(text: str) -> Any:
    """The geometry in WKT with arcs made straight; ValueError where it can't be read."""
    try:
        return _Wkt(text).whole()
    except (IndexError, KeyError, OverflowError, shapely.errors.GEOSException) as error:
        raise ValueError("damaged WKT") from error


# -- reading ------------------------------------------------------------------------------------------------


class _Wkb:
    """A reader that goes through the bytes once."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._order = data, 0, "<"

    def _number(self) -> int:
        (value,) = struct.unpack_from(self._order + "I", self._data, self._at)
        self._at += 4
        return int(value)

    def _positions(self, count: int, width: int) -> Floats:
        """`count` positions of `width` numbers each, of which the first two are kept."""
        if count * width * 8 > len(self._data) - self._at:
            raise ValueError("damaged WKB")
        flat = np.frombuffer(self._data, self._order + "f8", count * width, self._at)
        self._at += count * width * 8
        return flat.reshape(count, width)[:, :2].astype(np.float64)

    def geometry(self, depth: int) -> tuple[int, Any]:
        """Kind and geometry (of lines: positions) of what stands here."""
        if depth > _DEEPEST:
            raise ValueError("geometries nested too deep")
        self._order = "<" if self._data[self._at] else ">"
        self._at += 1
        code = self._number()
        flags, code = code >> 28, code & 0x0FFFFFFF  # EWKB's: 8 heights, 4 measures, 2 a CRS
        if flags & 2:
            self._number()
        extra = {0: 0, 1: 1, 2: 1, 3: 2}.get(code // 1000, 0) or bool(flags & 8) + bool(flags & 4)
        kind, width = code % 1000, 2 + extra
        if kind == _POINT:
            return kind, self._positions(1, width)
        count = self._number()
        if kind in _OF_POSITIONS:
            return kind, _line(kind, self._positions(count, width))
        if kind in _OF_RINGS:
            if count > len(self._data):
                raise ValueError("damaged WKB")
            return kind, _polygon([self._positions(self._number(), width) for _ in range(count)])
        if count > len(self._data):
            raise ValueError("damaged WKB")
        return kind, _made(kind, [self.geometry(depth + 1) for _ in range(count)])


class _Wkt:
    """A reader that goes through the words once."""

    def __init__(self, text: str) -> None:
        text = re.sub(r"(?i)^\s*SRID=\d+;", "", text)
        self._words: list[str] = re.findall(r"[A-Za-z]+|[-+]?[\d.]+(?:[eE][-+]?\d+)?|[(),]", text)
        self._at = 0

    def whole(self) -> Any:
        made = self._geometry(0, _LINE)[1]
        if self._at != len(self._words):
            raise ValueError("words after the geometry")
        return _finished(made)

    def _next(self) -> str:
        self._at += 1
        return self._words[self._at - 1]

    def _list(self, item: Callable[[], Any]) -> list[Any]:
        """What stands in brackets, between commas; empty for EMPTY."""
        word = self._next()
        if word.upper() == "EMPTY":
            return []
        if word != "(":
            raise ValueError(f"'{word}' instead of a bracket")
        found = [item()]
        while (word := self._next()) == ",":
            found.append(item())
        if word != ")":
            raise ValueError(f"'{word}' instead of a bracket")
        return found

    def _position(self) -> tuple[float, float]:
        numbers = []
        while self._words[self._at] not in ("(", ")", ","):
            numbers.append(float(self._next()))
        return numbers[0], numbers[1]

    def _line(self) -> Floats:
        return np.array(self._list(self._position), np.float64).reshape(-1, 2)

    def _geometry(self, depth: int, unnamed: int) -> tuple[int, Any]:
        """Kind and geometry of what stands here.  unnamed : the kind of a bracket without a name."""
        if depth > _DEEPEST:
            raise ValueError("geometries nested too deep")
        kind = unnamed
        if self._words[self._at] not in ("(", "EMPTY"):
            kind = _NAMES[re.sub(r"(?<=[A-Y])(ZM|Z|M)$", "", self._next().upper())]
            if self._words[self._at].upper() in ("Z", "M", "ZM"):
                self._next()
        if kind == _POINT:
            return kind, self._line()
        if kind in _OF_POSITIONS:
            return kind, _line(kind, self._line())
        if kind in _OF_RINGS:
            return kind, _polygon(self._list(self._line))
        if kind == _POINTS and self._words[self._at] == "(" and self._words[self._at + 1] != "(":
            return kind, shapely.MultiPoint(self._line())
        inner = {_POINTS: _POINT, 6: _POLYGON, 12: _POLYGON, _FACETS: _POLYGON, _TIN: _TRIANGLE}
        return kind, _made(kind, self._list(lambda: self._geometry(depth + 1, inner.get(kind, _LINE))))


# -- making -------------------------------------------------------------------------------------------------


def _finished(made: Any) -> Any:
    """Positions as the line or the point that they are."""
    if not isinstance(made, np.ndarray):
        return made
    return shapely.Point(made[0]) if len(made) == 1 else shapely.LineString(made)


def _polygon(rings: list[Floats]) -> Any:
    rings = [ring for ring in rings if len(ring)]
    return shapely.Polygon(rings[0], rings[1:]) if rings else shapely.Polygon()


def _made(kind: int, parts: list[tuple[int, Any]]) -> Any:
    """A geometry of parts, each with its kind."""
    if kind == _COMPOUND:
        return _joined([xy for _, xy in parts])
    if kind == _CURVED:
        return _polygon([xy for _, xy in parts])
    if kind in (_FACETS, _TIN):  # a body or a ground: seen from above it is one area
        if any(is_tangled(facet) for _, facet in parts):
            raise ValueError("a facet that crosses itself too often")
        flat = [shapely.make_valid(facet) for _, facet in parts]
        return shapely.union_all([facet for facet in flat if facet.area > 0])
    shapes = [_finished(made) for _, made in parts]
    if kind == _POINTS:
        return shapely.MultiPoint(shapes)
    if kind in (6, 12):
        polygons = [polygon for shape in shapes for polygon in shapely.get_parts(shape)]
        return shapely.MultiPolygon(polygons)
    if kind in (5, 7, 11):
        return shapely.GeometryCollection(shapes)
    raise ValueError(f"a geometry of kind {kind}")


def _line(kind: int, xy: Floats) -> Floats:
    """Positions of a line; of a string of arcs, each from every second position to the next but one."""
    if kind == _LINE or len(xy) < 3:
        return xy
    return _joined([_arc(*xy[first : first + 3]) for first in range(0, len(xy) - 2, 2)])


def _joined(pieces: list[Floats]) -> Floats:
    """Lines one after another, each beginning where the one before ends."""
    pieces = [piece for piece in pieces if len(piece)]
    if not pieces:
        return np.empty((0, 2))
    return np.vstack([*(piece[:-1] for piece in pieces[:-1]), pieces[-1]])


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # damaged files have the oddest numbers
def _arc(start: Floats, middle: Floats, end: Floats) -> Floats:
    """Positions along the arc through three, the first and the last exactly; (N, 2).

    Equal ends are a whole circle, whose `middle` lies opposite; three in a line stay a line.
    """
    if np.array_equal(start, end):
        centre = (start + middle) / 2
        turn = 2 * math.pi
    else:
        # Relative to the start: coordinates of a map are large beside an arc.
        (bx, by), (cx, cy) = middle - start, end - start
        double = 2 * (bx * cy - by * cx)
        if not abs(double) > 1e-12 * max(bx * bx + by * by, cx * cx + cy * cy):
            return np.stack([start, middle, end])
        b2, c2 = bx * bx + by * by, cx * cx + cy * cy
        centre = start + np.array([cy * b2 - by * c2, bx * c2 - cx * b2]) / double
        turn = (_angle(end - centre) - _angle(start - centre)) % (2 * math.pi)
        if double < 0:  # clockwise
            turn -= 2 * math.pi
    radius = float(np.hypot(*(start - centre)))
    if not math.isfinite(radius + turn) or radius == 0:
        return np.stack([start, middle, end])
    count = max(2, math.ceil(abs(turn) / _STEP))
    angles = _angle(start - centre) + turn * np.arange(count + 1) / count
    xy = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    xy[0], xy[-1] = start, end
    return np.asarray(xy, np.float64)


def _angle(xy: Floats) -> float:
    return math.atan2(float(xy[1]), float(xy[0]))
