"""GeoJSON (RFC 7946) and GeoJSON text sequences: one feature per line, longitude and latitude on WGS 84.

Without a CRS the coordinates are those of the raster's transform, or its pixels with y upwards, and a member
`ecodetect:frame` (`affine`, `pixel_up`) says so. The member `ecodetect` holds the layer's metadata.

QuPath writes GeoJSON too, as a collection or a bare list: in pixels of the image, y down.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from ecodetect.errors import LayerError
from ecodetect.formats import metadata
from ecodetect.formats.collecting import OF_IMAGE, pixels_note
from ecodetect.formats.content import Content, seal_in_place
from ecodetect.formats.gis.on_earth import on_earth, place_of
from ecodetect.formats.json_stream import JsonStream
from ecodetect.formats.placing import StatedFrame, frame_of, placed, upended
from ecodetect.formats.protocol import Written
from ecodetect.grid import WGS84, Grid
from ecodetect.guarding.crs_files import read_crs
from ecodetect.layer import NUMBERS, Geometries, Layer, Stream
from ecodetect.notes import Note
from ecodetect.wording import counted

_SEAL_KEY = "ecodetect:content"
_SEQUENCES = WITHOUT_METADATA = (".geojsonl", ".geojsons")
_MOST_BYTES = 2 << 30
_MOST_COLUMNS = 1_000  # a column is as long as the layer, even when one feature has it
_QUPATH_KINDS = {"annotation", "detection", "cell", "tile", "tma_core"}
_QUPATH_IDS = {"PathAnnotationObject", "PathDetectionObject", "PathCellObject", "PathTileObject"}
_CHUNK = 10_000  # features parsed before their geometries are made
PIECE = 50_000


def write(path: Path, stream: Stream) -> Written:
    """Write a stream as a FeatureCollection, or as a sequence of features (.geojsonl, .geojsons).

    Features without a place on the Earth are left out and counted. A sequence has no place for metadata or a
    frame. Raises LayerError where the CRS has no way to longitude and latitude.
    """
    batches = iter(stream)
    first = next(batches, None)
    frame = frame_of(stream, first)
    is_sequence = path.suffix.lower() in _SEQUENCES
    if is_sequence and frame != "crs":
        raise LayerError(f"{path.name} can't say that there is no CRS; write a .geojson or .gpkg.")
    features = dropped = 0
    # An unpaired surrogate (a file name that isn't text) becomes the JSON escape of the same character.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        if not is_sequence:
            file.write(_opening(frame, stream.metadata))
        for batch in chain([] if first is None else [first], batches):
            if frame_of(stream, batch) != frame:
                raise LayerError(f"{path.name} can't hold features with and without a CRS; write two files.")
            if frame == "crs":
                batch, geometry, lost = on_earth(batch, name=path.name, title="GeoJSON")
                dropped += lost
            else:
                geometry = upended(batch.in_world()) if frame == "pixel" else batch.in_world()
                has_place = place_of(geometry)
                dropped += int(np.count_nonzero(~has_place))
                batch, geometry = batch[has_place], geometry[has_place]
            if not len(batch):
                continue
            lines = _features(shapely.orient_polygons(geometry), batch.columns)
            if is_sequence:
                file.write("\n".join(lines) + "\n")
            else:
                file.write((",\n" if features else "\n") + ",\n".join(lines))
            features += len(batch)
        if not is_sequence:
            file.write("\n]}\n")
    notes = []
    if dropped:
        text = f"{counted(dropped, 'feature')} without a place on the Earth left out."
        notes.append(Note("features-dropped", text, about=path.name, kind="doubt"))
    return Written(path, features, dropped, tuple(notes))


def _opening(frame: str, stated: Mapping[str, Any]) -> str:
    members = ['{"type":"FeatureCollection"', '"name":"detections"']
    if frame != "crs":
        members.append(f'"{metadata.FRAME_KEY}":"{metadata.frame_in_file(frame)}"')
    if stated:
        members.append(f'"{metadata.KEY}":{metadata.to_json(stated)},"{_SEAL_KEY}":"{metadata.BLANK}"')
    return ",\n".join([*members, '"features":['])


def _features(geometry: Geometries, columns: Mapping[str, NDArray[Any]]) -> list[str]:
    """One line of JSON for each feature."""
    texts = {name: _json(values) for name, values in columns.items()}
    properties = ",".join(encode_basestring(name).replace("%", "%%") + ":%s" for name in texts)
    shapes = shapely.to_geojson(geometry)
    if "id" in texts:
        line = f'{{"type":"Feature","id":%s,"properties":{{{properties}}},"geometry":%s}}'
        return [line % row for row in zip(texts["id"], *texts.values(), shapes, strict=True)]
    line = f'{{"type":"Feature","properties":{{{properties}}},"geometry":%s}}'
    return [line % row for row in zip(*texts.values(), shapes, strict=True)]


def _json(values: NDArray[Any]) -> list[str]:
    """Each value of a column as JSON; null for what isn't finite or isn't there."""
    if values.dtype.kind == "f":
        return [repr(value) if math.isfinite(value) else "null" for value in values.tolist()]
    if values.dtype.kind == "b":
        return ["true" if value else "false" for value in values.tolist()]
    if values.dtype.kind in "iu":
        return [str(value) for value in values.tolist()]
    known: dict[Any, str] = {}
    for value in set(values.tolist()):
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        known[value] = "null" if missing else encode_basestring(str(value))
    return [known[value] for value in values.tolist()]


_HEAD = re.compile(
    rb'"type"\s*:\s*"(Feature|FeatureCollection|GeometryCollection|(Multi)?(Point|LineString|Polygon))"'
)


def recognises(path: Path, head: bytes) -> bool:
    """Whether a .json file is GeoJSON, by the first part of it."""
    return _HEAD.search(head.replace(b"\0", b"")) is not None


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """Read a FeatureCollection, Feature, geometry, a list or a sequence of features.

    Objects of QuPath are in pixels, with the name of their classification in that column. An
    old-style member `crs` is honoured. Coordinates that can't be longitude and latitude, without such a
    member, are in the raster's CRS where they lie in the raster; otherwise the file is refused.
    """
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise LayerError(
            f"{path} has {size / 1e9:.1f} GB of GeoJSON, more than 2 GB; convert it to GeoPackage."
        )
    notes: list[Note] = []
    with path.open("rb") as file:
        encoding = "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        members, features = _parsed(path, encoding)
    except UnicodeError:
        # RFC 7946 says UTF-8, but older tools on Windows wrote what the system spoke.
        text = "it isn't UTF-8; its text was read as Windows-1252."
        notes.append(Note("text-encoding", text, about=path.name, kind="choice"))
        members, features = _parsed(path, "cp1252")
    geometry, columns = features.finished()
    crs, is_assumed = _stated_crs(members, path)
    frame = members.get(metadata.FRAME_KEY)
    facts = metadata.from_json(members.get(metadata.KEY))
    if features.are_of_qupath and is_assumed and frame is None:
        frame, facts[OF_IMAGE] = "pixel", None
        if grid is None:
            notes.append(pixels_note(path))
    return placed(
        geometry,
        columns,
        StatedFrame(crs, frame if isinstance(frame, str) else None, is_assumed),
        name=path.name,
        grid=grid,
        notes=notes,
        metadata=facts,
    )


def pieces(path: Path, *, grid: Grid | None) -> Iterator[Layer]:
    """What `write` wrote, in pieces; it says in front of the features where they lie."""
    frame = None
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        stream = JsonStream(file, path.name)
        if path.suffix.lower() in _SEQUENCES:
            yield from _in_pieces(stream.sequence(), path, None, grid)
            return
        for key, value in stream.members(in_parts="features"):
            if key == metadata.FRAME_KEY:
                frame = value
            elif key == "features" and isinstance(value, Iterator):
                yield from _in_pieces(value, path, frame, grid)


def _in_pieces(found: Iterator[Any], path: Path, frame: str | None, grid: Grid | None) -> Iterator[Layer]:
    while part := list(islice(found, PIECE)):
        features = _Features(path)
        for feature in part:
            features.add(feature)
        geometry, columns = features.finished()
        yield placed(geometry, columns, StatedFrame(WGS84, frame, is_assumed=True), name=path.name, grid=grid)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata that `write` put in front of the features."""
    return metadata.from_json(_stated(path, metadata.KEY))


