"""What QGIS finds in and beside our layers: a style that draws all, where they come from, their place."""

from __future__ import annotations

import json
import sqlite3
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from command_line import Run
from PIL import Image
from pyproj import CRS

from ecodetect import evaluate
from ecodetect.formats import files as formats
from ecodetect.formats.gis.qgis_style import style
from ecodetect.grid import Grid
from ecodetect.layer import Layer, Stream

PLACE = Grid(100, 80, (0.5, 0, 500_000, 0, -0.5, 4_000_000), CRS.from_epsg(32630))
PIXELS = Grid(100, 80)
SUFFIXES = (".geojson", ".gpkg", ".fgb", ".shp", ".parquet")
COLUMNS = {"id": "str", "label": "str", "score": "float", "area_m2": "float", "diameter_m": "float"}


def layer(grid: Grid) -> Layer:
    geometry = np.array([shapely.box(10, 20, 14, 26), shapely.box(50, 60, 58, 64)], object)
    empty = np.full(2, np.nan)
    return Layer(
        geometry,
        {
            "id": np.array(["a", "b"], object),
            "label": np.array(["tree", "tree"], object),
            "score": np.array([0.4, 0.9]),
            "area_m2": empty,
            "diameter_m": empty,
        },
        grid=grid,
    )


def stream(made: Layer, classes: tuple[str, ...] = ("tree",), **metadata: Any) -> Stream:
    return Stream([made], "Polygon", COLUMNS, grid=made.grid, classes=classes, metadata=metadata)


