"""KML, and KMZ (read): placemarks of Google Earth and of survey apps, in longitude and latitude.

Written: one placemark for each feature, its columns as typed data, a style for each class; the metadata is
data of the document.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.errors import LayerError
from ecodetect.formats import metadata
from ecodetect.formats.content import Content, seal_in_place
from ecodetect.formats.gis.on_earth import on_earth
from ecodetect.formats.gis.qgis_source import BY_NUMBER
from ecodetect.formats.gis.qgis_style import LABEL_COLOURS
from ecodetect.formats.labels.xml_writing import escaped
from ecodetect.formats.placing import StatedFrame, frame_of, placed
from ecodetect.formats.protocol import Written, reason
from ecodetect.formats.xml_reading import read_xml
from ecodetect.grid import WGS84, Grid
from ecodetect.layer import Geometries, Layer, Stream
from ecodetect.notes import Note
from ecodetect.wording import counted

_MOST_BYTES = 256 << 20  # of a .kml in a .kmz, unpacked
_MOST_COLUMNS = 1_000
_NAMESPACE = "http://www.opengis.net/kml/2.2"
_SCHEMA = "ecodetect"  # by which we know a file of ours
_ONLY_STYLE = "object"
_TYPES = {"str": "string", "int": "int", "float": "double"}
_KINDS = {"double": "float", "float": "float", "int": "int", "uint": "int", "short": "int", "ushort": "int"}


def write(path: Path, stream: Stream) -> Written:
    """Write a stream as placemarks in longitude and latitude.

    Features without a place on the Earth are left out and counted. Raises LayerError where there is no CRS,
    or one without a way to longitude and latitude.
    """
    features = dropped = 0
    styles = {name: f"class{number}" for number, name in enumerate(stream.classes)}
    with path.open("w", encoding="utf-8", errors="xmlcharrefreplace", newline="\n") as file:
        file.write(_opening(stream, styles))
        for batch in stream:
            if frame_of(stream, batch) != "crs":
                raise LayerError(
                    f"{path.name} can't be KML, which holds longitude and latitude: there is no CRS; write a"
                    " .gpkg."
                )
            batch, geometry, lost = on_earth(batch, name=path.name, title="KML")
            dropped += lost
            features += len(batch)
            file.writelines(_placemark_texts(batch, shapely.orient_polygons(geometry), styles))
        file.write("</Document></kml>\n")
    notes = []
    if dropped:
        text = f"{counted(dropped, 'feature')} without a place on the Earth left out."
        notes.append(Note("features-dropped", text, kind="doubt"))
    return Written(path, features, dropped, tuple(notes))


def _opening(stream: Stream, styles: Mapping[str, str]) -> str:
    """The document down to its first placemark, in the order that the schema of KML wants."""
    lines = [f'<?xml version="1.0" encoding="UTF-8"?>\n<kml xmlns="{_NAMESPACE}"><Document>']
    lines.append("<name>detections</name>")
    for number, style in enumerate(styles.values() or [_ONLY_STYLE]):
        red, green, blue = (LABEL_COLOURS[number % len(LABEL_COLOURS)][at : at + 2] for at in (1, 3, 5))
        colour = f"<color>ff{blue}{green}{red}</color>"
        lines.append(
            f'<Style id="{style}"><IconStyle>{colour}<scale>0.6</scale></IconStyle>'
            f"<LabelStyle><scale>0</scale></LabelStyle><LineStyle>{colour}<width>2</width></LineStyle>"
            "<PolyStyle><fill>0</fill></PolyStyle></Style>"
        )
    if stream.metadata:
        data = (
            f'<Data name="{name}"><value>{escaped(text)}</value></Data>'
            for name, text in metadata.to_texts(stream.metadata, "crs").items()
        )
        lines.append(f"<ExtendedData>{''.join(data)}</ExtendedData>")
    fields = (
        f'<SimpleField type="{_TYPES[kind]}" name="{escaped(name)}"/>'
        for name, kind in stream.columns.items()
    )
    lines.append(f'<Schema name="detections" id="{_SCHEMA}">{"".join(fields)}</Schema>\n')
    return "\n".join(lines)


def _placemark_texts(batch: Layer, geometry: Geometries, styles: Mapping[str, str]) -> Iterator[str]:
    names = [(name, escaped(name)) for name in batch.columns]
    columns = {name: values.tolist() for name, values in batch.columns.items()}
    labels = columns.get("label")
    for row, shape in enumerate(geometry):
        label = "" if labels is None else str(labels[row] or "")
        cells = (
            f'<SimpleData name="{shown}">{escaped(str(columns[name][row]))}</SimpleData>'
            for name, shown in names
            if not _is_missing(columns[name][row])
        )
        style = styles.get(label or "object", next(iter(styles.values()), _ONLY_STYLE))
        yield (
            f"<Placemark><name>{escaped(label or 'object')}</name><styleUrl>#{style}</styleUrl><ExtendedData>"
            f'<SchemaData schemaUrl="#{_SCHEMA}">{"".join(cells)}</SchemaData></ExtendedData>{_drawn(shape)}'
            "</Placemark>\n"
        )


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or value != value


def _drawn(shape: Any) -> str:
    """A point, a polygon, or several polygons in KML."""
    if shape.geom_type == "Point":
        return f"<Point><coordinates>{_lonlats(shape)}</coordinates></Point>"
    parts = "".join(map(_drawn_polygon, shapely.get_parts(shape)))
    return f"<MultiGeometry>{parts}</MultiGeometry>" if shape.geom_type == "MultiPolygon" else parts


def _drawn_polygon(polygon: Any) -> str:
    rings = [
        ("outerBoundaryIs", polygon.exterior),
        *(("innerBoundaryIs", ring) for ring in polygon.interiors),
    ]
    drawn = (
        f"<{tag}><LinearRing><coordinates>{_lonlats(ring)}</coordinates></LinearRing></{tag}>"
        for tag, ring in rings
    )
    return f"<Polygon>{''.join(drawn)}</Polygon>"


def _lonlats(shape: Any) -> str:
    return " ".join(f"{lon!r},{lat!r}" for lon, lat in shapely.get_coordinates(shape).tolist())


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata that `write` put into the document."""
    return metadata.from_json(_stated(read_xml(path), metadata.KEY))


