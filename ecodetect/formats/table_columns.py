"""Which columns of a table say what, by their names, and in which dialect it is written."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ecodetect.errors import LayerError
from ecodetect.formats.collecting import Unusable, number

# Names of columns, lower case, without blanks, units and signs (see `_plain`); the first one found is taken.
_IMAGE = (
    "imagepath", "source", "image", "imagename", "imagefile", "imagefilename", "filename", "file", "img",
    "imgpath", "imgname", "imageid", "path", "filepath", "raster",
)  # fmt: skip
_LABEL = ("label", "labelname", "class", "classname", "category", "categoryname")
_BOXES = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("minx", "miny", "maxx", "maxy"),
    ("left", "top", "right", "bottom"),
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
    ("xtl", "ytl", "xbr", "ybr"),
    ("bboxxmin", "bboxymin", "bboxxmax", "bboxymax"),
)
_SIZED_BOXES = (  # corner and size
    ("bboxx", "bboxy", "bboxwidth", "bboxheight"),
    ("bboxx", "bboxy", "bboxw", "bboxh"),
    ("left", "top", "width", "height"),
    ("xmin", "ymin", "width", "height"),
    ("xmin", "ymin", "w", "h"),
)
_POINTS = (
    ("x", "y"),
    ("px", "py"),
    ("xpx", "ypx"),
    ("xpixel", "ypixel"),
    ("pixelx", "pixely"),
    ("xcoord", "ycoord"),
    ("coordx", "coordy"),
    ("xcoordinate", "ycoordinate"),
    ("xcenter", "ycenter"),
    ("xcentre", "ycentre"),
    ("centerx", "centery"),
    ("cx", "cy"),
    ("centroidx", "centroidy"),
    ("pointx", "pointy"),
    ("column", "row"),
    ("col", "row"),
)
_MAP = (
    ("easting", "northing"),
    ("eastings", "northings"),
    ("east", "north"),
    ("utmeasting", "utmnorthing"),
    ("utme", "utmn"),
    ("utmx", "utmy"),
    ("xutm", "yutm"),
    ("mapx", "mapy"),
    ("xmap", "ymap"),
    ("rechtswert", "hochwert"),
    ("ostwert", "nordwert"),
    ("e", "n"),
)
_LON = (
    "lon", "long", "lng", "longitude", "decimallongitude", "locationlong", "locationlon", "gpslongitude",
    "gpslon", "gpslong", "londd", "longdd", "laengengrad", "längengrad",
)  # fmt: skip
_LAT = (
    "lat", "latitude", "decimallatitude", "locationlat", "gpslatitude", "gpslat", "latdd", "breitengrad",
)  # fmt: skip
_LONLAT = tuple((lon, lat) for lat in _LAT for lon in _LON)
_WKT = ("geometry", "geom", "wkt", "wktgeom", "thegeom", "shape")

_DELIMITERS = "\t;|,"  # a comma last: it may be the decimal sign of a table with another one
_NO_HEADER = {  # DeepForest's orders: its annotation files, and its predictions
    "path first": ("image_path", "xmin", "ymin", "xmax", "ymax", "label", "score"),
    "path last": ("xmin", "ymin", "xmax", "ymax", "label", "score", "image_path"),
    "path last, no score": ("xmin", "ymin", "xmax", "ymax", "label", "image_path"),
}
Kind = Literal["shape", "box", "sized box", "point", "map", "lonlat"]


@dataclass(frozen=True, slots=True)
class Roles:
    """Which columns are what, by position."""

    places: dict[Kind, tuple[int, ...]]
    image: int | None
    label: int | None
    header: Sequence[str]
    others: dict[str, int]  # name -> position, columns to keep


def sizes_among(names: Iterable[str]) -> list[str]:
    """A width and a height, which may be those of boxes or of trees; empty without both."""
    plain = {_plain(name): name for name in names}
    for pair in (("width", "height"), ("w", "h")):
        if all(name in plain for name in pair):
            return [plain[name] for name in pair]
    return []


def _plain(name: str) -> str:
    """A column's name without what people and programs vary: case, blanks, signs, a unit in brackets."""
    name = re.sub(r"[\[(].*?[\])]", "", name.strip().casefold())
    return re.sub(r"[\W_]+", "", name)