@pytest.mark.parametrize("suffix", [".geojson", ".fgb", ".shp", ".parquet"])
def test_a_layer_opens_with_outlines_by_the_style_beside_it(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"found.trees{suffix}"
    formats.write(path, stream(layer(PLACE)))
    qml = ElementTree.parse(
        tmp_path / "found.trees.qml"
    ).getroot()  # where QGIS looks: the name less its suffix
    assert {each.get("class") for each in qml.iter("layer")} == {"SimpleLine"}


def test_a_style_that_the_user_saved_stays(tmp_path: Path) -> None:
    path, beside = tmp_path / "found.geojson", tmp_path / "found.qml"
    formats.write(path, stream(layer(PLACE)))
    ours = beside.read_bytes()
    formats.write(path, stream(layer(PLACE), ("tree", "palm")), overwrite=True)
    assert beside.read_bytes() != ours  # ours follows the layer
    beside.write_text("<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'><qgis/>", encoding="utf-8")
    saved = beside.read_bytes()
    formats.write(path, stream(layer(PLACE)), overwrite=True)
    assert beside.read_bytes() == saved


@pytest.mark.parametrize("kind", ["Point", "Polygon"])
@pytest.mark.parametrize("classes", [("tree",), ("tree", "palm")])
def test_an_individual_added_by_hand_without_label_and_score_is_drawn(
    kind: str, classes: tuple[str, ...]
) -> None:
    root = ElementTree.fromstring(style(kind, tuple(COLUMNS), classes))
    renderer = root.find("renderer-v2")
    assert renderer is not None
    symbols = {each.get("name") for each in renderer.iter("symbol")}
    if len(classes) > 1:  # in QGIS the empty value stands for all others, missing ones among them
        drawn = [each.get("symbol") for each in renderer.iter("category") if each.get("value") == ""]
    else:
        assert renderer.get("attr") == 'coalesce("score", -1)'
        drawn = [each.get("symbol") for each in renderer.iter("range") if float(each.get("upper", 0)) == -1]
    assert len(drawn) == 1
    assert set(drawn) <= symbols


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_on_a_raster_without_a_place_the_layer_lies_on_the_picture(suffix: str, tmp_path: Path) -> None:
    """QGIS lays such a raster from (0, 0) to the right and downwards, so y is negative."""
    path = tmp_path / f"found{suffix}"
    formats.write(path, stream(layer(PIXELS)))
    name = None if suffix in (".shp", ".parquet") else "detections"
    if suffix == ".parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path)
        shapes = shapely.from_wkb(table["geometry"].to_pylist())
    else:
        shapes = pyogrio.read_dataframe(path, layer=name).geometry.to_numpy()
    bounds = sorted(map(tuple, shapely.bounds(shapes).tolist()))
    assert bounds == [(10, -26, 14, -20), (50, -64, 58, -60)]
    again = formats.read(path, grid=PIXELS)
    back = sorted(map(tuple, shapely.bounds(again.in_pixels(PIXELS)).tolist()))
    assert back == [(10, 20, 14, 26), (50, 60, 58, 64)]


def test_earlier_layers_in_pixels_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "old.geojson"
    feature = {"type": "Feature", "properties": {}, "geometry": shapely.box(10, 20, 14, 26).__geo_interface__}
    members = {"type": "FeatureCollection", "ecodetect:frame": "pixel", "features": [feature]}
    path.write_text(json.dumps(members), encoding="utf-8")
    found = formats.read(path, grid=PIXELS).in_pixels(PIXELS)
    assert shapely.bounds(found).tolist() == [[10, 20, 14, 26]]


@pytest.mark.parametrize("crs", [None, 32630, 4326])
def test_what_was_drawn_in_qgis_on_such_a_raster_is_read_at_its_place(
    crs: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "drawn.gpkg"
    drawn = np.array([shapely.box(400, -70, 480, -20), shapely.box(50, -64, 58, -60)], object)
    grid = Grid(500, 80)
    geopandas.GeoDataFrame(geometry=drawn, crs=crs).to_file(path)
    found = formats.read(path, grid=grid)
    bounds = shapely.bounds(found.in_pixels(grid))
    assert sorted(map(tuple, bounds.tolist())) == [(50, 60, 58, 64), (400, 20, 480, 70)]
    assert [note.code for note in found.notes] == ["y-upwards"]


def test_longitudes_and_latitudes_are_never_taken_for_pixels(tmp_path: Path) -> None:
    path = tmp_path / "field.gpkg"
    crs = CRS.from_epsg(4326)
    made = Layer(np.array([shapely.Point(20.0, -30.0)], object), {"k": np.array(["x"], object)}, crs=crs)
    formats.write(path, Stream([made], "Point", {"k": "str"}, crs=crs))
    assert formats.read(path, grid=PIXELS).frame_crs == crs


def test_detections_in_pixels_meet_what_was_drawn_beside_them(tmp_path: Path) -> None:
    found, drawn = tmp_path / "found.geojson", tmp_path / "drawn.gpkg"
    formats.write(found, stream(layer(PIXELS)))
    upwards = shapely.transform(layer(PIXELS).geometry, lambda xy: xy * (1, -1))
    formats.write(
        drawn, Stream([Layer(upwards, {"k": np.array(["x", "x"], object)})], "Polygon", {"k": "str"})
    )
    assert evaluate(found, drawn).rates.f1 == 1


def test_where_a_layer_comes_from_stands_in_its_properties(tmp_path: Path) -> None:
    path = tmp_path / "found.gpkg"
    facts = {
        "ecodetect": "1", "model": "trees <&>", "area_ha": 3.5, "settings": {"score": 0.4},
        "rasters": [{"source": "ortho.tif", "fingerprint": "abc"}],
    }  # fmt: skip
    formats.write(path, stream(layer(PLACE), **facts))
    with sqlite3.connect(path) as database:
        [(text,)] = database.execute(
            "SELECT metadata FROM gpkg_metadata JOIN gpkg_metadata_reference ON id = md_file_id"
            " WHERE md_standard_uri = 'http://mrcc.com/qgis.dtd' AND table_name = 'detections'"
        ).fetchall()
    root = ElementTree.fromstring(text)
    assert root.findtext("title") == "tree in ortho.tif"
    assert "model: trees <&>" in (root.findtext("abstract") or "")
    assert "score: 0.4" in (root.findtext("abstract") or "")
    assert [each.text for each in root.iter("history")] == ["searched ortho.tif (content abc)"]
    assert formats.read_metadata(path) == facts  # GDAL's row is still the one that we read


def test_an_older_qgis_opens_the_geopackage_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "found.gpkg"
    formats.write(path, stream(layer(PLACE), ecodetect="1"))
    version = struct.unpack(">i", path.read_bytes()[60:64])[0]
    assert version <= 10_300  # GDAL 3.6 of QGIS 3.22 knows 1.3


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".fgb", ".shp", ".parquet"])
def test_sizes_stay_numbers_where_none_is_known(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"found{suffix}"
    formats.write(path, stream(layer(PLACE)))
    found = formats.read(path, grid=PLACE)
    assert {name: found.columns[name].dtype.kind for name in ("area_m2", "diameter_m")} == {
        "area_m2": "f",
        "diameter_m": "f",
    }


def test_errors_are_told_apart_by_colour_and_by_shape() -> None:
    for kind, what in (("Point", "name"), ("Polygon", "line_style")):
        root = ElementTree.fromstring(
            style(kind, ("label", "score"), ("true", "false", "missed", "unjudged"))
        )
        looks = [
            {option.get("name"): option.get("value") for option in symbol.iter("Option")}
            for symbol in root.iter("symbol")
        ][:3]
        colour = "color" if kind == "Point" else "line_color"
        assert len({look[what] for look in looks}) == 3
        assert len({look[colour] for look in looks}) == 3


def test_errors_of_boxes_against_points_are_one_kind_of_geometry(ecodetect: Run, tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=100, height=80, count=1, dtype="uint8", crs=32630,
        transform=rasterio.Affine(*PLACE.transform),
    ) as made:  # fmt: skip
        made.write(np.zeros((1, 80, 100), np.uint8))
    formats.write(tmp_path / "found.gpkg", stream(layer(PLACE)))
    points = Layer(
        np.array([shapely.Point(12, 23), shapely.Point(90, 5)], object),
        {"k": np.array(["x", "x"], object)},
        grid=PLACE,
    )
    formats.write(tmp_path / "truth.gpkg", Stream([points], "Point", {"k": "str"}, grid=PLACE))
    done = ecodetect(
        "evaluate",
        tmp_path / "found.gpkg",
        tmp_path / "truth.gpkg",
        "--inside",
        "-o",
        tmp_path / "errors.gpkg",
    )
    assert done.code == 0, done.err
    errors = pyogrio.read_dataframe(tmp_path / "errors.gpkg", layer="detections")
    assert sorted(errors.label) == ["false", "missed", "true"]
    assert set(errors.geometry.geom_type) == {"Point"}
    with sqlite3.connect(tmp_path / "errors.gpkg") as database:
        assert database.execute("SELECT count(*) FROM layer_styles").fetchone() == (1,)


def test_a_scan_of_a_picture_lies_on_it(ecodetect: Run, tmp_path: Path) -> None:
    pixels = np.full((60, 90), 200, np.uint8)
    pixels[10:20, 60:75] = 20
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    done = ecodetect("scan", tmp_path / "picture.png", "-m", "threshold", "-o", tmp_path / "a.gpkg")
    assert done.code == 0, done.err
    found = pyogrio.read_dataframe(tmp_path / "a.gpkg", layer="detections")
    assert found.total_bounds == pytest.approx([60, -20, 75, -10], abs=1.5)
