"""Formats of GIS: what is written lies where it should for other readers too, whole or not at all; what
others wrote is read or refused in one sentence."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import sqlite3
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import geopandas
import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from listening import listening
from pyproj import CRS, Transformer

from ecodetect.errors import LayerError
from ecodetect.formats import files as formats
from ecodetect.formats.gis import ogr
from ecodetect.formats.gis.antimeridian import cut
from ecodetect.formats.gis.arrow_columns import geometries_of
from ecodetect.grid import Affine6, Grid
from ecodetect.layer import Layer, Stream

SUFFIXES = (".geojson", ".geojsonl", ".gpkg", ".parquet", ".fgb", ".shp", ".kml")
WITH_METADATA = (".geojson", ".gpkg", ".parquet", ".fgb", ".kml")
COLUMNS = {
    "id": "str",
    "label": "str",
    "score": "float",
    "area_m2": "float",
    "diameter_m": "float",
    "source": "str",
}
UTM = CRS.from_epsg(32632)


def turned(degrees: float, gsd: float) -> Affine6:
    c, s = gsd * np.cos(np.radians(degrees)), gsd * np.sin(np.radians(degrees))
    return (c, s, 400_000.0, s, -c, 5_200_000.0)


GRIDS = {
    "north-up": Grid(500, 400, (0.1, 0.0, 400_000.0, 0.0, -0.1, 5_200_000.0), UTM),
    "fine": Grid(500, 400, (0.02, 0.0, 400_000.0, 0.0, -0.02, 5_200_000.0), UTM),
    "coarse": Grid(500, 400, (10.0, 0.0, 400_000.0, 0.0, -10.0, 5_200_000.0), UTM),
    "rotated": Grid(500, 400, turned(20, 0.1), UTM),
    "sheared": Grid(500, 400, (0.1, 0.03, 400_000.0, 0.01, -0.1, 5_200_000.0), UTM),
    "south-up": Grid(500, 400, (0.1, 0.0, 400_000.0, 0.0, 0.1, 5_200_000.0), UTM),
    "not square": Grid(500, 400, (0.1, 0.0, 400_000.0, 0.0, -0.25, 5_200_000.0), UTM),
    "lat/lon": Grid(500, 400, (1e-5, 0.0, 11.5, 0.0, -1e-5, 47.2), CRS.from_epsg(4326)),
    "feet": Grid(500, 400, (0.5, 0.0, 6_000_000.0, 0.0, -0.5, 2_100_000.0), CRS.from_epsg(2227)),
}
KINDS = ("points", "boxes", "polygons")


def shapes_px(kind: str, grid: Grid, count: int = 40) -> Any:
    """Objects at known places in pixels, the first ones at the corners of the raster."""
    random = np.random.default_rng(7)
    xy = np.vstack([
        [(0, 0), (grid.width, grid.height), (0, grid.height), (grid.width, 0)],
        random.uniform(0, (grid.width, grid.height), (count, 2)),
    ])  # fmt: skip
    if kind == "points":
        return shapely.points(xy)
    if kind == "boxes":
        return shapely.box(xy[:, 0], xy[:, 1], xy[:, 0] + random.uniform(1, 30, len(xy)), xy[:, 1] + 4.25)
    turn = np.linspace(0, 2 * np.pi, 12)[:-1]
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    outer = [shapely.Polygon(at + circle * random.uniform(10, 30, (11, 1))) for at in xy]
    holes = [shapely.Polygon(at + circle * random.uniform(2, 5, (11, 1))) for at in xy]
    shapes = [a if row % 2 else a.difference(b) for row, (a, b) in enumerate(zip(outer, holes, strict=True))]
    shapes[3] = shapely.MultiPolygon([shapes[3], shapely.affinity.translate(shapes[3], 80, 5)])
    return np.array(shapes, dtype=object)


def made_layer(geometry: Any, grid: Grid) -> Layer:
    count = len(geometry)
    columns = {
        "id": np.array([f"{row:08x}" for row in range(count)], object),
        "label": np.array([("Kiefer", 'Bäumchen "%s"', "草\t\n")[row % 3] for row in range(count)], object),
        "score": np.linspace(0, 1, count),
        "area_m2": np.array([np.nan if row % 5 == 0 else 2.5 * row for row in range(count)]),
        "diameter_m": np.full(count, np.inf),
        "source": np.array(["ortho.tif"] * count, object),
    }
    return Layer(np.asarray(geometry, dtype=object), columns, grid=grid)


METADATA = {
    "ecodetect": "0.1",
    "settings": {"schwelle": 0.5, "größe": None},
    "area_ha": 1.25,
    "rasters": [{"source": "a.tif"}],
}


def made_stream(layer: Layer, *, batch: int = 7, metadata: Any = METADATA) -> Stream:
    kinds = {shape.geom_type for shape in layer.geometry}
    return Stream(
        [layer[start : start + batch] for start in range(0, len(layer), batch)],
        "Point" if kinds <= {"Point"} else "Polygon",
        COLUMNS,
        grid=layer.grid,
        crs=layer.crs,
        classes=("Kiefer",),
        metadata=metadata,
    )


def seen_by_others(path: Path) -> tuple[Any, Any]:
    """Geometry and ids as an independent reader sees them, in the order of the ids."""
    if path.suffix == ".parquet":
        frame = geopandas.read_parquet(path)
    else:
        frame = pyogrio.read_dataframe(path, layer=None if path.suffix == ".shp" else "detections")
    frame = frame.sort_values("id")
    return frame.geometry.to_numpy(), frame


def back_in_pixels(geometry: Any, crs: Any, grid: Grid) -> Any:
    """World to pixels, written out here and not taken from the code under test."""
    a, b, c, d, e, f = grid.transform
    inverse = np.linalg.inv([[a, b], [d, e]])
    step = Transformer.from_crs(crs, grid.crs, always_xy=True) if crs is not None else None

    def pixels(xy: Any) -> Any:
        world = xy if step is None else np.stack(step.transform(xy[:, 0], xy[:, 1]), axis=1)
        return (world - [c, f]) @ inverse.T

    return shapely.transform(geometry, pixels)


def assert_same_place(found: Any, wanted: Any, precision_px: float) -> None:
    assert len(found) == len(wanted)
    assert shapely.hausdorff_distance(found, wanted).max() < precision_px
    for a, b in zip(found, wanted, strict=True):
        # Hausdorff's distance is between points of the outlines; the number of them says the rest.
        assert shapely.get_num_coordinates(a) == shapely.get_num_coordinates(b)
        if b.geom_type != "Point":
            assert a.area == pytest.approx(b.area, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", GRIDS)
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


# -- GeoJSON by the letter of RFC 7946 ---------------------------------------------------------------------


def assert_rfc7946(text: str) -> dict[str, Any]:
    """The rules of RFC 7946 that a map of features can break."""

    def no_constant(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    collection = json.loads(text, parse_constant=no_constant)
    assert collection["type"] == "FeatureCollection"
    assert isinstance(collection["features"], list)
    assert "crs" not in collection
    for feature in collection["features"]:
        assert feature["type"] == "Feature"
        assert isinstance(feature["properties"], dict)
        assert isinstance(feature.get("id", ""), (str, int, float))
        assert not {"coordinates", "geometries", "features"} & set(feature)
        geometry = feature["geometry"]
        if geometry["type"] == "Point":
            positions = [geometry["coordinates"]]
        else:
            polygons = geometry["coordinates"]
            polygons = [polygons] if geometry["type"] == "Polygon" else polygons
            assert geometry["type"] in ("Polygon", "MultiPolygon")
            for polygon in polygons:
                for number, ring in enumerate(polygon):
                    assert len(ring) >= 4
                    assert ring[0] == ring[-1]
                    x, y = np.array(ring).T
                    twice = float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))
                    assert twice > 0 if number == 0 else twice < 0
                    at_pole = (np.abs(y[:-1]) == 90) & (np.abs(y[1:]) == 90)
                    assert (np.abs(np.diff(x))[~at_pole] <= 180).all()
            positions = [position for polygon in polygons for ring in polygon for position in ring]
        for position in positions:
            assert len(position) == 2
            assert -180 <= position[0] <= 180
            assert -90 <= position[1] <= 90
    return dict(collection)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", GRIDS)
def test_geojson_keeps_rfc_7946(name: str, kind: str, tmp_path: Path) -> None:
    layer = made_layer(shapes_px(kind, GRIDS[name]), GRIDS[name])
    formats.write(tmp_path / "out.geojson", made_stream(layer))
    text = (tmp_path / "out.geojson").read_text("utf-8")
    found = assert_rfc7946(text)
    assert found["ecodetect"] == METADATA
    assert "ecodetect:frame" not in found
    assert text.index('"ecodetect"') < text.index('"features"')
    first = found["features"][0]
    assert first["id"] == first["properties"]["id"] == "00000000"
    assert first["properties"]["area_m2"] is None
    assert first["properties"]["diameter_m"] is None
    assert len(text.splitlines()) == len(layer) + 5


ANTIMERIDIAN = {
    # Pacific Mercator, a UTM zone beyond its edge, and degrees from 0 to 360.
    "mercator": Grid(400, 400, (100.0, 0.0, 3_319_500.0, 0.0, -100.0, 2_000_000.0), CRS.from_epsg(3832)),
    "utm": Grid(400, 400, (10.0, 0.0, 650_000.0, 0.0, -10.0, 7_000_000.0), CRS.from_epsg(32660)),
    "0 to 360": Grid(400, 400, (1e-4, 0.0, 179.98, 0.0, -1e-4, 10.0), CRS.from_epsg(4326)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ANTIMERIDIAN)
def test_polygons_are_cut_at_the_antimeridian(name: str, kind: str, tmp_path: Path) -> None:
    grid = ANTIMERIDIAN[name]
    layer = made_layer(shapes_px(kind, grid, 200), grid)
    lon = shapely.get_coordinates(layer.in_lonlat())[:, 0]
    assert lon.min() < -179
    assert lon.max() > 179
    formats.write(tmp_path / "out.geojson", made_stream(layer))
    found = assert_rfc7946((tmp_path / "out.geojson").read_text("utf-8"))
    geometry = [shapely.geometry.shape(feature["geometry"]) for feature in found["features"]]
    again = formats.read(tmp_path / "out.geojson", grid=grid)
    centres = [shapely.box(*shape.bounds).centroid for shape in (*again.in_pixels(grid), *layer.geometry)]
    assert shapely.distance(centres[: len(layer)], centres[len(layer) :]).max() < 1e-3
    crs = None if name == "0 to 360" else 4326
    if kind == "points":
        found_px = back_in_pixels(eastern(np.array(geometry, object)), crs, grid)
        assert_same_place(found_px, layer.geometry, 1e-6)
        return
    assert any(shape.geom_type == "MultiPolygon" and len(shape.geoms) == 2 for shape in geometry)
    for shape, wanted in zip(geometry, layer.geometry, strict=True):
        assert shape.is_valid
        whole = shapely.union_all(shapely.get_parts(eastern(shape)), grid_size=1e-13)
        [back] = back_in_pixels(np.array([whole]), crs, grid)
        # The cut adds vertices on a straight line of longitude and latitude, which is none of the raster.
        assert back.symmetric_difference(wanted).area < 1e-3 * wanted.area + 1e-3


def eastern(geometry: Any) -> Any:
    """Longitudes from 0 to 360°."""
    return shapely.transform(geometry, lambda xy: np.stack([xy[:, 0] % 360, xy[:, 1]], axis=1))


def test_a_polygon_around_the_pole_reaches_it(tmp_path: Path) -> None:
    grid = Grid(400, 400, (100.0, 0.0, -20_000.0, 0.0, -100.0, 20_000.0), CRS.from_epsg(3031))
    layer = made_layer(np.array([shapely.box(150, 160, 260, 250)], object), grid)
    formats.write(tmp_path / "out.geojson", made_stream(layer))
    found = assert_rfc7946((tmp_path / "out.geojson").read_text("utf-8"))
    shape = shapely.geometry.shape(found["features"][0]["geometry"])
    assert shape.is_valid
    assert shape.bounds[1] == -90
    assert (shape.bounds[0], shape.bounds[2]) == (-180, 180)


@given(st.floats(-180, 180), st.floats(-80, 80), st.floats(0.001, 20), st.floats(0.001, 5), st.integers(3, 9))
def test_cutting_keeps_the_area_and_the_sides(
    lon: float, lat: float, wide: float, high: float, corners: int
) -> None:
    turn = np.linspace(0, 2 * np.pi, corners + 1)[:-1]
    ring = np.stack([lon + wide * np.cos(turn), lat + high * np.sin(turn)], axis=1)
    area = shapely.Polygon(ring).area
    ring[:, 0] = (ring[:, 0] + 180) % 360 - 180
    [found] = cut(np.array([shapely.Polygon(ring)], object))
    assert found.is_valid
    assert found.area == pytest.approx(area, rel=1e-6)
    assert -180 <= found.bounds[0] <= found.bounds[2] <= 180
    for part in shapely.get_parts(found):
        assert part.bounds[2] - part.bounds[0] <= 2 * wide + 1e-9


def test_features_off_the_earth_are_left_out_and_counted(tmp_path: Path) -> None:
    # A full-disk satellite picture: its corners look past the Earth.
    crs = CRS.from_proj4("+proj=geos +h=35785831 +lon_0=0 +sweep=y +ellps=WGS84 +units=m")
    grid = Grid(1000, 1000, (11_000.0, 0.0, -5_500_000.0, 0.0, -11_000.0, 5_500_000.0), crs)
    layer = made_layer(shapely.points([(500, 500), (1, 1), (480, 510), (999, 2)]), grid)
    written = formats.write(tmp_path / "out.geojson", made_stream(layer))
    assert (written.features, written.dropped) == (2, 2)
    assert "2 features" in str(written.notes[0])
    reaching_over = made_layer(np.array([shapely.box(1, 1, 500, 500), shapely.box(450, 450, 500, 500)]), grid)
    written = formats.write(tmp_path / "boxes.geojson", made_stream(reaching_over))
    assert (written.features, written.dropped) == (1, 1)
    assert len(assert_rfc7946((tmp_path / "out.geojson").read_text("utf-8"))["features"]) == 2


@pytest.mark.parametrize(
    "crs",
    [
        CRS.from_wkt(
            'ENGCRS["plot",EDATUM["stake"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
        ),
        CRS.from_user_input("IAU_2015:49900"),
    ],
)
def test_geojson_of_another_world_names_geopackage(crs: CRS, tmp_path: Path) -> None:
    grid = Grid(100, 100, (0.1, 0.0, 0.0, 0.0, -0.1, 10.0), crs)
    layer = made_layer(shapes_px("boxes", grid), grid)
    with pytest.raises(LayerError, match=r"\.gpkg"):
        formats.write(tmp_path / "out.geojson", made_stream(layer))
    assert list(tmp_path.iterdir()) == []
    formats.write(tmp_path / "out.gpkg", made_stream(layer))
    geometry, _ = seen_by_others(tmp_path / "out.gpkg")
    assert_same_place(back_in_pixels(geometry, None, grid), layer.geometry, 1e-6)


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


# -- the same bytes, whole or not at all -------------------------------------------------------------------


def all_bytes(folder: Path) -> dict[str, str]:
    """Suffix -> hash of all files in a folder."""
    return {file.suffix: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize("kind", ["points", "polygons"])
def test_the_same_features_give_the_same_bytes(kind: str, tmp_path: Path) -> None:
    grid = GRIDS["rotated"]
    layer = made_layer(shapes_px(kind, grid, 500), grid)
    first, second = tmp_path / "here", tmp_path / "some where" / "else"
    for folder, name, batch in ((first, "a", 7), (second, "another name", 200)):
        folder.mkdir(parents=True)
        for suffix in SUFFIXES:
            formats.write(folder / f"{name}{suffix}", made_stream(layer, batch=batch))
        time.sleep(1.1 if folder is first else 0)  # beyond the seconds that clocks in files have
    assert all_bytes(first) == all_bytes(second)
    for file in first.iterdir():
        data = file.read_bytes()
        assert time.strftime("%Y-%m-%d", time.gmtime()).encode() not in data
        assert str(tmp_path).encode() not in data
        assert file.suffix == ".geojsonl" or b"here" not in data or b"sphere" in data


class Broken(Exception):
    pass


def failing(layer: Layer, error: BaseException) -> Iterator[Layer]:
    yield layer[:3]
    yield layer[3:6]
    raise error


@pytest.mark.parametrize(
    "error", [Broken("source"), KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")]
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failing_source_leaves_nothing_and_keeps_the_old(
    suffix: str, error: BaseException, tmp_path: Path
) -> None:
    grid = GRIDS["north-up"]
    layer = made_layer(shapes_px("boxes", grid), grid)
    path = tmp_path / f"out{suffix}"
    stream = Stream(failing(layer, error), "Polygon", COLUMNS, grid=grid)
    with pytest.raises((Broken, KeyboardInterrupt, LayerError)) as caught:
        formats.write(path, stream)
    assert isinstance(caught.value, LayerError if isinstance(error, OSError) else type(error))
    assert list(tmp_path.iterdir()) == []

    formats.write(path, made_stream(layer))
    before = all_bytes(tmp_path)
    with pytest.raises((Broken, KeyboardInterrupt, LayerError)):
        formats.write(path, Stream(failing(layer, error), "Polygon", COLUMNS, grid=grid), overwrite=True)
    assert all_bytes(tmp_path) == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_is_one_sentence(suffix: str, tmp_path: Path) -> None:
    grid = GRIDS["north-up"]
    layer = made_layer(shapes_px("boxes", grid), grid)
    full = OSError(errno.ENOSPC, "No space left on device")
    stream = Stream(failing(layer, full), "Polygon", COLUMNS, grid=grid)
    with pytest.raises(
        LayerError, match=r"disk is full while writing .*; free space and run the same command again"
    ):
        formats.write(tmp_path / f"out{suffix}", stream)
    assert list(tmp_path.iterdir()) == []


def test_gdals_words_for_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = RuntimeError("sqlite3_exec(COMMIT) failed: database or disk is full")
    for free, number in ((100, errno.ENOSPC), (10_000, None)):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(ogr.shutil, "disk_usage", lambda _, usage=usage: usage)
        assert ogr.failure(words, tmp_path / "out.gpkg", 1000).errno == number
    assert ogr.failure(RuntimeError("no such driver"), tmp_path / "out.gpkg", 10**9).errno is None


def test_an_existing_file_stays_unless_asked(tmp_path: Path) -> None:
    grid = GRIDS["north-up"]
    layer = made_layer(shapes_px("boxes", grid), grid)
    path = tmp_path / "out.geojson"
    path.write_text("mine")
    with pytest.raises(LayerError, match="exists"):
        formats.write(path, made_stream(layer))
    assert path.read_text() == "mine"
    formats.write(path, made_stream(layer), overwrite=True)
    assert len(formats.read(path)) == len(layer)


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / ".out.gpkg.part"
    left.mkdir()
    (left / ".ecodetect-unfinished").touch()
    (left / "out.gpkg").write_bytes(b"half")
    grid = GRIDS["north-up"]
    formats.write(tmp_path / "out.gpkg", made_stream(made_layer(shapes_px("boxes", grid), grid)))
    assert [file.name for file in tmp_path.iterdir()] == ["out.gpkg"]


def test_a_shapefile_takes_its_old_side_files_with_it(tmp_path: Path) -> None:
    grid = GRIDS["north-up"]
    path = tmp_path / "out.shp"
    formats.write(path, made_stream(made_layer(shapes_px("boxes", grid), grid)))
    (tmp_path / "out.qix").write_bytes(b"index of the old one")
    plane = Grid(500, 400)
    formats.write(path, made_stream(made_layer(shapes_px("boxes", plane), plane)), overwrite=True)
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".cpg", ".dbf", ".qml", ".shp", ".shx"]


def test_what_cant_be_written_is_said_before(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match=r"\.gpkg"):
        formats.writable(tmp_path / "out.xyz")
    with pytest.raises(LayerError, match="doesn't exist"):
        formats.writable(tmp_path / "nowhere" / "out.gpkg")
    (tmp_path / "folder.gpkg").mkdir()
    with pytest.raises(LayerError, match="is a folder"):
        formats.writable(tmp_path / "folder.gpkg")
    formats.writable(tmp_path / "OUT.GPKG")
    assert [file.name for file in tmp_path.iterdir()] == ["folder.gpkg"]


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


# -- GeoPackage for QGIS -----------------------------------------------------------------------------------


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


# -- what others wrote -------------------------------------------------------------------------------------

SQUARE = [[[11.0, 47.0], [11.001, 47.0], [11.001, 47.001], [11.0, 47.001], [11.0, 47.0]]]


def feature(geometry: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": rings or SQUARE}


def point(x: float, y: float) -> dict[str, Any]:
    return {"type": "Point", "coordinates": [x, y]}


def geojson(path: Path, *features: Any, **members: Any) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", **members, "features": list(features)}), "utf-8")
    return path


def test_geometries_of_all_kinds_are_used_or_counted(tmp_path: Path) -> None:
    x, y = 11.0, 47.0
    bow_tie = [[x, y], [x + 1e-4, y + 1e-4], [x + 1e-4, y], [x, y + 1e-4], [x, y]]
    lines = {"type": "LineString", "coordinates": [[x, y], [x, y + 1]]}
    path = geojson(
        tmp_path / "hard.geojson",
        feature(polygon(), k="plain"),
        feature(polygon(bow_tie), k="bow tie"),
        feature(None, k="null"),
        feature({"type": "MultiPolygon", "coordinates": []}, k="empty"),
        feature(
            {"type": "GeometryCollection", "geometries": [point(x, y), polygon(), lines]}, k="collection"
        ),
        feature({"type": "Point", "coordinates": [x, y, 430.5]}, k="height"),
        feature({"type": "MultiPoint", "coordinates": [[x, y], [x, y + 1]]}, k="two points"),
        feature(lines, k="line"),
        feature(polygon([[x, y], [x + 1e-4, y], [x + 2e-4, y + 1e-8], [x, y]]), k="no area"),
        {"type": "Feature", "properties": None, "geometry": point(x, y)},
        feature(polygon([[x, y], [x, y]]), k="not a ring"),
        feature({"type": "Polygon", "coordinates": "no"}, k="nonsense"),
        "not a feature",
    )
    found = formats.read(path)
    assert found.columns["k"].tolist() == [
        "plain",
        "bow tie",
        "collection",
        "height",
        "two points",
        "two points",
        "",
    ]
    assert [shape.geom_type for shape in found.geometry] == [
        "Polygon", "MultiPolygon", "Polygon", "Point", "Point", "Point", "Point",
    ]  # fmt: skip
    assert not shapely.has_z(found.geometry).any()
    assert shapely.is_valid(found.geometry).all()
    assert len(found.notes) == 5
    for said in (
        "5 features without a readable",
        "1 line",
        "1 polygon without an area",
        "1 self-crossing",
        "several",
    ):
        assert sum(said in str(note) for note in found.notes) == 1, said


def test_columns_have_the_types_of_their_values(tmp_path: Path) -> None:
    path = geojson(
        tmp_path / "a.geojson",
        feature(point(1, 1), whole=1, gap=1, real=1, mixed=1, yes=True, nested={"a": [1]}, text="ä"),
        feature(point(2, 2), whole=2, real=1.5, mixed="x", yes=False, late=3, huge=10**400),
    )
    columns = formats.read(path).columns
    assert {name: values.dtype.kind for name, values in columns.items()} == {
        "whole": "i", "gap": "f", "real": "f", "mixed": "O", "yes": "b", "nested": "O", "text": "O",
        "late": "f", "huge": "O",
    }  # fmt: skip
    assert columns["mixed"].tolist() == ["1", "x"]
    assert columns["nested"].tolist() == ['{"a": [1]}', ""]
    assert np.array_equal(columns["late"], [np.nan, 3], equal_nan=True)


UTM_GRID = GRIDS["north-up"]


def utm_points(count: int = 5) -> Any:
    return [point(400_000 + 5 * row, 5_199_990 - row) for row in range(count)]


def test_an_old_style_crs_is_honoured(tmp_path: Path) -> None:
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    path = geojson(tmp_path / "a.geojson", *map(feature, utm_points()), crs=crs)
    for grid in (None, UTM_GRID):
        found = formats.read(path, grid=grid)
        assert found.crs == UTM
        assert found.notes == ()
        assert found.in_pixels(UTM_GRID)[1].coords[0] == pytest.approx((50, 110))
    crs["properties"]["name"] = "urn:ogc:def:crs:OGC:1.3:CRS84"
    path = geojson(tmp_path / "b.geojson", feature(point(7.7, 47.0)), crs=crs)
    assert formats.read(path).in_lonlat()[0].coords[0] == pytest.approx((7.7, 47.0))
    crs["properties"]["name"] = "my own"
    with pytest.raises(LayerError, match="can't be understood"):
        formats.read(geojson(tmp_path / "c.geojson", feature(point(7.7, 47.0)), crs=crs))


def test_metres_without_a_crs_are_the_rasters_or_refused(tmp_path: Path) -> None:
    path = geojson(tmp_path / "a.geojson", *map(feature, utm_points()))
    found = formats.read(path, grid=UTM_GRID)
    assert found.crs == UTM
    assert "32632" in str(found.notes[0])
    for grid in (None, GRIDS["feet"], GRIDS["lat/lon"]):
        with pytest.raises(LayerError, match="can't be longitude and latitude"):
            formats.read(path, grid=grid)


def test_pixels_without_a_crs_belong_to_a_raster_without_one(tmp_path: Path) -> None:
    # As programs for microscopy export them.
    path = geojson(
        tmp_path / "a.geojson", feature(point(10, 20)), feature(point(300, 20)), feature(point(30.5, 99))
    )
    found = formats.read(path, grid=Grid(400, 300))
    assert found.in_pixels(Grid(400, 300))[0].coords[0] == (10, 20)
    assert found.notes
    small = formats.read(geojson(tmp_path / "b.geojson", feature(point(10, 20))), grid=Grid(400, 300))
    assert small.in_pixels(Grid(400, 300))[0].coords[0] == (10, 20)


BROKEN = {
    "": "is empty",
    "[1]": "a list of something else",
    '[{"type": "Feature", "geometry": null}': "ends too early at line 1",
    "{}": "no features",
    '{"type": "Topology", "objects": {}}': "no features",
    '{"type": "FeatureCollection",\n "features": [{"type": "Fea': "ends too early at line 2",
    '{"type": "FeatureCollection",\n "features": [\n{"type": "Feature"}, ]}': "at line 3, column 22",
    '{"type": "FeatureCollection", "features": []': "ends too early",
    '{"type": "FeatureCollection", "features": []} {}': "something follows the end",
    '{"type": "FeatureCollection", "features": [' + "[" * 100_000: "nested",
    '{"features": [{"type": "Feature", "geometry": null, "properties": {"a": '
    + "1" * 5000
    + "}}]}": "digits",
    "\0" * 100: "isn't JSON",
}


def test_an_empty_list_of_features_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"  # QuPath's export of an image without objects
    path.write_text("[]")
    assert len(formats.read(path)) == 0


EXCHANGED = Grid(400, 300, (0.1, 0.0, 404_000.0, 0.0, -0.1, 3_285_000.0), CRS.from_epsg(32617))


@pytest.mark.parametrize("crs", [None, "EPSG:4326"])
def test_exchanged_coordinates_of_a_layer_are_said_and_taken(tmp_path: Path, crs: str | None) -> None:
    lon, lat = EXCHANGED.to_lonlat([(10.0, 20.0)])[0].tolist()
    point = {"type": "Point", "coordinates": [lat, lon]}
    layer = {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": point}]}
    if crs is not None:
        layer["crs"] = {"type": "name", "properties": {"name": crs}}  # type: ignore[assignment]
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(layer))
    found = formats.read(path, grid=EXCHANGED)
    assert shapely.distance(found.in_pixels(EXCHANGED)[0], shapely.Point(10, 20)) < 1e-3
    assert [note.code for note in found.notes] == ["coordinates-exchanged"]


@pytest.mark.parametrize("text", BROKEN)
def test_broken_geojson_is_refused_with_the_place(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(text)
    with pytest.raises(LayerError, match=BROKEN[text]):
        formats.read(path)


def test_texts_in_other_encodings(tmp_path: Path) -> None:
    text = json.dumps(
        {"type": "FeatureCollection", "features": [feature(point(1, 1), a="Föhre")]}, ensure_ascii=False
    )
    for encoding, notes in (("utf-8", 0), ("utf-8-sig", 0), ("utf-16", 0), ("cp1252", 1)):
        path = tmp_path / "a.geojson"
        path.write_text(text, encoding)
        found = formats.read(path)
        assert found.columns["a"].tolist() == ["Föhre"]
        assert len(found.notes) == notes


def test_a_feature_and_a_geometry_alone(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(feature(point(1, 2), name="x")))
    assert formats.read(tmp_path / "a.json").columns["name"].tolist() == ["x"]
    (tmp_path / "b.geojson").write_text(json.dumps(polygon()))
    assert len(formats.read(tmp_path / "b.geojson")) == 1
    (tmp_path / "c.geojsons").write_text(
        "".join(f"\x1e{json.dumps(feature(point(1, at)))}\n" for at in range(3))
    )
    assert len(formats.read(tmp_path / "c.geojsons")) == 3


def test_measures_and_open_outlines_are_read(tmp_path: Path) -> None:
    ring = [[7.0, 47.0], [7.1, 47.0], [7.1, 47.1]]
    measured = [[*place, 12.5, 3.0] for place in [*ring, ring[0]]]
    shapes = [
        {"type": "Polygon", "coordinates": [measured]},
        {"type": "Polygon", "coordinates": [ring]},
        {"type": "MultiPolygon", "coordinates": [[ring], [measured]]},
        {"type": "GeometryCollection", "geometries": [{"type": "Polygon", "coordinates": [ring]}]},
        {"type": "Point", "coordinates": [7.0, 47.0, 1.0, 2.0]},
    ]
    found = formats.read(geojson(tmp_path / "a.geojson", *map(feature, shapes)))
    assert len(found) == 5
    assert shapely.area(found.geometry)[:4] == pytest.approx([0.005, 0.005, 2 * 0.005, 0.005])
    assert not shapely.has_z(found.geometry).any()


def test_a_feature_longer_than_a_block(tmp_path: Path) -> None:
    turn = np.linspace(0, 2 * np.pi, 60_000)
    ring = np.stack([11 + np.cos(turn), 47 + np.sin(turn)], axis=1).round(12)
    ring[-1] = ring[0]
    path = geojson(
        tmp_path / "a.geojson",
        *[feature(polygon(ring.tolist()), at=at) for at in range(3)],
        tail="x" * 3_000_000,
    )
    assert path.stat().st_size > 8_000_000
    found = formats.read(path)
    assert found.columns["at"].tolist() == [0, 1, 2]
    assert shapely.get_num_coordinates(found.geometry).tolist() == [60_000] * 3


def to_file(path: Path, geometry: Any, crs: Any, *, layer: str | None = None, **columns: Any) -> Path:
    frame = geopandas.GeoDataFrame(columns, geometry=geometry, crs=crs)
    pyogrio.write_dataframe(frame, path, layer=layer, append=path.exists() and path.suffix == ".gpkg")
    return path


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


def test_a_shapefile_without_crs_and_in_latin_1(tmp_path: Path) -> None:
    path = tmp_path / "kronen.shp"
    world = shapely.points([(400_000 + row, 5_199_990) for row in range(3)])
    frame = geopandas.GeoDataFrame({"art": ["Föhre", "Eßkastanie", "Ähre"]}, geometry=world, crs=32632)
    pyogrio.write_dataframe(frame, path, encoding="ISO-8859-1")
    path.with_suffix(".prj").unlink()
    found = formats.read(path, grid=UTM_GRID)
    assert found.columns["art"].tolist() == ["Föhre", "Eßkastanie", "Ähre"]
    assert found.crs == UTM
    assert "whose CRS was taken" in str(found.notes[0])
    assert [str(note) for note in formats.read(path).notes] == ["kronen.shp: it has no CRS."]
    assert formats.read(path, grid=GRIDS["feet"]).crs is None
    to_file(tmp_path / "degrees.shp", shapely.points([(11.502, 47.198)]), 4326).with_suffix(".prj").unlink()
    degrees = formats.read(tmp_path / "degrees.shp", grid=GRIDS["lat/lon"])
    assert degrees.in_pixels(GRIDS["lat/lon"])[0].coords[0] == pytest.approx((200, 200))
    x, y = Transformer.from_crs(4326, UTM, always_xy=True).transform(11.502, 47.198)
    utm = Grid(500, 400, (1.0, 0.0, x - 250, 0.0, -1.0, y + 200), UTM)
    found = formats.read(tmp_path / "degrees.shp", grid=utm)
    assert found.crs == CRS.from_epsg(4326)
    assert "as longitude and latitude" in str(found.notes[0])
    path.with_suffix(".shx").unlink()
    with pytest.raises(LayerError, match=r"without its \.shx"):
        formats.read(path)


def test_a_shapefile_in_utf_8_that_doesnt_say_so(tmp_path: Path) -> None:
    path = tmp_path / "a.shp"
    frame = geopandas.GeoDataFrame({"art": ["Föhre"]}, geometry=shapely.points([(7.7, 47)]), crs=4326)
    pyogrio.write_dataframe(frame, path, encoding="UTF-8")
    path.with_suffix(".cpg").unlink()
    data = bytearray(path.with_suffix(".dbf").read_bytes())
    data[29] = 0
    path.with_suffix(".dbf").write_bytes(data)
    assert formats.read(path).columns["art"].tolist() == ["Föhre"]


def test_a_cut_shapefile(tmp_path: Path) -> None:
    path = to_file(tmp_path / "a.shp", shapely.points([(7.7, 47)] * 50), 4326, a=[1] * 50)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(LayerError, match="is cut: it has 500 of"):
        formats.read(path)


def test_esris_words_for_a_crs_are_the_same_crs(tmp_path: Path) -> None:
    path = to_file(tmp_path / "a.shp", shapely.points([(400_000, 5_199_990)]), 32632)
    path.with_suffix(".prj").write_text(UTM.to_wkt("WKT1_ESRI"))
    assert formats.read(path, grid=UTM_GRID).crs == UTM
    assert formats.read(path).crs == UTM


KML = """<?xml version="1.0" encoding="UTF-8"?>
<kml xmlns="http://www.opengis.net/kml/2.2"><Document><name>survey</name>
<Folder><name>trees</name>
 <Placemark><name>a</name><Point><coordinates>7.68,46.95,430</coordinates></Point></Placemark>
 <Placemark><name>b</name><ExtendedData><Data name="acc"><value>2.5</value></Data></ExtendedData>
  <Point><coordinates> 7.68, 46.95 </coordinates></Point></Placemark>
 <Folder><name>old</name><Placemark><Point><coordinates>7.69,46.95</coordinates></Point></Placemark></Folder>