def read_seal(path: Path) -> str | None:
    """The hash that `seal` put there."""
    found = _stated(path, _SEAL_KEY)
    return found if isinstance(found, str) else None


def _stated(path: Path, wanted: str) -> Any:
    """A member in front of the features; None where there is none."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for key, value in JsonStream(file, path.name).members(in_parts="features"):
            if key == wanted:
                return value
            if key == "features":
                break
    return None


def content(path: Path) -> Content:
    """The features of a collection, gone through one by one, and what says where they lie."""
    found = Content()
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for key, value in JsonStream(file, path.name).members(in_parts="features"):
            if key == "features" and isinstance(value, Iterator):
                for feature in value:
                    _count(feature, found)
            elif key in ("crs", metadata.FRAME_KEY):
                found.add_json({key: value})
    return found


def _count(feature: Any, found: Content) -> None:
    feature = feature if isinstance(feature, dict) else {}
    properties = feature.get("properties")
    columns = dict(properties) if isinstance(properties, dict) else {}
    if feature.get("id") is not None:
        columns.setdefault("id", feature["id"])  # GDAL, which writes an edited file again, leaves it out
    found.add_json([columns, feature.get("geometry")])
    found.tally.add({name: [value] for name, value in columns.items()}, 1)


def seal(path: Path, digest: str) -> None:
    """Put the hash of the features into the metadata, which come before them."""
    head = b""
    with path.open("rb") as file:
        while b'"features":[' not in head and (block := file.read(1 << 16)):
            head += block
    seal_in_place(path, digest, 0, len(head))


def _parsed(path: Path, encoding: str) -> tuple[dict[str, Any], _Features]:
    """The top members except the features, and the features."""
    features = _Features(path)
    # Bytes undefined in Windows-1252 don't matter: they are in a text, not in a number.
    errors = "replace" if encoding == "cp1252" else "strict"
    with path.open(encoding=encoding, errors=errors, newline="") as file:
        stream = JsonStream(file, path.name)
        if path.suffix.lower() in _SEQUENCES:
            for value in stream.sequence():
                features.add(value)
            return {}, features
        if stream.is_list:  # QuPath
            for value in stream.elements():
                if not isinstance(value, dict) or "geometry" not in value:
                    raise LayerError(f"{path} is JSON but not GeoJSON: it is a list of something else.")
                features.add(value)
            return {}, features
        members: dict[str, Any] = {}
        has_features = False
        for key, value in stream.members(in_parts="features"):
            if key == "features":
                has_features = True
                for feature in value if isinstance(value, Iterator) else ():
                    features.add(feature)
            else:
                members[key] = value
    kind = members.get("type")
    if not has_features:
        if kind == "Feature":
            features.add(members)
        elif isinstance(kind, str) and ("coordinates" in members or "geometries" in members):
            features.add({"type": "Feature", "geometry": members, "properties": {}})
        else:
            raise LayerError(f"{path} is JSON but not GeoJSON: it has no features.")
    return members, features


class _Features:
    """Features as they come from the parser, as geometries and columns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0
        self._texts: list[str] = []
        self._shapes: list[Geometries] = []
        self._columns: dict[str, list[Any]] = {}
        self.are_of_qupath = False

    def add(self, feature: Any) -> None:
        feature = feature if isinstance(feature, dict) else {}
        geometry, properties = feature.get("geometry"), feature.get("properties")
        if feature.get("type") != "Feature" and "coordinates" in feature:
            geometry = feature
        self._texts.append(json.dumps(geometry))
        own = dict(properties) if isinstance(properties, dict) else {}
        if feature.get("id") is not None:
            own.setdefault("id", feature["id"])
        self.are_of_qupath |= _is_of_qupath(feature, own)
        if isinstance(own.get("id"), str) and own["id"] in _QUPATH_IDS:  # a kind, not the name of an object
            del own["id"]
        if isinstance(own.get("classification"), dict):
            own = _with_class(own)
        for name, value in own.items():
            column = self._columns.get(name)
            if column is None:
                if len(self._columns) == _MOST_COLUMNS:
                    raise LayerError(f"{self._path} has more than {_MOST_COLUMNS} different properties.")
                column = self._columns[name] = []
            if len(column) < self._count:
                column.extend([None] * (self._count - len(column)))
            column.append(value)
        self._count += 1
        if len(self._texts) == _CHUNK:
            self._make_shapes()

    def _make_shapes(self) -> None:
        texts = np.array(self._texts, dtype=object)
        shapes = np.asarray(shapely.from_geojson(texts, on_invalid="ignore"), dtype=object)
        unread = np.flatnonzero(shapely.is_missing(shapes) & (texts != "null"))
        if len(unread):
            mended = np.array([json.dumps(_mended(json.loads(text))) for text in texts[unread]], dtype=object)
            shapes[unread] = shapely.from_geojson(mended, on_invalid="ignore")
        self._shapes.append(shapes)
        self._texts.clear()

    def finished(self) -> tuple[Geometries, dict[str, NDArray[Any]]]:
        """Geometries (None where there is none that can be read) and typed columns."""
        self._make_shapes()
        for column in self._columns.values():
            column.extend([None] * (self._count - len(column)))
        return np.concatenate(self._shapes), {
            name: _typed(values, name in NUMBERS) for name, values in self._columns.items()
        }