def read_seal(path: Path) -> str | None:
    """The hash that `seal` put there."""
    return _stated(read_xml(path), metadata.SEAL_KEY) or None


def content(path: Path) -> Content:
    """The placemarks, gone through one by one."""
    found = Content()
    for folders, mark in _placemarks(read_xml(path), ()):
        fields = _fields(mark, is_foreign=False)
        places = [each.text or "" for each in mark.iter() if _tag(each) == "coordinates"]
        found.add_json([folders, fields, places])
        found.tally.add({name: [value] for name, value in fields.items()}, 1)
    return found


def seal(path: Path, digest: str) -> None:
    """Put the hash of the features into the document's data, which come before them."""
    head = b""
    with path.open("rb") as file:
        while b"</Schema>" not in head and (block := file.read(1 << 16)):
            head += block
    seal_in_place(path, digest, 0, len(head))


def _stated(root: Element, name: str) -> str:
    """A text among the document's data; empty where there is none."""
    for document in root:
        for element in document:
            if _tag(element) == "ExtendedData":
                for data in element:
                    if data.get("name") == name:
                        return _child_text(data, "value")
    return ""


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """Read all placemarks, or those in the folder named by `layer`.

    Columns: name, folder (the innermost), and the fields of ExtendedData: as numbers where a schema says so,
    else as texts. Files that we wrote give back their columns.
    """
    root = _unpacked(path) if path.suffix.lower() == ".kmz" else read_xml(path)
    if _tag(root) != "kml":
        raise LayerError(f"{path} isn't KML: its root is <{root.tag}>.")
    marks = list(_placemarks(root, ()))
    notes = []
    if layer is not None:
        known = dict.fromkeys(name for folders, _ in marks for name in folders)
        if layer.startswith(BY_NUMBER):
            raise LayerError(f"{path}: folders of KML are meant by |layername=, not by number.")
        if layer not in known:
            raise LayerError(f"{path} has no folder '{layer}'; it has {', '.join(known) or 'none'}.")
        marks = [(folders, mark) for folders, mark in marks if layer in folders]
    else:
        counts: dict[str, int] = {}
        for folders, _ in marks:
            counts[folders[-1] if folders else ""] = counts.get(folders[-1] if folders else "", 0) + 1
        if len(counts) > 1:
            listed = ", ".join(f"{name or 'no folder'} ({count})" for name, count in counts.items())
            text = f'all folders were read: {listed}; "{path.name}|layername=FOLDER" is one.'
            notes.append(Note("folders-together", text, about=path.name, kind="choice"))
    is_foreign = not any(
        _tag(each) == "Schema" and each.get("id") == _SCHEMA for part in root for each in part
    )
    rows = [
        {**_fields(mark, is_foreign=is_foreign), "folder": folders[-1] if folders else ""}
        for folders, mark in marks
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    if len(names) > _MOST_COLUMNS:
        raise LayerError(f"{path} has more than {_MOST_COLUMNS} different fields.")
    geometry = np.empty(len(marks), dtype=object)
    geometry[:] = [_geometry(mark) for _, mark in marks]
    kinds = _kinds(root)
    if not is_foreign:
        names = list(kinds)
    columns = {name: _typed([row.get(name, "") for row in rows], kinds.get(name, "str")) for name in names}
    facts = metadata.from_json(_stated(root, metadata.KEY))
    return placed(
        geometry,
        columns,
        StatedFrame(WGS84, is_assumed=True),
        name=path.name,
        grid=grid,
        notes=notes,
        metadata=facts,
    )


def _kinds(root: Element) -> dict[str, str]:
    """What a schema says of the document's fields."""
    fields = (each for each in root.iter() if _tag(each) == "SimpleField")
    return {each.get("name", ""): _KINDS.get(each.get("type", ""), "str") for each in fields}


def _typed(texts: list[str], kind: str) -> NDArray[Any]:
    """A column in its kind; as texts where it holds something else."""
    try:
        if kind == "int" and all(texts):
            return np.array([int(text) for text in texts], np.int64)
        if kind in ("int", "float"):
            return np.array([float(text or "nan") for text in texts], np.float64)
    except (ValueError, OverflowError):
        pass
    return np.array(texts, dtype=object)


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


def _fields(mark: Element, *, is_foreign: bool) -> dict[str, str]:
    fields = {"name": _child_text(mark, "name")}
    for element in mark.iter():
        if _tag(element) == "Data":
            fields[element.get("name", "")] = _child_text(element, "value")
        elif _tag(element) == "SimpleData":
            fields[element.get("name", "")] = (element.text or "").strip(None if is_foreign else "")
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
