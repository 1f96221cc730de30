"""`ecodetect convert`: from pixels to the map and back, and every mistake in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from command_line import Run
from pyproj import CRS

from ecodetect.annotations.laying import read_annotations
from ecodetect.converting import convert
from ecodetect.errors import UserError
from ecodetect.formats import files as formats
from ecodetect.grid import Grid
from ecodetect.raster.reading import open_raster

UTM = CRS.from_epsg(32617)
ROUND = (".geojson", ".gpkg", ".parquet", ".fgb", ".shp", ".csv", ".tsv", ".json", ".xml", ".txt")


@pytest.fixture
def plot(tmp_path: Path) -> Path:
    """A raster of 40 x 30 px, turned by some degrees."""
    path = tmp_path / "plot.tif"
    place = rasterio.Affine(0.47, 0.17, 404_000, 0.17, -0.47, 3_285_000)
    size = {"width": 40, "height": 30, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32617", transform=place, **size) as file:
        file.write(np.ones((1, 30, 40), np.uint8))
    return path


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    path = tmp_path / "boxes.csv"
    path.write_text(
        "image_path,xmin,ymin,xmax,ymax,label\nplot.tif,1.25,2,3,4,Tree\nplot.tif,10,5.5,20,25,Snag\n",
        encoding="utf-8",
    )
    return path


def features(path: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(path.read_text(encoding="utf-8"))["features"]
    return found


@pytest.mark.parametrize("suffix", ROUND)
def test_pixels_to_every_format_and_back(tmp_path: Path, plot: Path, boxes: Path, suffix: str) -> None:
    target = tmp_path / f"out{suffix}"
    done = convert(boxes, target, image=plot)
    assert done.features == 2
    back = tmp_path / "back.csv"
    convert(target, back, image=plot)
    with open_raster(plot) as raster:
        layer = formats.read(back, grid=raster.grid, image="plot.tif")
    order = np.argsort(layer.columns["label"])[::-1]  # FlatGeobuf has an order of its own
    wanted = [[1.25, 2, 3, 4], [10, 5.5, 20, 25]]
    assert np.abs(shapely.bounds(layer.geometry[order]) - wanted).max() < 1e-6
    assert layer.columns["label"][order].tolist() == ["Tree", "Snag"]
    assert layer.columns["source"].tolist() == ["plot.tif", "plot.tif"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_foreign_class_called_as_nothing_stays_a_class_in_a_table(tmp_path: Path, suffix: str) -> None:
    names = ["NA", "null", "None", "nan", "n/a", "#N/A", "'NA", "oak"]
    coco = {
        "images": [{"id": 1, "file_name": "plot.tif", "width": 100, "height": 30}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": number, "bbox": [9 * number, 2, 3, 4]}
            for number in range(1, len(names) + 1)
        ],
    }
    (tmp_path / "foreign.json").write_text(json.dumps(coco), encoding="utf-8")
    target = tmp_path / f"out{suffix}"
    convert(tmp_path / "foreign.json", target)
    read = read_annotations(target, Grid(100, 30), image="plot.tif")
    assert read.label[np.argsort(read.xy[:, 0])].tolist() == names
    with target.open("a", encoding="utf-8") as file:  # by hand, in a spreadsheet that knows no class for it
        file.write(target.read_text(encoding="utf-8").splitlines()[1].replace("'NA", "NA") + "\n")
    assert sorted(read_annotations(target, Grid(100, 30), image="plot.tif").label) == sorted([*names, ""])


def test_an_independent_reader_sees_them_on_the_map(tmp_path: Path, plot: Path, boxes: Path) -> None:
    import geopandas

    convert(boxes, tmp_path / "out.gpkg", image=plot)
    frame = geopandas.read_file(tmp_path / "out.gpkg")
    assert frame.crs == "EPSG:32617"
    with rasterio.open(plot) as raster:
        x, y = raster.transform @ (10, 5.5)
    assert shapely.distance(shapely.Point(x, y), frame.geometry[1].exterior) < 1e-6


def test_what_lies_outside_is_left_out_with_an_image_only(tmp_path: Path, plot: Path) -> None:
    source = tmp_path / "far.csv"
    source.write_text("x,y\n1.5,2.5\n999.5,2.5\n", encoding="utf-8")
    done = convert(source, tmp_path / "a.geojson", image=plot)
    assert done.features == 1
    assert any("1 of 2 left out: outside the raster" in str(note) for note in done.notes)
    assert convert(source, tmp_path / "b.geojson").features == 2


def test_pixels_stay_pixels_without_an_image(tmp_path: Path, boxes: Path) -> None:
    done = convert(boxes, tmp_path / "a.geojson")
    text = (tmp_path / "a.geojson").read_text(encoding="utf-8")
    assert '"ecodetect:frame":"pixel_up"' in text
    assert any(note.parameter == "image" for note in done.notes)
    convert(boxes, tmp_path / "a.csv")
    assert shapely.bounds(formats.read(tmp_path / "a.csv").geometry).tolist() == [
        [1.25, 2, 3, 4],
        [10, 5.5, 20, 25],
    ]
    with pytest.raises(UserError, match=r"name the (image|raster)"):
        convert(boxes, tmp_path / "a.json")


def test_the_size_that_a_file_states_is_enough(tmp_path: Path, plot: Path, boxes: Path) -> None:
    convert(boxes, tmp_path / "a.xml", image=plot)
    convert(tmp_path / "a.xml", tmp_path / "b.json")
    convert(tmp_path / "b.json", tmp_path / "c.txt")
    found = formats.read(tmp_path / "c.txt", grid=Grid(40, 30), image="plot.tif")
    assert np.abs(shapely.bounds(found.geometry)[0] - [1.25, 2, 3, 4]).max() < 1e-9


def test_a_map_needs_an_image_to_come_into_pixels(tmp_path: Path, plot: Path, boxes: Path) -> None:
    convert(boxes, tmp_path / "a.geojson", image=plot)
    for suffix in (".csv", ".json", ".xml", ".txt", ".tif"):
        with pytest.raises(UserError, match=r"name the (image|raster)"):
            convert(tmp_path / "a.geojson", tmp_path / f"b{suffix}")


def test_no_features_make_an_empty_layer(tmp_path: Path, plot: Path) -> None:
    source = tmp_path / "none.csv"
    source.write_text("image_path,xmin,ymin,xmax,ymax,label\n", encoding="utf-8")
    for suffix in (*ROUND, ".tif", ".png"):
        if suffix == ".csv":
            continue
        target = tmp_path / f"none{suffix}"
        assert convert(source, target, image=plot).features == 0
        assert len(formats.read(target, grid=Grid(40, 30), image="plot.tif")) == 0


def test_no_features_without_an_image(tmp_path: Path) -> None:
    source = tmp_path / "none.csv"
    source.write_text("x,y\n", encoding="utf-8")
    assert convert(source, tmp_path / "a.geojson").features == 0


def test_the_command_says_what_it_did(ecodetect: Run, tmp_path: Path, plot: Path, boxes: Path) -> None:
    with boxes.open("a", encoding="utf-8") as file:
        file.write("plot.tif,9,9,8,8,Tree\nother.tif,1,2,3,4,Tree\n")
    target = tmp_path / "out.geojson"
    done = ecodetect("convert", boxes, target, "--image", plot)
    assert done.code == 0
    assert "1 row of other images left out (other.tif)" in done.err
    assert "1 row left out: a box whose xmin 9 is more than its xmax 8 (line 4)" in done.err
    assert "2 features written" in done.out
    assert len(features(target)) == 2
    again = ecodetect("convert", boxes, target, "--image", plot)
    assert again.code == 2
    assert "--overwrite" in again.err
    assert ecodetect("convert", boxes, target, "--image", plot, "--overwrite").code == 0


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("no.csv", "out.geojson", "doesn't exist"),
        ("boxes.csv", "out.xyz", "suffix"),
        ("boxes.csv", "no/out.geojson", "doesn't exist"),
        ("empty.csv", "out.geojson", "empty"),
        ("words.csv", "out.csv", "no columns that say where"),
        ("words.json", "out.csv", "not any of what"),
        ("words.txt", "out.csv", "no columns that say where"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    ecodetect: Run, tmp_path: Path, boxes: Path, plot: Path, source: str, target: str, says: str
) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "words.csv").write_text("hello,world\n", encoding="utf-8")
    (tmp_path / "words.json").write_text('{"a": 1}', encoding="utf-8")
    (tmp_path / "words.txt").write_text("hello world\n", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    done = ecodetect("convert", tmp_path / source, tmp_path / target, "--image", plot)
    assert done.code == 2, done
    assert done.err.count("\n") == 1
    assert done.err.startswith("error: ")
    assert says in done.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet", ".geojson"])
def test_a_layer_in_pixels_keeps_what_it_says_of_itself(
    tmp_path: Path, ecodetect: Run, corners: Path, suffix: str
) -> None:
    out = tmp_path / f"cells{suffix}"
    assert ecodetect("scan", corners / "cells.png", "-m", "blobs", "--gsd", "0.5", "-o", out).code == 0
    for facts in (formats.read(out).metadata, formats.read_metadata(out)):
        assert facts["model"] == "blobs"
        assert facts["settings"]["gsd_m"] == 0.5
    assert formats.read(out).metadata["frame"] == "pixel"


def test_spellings_that_become_classes_of_their_own_are_said(tmp_path: Path, plot: Path, boxes: Path) -> None:
    boxes.write_text(boxes.read_text(encoding="utf-8").replace("Snag", "tree "), encoding="utf-8")
    assert "spellings-apart" in [note.code for note in convert(boxes, tmp_path / "a.json", image=plot).notes]
    assert "spellings-apart" not in [note.code for note in convert(boxes, tmp_path / "a.gpkg").notes]


def test_a_label_image_says_that_it_holds_no_classes(tmp_path: Path, plot: Path, boxes: Path) -> None:
    notes = convert(boxes, tmp_path / "a.png", image=plot).notes
    assert [note.code for note in notes] == ["classes-lost"]
    one = convert(boxes, tmp_path / "b.gpkg", image=plot)
    assert "classes-lost" not in [note.code for note in one.notes]