def _is_of_qupath(feature: Mapping[str, Any], properties: Mapping[str, Any]) -> bool:
    """Whether QuPath wrote a feature: since version 0.3 it says its kind, before it was the feature's id."""
    kind = properties.get("objectType", properties.get("object_type"))
    words = [word for word in (kind, feature.get("id")) if isinstance(word, str)]
    return any(word in _QUPATH_KINDS or word in _QUPATH_IDS for word in words)


def _with_class(properties: dict[str, Any]) -> dict[str, Any]:
    """Properties with the class by its name, and without QuPath's tables of measurements and colours."""
    stated = properties["classification"]
    names = stated.get("names")
    name = " & ".join(map(str, names)) if isinstance(names, list) else stated.get("name")
    kept = {key: value for key, value in properties.items() if not isinstance(value, (dict, list))}
    return {"classification": str(name or ""), **kept}


def _mended(geometry: Any) -> Any:
    """A geometry that GEOS doesn't read, with what RFC 7946 lets a reader do without.

    Positions of more than three numbers (measures) keep two; rings that aren't closed are.
    """
    if not isinstance(geometry, dict):
        return geometry
    if isinstance(geometry.get("geometries"), list):
        return {**geometry, "geometries": [_mended(part) for part in geometry["geometries"]]}
    is_areal = geometry.get("type") in ("Polygon", "MultiPolygon")

    def mended(part: Any) -> Any:
        if not isinstance(part, list) or not part:
            return part
        if not isinstance(part[0], list):
            return part[:2]
        parts = [mended(inner) for inner in part]
        is_ring = is_areal and isinstance(part[0], list) and part[0] and not isinstance(part[0][0], list)
        return [*parts, parts[0]] if is_ring and len(parts) > 2 and parts[0] != parts[-1] else parts

    return {**geometry, "coordinates": mended(geometry.get("coordinates"))}


