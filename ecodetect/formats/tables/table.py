"""Tables of points or boxes (CSV, TSV): read in whatever dialect they come, written in raster pixels.

Columns are known by their names, in any order and case; two orders of DeepForest are known without a
header. Where several columns could be the place, or `x, y` could be pixels or map coordinates, the values
decide: what lies in the raster. `x, y` are continuous from the raster's outer corner; if all are written as
whole numbers they count pixels, whose centres are meant.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.errors import GridError, LayerError
from ecodetect.formats.collecting import (
    FARTHEST,
    OF_IMAGE,
    Collector,
    Shape,
    Unusable,
    areal,
    check_box,
    exchanged_note,
    pixels_note,
)
from ecodetect.formats.column_roles import have_our_ids
from ecodetect.formats.gis.curves import from_wkt
from ecodetect.formats.image_matching import base_name, left_out, meant, meant_or_refused
from ecodetect.formats.parts import several
from ecodetect.formats.protocol import Written
from ecodetect.formats.tables.spreadsheet import (
    as_cell,
    as_class_cell,
    from_cell,
    from_class_cell,
    is_named_nothing,
    is_nothing,
)
from ecodetect.formats.tables.table_columns import PlaceKind, Roles, counts_of, dialect, roles_of, sizes_among
from ecodetect.formats.tables.table_frames import Option, chosen, to_pixels
from ecodetect.formats.tables.table_numbers import (
    Separator,
    is_odd,
    read_degrees,
    read_number,
    separator_shown,
)
from ecodetect.formats.text_reading import read_text
from ecodetect.grid import WGS84, Floats, Grid
from ecodetect.layer import NUMBERS, Geometries, Layer, Stream
from ecodetect.notes import Note
from ecodetect.wording import counted


def recognises(path: Path, head: bytes) -> bool:
    """Whether a text file can be a table: asked last."""
    return True


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """Rows of `image` (or all, with a column `source`) in pixels of `grid`.

    Without a grid: longitude and latitude of points where the table has them, else pixels. Raises
    LayerError when no column says where, when no row can be used, and when the rows lie neither in the
    raster's pixels nor in its ground.
    """
    text = read_text(path)
    delimiter, header, start = dialect(text, path)
    header = [from_cell(name) for name in header]
    if counts_of(header):
        raise LayerError(f"{path.name} has counts of images, no places; export DotDotGoose's points instead.")
    roles = roles_of(header)
    table = _parsed(text, path, delimiter, header, start, roles, {})
    if table.separators:  # numbers that only the others of their columns explain
        table = _parsed(text, path, delimiter, header, start, roles, table.separators)
    if image is not None and not _names_images(table, image):
        table.columns, table.images = _with_images_as_column(table, roles), None
    kept = _of_image(table, image, path)
    places = {kind: [found[row] for row in kept] for kind, found in table.places.items()}
    option = chosen(places, grid, path)
    return _layer(table, kept, option, grid, image)


# -- rows ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Table:
    """The rows of a table: where they lie, as each group of columns says it, and their other columns."""

    path: Path
    lines: list[int] = field(default_factory=list)
    places: dict[PlaceKind, list[Any]] = field(
        default_factory=dict
    )  # numbers, a shape, None (blank), a reason
    images: list[str] | None = None
    columns: dict[str, list[str]] = field(default_factory=dict)
    are_whole: bool = True  # each x, y is written without a decimal
    separators: dict[PlaceKind, Separator] = field(default_factory=dict)  # of coordinates that may need one
    has_o: bool = False  # a longitude has the letter O, which is west or, in German, east
    is_german: bool = False


def _parsed(
    text: str,
    path: Path,
    delimiter: str,
    header: Sequence[str],
    start: int,
    roles: Roles,
    separators: Mapping[PlaceKind, Separator],
) -> _Table:
    """The rows, their numbers read with these separators; `separators` of the result are those they show."""
    table = _Table(
        path, places={kind: [] for kind in roles.places}, columns={name: [] for name in roles.others}
    )
    table.images = None if roles.image is None else []
    known: dict[str, str] = {}  # equal texts are kept once
    width = len(header)
    shown: dict[PlaceKind, set[Separator]] = {
        kind: set() for kind in roles.places if kind not in ("shape", "lonlat")
    }
    odd: set[PlaceKind] = set()
    table.is_german = is_german = roles.has_german_degrees
    for line, row in _filled(text, path, delimiter, start):
        extra = any(cell.strip() for cell in row[width:])
        row += [""] * (width - len(row))
        table.lines.append(line)
        for kind, positions in roles.places.items():
            cells = [row[position] for position in positions]
            place = (
                Unusable(f"more than {width} fields")
                if extra
                else _place(kind, cells, separators.get(kind, ""), is_german=is_german)
            )
            table.places[kind].append(place)
            if kind in shown:
                shown[kind].update(map(separator_shown, cells))
                if any(map(is_odd, cells)):
                    odd.add(kind)
            table.has_o |= kind == "lonlat" and any("O" in cell.upper() for cell in cells)
            if kind == "point" and table.are_whole and isinstance(place, tuple):
                table.are_whole = all(re.fullmatch(r"\s*[-+]?\d+\s*", cell) for cell in cells)
        if table.images is not None and roles.image is not None:
            cell = from_cell(row[roles.image].strip())
            table.images.append(known.setdefault(cell, cell))
        for name, position in roles.others.items():
            cell = row[position].strip()
            table.columns[name].append(known.setdefault(cell, cell))
    for kind in odd:
        shown[kind].discard("")
        if len(shown[kind]) == 1:
            table.separators[kind] = shown[kind].pop()
    return table


def _filled(text: str, path: Path, delimiter: str, start: int) -> Iterator[tuple[int, list[str]]]:
    """Rows that aren't blank, from the `start`-th of these on, and the line on which each ends."""
    reader = csv.reader(_lines(text), delimiter=delimiter, strict=True)
    seen = 0
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                seen += 1
                if seen > start:
                    yield reader.line_num, row
    except csv.Error as error:
        raise LayerError(f"{path.name} can't be read at line {reader.line_num}: {error}.") from error


