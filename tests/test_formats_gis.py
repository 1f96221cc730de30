"""Formats of GIS: what is written lies where it should for other readers too, with its columns."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from gis_layers import (
    COLUMNS,
    GRIDS,
    KINDS_ON_GRIDS,
    METADATA,
    SUFFIXES,
    WITH_METADATA,
    assert_rfc7946,
    assert_same_place,
    back_in_pixels,
    made_layer,
    made_stream,
    seen_by_others,
    shapes_px,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import CRS

from ecodetect.errors import LayerError
from ecodetect.formats import files as formats
from ecodetect.grid import Affine6, Grid
from ecodetect.layer import Layer, Stream


@pytest.mark.parametrize(("name", "kind"), KINDS_ON_GRIDS)
def test_objects_lie_in_their_place_for_other_readers(name: str, kind: str, tmp_path: Path) -> None:
    grid = GRIDS[name]
    layer = made_layer(shapes_px(kind, grid), grid)
    for suffix in SUFFIXES:
        path = tmp_path / f"out{suffix}"
        written = formats.write(path, made_stream(layer))
        assert (written.path, written.features, written.dropped) == (path, len(layer), 0)
        geometry, frame = seen_by_others(path) if suffix != ".geojsonl" else _lines(path)
        is_lonlat = "geojson" in suffix or suffix == ".kml"
        crs = CRS.from_epsg(4326) if is_lonlat else frame.crs
        assert crs is not None
        if not is_lonlat:
            assert CRS(crs) == grid.crs or suffix == ".shp"  # ESRI's words for a CRS say no axis order
        assert_same_place(back_in_pixels(geometry, crs, grid), layer.geometry, 1e-6)
        again = formats.read(path, grid=grid)
        order = np.argsort(again.columns["id"])
        assert_same_place(again.in_pixels(grid)[order], layer.geometry, 1e-6)
        assert again.columns["label"][order].tolist() == layer.columns["label"].tolist()
        assert again.columns["score"][order] == pytest.approx(layer.columns["score"], abs=1e-15)


def _lines(path: Path) -> tuple[Any, Any]:
    features = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return np.array([shapely.geometry.shape(feature["geometry"]) for feature in features], object), features


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_columns_and_metadata_come_back(suffix: str, tmp_path: Path) -> None:
    grid = GRIDS["north-up"]
    layer = made_layer(shapes_px("boxes", grid), grid)
    path = tmp_path / f"out{suffix}"
    written = formats.write(path, made_stream(layer))
    found = formats.read(path, grid=grid)
    order = np.argsort(found.columns["id"])
    assert list(found.columns) == list(COLUMNS)
    assert found.columns["id"][order].tolist() == layer.columns["id"].tolist()
    assert np.array_equal(found.columns["area_m2"][order], layer.columns["area_m2"], equal_nan=True)
    if suffix in WITH_METADATA:
        assert found.metadata == METADATA
        assert formats.read_metadata(path) == METADATA
    else:
        assert found.metadata == {} == formats.read_metadata(path)
    assert bool(written.notes) == (suffix == ".shp")


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".parquet", ".fgb", ".shp"])
@pytest.mark.parametrize("transform", [(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (0.5, 0.0, 10.0, 0.0, -0.5, 90.0)])
def test_a_raster_without_crs(suffix: str, transform: Affine6, tmp_path: Path) -> None:
    grid = Grid(200, 100, transform)
    layer = made_layer(shapes_px("polygons", grid), grid)
    path = tmp_path / f"out{suffix}"
    formats.write(path, made_stream(layer))
    geometry, frame = seen_by_others(path)
    if grid.frame == "pixel":  # a GIS lays such a raster below y = 0
        geometry = shapely.transform(geometry, lambda xy: xy * (1, -1))
    assert_same_place(back_in_pixels(geometry, None, grid), layer.geometry, 1e-6)
    if suffix == ".geojson":
        text = json.loads(path.read_text("utf-8"))
        assert text["ecodetect:frame"] == {"pixel": "pixel_up"}.get(grid.frame, grid.frame)
    elif suffix == ".gpkg":
        with sqlite3.connect(path) as database:
            assert database.execute("SELECT srs_id FROM gpkg_geometry_columns").fetchall() == [(-1,)]
    else:
        assert frame.crs is None
    found = formats.read(path, grid=grid)
    assert found.frame_crs is None
    assert_same_place(found.in_pixels(grid)[np.argsort(found.columns["id"])], layer.geometry, 1e-6)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_features_is_a_layer_too(suffix: str, tmp_path: Path) -> None:
    grid = GRIDS["north-up"]
    stream = Stream([], "Polygon", COLUMNS, grid=grid, metadata=METADATA)
    if suffix == ".geojsonl":
        stream = Stream([made_layer(shapely.points([(1, 1)]), grid)[:0]], "Polygon", COLUMNS, grid=grid)
    path = tmp_path / f"out{suffix}"
    assert formats.write(path, stream).features == 0
    if suffix == ".geojsonl":
        assert path.read_bytes() == b""
        return
    found = formats.read(path, grid=grid)
    assert len(found) == 0
    assert len(found.in_pixels(grid)) == 0
    if suffix == ".geojson":
        assert_rfc7946(path.read_text("utf-8"))


def test_two_coordinate_systems_dont_fit_one_file(tmp_path: Path) -> None:
    a, b = GRIDS["north-up"], GRIDS["feet"]
    batches = [made_layer(shapes_px("boxes", grid), grid) for grid in (a, b)]
    for suffix in (".gpkg", ".parquet", ".fgb", ".shp"):
        with pytest.raises(LayerError, match="two coordinate systems"):
            formats.write(tmp_path / f"out{suffix}", Stream(batches, "Polygon", COLUMNS, crs=a.crs))
    # Longitude and latitude hold both.
    written = formats.write(tmp_path / "out.geojson", Stream(batches, "Polygon", COLUMNS))
    assert written.features == 2 * len(batches[0])
    plane = Grid(10, 10)
    batches[1] = made_layer(shapes_px("boxes", plane), plane)
    with pytest.raises(LayerError, match="with and without a CRS"):
        formats.write(tmp_path / "other.geojson", Stream(batches, "Polygon", COLUMNS))


def test_column_names_that_a_format_cant_take(tmp_path: Path) -> None:
    grid = GRIDS["north-up"]
    names = ("fid", "geom", "geometry", "Label", "label", "höhe_über_grund", "höhe_über_normalnull")
    columns = {name: np.arange(3.0) + at for at, name in enumerate(names)}
    layer = Layer(shapely.points([(1, 1), (2, 2), (3, 3)]), columns, grid=grid)
    stream = Stream([layer], "Point", dict.fromkeys(names, "float"), grid=grid)
    for suffix in (".gpkg", ".fgb", ".parquet"):
        path = tmp_path / f"out{suffix}"
        formats.write(path, stream)
        found = formats.read(path)
        assert [values.min() for values in found.columns.values()] == list(range(7)), suffix
    written = formats.write(tmp_path / "out.shp", stream)
    found = formats.read(tmp_path / "out.shp")
    assert list(found.columns) == ["fid", "geom", "geometry_2", "Label", "label_2", "höhe_übe", "höhe_ü_2"]
    assert "höhe_über_normalnull → höhe_ü_2" in str(written.notes[1])


DISGUISES = {
    ".gml": b'<OGRVRTDataSource xmlns:gml="http://www.opengis.net/gml"></OGRVRTDataSource>',
    ".gpx": b"<OGRVRTDataSource/>",
    ".kml": b"<html/>",
    ".gpkg": b"<OGRVRTDataSource/>",
    ".fgb": b'{"type": "gdal_streamed_alg"}',
    ".shp": b"<OGRVRTDataSource/>" * 20,
    ".parquet": b"<OGRVRTDataSource/>",
    ".tab": b"<OGRVRTDataSource/>",
    ".mif": b"<OGRVRTDataSource/>",
    ".kmz": b"<kml/>",
    ".gdb": b"<OGRVRTDataSource/>",
}


@pytest.mark.parametrize("suffix", DISGUISES)
def test_a_file_is_what_its_suffix_says(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(DISGUISES[suffix])
    with pytest.raises(LayerError):
        formats.read(path)
    path.write_bytes(b"")
    with pytest.raises(LayerError, match="empty"):
        formats.read(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
@pytest.mark.parametrize("suffix", [one for one in formats.suffixes(writing=False) if one != "/"])
def test_a_pipe_is_no_layer(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    os.mkfifo(path)
    with pytest.raises(LayerError):
        formats.read(path)


def test_what_isnt_there_or_isnt_known(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="doesn't exist"):
        formats.read(tmp_path / "a.geojson")
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(LayerError, match=r"isn't known; .*\.gpkg"):
        formats.read(tmp_path / "a.doc")


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(GRIDS)),
    st.lists(
        st.tuples(st.floats(-50, 550), st.floats(-50, 450), st.floats(0.5, 60), st.integers(3, 12)),
        max_size=5,
    ),
    st.sampled_from([".geojson", ".gpkg", ".parquet", ".fgb"]),
)
def test_any_polygons_come_back(tmp_path: Path, name: str, places: Any, suffix: str) -> None:
    grid = GRIDS[name]
    shapes = np.empty(len(places), dtype=object)
    for at, (x, y, radius, corners) in enumerate(places):
        turn = np.linspace(0, 2 * np.pi, corners + 1)[:-1]
        shapes[at] = shapely.Polygon(np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], axis=1))
    layer = made_layer(shapes, grid)
    path = tmp_path / f"any{suffix}"
    formats.write(path, Stream([layer], "Polygon", COLUMNS, grid=grid), overwrite=True)
    found = formats.read(path, grid=grid)
    order = np.argsort(found.columns["id"]) if len(found) else slice(None)
    assert_same_place(found.in_pixels(grid)[order], shapes, 1e-6) if len(shapes) else None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
@pytest.mark.parametrize(
    "name", ["a.gpkg", "a.geojson", "a.shp", "a.csv", "a.xml", "a.parquet", "a.kml", "a.gml"]
)
def test_a_pipe_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(LayerError, match="is not a file but a pipe"):
        formats.read(tmp_path / name)