def dialect(text: str, path: Path) -> tuple[str, list[str], int]:
    """Delimiter, names of the columns, and how many rows stand before the first one with values."""
    lines = list(_first_rows(text))
    if not lines:
        raise LayerError(f"{path.name} is empty: it has no line with text.")
    start = 0
    stated = re.fullmatch(r"(?i)\"?sep=(.)\"?", lines[0].strip())  # Excel's own line before the header
    if stated:
        start, lines = 1, lines[1:]
    delimiters = stated[1] if stated else _DELIMITERS
    if path.suffix.lower() == ".tsv":
        delimiters = "\t" + delimiters.replace("\t", "")
    found = _header(lines[:1], delimiters)
    if found is None:
        for delimiter in delimiters:
            for row in (_split(line, delimiter) for line in lines[:50]):
                for order in _NO_HEADER.values():
                    if _fits_order(row, order):
                        return delimiter, list(order), start
        found = _header(lines[:20], delimiters)  # below a title or remarks
    if found is not None:
        delimiter, header, before = found
        return delimiter, header, start + before + 1
    shown = ", ".join(_split(lines[0], max(delimiters, key=lines[0].count))[:12]) if lines else ""
    raise LayerError(
        f"{path.name} has no columns that say where: x, y; xmin, ymin, xmax, ymax; lon, lat; easting,"
        f" northing; or geometry; its first line is '{shown[:120]}'."
    )


def _header(lines: Sequence[str], delimiters: str) -> tuple[str, list[str], int] | None:
    """Delimiter, names and number of the first line that has columns which say where."""
    for before, line in enumerate(lines):
        for delimiter in delimiters:
            header = _split(line, delimiter)
            if _places([_plain(name) for name in header]):
                return delimiter, header, before
    return None


def _first_rows(text: str) -> Iterator[str]:
    """The first lines that hold something; the header of a table is one line."""
    count = 0
    for match in re.finditer(r"[^\r\n]+", text):
        if match[0].strip():
            yield match[0]
            count += 1
            if count == 52:
                return


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _fits_order(row: Sequence[str], order: Sequence[str]) -> bool:
    """Whether a row without a header reads as path, four numbers and a label in this order."""
    first = order.index("xmin")
    if not len(order) - 1 <= len(row) <= len(order) or (len(row) < len(order) and order[-1] != "score"):
        return False
    corners, path = row[first : first + 4], row[order.index("image_path")]
    return all(is_number(value) for value in corners) and not is_number(path) and bool(path.strip())


def is_number(text: str) -> bool:
    """Whether `continental_number` reads it."""
    try:
        continental_number(text, "")
    except Unusable:
        return False
    return True


def _places(plain: Sequence[str]) -> dict[Kind, tuple[int, ...]]:
    """The groups of columns that say where, in the order in which they are preferred."""
    groups: tuple[tuple[Kind, Sequence[tuple[str, ...]]], ...] = (
        ("shape", [(name,) for name in _WKT]),
        ("box", _BOXES),
        ("sized box", _SIZED_BOXES),
        ("point", _POINTS),
        ("map", _MAP),
        ("lonlat", _LONLAT),
    )
    found: dict[Kind, tuple[int, ...]] = {}
    for kind, choices in groups:
        for names in choices:
            if all(name in plain for name in names):
                found[kind] = tuple(plain.index(name) for name in names)
                break
    return found


def roles_of(header: Sequence[str]) -> Roles:
    """What the columns under these names hold."""
    plain = [_plain(name) for name in header]
    places = _places(plain)
    image = next((plain.index(name) for name in _IMAGE if name in plain), None)
    label = next((plain.index(name) for name in _LABEL if name in plain), None)
    taken = {position for positions in places.values() for position in positions} | {image, label}
    others: dict[str, int] = {}
    for position, name in enumerate(header):
        name = name.strip()
        if position not in taken and name and name not in ("label", "source"):
            others.setdefault(name, position)
    return Roles(places, image, label, header, others)


def continental_number(text: str, name: str) -> float:
    """A number in English or continental writing: 1234.5, 1234,5, 1.234,5."""
    text = text.strip()
    if "," not in text and text:
        return number(text, name)
    if text:
        whole, _, fraction = text.rpartition(",")
        if (
            "," in whole
            or not re.fullmatch(r"[-+]?[\d.]*", whole)
            or not re.fullmatch(r"\d*([eE][-+]?\d+)?", fraction)
        ):
            raise Unusable(f"'{text[:20]}' is not a number")
        return number(f"{whole.replace('.', '')}.{fraction}", name)
    raise Unusable(f"{name} is missing")