def _lines(text: str) -> Iterator[str]:
    """Lines with their ends, as the csv module wants them; also those of old Macs (CR alone)."""
    position = 0
    for match in re.finditer(r"\r\n|\n|\r", text):
        yield text[position : match.start()] + "\n"
        position = match.end()
    if position < len(text):
        yield text[position:]


def _place(kind: PlaceKind, cells: Sequence[str], separator: Separator, *, is_german: bool) -> Any:
    """Numbers of a point or box, or a shape; None where nothing is said; an Unusable where it is no place.

    separator, is_german : as `read_number` and `read_degrees` take them.
    """
    if not any(cell.strip() for cell in cells):
        return None
    try:
        if kind == "shape":
            return _shape(cells[0])
        if kind == "lonlat":
            longitude, latitude = cells
            return (
                read_degrees(longitude, "longitude", is_east=is_german),
                read_degrees(latitude, "latitude"),
            )
        values = tuple(read_number(cell, "a coordinate", separator) for cell in cells)
        if kind == "sized box":
            x, y, width, height = values
            values = (x, y, x + width, y + height)
        if kind in ("box", "sized box"):
            if not any(values):  # how DeepForest writes an image without objects
                return None
            check_box(*values)
    except Unusable as reason:
        return reason
    return values


def _straight(text: str) -> Shape:
    """The geometry in WKT, curves made straight; raises ValueError."""
    try:
        return shapely.from_wkt(text)
    except (shapely.errors.GEOSException, NotImplementedError):
        return from_wkt(text)


def _shape(text: str) -> Shape:
    text = re.sub(r"^SRID=\d+;", "", text.strip(), flags=re.IGNORECASE)
    try:
        with np.errstate(invalid="ignore"):  # numpy would warn of NaN, which is refused below
            shape = shapely.force_2d(_straight(text))
    except ValueError:
        raise Unusable(f"'{text[:20]}' is not a geometry in WKT") from None
    if shape.is_empty:
        return None
    if not np.abs(shapely.get_coordinates(shape)).max() <= FARTHEST:  # NaN too
        raise Unusable("a coordinate that is not a number")
    if shape.geom_type == "MultiPoint" and len(shape.geoms) == 1:
        return shape.geoms[0]
    if shape.geom_type == "Point":
        return shape
    if "Polygon" not in shape.geom_type and shape.geom_type != "GeometryCollection":
        raise Unusable(f"a {shape.geom_type}, which is not the place of one object")
    if shape.geom_type == "MultiPolygon":
        return shapely.MultiPolygon(
            [polygon for part in shape.geoms for polygon in shapely.get_parts(areal(part))]
        )
    return areal(shape)


# -- which rows, which columns, which frame -----------------------------------------------------------------


def _names_images(table: _Table, image: str) -> bool:
    """Whether the column taken for the images' names has such names, and not, say, the source of the data."""
    names = set(table.images or ())
    return any(re.search(r"\.\w{2,5}$", name) for name in names) or bool(meant(names, image, table.path))


