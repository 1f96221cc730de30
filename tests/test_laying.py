"""Annotations on a raster: any CRS lands on its pixels, what lies outside is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from pyproj import CRS

from ecodetect.annotations.laying import on_raster, read_annotations
from ecodetect.converting import stream_of
from ecodetect.detections import Detections
from ecodetect.errors import GridError, LayerError
from ecodetect.formats import files as formats
from ecodetect.grid import WGS84, Grid, transformed
from ecodetect.layer import Layer
from ecodetect.sizes import Length

UTM = CRS.from_epsg(32617)
GRID = Grid(400, 300, (0.094, 0.0342, 404_000.0, 0.0342, -0.094, 3_285_000.0), UTM)
INSIDE = np.array([[10.5, 20.25], [399.0, 299.0]])


def points(xy: Any, **columns: Any) -> Layer:
    return Layer(
        shapely.points(np.asarray(xy, np.float64)), {n: np.array(v) for n, v in columns.items()}, grid=GRID
    )


@pytest.mark.parametrize("code", [32617, 4326, 3857, 32618, 4269])
def test_any_crs_lands_on_the_raster(code: int) -> None:
    crs = CRS.from_epsg(code)
    there = transformed(GRID.to_world(INSIDE), UTM, crs)
    found = on_raster(Layer(shapely.points(there), crs=crs), GRID, name="a.gpkg")
    assert np.abs(shapely.get_coordinates(found.geometry) - INSIDE).max() < 1e-3
    assert found.dropped == {}


def test_what_lies_outside_is_counted_and_what_touches_is_kept() -> None:
    shapes = [
        shapely.box(-5, -5, 0, 0),
        shapely.box(390, 290, 410, 310),
        shapely.box(401, 0, 410, 9),
        shapely.Point(1, 1),
    ]
    layer = Layer(np.array(shapes, dtype=object), {"n": np.arange(4)}, grid=GRID)
    found = on_raster(layer, GRID, name="a.csv")
    assert found.columns["n"].tolist() == [0, 1, 3]
    assert found.dropped == {"outside the raster": 1}
    assert tuple(map(str, found.notes)) == ("a.csv: 1 of 4 left out: outside the raster.",)
    assert found.to_layer().grid == GRID


def test_all_outside_says_where_both_lie() -> None:
    with pytest.raises(
        LayerError, match=r"a\.csv lies outside the raster with all it has \(1\): it.*-81\.99.*lon, lat"
    ):
        on_raster(points([[900, 900]]), GRID, name="a.csv")
    plain = Grid(40, 30)
    with pytest.raises(LayerError, match=r"99 to 99, 98 to 98, the raster at 0 to 40, 0 to 30 \(pixels\)"):
        on_raster(Layer(shapely.points([[99.0, 98.0]]), grid=plain), plain, name="a.csv")


def test_a_place_that_the_crs_does_not_have_is_dropped() -> None:
    lonlat = transformed(GRID.to_world(INSIDE[:1]), UTM, WGS84)
    layer = Layer(shapely.points(np.vstack([lonlat, [[100.0, 95.0]]])), crs=WGS84)
    found = on_raster(layer, GRID, name="a.kml")
    assert len(found) == 1
    assert found.dropped == {"without a place in the raster's CRS": 1}


def test_a_map_cannot_be_laid_on_a_picture_without_crs() -> None:
    with pytest.raises(GridError, match="no CRS"):
        on_raster(Layer(shapely.points([[1.0, 1.0]]), crs=WGS84), Grid(40, 30), name="a.kml")


def test_no_annotations_are_legal() -> None:
    found = on_raster(points(np.empty((0, 2))), GRID, name="a.csv")
    assert (len(found), found.dropped, found.notes) == (0, {}, ())
    assert found.label.shape == found.radius_px.shape == found.accuracy_m.shape == found.ignore.shape == (0,)


@pytest.mark.parametrize("column", ["label", "Class", "species", "Category", "class_name"])
def test_class_names_by_the_name_of_the_column(column: str) -> None:
    found = on_raster(points(INSIDE, **{"note": ["x", "y"], column: ["Seal", "Pup"]}), GRID, name="a")
    assert found.label.tolist() == ["Seal", "Pup"]


def test_class_names_of_a_column_that_is_asked_for() -> None:
    layer = points(INSIDE, label=["a", "b"], stage=[1, 2])
    assert on_raster(layer, GRID, name="a", class_column="stage").label.tolist() == ["1", "2"]
    assert on_raster(points(INSIDE), GRID, name="a").label.tolist() == ["", ""]
    with pytest.raises(LayerError, match=r"no column 'kind'.*label, stage"):
        on_raster(layer, GRID, name="a", class_column="kind")


def test_radius_and_accuracy_row_by_row() -> None:
    layer = points(INSIDE, diameter_m=[2.0, np.nan], accuracy_m=[0.5, 3.0])
    found = on_raster(layer, GRID, name="a", radius=Length.parse("30px"))
    pixel = Length.parse("1m").pixels(GRID.gsd)
    assert found.radius_px == pytest.approx([pixel, 30])
    assert found.accuracy_m.tolist() == [0.5, 3.0]
    assert not found.ignore.any()
    bare = on_raster(points(INSIDE), GRID, name="a")
    assert np.isnan(bare.radius_px).all()
    assert np.isnan(bare.accuracy_m).all()


def test_files_are_read_and_laid_on_the_raster(tmp_path: Path) -> None:
    path = tmp_path / "gps.csv"
    lonlat = GRID.to_lonlat(INSIDE)
    rows = "".join(f"{lon:.12f},{lat:.12f},Seal\n" for lon, lat in lonlat)
    path.write_text(f"lon,lat,species\n{rows}-81,29,Seal\n,,Seal\n", encoding="utf-8")
    found = read_annotations(path, GRID, image="plot.tif")
    assert np.abs(shapely.get_coordinates(found.geometry) - INSIDE).max() < 1e-3
    assert found.label.tolist() == ["Seal", "Seal"]
    assert [note.text for note in found.notes] == [
        "1 row left out: no position (line 5).",
        "1 of 3 left out: outside the raster.",
    ]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".geojson", ".gpkg", ".kml", ".xml", ".json"])
def test_a_class_may_have_the_name_of_nothing(tmp_path: Path, suffix: str) -> None:
    words = (
        "NA",
        "N/A",
        "#N/A",
        "nan",
        "NaN",
        "null",
        "NULL",
        "None",
        "<NA>",
        "<null>",
        "007",
        "1.0",
        "tree",
    )
    grid = Grid(100, 100, (1.0, 0.0, 500_000.0, 0.0, -1.0, 5_000_000.0), CRS(32633))
    corners = np.arange(len(words))[:, None] * 5.0 + np.array([1, 1, 4, 4])
    found = Detections(grid, "box", corners, np.full(len(words), 0.5), np.arange(len(words)), words)
    ids = [f"{row:08x}-{row:x}" for row in range(len(words))]
    file = tmp_path / f"found{suffix}"
    formats.write(file, stream_of(found.to_layer(source="a.tif", ids=ids)))
    read = read_annotations(file, grid, image="a.tif")
    assert read.label[np.argsort(read.xy[:, 0])].tolist() == list(words)


def test_foreign_tables_say_in_words_that_there_is_no_class(tmp_path: Path) -> None:
    (tmp_path / "field.csv").write_text("x,y,label,score\n1.5,1.5,NA,NA\n2.5,1.5,,0.5\n3.5,1.5,tree,nan\n")
    read = read_annotations(tmp_path / "field.csv", Grid(100, 100))
    assert read.label.tolist() == ["", "", "tree"]
    assert np.isnan(read.score).tolist() == [True, False, True]
