"""GeoPackage: the layer `detections` in the raster's CRS, with a spatial index and a style for QGIS."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyproj import CRS

from ecodetect.errors import LayerError
from ecodetect.formats import metadata
from ecodetect.formats.content import Content
from ecodetect.formats.gis import ogr, qgis_metadata
from ecodetect.formats.gis.arrow_stream import ArrowStream
from ecodetect.formats.gis.qgis_style import style
from ecodetect.formats.protocol import Written
from ecodetect.grid import Grid
from ecodetect.guarding import databases
from ecodetect.layer import Layer, Stream

# What SQLite leaves beside a file in use; left over from an older output it would be applied to the new one.
SIDE_SUFFIXES = (".gpkg-wal", ".gpkg-shm", ".gpkg-journal")
# GDAL writes 1.4 by now, and QGIS 3.22 warns of what is later than 1.3; nothing here needs more than 1.2.
_VERSION = "1.2"
_UNDEFINED_PLANE = "-1"  # srs_id that the standard keeps for a plane without CRS


def write(path: Path, stream: Stream) -> Written:
    """Write a stream; the columns `fid` and `geom` are the format's own."""
    names = ogr.distinct(stream.columns, taken=("fid", "geom"))
    arrow = ArrowStream(stream, path.name, column_names=names)
    written = ogr.write_layer(
        path,
        arrow,
        driver="GPKG",
        geometry_type=stream.geometry_type,
        texts=metadata.to_texts(stream.metadata, arrow.frame, frame_key=metadata.OGR_FRAME_KEY),
        options=options_of(arrow.crs),
    )
    try:
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            # GDAL leaves a spatial index that it has no room for out, without a word.
            [indexed] = database.execute("SELECT count(*) FROM rtree_detections_geom").fetchone()
            if indexed != arrow.shapes:
                raise sqlite3.OperationalError(f"the rtree has {indexed} of {arrow.shapes} features")
            if len(arrow.types) > 1:
                _declare_mixed(database)
            if stream.geometry_type != "Unknown":
                look = style(stream.geometry_type, tuple(names), stream.classes, stream.steps)
                add_style(database, ogr.LAYER, look)
            if (said := qgis_metadata.described(stream.metadata, stream.classes)) is not None:
                _add_description(database, said)
    except sqlite3.Error as error:
        raise ogr.failure(error, path, arrow.bytes) from error
    return written


def _declare_mixed(database: sqlite3.Connection) -> None:
    """Say GEOMETRY instead of POLYGON: that multipolygons came too is only known at the end."""
    database.execute("UPDATE gpkg_geometry_columns SET geometry_type_name = 'GEOMETRY'")
    database.execute("PRAGMA writable_schema = ON")
    old, new = '"geom" POLYGON', '"geom" GEOMETRY'
    database.execute(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = ?", (old, new, ogr.LAYER)
    )
    database.execute("PRAGMA writable_schema = OFF")


def options_of(crs: CRS | None) -> dict[str, str]:
    """GDAL's options for a new file whose layers are in `crs`."""
    return {"VERSION": _VERSION, **({"SRID": _UNDEFINED_PLANE} if crs is None else {})}


def add_style(database: sqlite3.Connection, layer: str, qml: str) -> None:
    """Put a style into the table in which QGIS looks for it, laid out as QGIS makes it."""
    made = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'layer_styles'").fetchone()
    if made == (0,):
        database.execute(
            """CREATE TABLE "layer_styles" ("id" INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
            "f_table_catalog" TEXT(256), "f_table_schema" TEXT(256), "f_table_name" TEXT(256),
            "f_geometry_column" TEXT(256), "styleName" TEXT(30), "styleQML" TEXT, "styleSLD" TEXT,
            "useAsDefault" BOOLEAN, "description" TEXT, "owner" TEXT(30), "ui" TEXT(30),
            "update_time" DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))"""
        )
        register_table(database, "layer_styles", rows=0)
    database.execute(
        "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column,"
        " styleName, styleQML, styleSLD, useAsDefault, description, owner, ui, update_time)"
        " VALUES ('', '', ?, 'geom', ?, ?, '', 1, '', '', NULL, ?)",
        (layer, layer, qml, ogr.DATE),
    )
    database.execute(
        "UPDATE gpkg_ogr_contents SET feature_count = feature_count + 1 WHERE table_name = 'layer_styles'"
    )


def register_table(database: sqlite3.Connection, name: str, *, rows: int) -> None:
    """Register a table without geometry.

    One that isn't registered makes the file invalid; as `attributes` it is none of the layers on a map.
    """
    database.execute(
        "INSERT INTO gpkg_contents (table_name, data_type, identifier, last_change)"
        " VALUES (?, 'attributes', ?, ?)",
        (name, name, ogr.DATE),
    )
    database.execute("INSERT INTO gpkg_ogr_contents VALUES (?, ?)", (name, rows))