def _with_images_as_column(table: _Table, roles: Roles) -> dict[str, list[str]]:
    if table.images is None or roles.image is None:
        return table.columns
    return {**table.columns, roles.header[roles.image].strip(): table.images}


def _of_image(table: _Table, image: str | None, path: Path) -> list[int]:
    """Rows that belong to `image`, by position; all where the table or the caller names none.

    In a table of ours about one image so do the rows that somebody added, without a name.
    """
    rows = range(len(table.lines))
    if image is None or table.images is None or not any(table.images):
        return list(rows)
    wanted = meant_or_refused([name for name in table.images if name], image, path)
    if len(set(filter(None, table.images))) == 1 and _is_ours(table):
        wanted |= {""}
    return [row for row in rows if table.images[row] in wanted]


# -- the layer ----------------------------------------------------------------------------------------------


def _layer(table: _Table, rows: Sequence[int], option: Option, grid: Grid | None, image: str | None) -> Layer:
    path = table.path
    good, notes = _usable(table, rows, option)
    notes += _choices(table, option, has_rows=bool(good))
    is_box = option.kind in ("box", "sized box")
    geometry = _geometry([table.places[option.kind][row] for row in good], is_box=is_box)
    if option.frame == "pixel" and option.kind == "point" and good and table.are_whole:
        geometry = shapely.transform(geometry, lambda xy: xy + 0.5)
    if option.is_exchanged:
        geometry = shapely.transform(geometry, lambda xy: xy[:, ::-1])
    columns = _columns(table, good, image)
    metadata: dict[str, Any] = {}
    if option.frame in ("pixel", "share") and not _is_ours(table):
        metadata[OF_IMAGE] = None
    if image is None and table.images is not None:  # also those of rows that say "no object"
        metadata["images"] = tuple(name for name in dict.fromkeys(table.images) if name)
    are_parts = several(geometry, in_degrees=option.frame == "lonlat") if option.kind == "shape" else None
    crs = None
    if grid is None and option.frame == "lonlat":
        crs = WGS84
    elif grid is None:
        notes.append(pixels_note(path))
        metadata["frame"] = "pixel"
    elif option.frame != "pixel":
        geometry = shapely.transform(geometry, to_pixels(option.frame, grid))
    return Layer(
        geometry, columns, grid, crs, tuple(notes), metadata, are_parts, states_classes=_states_classes(table)
    )


def _usable(table: _Table, rows: Sequence[int], option: Option) -> tuple[list[int], list[Note]]:
    """Which of the rows have a place, and notes of what is left out; raises LayerError where none has."""
    path = table.path
    collector = Collector(path, "row")
    if table.images is not None and len(rows) < len(table.lines):
        kept = set(rows)
        others = Counter(name for row, name in enumerate(table.images) if row not in kept and name)
        if others:
            collector.notes.append(left_out(others, path, "row"))
        for row, name in enumerate(table.images):
            if row not in kept and not name:
                collector.leave_out("no image named", f"line {table.lines[row]}")
    good: list[int] = []
    for row in rows:
        place = table.places[option.kind][row]
        if isinstance(place, Unusable):
            collector.leave_out(place, f"line {table.lines[row]}")
        elif place is not None:
            good.append(row)
        elif option.kind not in ("box", "sized box"):  # in a table of boxes it is an image without objects
            collector.leave_out("no position", f"line {table.lines[row]}")
    summary = collector.summary()
    if summary and not good:
        raise LayerError(f"{path.name} has nothing usable; {summary.text}")
    return good, [*collector.notes, *([summary] if summary else [])]


def _choices(table: _Table, option: Option, *, has_rows: bool) -> list[Note]:
    """Notes of how the numbers of a table are understood."""
    notes: list[Note] = []

    def note(code: str, text: str) -> None:
        notes.append(Note(code, text, about=table.path.name, kind="choice"))

    if option.frame == "pixel" and option.kind == "point" and has_rows and table.are_whole:
        note("whole-pixels", "x, y are whole numbers, so they count pixels; the pixels' centres are meant.")
    sizes = sizes_among(table.columns) if option.kind == "point" else []
    if has_rows and sizes:
        note(
            "points-with-sizes",
            f"x, y are taken as points and {' and '.join(sizes)} as what is known of them; if they are boxes,"
            " call the columns left, top, width, height.",
        )
    if option.frame == "share":
        note("frame-guessed", "its boxes lie from 0 to 1, so they are shares of the image's size.")
    if option.frame == "map" and option.kind != "map":
        note("frame-guessed", "its coordinates lie on the raster's ground, so they are map coordinates.")
    if option.frame == "lonlat" and option.kind != "lonlat":
        note("frame-guessed", "its coordinates are longitude and latitude, by their values.")
    if option.is_exchanged:
        notes.append(exchanged_note(table.path.name, in_degrees=option.frame == "lonlat"))
    if option.kind == "lonlat" and has_rows and table.has_o:
        sense = "east (Ost)" if table.is_german else "west (oeste, ouest, ovest)"
        note("letter-o", f"the letter O in its longitudes is read as {sense}.")
    return notes


