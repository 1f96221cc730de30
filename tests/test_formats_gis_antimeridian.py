"""Polygons that cross the antimeridian or a pole are cut there and keep their area."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from gis_layers import (
    KINDS,
    assert_rfc7946,
    assert_same_place,
    back_in_pixels,
    made_layer,
    made_stream,
    shapes_px,
)
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS

from ecodetect.formats import files as formats
from ecodetect.formats.gis.antimeridian import cut
from ecodetect.grid import Grid

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