</Folder>
<Folder><name>plots</name>
 <Placemark><name>p</name><MultiGeometry><Polygon><outerBoundaryIs><LinearRing><coordinates>
  7.6,46.9 7.7,46.9 7.7,47.0 7.6,47.0 7.6,46.9</coordinates></LinearRing></outerBoundaryIs>
  <innerBoundaryIs><LinearRing><coordinates>7.64,46.94 7.66,46.94 7.66,46.96 7.64,46.94</coordinates>
  </LinearRing></innerBoundaryIs></Polygon></MultiGeometry></Placemark>
 <Placemark><name>nowhere</name></Placemark>
 <Placemark><name>path</name><LineString><coordinates>7,46 8,47</coordinates></LineString></Placemark>
 <Placemark><name>broken</name><Point><coordinates>7;46</coordinates></Point></Placemark>
</Folder></Document></kml>"""


def test_kml_and_kmz(tmp_path: Path) -> None:
    (tmp_path / "a.kml").write_text(KML)
    with zipfile.ZipFile(tmp_path / "b.kmz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("doc.kml", KML)
        archive.writestr("files/icon.png", b"")
    for path in (tmp_path / "a.kml", tmp_path / "b.kmz"):
        found = formats.read(path)
        assert found.columns["name"].tolist() == ["a", "b", "", "p"]
        assert found.columns["folder"].tolist() == ["trees", "trees", "old", "plots"]
        assert found.columns["acc"].tolist() == ["", "2.5", "", ""]
        assert len(found.geometry[3].interiors) == 1
        assert found.crs == CRS.from_epsg(4326)
        assert "trees (2), old (1), plots (4)" in str(found.notes[0])
        assert len(formats.read(path, layer="trees")) == 3
        with pytest.raises(LayerError, match="no folder 'x'; it has trees, old, plots"):
            formats.read(path, layer="x")


def test_gpx_and_gml(tmp_path: Path) -> None:
    gpx = '<gpx version="1.1" creator="x" xmlns="http://www.topografix.com/GPX/1/1">{}</gpx>'
    wpt = '<wpt lat="46.9" lon="7.6"><name>t1</name></wpt>'
    track = '<trk><trkseg><trkpt lat="46" lon="7"/><trkpt lat="47" lon="8"/></trkseg></trk>'
    (tmp_path / "a.gpx").write_text(gpx.format(wpt))
    found = formats.read(tmp_path / "a.gpx")
    assert found.columns["name"].tolist() == ["t1"]
    assert found.geometry[0].coords[0] == (7.6, 46.9)
    (tmp_path / "b.gpx").write_text(gpx.format(wpt + track))
    with pytest.raises(LayerError, match="waypoints"):
        formats.read(tmp_path / "b.gpx")
    assert len(formats.read(tmp_path / "b.gpx", layer="waypoints")) == 1
    path = to_file(tmp_path / "a.gml", shapely.points([(400_000, 5_199_990)] * 2), 32632, a=[1, 2])
    path.with_suffix(".xsd").unlink()
    before = sorted(file.name for file in tmp_path.iterdir())
    assert formats.read(path).columns["a"].tolist() == [1, 2]
    assert sorted(file.name for file in tmp_path.iterdir()) == before


DOCTYPE = '<!DOCTYPE kml [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("suffix", [".kml", ".kmz", ".gpx", ".gml"])
def test_xml_with_a_doctype_is_refused(suffix: str, tmp_path: Path) -> None:
    text = KML.replace("<kml", f"{DOCTYPE}<kml", 1)
    path = tmp_path / f"a{suffix}"
    for encoding in ("utf-8", "utf-16"):
        data = text.replace("UTF-8", encoding).encode(encoding)
        if suffix == ".kmz":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("doc.kml", data)
        else:
            path.write_bytes(data)
        with pytest.raises(LayerError, match="DOCTYPE"):
            formats.read(path)


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


_SCHEMA = "http://{0}/t http://{0}/wfs?SERVICE=WFS&amp;REQUEST=DescribeFeatureType&amp;TYPENAME=t:a"


def test_nobody_is_asked_for_the_schema_of_a_gml(tmp_path: Path) -> None:
    path = tmp_path / "a.gml"
    with listening() as address:
        path.write_text(
            '<wfs:FeatureCollection xmlns:wfs="http://www.opengis.net/wfs" xmlns:gml="http://www.opengis.net/gml"'
            f' xmlns:t="http://{address}/t" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
            f' xsi:schemaLocation="{_SCHEMA.format(address)}"><gml:featureMember><t:a><t:g>'
            '<gml:Point srsName="EPSG:4326"><gml:coordinates>1,2</gml:coordinates></gml:Point></t:g>'
            "<t:n>7</t:n></t:a></gml:featureMember></wfs:FeatureCollection>",
            encoding="ascii",
        )
        layer = formats.read(path)
    assert len(layer.geometry) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("beginning", ["!table\n!version 300\n", "Version 300\n"])
def test_a_mapinfo_file_is_no_other_format_too(tmp_path: Path, beginning: str) -> None:
    """GDAL takes a file for an OGR VRT wherever its mark stands."""
    path = tmp_path / ("a.tab" if beginning.startswith("!") else "a.mif")
    with listening() as address:
        path.write_text(
            f'{beginning}<OGRVRTDataSource><OGRVRTLayer name="x"><SrcDataSource>/vsicurl/http://{address}/x.gpkg'
            "</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>",
            encoding="ascii",
        )
        with pytest.raises(LayerError, match="has XML in it"):
            formats.read(path)


def test_mapinfo_tables_are_read_and_views_of_others_are_not(tmp_path: Path) -> None:
    wkb = shapely.to_wkb(np.array([shapely.Point(1, 2)], dtype=object))
    for name in ("a.tab", "a.mif"):
        pyogrio.raw.write(
            tmp_path / name, wkb, [np.array([7])], ["n"], driver="MapInfo File", geometry_type="Point",
            crs="EPSG:4326",
        )  # fmt: skip
        assert len(formats.read(tmp_path / name).geometry) == 1
    view = tmp_path / "view.tab"
    for text in (
        'open table "../b.tab" Hide\ncreate view v as Select * from b',
        "Definition Table\n  Type LINKED",
    ):
        view.write_text(f"!table\n!version 100\n{text}", encoding="ascii")
        with pytest.raises(LayerError, match="view of other tables"):
            formats.read(view)
    plain = (tmp_path / "a.tab").read_text(encoding="latin-1")
    view.write_text(f'{plain}begin_metadata\n"\\IsSeamless" = "TRUE"\nend_metadata\n', encoding="latin-1")
    with pytest.raises(LayerError, match="view of other tables"):
        formats.read(view)


def test_a_kmz_that_unpacks_to_too_much(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "a.kmz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("doc.kml", "w") as file,
    ):
        for _ in range(260):
            file.write(bytes(1 << 20))
    with pytest.raises(LayerError, match="256 MB"):
        formats.read(tmp_path / "a.kmz")


def test_parquet_of_others(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame(
        {"n": [1, None], "when": geopandas.pd.to_datetime(["2024-05-01", None]), "raw": [b"x", b"y"]},
        geometry=shapely.points([(7.6, 46.9), (7.7, 46.9)]),
        crs="OGC:CRS84",
    )
    frame.to_parquet(tmp_path / "a.parquet")
    found = formats.read(tmp_path / "a.parquet")
    assert np.array_equal(found.columns["n"], [1, np.nan], equal_nan=True)
    assert found.columns["when"].tolist() == ["2024-05-01T00:00:00", ""]
    assert "raw" not in found.columns
    assert found.in_lonlat()[0].coords[0] == pytest.approx((7.6, 46.9))
    frame.drop(columns="geometry").to_parquet(tmp_path / "b.parquet")
    with pytest.raises(LayerError, match="without geometry"):
        formats.read(tmp_path / "b.parquet")


def test_what_isnt_there_or_isnt_known(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="doesn't exist"):
        formats.read(tmp_path / "a.geojson")
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(LayerError, match=r"isn't known; .*\.gpkg"):
        formats.read(tmp_path / "a.doc")


# -- strangers' bytes --------------------------------------------------------------------------------------


def seeds() -> dict[str, bytes]:
    """A small whole file of each format."""
    layer = made_layer(shapes_px("polygons", UTM_GRID, 3), UTM_GRID)
    files = {".kml": KML.encode()}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("doc.kml", KML)
    files[".kmz"] = packed.getvalue()
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".geojson", ".geojsonl", ".gpkg", ".parquet", ".fgb", ".shp"):
            path = Path(folder) / f"a{suffix}"
            formats.write(path, made_stream(layer))
            files[suffix] = path.read_bytes()
        files[".shx"] = (Path(folder) / "a.shx").read_bytes()
        files[".dbf"] = (Path(folder) / "a.dbf").read_bytes()
    return files


SEEDS = seeds()
TOKENS = (
    b"null",
    b"-1e999",
    b"NaN",
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b"<",
    b"&a;",
    b"\xff\xff\xff\xff",
    b"\0",
    b",",
    b"9" * 30,
)
NEW = st.one_of(st.binary(min_size=1, max_size=4), st.sampled_from(TOKENS))
CHANGES = st.lists(st.tuples(st.floats(0, 1), NEW, st.integers(0, 8)), max_size=6)


def mutated(data: bytes, changes: Any, cut_at: float) -> bytes:
    """Bytes written over at relative places, with a few removed there, and the end cut."""
    for place, new, removed in changes:
        at = int(place * len(data))
        data = data[:at] + new + data[at + removed :]
    return data[: int(cut_at * len(data)) + 1]


def assert_read_or_refused(folder: Path, suffix: str, data: bytes) -> None:
    path = folder / f"fuzz{suffix}"
    path.write_bytes(data)
    if suffix in (".shx", ".dbf"):
        path = folder / "fuzz.shp"
        path.write_bytes(SEEDS[".shp"])
    if path.suffix == ".shp":
        for side in {".shx", ".dbf"} - {suffix}:
            path.with_suffix(side).write_bytes(SEEDS[side])
    found, refusal = None, ""
    try:
        found = formats.read(path, grid=UTM_GRID)
    except LayerError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert found is None or set(shapely.get_type_id(found.geometry).tolist()) <= {0, 3, 6}


WHERE = st.one_of(st.just(1.0), st.floats(0, 1))


@pytest.mark.parametrize("suffix", sorted(SEEDS))
def test_mutated_files_are_read_or_refused(
    suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    @settings(max_examples=40, suppress_health_check=list(HealthCheck))
    @given(CHANGES, WHERE)
    def check(changes: Any, cut_at: float) -> None:
        assert_read_or_refused(tmp_path, suffix, mutated(SEEDS[suffix], changes, cut_at))

    check()
    assert capfd.readouterr() == ("", "")  # GDAL keeps quiet


@pytest.mark.slow
@pytest.mark.parametrize("suffix", sorted(SEEDS))
def test_many_mutated_files_are_read_or_refused(suffix: str, tmp_path: Path) -> None:
    @settings(max_examples=2_000, suppress_health_check=list(HealthCheck))
    @given(CHANGES, WHERE)
    def check(changes: Any, cut_at: float) -> None:
        assert_read_or_refused(tmp_path, suffix, mutated(SEEDS[suffix], changes, cut_at))

    check()


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)
GEOMETRY_TYPES = st.sampled_from(
    ["Point", "MultiPoint", "LineString", "Polygon", "MultiPolygon", "GeometryCollection", "Nonsense"]
)
COORDINATES = st.recursive(st.floats(), lambda inner: st.lists(inner, max_size=5), max_leaves=20)
ANY_GEOMETRY = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {"type": GEOMETRY_TYPES, "coordinates": st.one_of(COORDINATES, JSON), "geometries": JSON}
    ),
)
ANY_FEATURE = st.one_of(
    JSON, st.fixed_dictionaries({"type": st.just("Feature"), "geometry": ANY_GEOMETRY, "properties": JSON})
)


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(st.lists(ANY_FEATURE, max_size=4), JSON)
def test_geojson_of_any_values_is_read_or_refused(tmp_path: Path, features: Any, crs: Any) -> None:
    text = json.dumps({"type": "FeatureCollection", "crs": crs, "features": features})
    assert_read_or_refused(tmp_path, ".geojson", text.encode())


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
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


def test_an_outline_that_crosses_itself_without_end_is_left_out(tmp_path: Path) -> None:
    ring = np.random.default_rng(0).uniform(0, 1000, (6000, 2))
    tangled, sound = shapely.Polygon(ring), shapely.Polygon([(0, 0), (9, 9), (9, 0), (0, 9)])
    layer = geopandas.GeoDataFrame({"label": ["a", "b"]}, geometry=[tangled, sound], crs="EPSG:32631")
    layer.to_file(tmp_path / "crowns.gpkg", engine="pyogrio")
    found = formats.read(tmp_path / "crowns.gpkg")
    assert found.columns["label"].tolist() == ["b"]
    assert "crosses itself more than 500 times was left out" in " ".join(map(str, found.notes))


@pytest.mark.parametrize("kind", [b"\x01\x07\0\0\0\x01\0\0\0", b"\0\0\0\0\x07\0\0\0\x01"])
def test_collections_within_collections_end(kind: bytes) -> None:
    point = shapely.to_wkb(shapely.Point(1, 2))
    found = geometries_of(pa.array([kind * 1_000_000 + point, kind * 3 + point], pa.binary()))
    assert found[0] is None
    assert shapely.get_coordinates(found[1]).tolist() == [[1, 2]]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
@pytest.mark.parametrize(
    "name", ["a.gpkg", "a.geojson", "a.shp", "a.csv", "a.xml", "a.parquet", "a.kml", "a.gml"]
)
def test_a_pipe_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(LayerError, match="is no file but a pipe"):
        formats.read(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
@pytest.mark.parametrize("pipe", ["a.prj", "a.dbf", "a.cpg", "A.QIX", "a.shp.aux.xml"])
def test_a_pipe_beside_a_layer_is_refused_at_once(tmp_path: Path, pipe: str) -> None:
    points = geopandas.GeoDataFrame({"label": ["a"]}, geometry=[shapely.Point(10, 50)], crs=4326)
    points.to_file(tmp_path / "A.shp" if pipe[0] == "A" else tmp_path / "a.shp")
    (tmp_path / pipe).unlink(missing_ok=True)
    os.mkfifo(tmp_path / pipe)
    with pytest.raises(LayerError, match=f"has beside it {pipe}, which is no file"):
        formats.read(tmp_path / f"{pipe[0]}.shp")