def _is_ours(table: _Table) -> bool:
    """Whether we wrote a table; its pixels are those that are stored."""
    return table.images is not None and have_our_ids(table.columns)


def _geometry(places: Sequence[Any], *, is_box: bool) -> Geometries:
    geometry: Geometries = np.empty(len(places), dtype=object)
    if not places:
        return geometry
    if not isinstance(places[0], tuple):
        geometry[:] = places
        return geometry
    values = np.array(places, np.float64)
    geometry[:] = shapely.box(*values.T) if is_box else shapely.points(values)
    return geometry


def _columns(table: _Table, rows: Sequence[int], image: str | None) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {}
    if table.images is not None:
        named = (table.images[row] if image is None else base_name(image) for row in rows)
        columns["source"] = _texts(list(named))
    for name, values in table.columns.items():
        cells = [values[row] for row in rows]
        if name == "label":
            columns[name] = _labels(cells, are_stated=_states_classes(table))
            continue
        typed = _typed(cells, name in NUMBERS)
        columns[name] = typed if typed.dtype != object else _texts([from_cell(cell) for cell in cells])
    return columns


def _states_classes(table: _Table) -> bool:
    """Whether a table distinguishes a class called `NA` from none, as we write it."""
    return any(map(is_named_nothing, table.columns.get("label", ())))


def _labels(cells: Sequence[str], *, are_stated: bool) -> NDArray[np.object_]:
    return _texts(["" if are_stated and is_nothing(cell) else from_class_cell(cell) for cell in cells])


def _texts(values: Sequence[str]) -> NDArray[np.object_]:
    texts: NDArray[np.object_] = np.empty(len(values), dtype=object)
    texts[:] = values
    return texts


_IS_WHOLE = re.compile(r"[-+]?(0|[1-9]\d{0,17})").fullmatch  # 007 is a code
_IS_NUMBER = re.compile(r"[-+]?(0|[1-9]\d*|(?=[.,]\d))([.,]\d*)?([eE][-+]?\d{1,3})?").fullmatch
_BLANKS = {"", "nan", "NaN", "NAN", "NA", "null", "NULL"}


def _typed(values: Sequence[str], is_number: bool) -> NDArray[Any]:
    """A column of whole numbers, of numbers (NaN where blank), or of texts as they are.

    is_number : what a column of nothing but blanks is.
    """
    if values and all(map(_IS_WHOLE, values)):
        return np.array([int(value) for value in values], np.int64)
    if any(not _IS_NUMBER(value) and value not in _BLANKS for value in values):
        return _texts(values)
    if _BLANKS.issuperset(values) and not is_number:
        return _texts(values)
    return np.array([math.nan if value in _BLANKS else _float(value) for value in values], np.float64)


def _float(text: str) -> float:
    return float(text.replace(",", "."))


# -- reading what was written, piece by piece ---------------------------------------------------------------

PIECE = 50_000  # rows


