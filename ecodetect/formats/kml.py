"""KML and KMZ (read): placemarks of Google Earth and of survey apps, in longitude and latitude."""

from __future__ import annotations

import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import shapely

from ecodetect.errors import LayerError
from ecodetect.formats.placing import placed
from ecodetect.formats.protocol import reason
from ecodetect.formats.xml_reading import read_xml
from ecodetect.grid import WGS84, Grid
from ecodetect.layer import Layer
from ecodetect.notes import Note

_MOST_BYTES = 256 << 20  # of a .kml in a .kmz, unpacked
_MOST_COLUMNS = 1_000


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """Read all placemarks, or those in the folder named by `layer`.

    Columns: name, folder (the innermost), and the fields of ExtendedData, all as texts.
    """
    root = _unpacked(path) if path.suffix.lower() == ".kmz" else read_xml(path)
    if _tag(root) != "kml":
        raise LayerError(f"{path} isn't KML: its root is <{root.tag}>.")
    marks = list(_placemarks(root, ()))
    notes = []
    if layer is not None:
        known = dict.fromkeys(name for folders, _ in marks for name in folders)
        if layer not in known:
            raise LayerError(f"{path} has no folder '{layer}'; it has {', '.join(known) or 'none'}.")
        marks = [(folders, mark) for folders, mark in marks if layer in folders]
    else:
        counts: dict[str, int] = {}
        for folders, _ in marks:
            counts[folders[-1] if folders else ""] = counts.get(folders[-1] if folders else "", 0) + 1
        if len(counts) > 1:
            listed = ", ".join(f"{name or 'no folder'} ({count})" for name, count in counts.items())
            text = f"all folders were read: {listed}; --layer takes one."
            notes.append(Note("folders-together", text, about=path.name, kind="choice"))
    rows = [{**_fields(mark), "folder": folders[-1] if folders else ""} for folders, mark in marks]
    names = list(dict.fromkeys(name for row in rows for name in row))
    if len(names) > _MOST_COLUMNS:
        raise LayerError(f"{path} has more than {_MOST_COLUMNS} different fields.")
    geometry = np.empty(len(marks), dtype=object)
    geometry[:] = [_geometry(mark) for _, mark in marks]
    columns = {name: np.array([row.get(name, "") for row in rows], dtype=object) for name in names}
    return placed(geometry, columns, name=path.name, crs=WGS84, grid=grid, is_assumed=True, notes=notes)


def _unpacked(path: Path) -> Element:
    """The root of the document in a .kmz."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = [entry for entry in archive.infolist() if entry.filename.lower().endswith(".kml")]
            if not found:
                raise LayerError(f"{path} has no .kml in it.")
            # The first one is the document (OGC KML 2.3, annex C); others are only linked from it.
            if found[0].file_size > _MOST_BYTES:
                raise LayerError(f"{path} unpacks to more than {_MOST_BYTES >> 20} MB.")
            with archive.open(found[0]) as packed:
                data = packed.read(_MOST_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        if isinstance(error, LayerError):
            raise
        raise LayerError(f"{path} can't be unpacked: {reason(error)}.") from error
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / f"{path.stem}.kml"
        document.write_bytes(data)
        return read_xml(document)


def _tag(element: Element) -> str:
    """The element's name without its namespace prefix."""
    return element.tag.rpartition(":")[2]


def _placemarks(element: Element, folders: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Element]]:
    """Placemarks with the names of the folders around them, outermost first."""
    for child in element:
        if _tag(child) == "Placemark":
            yield folders, child
        elif _tag(child) == "Folder":
            yield from _placemarks(child, (*folders, _child_text(child, "name")))
        elif _tag(child) == "Document":
            yield from _placemarks(child, folders)


def _child_text(element: Element, name: str) -> str:
    for child in element:
        if _tag(child) == name:
            return (child.text or "").strip()
    return ""


def _fields(mark: Element) -> dict[str, str]:
    fields = {"name": _child_text(mark, "name")}
    for element in mark.iter():
        if _tag(element) == "Data":
            fields[element.get("name", "")] = _child_text(element, "value")
        elif _tag(element) == "SimpleData":
            fields[element.get("name", "")] = (element.text or "").strip()
    fields.pop("", None)
    return fields


def _geometry(mark: Element) -> Any:
    """The geometry of a placemark; None where it has none, or none that can be read."""
    for child in mark:
        if _tag(child) in _SHAPES:
            try:
                return _SHAPES[_tag(child)](child)
            except ValueError:
                return None
    return None


def _point(element: Element) -> Any:
    return shapely.Point(_positions(element)[0])


def _line(element: Element) -> Any:
    return shapely.LineString(_positions(element))


def _polygon(element: Element) -> Any:
    shell, holes = [], []
    for boundary in element:
        rings = [_positions(ring) for ring in boundary if _tag(ring) == "LinearRing"]
        if _tag(boundary) == "outerBoundaryIs":
            shell.extend(rings)
        elif _tag(boundary) == "innerBoundaryIs":
            holes.extend(rings)
    if not shell:
        raise ValueError("no outer boundary")
    return shapely.Polygon(shell[0], holes)


def _several(element: Element) -> Any:
    return shapely.GeometryCollection(
        [_SHAPES[_tag(child)](child) for child in element if _tag(child) in _SHAPES]
    )


_SHAPES = {
    "Point": _point,
    "LineString": _line,
    "LinearRing": _line,
    "Polygon": _polygon,
    "MultiGeometry": _several,
}


def _positions(element: Element) -> list[tuple[float, float]]:
    """Longitudes and latitudes of an element's coordinates; heights are dropped."""
    # Not all programs know that a space ends a position.
    text = re.sub(r"\s*,\s*", ",", _child_text(element, "coordinates"))
    found = []
    for position in text.split():
        lon, lat, *_ = position.split(",")
        found.append((float(lon), float(lat)))
    if not found:
        raise ValueError("no coordinates")
    return found
