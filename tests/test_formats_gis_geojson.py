"""GeoJSON is written by the letter of RFC 7946; what others wrote is read or refused with the place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from gis_layers import (
    GRIDS,
    KINDS_ON_GRIDS,
    METADATA,
    UTM,
    UTM_GRID,
    assert_rfc7946,
    assert_same_place,
    back_in_pixels,
    made_layer,
    made_stream,
    seen_by_others,
    shapes_px,
)
from pyproj import CRS

from ecodetect.errors import LayerError
from ecodetect.formats import files as formats
from ecodetect.grid import Grid


@pytest.mark.parametrize(("name", "kind"), KINDS_ON_GRIDS)
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
        feature(polygon(ring.tolist()), at=0),
        feature(polygon(), at=1),
        tail="x" * 3_000_000,
    )
    assert path.stat().st_size > 4_000_000
    found = formats.read(path)
    assert found.columns["at"].tolist() == [0, 1]
    assert shapely.get_num_coordinates(found.geometry).tolist() == [60_000, 5]