def pieces(path: Path, *, grid: Grid | None) -> Iterator[Layer]:
    """What `write` wrote of one raster, in pieces: places, labels and numbers."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        at = {from_cell(name): position for position, name in enumerate(next(rows, []))}
        corners = ("x", "y") if "x" in at else ("xmin", "ymin", "xmax", "ymax")
        numbers = [name for name in at if name in NUMBERS]
        while part := list(islice(rows, PIECE)):
            place = [tuple(float(row[at[name]]) for name in corners) for row in part]
            columns = {name: _typed([row[at[name]].strip() for row in part], True) for name in numbers}
            if "label" in at:
                columns["label"] = _texts([from_class_cell(row[at["label"]].strip()) for row in part])
            if "source" in at:
                columns["source"] = _texts([from_cell(row[at["source"]].strip()) for row in part])
            yield Layer(_geometry(place, is_box=len(corners) == 4), columns, grid=grid)


# -- writing ------------------------------------------------------------------------------------------------

_FIRST = ("label", "score", "id")
_LAST = ("area_m2", "diameter_m")
_POSITIONS = ("source", "x", "y", "xmin", "ymin", "xmax", "ymax", "lon", "lat")


def write(path: Path, stream: Stream) -> Written:
    """Write points (`source,x,y`) or the boxes around shapes (`source,xmin,ymin,xmax,ymax`) in raster pixels.

    Then `label,score,id` as far as there are, the centre's `lon,lat` (9 decimals) where the raster has a
    place on the Earth, other columns, and `area_m2,diameter_m`. Pixels have 6 decimals, always: a reader
    must not take them for whole pixels. Raises LayerError for coordinates of a map whose raster isn't
    named, and for points and shapes in one layer.
    """
    known = set(_POSITIONS) | set(_FIRST) | set(_LAST)
    names = [*_FIRST, *(name for name in stream.columns if name not in known), *_LAST]
    names = [name for name in names if name in stream.columns]
    has_lonlat = stream.grid.has_lonlat if stream.grid is not None else stream.crs is not None
    is_points = stream.geometry_type == "Point"
    features = boxed = 0
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        for batch in stream:
            if batch.grid is None and stream.crs is not None:
                raise LayerError(f"{path.name} is in pixels of a raster; name the raster.", parameter="image")
            if not len(batch):
                continue
            if not features:
                is_points = batch.geometry[0].geom_type == "Point"
                header = _header(names, is_points=is_points, has_lonlat=has_lonlat)
                writer.writerow(map(as_cell, header))
            if np.any((shapely.get_type_id(batch.geometry) == 0) != is_points):
                raise LayerError(
                    f"{path.name} holds points or boxes, but the layer has both; write a .geojson."
                )
            bounds = shapely.bounds(batch.geometry).reshape(-1, 4)
            if not is_points:
                sides = bounds[:, 2:] - bounds[:, :2]
                boxed += int(np.count_nonzero(shapely.area(batch.geometry) < sides.prod(axis=1) * (1 - 1e-6)))
            writer.writerows(_rows(batch, bounds, names, is_points=is_points, has_lonlat=has_lonlat))
            features += len(batch)
        if not features:
            header = _header(names, is_points=is_points, has_lonlat=has_lonlat)
            writer.writerow(map(as_cell, header))
    text = f"{counted(boxed, 'shape')} written as the box around: a table holds points or boxes."
    note = Note("shapes-simplified", text, about=path.name)
    return Written(path, features, notes=(note,) if boxed else ())


def _header(names: Sequence[str], *, is_points: bool, has_lonlat: bool) -> list[str]:
    place = ["x", "y"] if is_points else ["xmin", "ymin", "xmax", "ymax"]
    before = [name for name in names if name not in _LAST]
    lonlat = ["lon", "lat"] if has_lonlat else []
    first = [name for name in before if name in _FIRST]
    return ["source", *place, *first, *lonlat, *before[len(first) :], *names[len(before) :]]


def _rows(
    batch: Layer, bounds: Floats, names: Sequence[str], *, is_points: bool, has_lonlat: bool
) -> Iterator[tuple[str, ...]]:
    """The cells of each feature, in the order of `_header`."""
    place = bounds[:, :2] if is_points else bounds
    cells: dict[str, list[str]] = {name: _cells(batch.columns[name]) for name in names}
    if "label" in cells:
        cells["label"] = _cells(batch.columns["label"], as_class_cell)
    cells["source"] = _cells(batch.columns["source"]) if "source" in batch.columns else [""] * len(batch)
    shown = ("x", "y") if is_points else ("xmin", "ymin", "xmax", "ymax")
    for name, values in zip(shown, place.T, strict=True):
        cells[name] = [f"{value:.6f}" for value in values.tolist()]
    if has_lonlat and batch.grid is not None:
        try:
            lonlat = batch.grid.to_lonlat((bounds[:, :2] + bounds[:, 2:]) / 2)
        except GridError:
            lonlat = np.full((len(batch), 2), math.nan)
        for name, values in zip(("lon", "lat"), lonlat.T, strict=True):
            cells[name] = ["" if math.isnan(value) else f"{value:.9f}" for value in values.tolist()]
    return zip(
        *(cells[name] for name in _header(names, is_points=is_points, has_lonlat=has_lonlat)), strict=True
    )


def _cells(values: NDArray[Any], as_text: Callable[[str], str] = as_cell) -> list[str]:
    """Values as texts that read back as the same; blank where missing."""
    return [
        as_text(value) if isinstance(value, str) else "" if value is None or value != value else str(value)
        for value in np.asarray(values).tolist()
    ]
