"""A GeoPackage of several layers to edit in QGIS, each with its style and form, and a table of ours."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ecodetect.errors import LayerError
from ecodetect.formats import metadata
from ecodetect.formats.gis import geopackage, ogr
from ecodetect.formats.gis.arrow_stream import ArrowStream
from ecodetect.guarding import databases, guard
from ecodetect.layer import Layer, Stream

_MOST_TEXT = 64 << 20  # bytes of a table's text


@dataclass(frozen=True, eq=False, slots=True)
class EditedLayer:
    """A layer of the file.

    geometry_type : as in Stream.  columns : name -> one of "str", "float", "int".
    qml : its style and form.
    """

    name: str
    layer: Layer
    geometry_type: str
    columns: Mapping[str, str]
    qml: str

    def stream(self) -> Stream:
        """The layer as what a driver takes."""
        return Stream(
            [self.layer], self.geometry_type, self.columns, grid=self.layer.grid, crs=self.layer.crs
        )


def write(path: Path, layers: Sequence[EditedLayer], tables: Mapping[str, str]) -> None:
    """Write layers, and tables of one text each, into a new file.

    Raises OSError in GDAL's words where it fails.
    """
    for each in layers:
        _put(path, each, is_first=each is layers[0])
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for each in layers:
            geopackage.add_style(database, each.name, each.qml)
        for name, text in tables.items():
            database.execute(
                f'CREATE TABLE "{name}" ("id" INTEGER PRIMARY KEY NOT NULL, "json" TEXT NOT NULL)'
            )
            database.execute(f'INSERT INTO "{name}" VALUES (1, ?)', (text,))
            geopackage.register_table(database, name, rows=1)


def extend(path: Path, layers: Sequence[EditedLayer], tables: Mapping[str, str]) -> None:
    """Add features to the layers of a file, and put other texts in its tables; what is there stays.

    Columns that somebody has removed aren't written.
    """
    for each in layers:
        there = ogr.fields(path, each.name)
        columns = {name: kind for name, kind in each.columns.items() if name in there}
        _put(path, replace(each, columns=columns), is_first=False, append=True)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for name, text in tables.items():
            database.execute(f'UPDATE "{name}" SET json = ? WHERE id = 1', (text,))


def _put(path: Path, each: EditedLayer, *, is_first: bool, append: bool = False) -> None:
    stream = each.stream()
    arrow = ArrowStream(stream, path.name)
    ogr.write_layer(
        path,
        arrow,
        driver="GPKG",
        geometry_type=each.geometry_type,
        texts={} if append else metadata.to_texts({}, arrow.frame, frame_key=metadata.OGR_FRAME_KEY),
        options=geopackage.options_of(arrow.crs) if is_first else {},
        layer=each.name,
        append=append,
    )


def read_table(path: Path, name: str) -> str | None:
    """The text of a table of ours; None where there is none, or another.

    Raises LayerError where the file can't be read, or reaches beyond itself.
    """
    found: str | None = _asked(path, "table_in", name)
    return found


def layer_names(path: Path) -> tuple[str, ...]:
    """The layers and tables that a file says it has; raises LayerError where it can't be read."""
    return tuple(_asked(path, "names_in"))


def _asked(path: Path, what: str, *arguments: str) -> Any:
    """What a function here says of a file, in the guard: others may have made it."""
    with databases.at_rest(path, error=LayerError) as file:
        return guard.call(
            f"ecodetect.formats.gis.geopackage_layers:{what}",
            str(file),
            *arguments,
            about=str(path),
            error=LayerError,
            bytes_read=file.stat().st_size,
        )


def table_in(path: str, name: str) -> str | None:
    """As `read_table`, of a file that nothing else is at work on. For `guard`'s child."""
    if name in geopackage.check(Path(path)):
        return None  # a view says whatever it likes, for as long as it likes
    asked = f'SELECT json FROM "{name}" WHERE id = 1 AND length(json) < {_MOST_TEXT}'
    try:
        with contextlib.closing(geopackage.opened(Path(path))) as database:
            found = database.execute(asked).fetchone()
    except (sqlite3.Error, UnicodeError):
        return None
    return found[0] if found is not None and isinstance(found[0], str) else None


def names_in(path: str) -> list[str]:
    """As `layer_names`, of a file that nothing else is at work on. For `guard`'s child."""
    views = geopackage.check(Path(path))
    if {"gpkg_contents", "gpkg_geometry_columns"} & set(views):
        raise LayerError(f"{path} lists its layers in a view, which isn't read.")
    return [name for name, _ in geopackage.listed(Path(path))]
