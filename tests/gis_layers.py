"""Layers for the tests of formats of GIS: objects at known places on all grids, and others' files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from pyproj import CRS, Transformer

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
# By default each kind on one grid, and polygons on all.
KINDS_ON_GRIDS = [
    pytest.param(
        name, kind, id=f"{name}-{kind}", marks=[pytest.mark.slow] * (kind != "polygons" and name != "rotated")
    )
    for name in GRIDS
    for kind in KINDS
]


def shapes_px(kind: str, grid: Grid, count: int = 20) -> Any:
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


UTM_GRID = GRIDS["north-up"]


def to_file(path: Path, geometry: Any, crs: Any, *, layer: str | None = None, **columns: Any) -> Path:
    frame = geopandas.GeoDataFrame(columns, geometry=geometry, crs=crs)
    pyogrio.write_dataframe(frame, path, layer=layer, append=path.exists() and path.suffix == ".gpkg")
    return path


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
