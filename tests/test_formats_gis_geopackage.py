"""GeoPackage is valid and styled for QGIS; of several layers one is named; nothing else is run."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import geopandas
import pyogrio
import pytest
import shapely
from gis_layers import COLUMNS, GRIDS, KINDS, UTM, made_layer, made_stream, shapes_px, to_file

from ecodetect.errors import LayerError
from ecodetect.formats import files as formats
from ecodetect.layer import Stream


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [("a",), ("a", 'b "<&', "c")])
def test_geopackage_is_valid_and_carries_a_style(kind: str, classes: tuple[str, ...], tmp_path: Path) -> None:
    grid = GRIDS["north-up"]
    layer = made_layer(shapes_px(kind, grid), grid)
    path = tmp_path / "out.gpkg"
    stream = made_stream(layer)
    formats.write(path, Stream(stream.batches, stream.geometry_type, COLUMNS, grid=grid, classes=classes))
    with sqlite3.connect(path) as database:

        def rows(query: str) -> list[Any]:
            return database.execute(query).fetchall()

        assert rows("PRAGMA integrity_check") == [("ok",)]
        assert rows("PRAGMA foreign_key_check") == []
        assert rows("PRAGMA application_id") == [(0x47504B47,)]
        tables = rows("SELECT table_name, data_type, last_change FROM gpkg_contents ORDER BY 1")
        day = "1970-01-01T00:00:00.000Z"
        assert tables == [("detections", "features", day), ("layer_styles", "attributes", day)]
        declared = {"points": "POINT", "boxes": "POLYGON", "polygons": "GEOMETRY"}[kind]
        assert rows("SELECT column_name, geometry_type_name, srs_id, z, m FROM gpkg_geometry_columns") == [
            ("geom", declared, 32632, 0, 0)
        ]
        assert rows("SELECT count(*) FROM rtree_detections_geom") == [(len(layer),)]
        [(table, column, qml, default)] = rows(
            "SELECT f_table_name, f_geometry_column, styleQML, useAsDefault FROM layer_styles"
        )
    assert (table, column, default) == ("detections", "geom", 1)
    root = ElementTree.fromstring(qml)
    renderer = root.find("renderer-v2")
    assert root.tag == "qgis"
    assert renderer is not None
    symbols = {symbol.get("name"): symbol.get("type") for symbol in renderer.iter("symbol")}
    assert set(symbols.values()) == {"marker" if kind == "points" else "fill"}
    if len(classes) > 1:
        assert (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "label")
        entries = list(renderer.iter("category"))
        assert [entry.get("value") for entry in entries] == [*classes, ""]
    else:
        assert (renderer.get("type"), renderer.get("attr")) == ("graduatedSymbol", 'coalesce("score", -1)')
        entries = list(renderer.iter("range"))
    assert [entry.get("symbol") for entry in entries] == list(symbols)


def test_several_layers_need_a_name(tmp_path: Path) -> None:
    path = tmp_path / "field.gpkg"
    world = shapely.points([(400_000 + row, 5_199_990) for row in range(5)])
    to_file(path, world, 32632, layer="crowns", art=["Föhre"] * 5)
    pyogrio.write_dataframe(geopandas.pd.DataFrame({"text": ["x"]}), path, layer="remarks", append=True)
    assert len(formats.read(path)) == 5
    to_file(path, world[:1], 4326, layer="plots")
    with pytest.raises(LayerError, match=r"crowns \(5 features\), plots \(1 features\)"):
        formats.read(path)
    with pytest.raises(LayerError, match="called 'trees'; it has crowns"):
        formats.read(path, layer="trees")
    with pytest.raises(LayerError, match="called 'remarks'"):
        formats.read(path, layer="remarks")
    found = formats.read(path, layer="crowns")
    assert found.crs == UTM
    assert found.columns["art"].tolist() == ["Föhre"] * 5


def test_a_virtual_table_is_refused(tmp_path: Path) -> None:
    path = to_file(tmp_path / "a.gpkg", shapely.points([(1, 1)]), 4326)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute(
            "INSERT INTO sqlite_master VALUES ('table', 'x', 'x', 0,"
            " 'CREATE VIRTUAL TABLE x USING VirtualOGR(''/etc/passwd'')')"
        )
    with pytest.raises(LayerError, match="VirtualOGR"):
        formats.read(path)