def _add_description(database: sqlite3.Connection, text: str) -> None:
    """The row of metadata that QGIS shows in a layer's properties, beside the one that GDAL wrote."""
    [number] = database.execute("SELECT max(id) + 1 FROM gpkg_metadata").fetchone()
    database.execute(
        "INSERT INTO gpkg_metadata VALUES (?, 'dataset', ?, 'text/xml', ?)",
        (number, qgis_metadata.STANDARD, text),
    )
    database.execute(
        "INSERT INTO gpkg_metadata_reference VALUES ('table', ?, NULL, NULL, ?, ?, NULL)",
        (ogr.LAYER, ogr.DATE, number),
    )


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """Read one layer; tables without geometry are none, and views only by their name."""
    ogr.check_beginning(path, databases.MAGIC)
    return ogr.read_layer(path, layer=layer, grid=grid, child="ecodetect.formats.gis.geopackage:parts")


def pieces(path: Path, *, grid: Grid | None) -> Iterator[Layer]:
    """The layer `detections` in pieces."""
    ogr.check_beginning(path, databases.MAGIC)
    return ogr.read_pieces(path, grid=grid, child="ecodetect.formats.gis.geopackage:parts")


def parts(path: str, layer: str | None, encoding: str | None) -> Iterator[bytes]:
    """As `ogr.parts`, of a file that is checked first."""
    views = check(Path(path))
    # To list a view, GDAL begins to read it.
    yield from ogr.parts(path, layer, encoding, listed(Path(path)) if views else None, views)


def listed(path: Path) -> list[tuple[str, str | None]]:
    """The layers that a file says it has, and their types."""
    asked = (
        "SELECT table_name, CASE data_type WHEN 'features' THEN geometry_type_name END FROM gpkg_contents"
        " LEFT JOIN gpkg_geometry_columns USING (table_name)"
    )
    try:
        with contextlib.closing(opened(path)) as found:
            return [(str(name), kind) for name, kind in found.execute(asked)]
    except sqlite3.Error as error:
        raise LayerError(f"{path} can't be read as a GeoPackage: {error}.") from error


def opened(path: Path) -> sqlite3.Connection:
    """A file that nothing else is at work on, to be read only."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)


_VIRTUAL = re.compile(r"\s*CREATE\s+VIRTUAL\b", re.IGNORECASE)
# Tables kept within the file: indexes of places and of words.
_HARMLESS = re.compile(
    r"\s*CREATE\s+VIRTUAL\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(?:\"[^\"]*\"|'[^']*'|\[[^\]]*\]|`[^`]*`|\w+)"
    r"\s+USING\s+(?:rtree|fts3|fts4|fts5)\b",
    re.IGNORECASE,
)
_VIEW = re.compile(r"\s*CREATE\s+(?:TEMP(?:ORARY)?\s+)?VIEW\b", re.IGNORECASE)


def check(path: Path) -> tuple[str, ...]:
    """The names of a file's views.

    Raises LayerError for a broken file, or one that reaches beyond itself.
    """
    try:
        with contextlib.closing(opened(path)) as found:
            rows = found.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    except (sqlite3.Error, UnicodeError) as error:
        raise LayerError(f"{path} can't be read as a GeoPackage: {error}.") from error
    views = []
    for name, sql in rows:
        bare = databases.without_comments(str(sql))
        if _VIRTUAL.match(bare) and not _HARMLESS.match(str(sql)):
            kind = re.search(r"\bUSING\s+\W*(\w+)", bare, re.IGNORECASE)
            kind_name = f" ({kind[1]})" if kind else ""
            raise LayerError(f"{path} has a virtual table '{name}'{kind_name}, which could read other files.")
        if _VIEW.match(bare):
            views.append(str(name))
    return tuple(views)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of the layer `detections`."""
    ogr.check_beginning(path, databases.MAGIC)
    return {} if ogr.LAYER in check(path) else ogr.read_metadata(path)


def read_seal(path: Path) -> str | None:
    """The hash that `seal` put in."""
    ogr.check_beginning(path, databases.MAGIC)
    return None if ogr.LAYER in check(path) else ogr.read_seal(path)


def content(path: Path) -> Content:
    """The features of the layer `detections`."""
    ogr.check_beginning(path, databases.MAGIC)
    check(path)
    return ogr.content(path)


def seal(path: Path, digest: str) -> None:
    """Put the hash of the features into the metadata."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "UPDATE gpkg_metadata SET metadata = replace(metadata, ?, ?)", (metadata.BLANK, digest)
        )