def _typed(values: list[Any], is_number: bool) -> NDArray[Any]:
    """A column of bool, int64, float64 (null: NaN) or, where that doesn't hold everything, str (null: "").

    is_number : what a column of nothing but null is.
    """
    kinds = {type(value) for value in values}
    try:
        if kinds == {bool}:
            return np.array(values, np.bool_)
        if kinds == {int}:
            return np.array(values, np.int64)
        if (kinds & {int, float} or is_number) and kinds <= {int, float, type(None)}:
            return np.array([math.nan if value is None else value for value in values], np.float64)
    except OverflowError:
        pass  # a number longer than the type: kept as text
    return np.array([_text(value) for value in values], dtype=object)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _stated_crs(members: Mapping[str, Any], path: Path) -> tuple[CRS | None, bool]:
    """The CRS, and whether it is only assumed: RFC 7946 knows longitude and latitude alone."""
    stated = members.get("crs")
    if stated is None:
        return WGS84, True
    properties = stated.get("properties") if isinstance(stated, dict) else None
    name = properties.get("name", properties.get("code")) if isinstance(properties, dict) else None
    try:
        return read_crs(name, str(path), error=LayerError), False
    except CRSError as error:
        raise LayerError(
            f"{path} has a member crs that can't be understood: {json.dumps(stated)}."
        ) from error
