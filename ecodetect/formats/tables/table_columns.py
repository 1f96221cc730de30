"""Which columns of a table say what, by their names, and in which dialect it is written."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ecodetect.errors import LayerError
from ecodetect.formats.collecting import Unusable
from ecodetect.formats.tables.table_numbers import read_number

# Names of columns, lower case, without blanks, units and signs (see `_plain`); the first one found is taken.
_IMAGE = (
    "imagepath", "source", "image", "imagename", "imagefile", "imagefilename", "filename", "file", "img",
    "imgpath", "imgname", "imageid", "path", "filepath", "raster", "images",
)  # fmt: skip
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
    ("coordenadax", "coordenaday"),
    ("xcoordinata", "ycoordinata"),
    ("coordonneex", "coordonneey"),
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
_EAST = (
    "easting", "eastings", "east", "este", "coordeste", "coordenadaeste", "leste", "est", "ost", "oost",
    "utmeasting", "utmeast", "eastutm", "utme", "utmeste", "esteutm", "utmx", "xutm", "mapx", "xmap",
    "estex", "xeste", "rechtswert", "ostwert", "e",
)  # fmt: skip
_NORTH = (
    "northing", "northings", "north", "norte", "coordnorte", "coordenadanorte", "nord", "noord",
    "utmnorthing", "utmnorth", "northutm", "utmn", "utmnorte", "norteutm", "utmy", "yutm", "mapy", "ymap",
    "nortey", "ynorte", "hochwert", "nordwert", "n",
)  # fmt: skip
_MAP = tuple((east, north) for north in _NORTH for east in _EAST)
# English, Spanish, Portuguese, Italian, French, German, Dutch, Nordic, Polish, Turkish, Indonesian, Russian,
# Chinese, Japanese.
_LON = (
    "lon", "long", "lng", "longitude", "decimallongitude", "locationlong", "locationlon", "gpslongitude",
    "gpslon", "gpslong", "londd", "longdd", "lonwgs84", "longwgs84", "longitudewgs84", "longitudedecimal",
    "longitud", "longituddecimal", "longitudwgs84", "gpslongitud", "coordlongitud", "longitudine", "longit",
    "longitudgms", "longitudedms", "londms", "longdms", "laengengrad", "langengrad", "lange", "laenge",
    "geolange", "geolaenge", "lengtegraad", "lengdegrad", "lengde", "pituusaste", "dlugosc",
    "dlugoscgeograficzna", "boylam", "bujur", "garisbujur", "долгота", "经度", "經度", "経度",
)  # fmt: skip
_LAT = (
    "lat", "latitude", "decimallatitude", "locationlat", "gpslatitude", "gpslat", "latdd", "latwgs84",
    "latitudewgs84", "latitudedecimal", "latitud", "latituddecimal", "latitudwgs84", "gpslatitud",
    "coordlatitud", "latitudine", "latit", "latitudgms", "latitudedms", "latdms", "breitengrad", "breite",
    "geobreite", "breedtegraad", "breddegrad", "bredde", "latituddecimales", "leveysaste", "szerokosc",
    "szerokoscgeograficzna", "enlem", "lintang", "garislintang", "широта", "纬度", "緯度",
)  # fmt: skip
_LONLAT = tuple((lon, lat) for lat in _LAT for lon in _LON)
_GERMAN = ("laengengrad", "langengrad", "lange", "laenge", "geolange", "geolaenge")  # where O is Ost
_WKT = ("geometry", "geom", "wkt", "wktgeom", "thegeom", "shape")

_DELIMITERS = "\t;|,"  # a comma last: it may be the decimal sign of a table with another one
_NO_HEADER = {  # DeepForest's orders: its annotation files, and its predictions
    "path first": ("image_path", "xmin", "ymin", "xmax", "ymax", "label", "score"),
    "path last": ("xmin", "ymin", "xmax", "ymax", "label", "score", "image_path"),
    "path last, no score": ("xmin", "ymin", "xmax", "ymax", "label", "image_path"),
}
PlaceKind = Literal["shape", "box", "sized box", "point", "map", "lonlat"]


@dataclass(frozen=True, slots=True)
class Roles:
    """Which columns are what, by position."""

    places: dict[PlaceKind, tuple[int, ...]]
    image: int | None
    header: Sequence[str]
    others: dict[str, int]  # name -> position, columns to keep

    @property
    def has_german_degrees(self) -> bool:
        """Whether longitudes stand under a German name, so that the letter O is east."""
        position = self.places.get("lonlat", (-1,))[0]
        return position >= 0 and _plain(self.header[position]) in _GERMAN


def counts_of(header: Sequence[str]) -> bool:
    """Whether these are columns of DotDotGoose's table of counts, whose x, y are places of photographs."""
    plain = [_plain(name) for name in header]
    return plain[:2] == ["surveyid", "image"] and "class" not in plain


def sizes_among(names: Iterable[str]) -> list[str]:
    """A width and a height, which may be those of boxes or of trees; empty without both."""
    plain = {_plain(name): name for name in names}
    for pair in (("width", "height"), ("w", "h")):
        if all(name in plain for name in pair):
            return [plain[name] for name in pair]
    return []


def _plain(name: str) -> str:
    """A column's name without what people and programs vary: case, accents, blanks, signs, a unit."""
    name = re.sub(r"[\[(].*?[\])]", "", name.strip().casefold()).replace("ł", "l").replace("ø", "o")
    bare = "".join(char for char in unicodedata.normalize("NFD", name) if not unicodedata.combining(char))
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", bare))


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
    """Whether `read_number` reads it."""
    try:
        read_number(text, "")
    except Unusable:
        return False
    return True


def _places(plain: Sequence[str]) -> dict[PlaceKind, tuple[int, ...]]:
    """The groups of columns that say where, in the order in which they are preferred."""
    groups: tuple[tuple[PlaceKind, Sequence[tuple[str, ...]]], ...] = (
        ("shape", [(name,) for name in _WKT]),
        ("box", _BOXES),
        ("sized box", _SIZED_BOXES),
        ("point", _POINTS),
        ("map", _MAP),
        ("lonlat", _LONLAT),
    )
    found: dict[PlaceKind, tuple[int, ...]] = {}
    there = set(plain)
    for kind, choices in groups:
        for names in choices:
            if there.issuperset(names):
                found[kind] = tuple(plain.index(name) for name in names)
                break
    return found


def roles_of(header: Sequence[str]) -> Roles:
    """What the columns under these names hold."""
    plain = [_plain(name) for name in header]
    places = _places(plain)
    image = next((plain.index(name) for name in _IMAGE if name in plain), None)
    taken = {position for positions in places.values() for position in positions} | {image}
    others: dict[str, int] = {}
    for position, name in enumerate(header):
        name = name.strip()
        if position not in taken and name and name != "source":
            others.setdefault(name, position)
    return Roles(places, image, header, others)
