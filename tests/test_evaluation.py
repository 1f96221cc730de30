"""`evaluate`: files in any shape brought together, judged, and reported; errors as a layer and a picture."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import geopandas
import learned
import numpy as np
import pytest
import rasterio
import shapely
from command_line import Run
from PIL import Image
from pyproj import CRS
from scipy.optimize import linear_sum_assignment
from training_sets import noise, write_raster

from ecodetect.bundle import file as bundle
from ecodetect.evaluation import worst
from ecodetect.evaluation.criterion import Criterion
from ecodetect.evaluation.evaluating import evaluate
from ecodetect.evaluation.report import Evaluation
from ecodetect.formats import files as formats
from ecodetect.pictures.colours import PALETTE
from ecodetect.pictures.sheet import Panel
from ecodetect.sizes import Length

UTM = "EPSG:32630"
X0, Y0 = 500_000.0, 4_100_000.0


def table(path: Path, header: str, rows: Iterable[Iterable[object]]) -> Path:
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def layer(path: Path, shapes: list[Any], *, crs: Any = UTM, **columns: Any) -> Path:
    geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs).to_file(path)
    return path


def at(*xy: tuple[float, float]) -> list[Any]:
    return [shapely.Point(X0 + x, Y0 + y) for x, y in xy]


def within(text: str) -> Criterion:
    return Criterion("distance", Length.parse(text))


def raster(path: Path, *, size: int = 64, crs: str | None = UTM, gsd: float = 0.5) -> Path:
    place = rasterio.transform.from_origin(X0, Y0, gsd, gsd) if crs else None
    profile = {"driver": "GTiff", "width": size, "height": size, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, crs=crs, transform=place) as file:
        file.write(np.random.default_rng(0).integers(1, 255, (1, size, size), dtype=np.uint8))
    return path


# -- points ------------------------------------------------------------------------------------------------


def test_points_on_the_map_by_metres(tmp_path: Path) -> None:
    found = layer(tmp_path / "found.gpkg", at((0, 0), (10, 0), (50, 0)), score=[0.9, 0.8, 0.7])
    there = layer(tmp_path / "there.gpkg", at((1, 0), (10, 2), (80, 0), (90, 0)))
    done = evaluate(found, there, criterion=within("3m"))
    assert done.criterion == "distance ≤ 3 m"
    r = done.rates
    assert (r.true_positives, r.false_positives, r.false_negatives) == (2, 1, 2)
    assert (done.count.detected, done.count.true, done.count.error) == (3, 4, -1)
    assert done.position.rmse == pytest.approx(math.sqrt((1 + 4) / 2), rel=1e-3)  # UTM's scale is 0.9996
    assert done.position.shift_x == pytest.approx(-0.5, rel=1e-3)
    assert done.position.shift_y == pytest.approx(-1.0, rel=1e-3)
    assert done.ap is not None
    assert done.ap.all_point == pytest.approx(0.5)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:2062", UTM])
def test_both_may_have_any_crs(tmp_path: Path, crs: str) -> None:
    xy = [(0, 0), (40, 0), (80, 30)]
    found = layer(tmp_path / "found.gpkg", at(*xy))
    there = geopandas.GeoSeries(at(*[(x + 2.9, y) for x, y in xy]), crs=UTM).to_crs(crs)
    moved = layer(tmp_path / "there.gpkg", list(there), crs=crs)
    for one, other in ((found, moved), (moved, found)):
        assert evaluate(one, other, criterion=within("3m")).rates.true_positives == 3
        assert evaluate(one, other, criterion=within("2.8m")).rates.true_positives == 0


def test_feet_are_not_metres(tmp_path: Path) -> None:
    crs = CRS("EPSG:2263")
    found = layer(tmp_path / "f.gpkg", [shapely.Point(990_000, 200_000)], crs=crs)
    there = layer(tmp_path / "t.gpkg", [shapely.Point(990_009, 200_000)], crs=crs)
    assert evaluate(found, there, criterion=within("2.8m")).rates.true_positives == 1
    assert evaluate(found, there, criterion=within("2.7m")).rates.true_positives == 0


def test_pixels_need_no_raster_and_metres_a_gsd(tmp_path: Path) -> None:
    found = table(tmp_path / "f.csv", "source,x,y,score", [("a.jpg", 10.5, 10.5, 0.9)])
    there = table(tmp_path / "t.csv", "x,y", [(13.5, 14.5)])
    assert evaluate(found, there, criterion=within("5px")).rates.true_positives == 1
    assert evaluate(found, there, criterion=within("0.5m"), gsd_m=0.1).rates.true_positives == 1
    done = evaluate(found, there, criterion=within("0.49m"), gsd_m=0.1)
    assert (done.rates.true_positives, done.position.unit) == (0, "m")


def test_own_radius_and_accuracy_of_each_annotation(tmp_path: Path) -> None:
    found = layer(tmp_path / "f.gpkg", at((0, 3.5), (50, 3.5), (100, 3.5)))
    there = layer(
        tmp_path / "t.gpkg", at((0, 0), (50, 0), (100, 0)), radius_m=[2, 2, 4], accuracy_m=[0, 2, 0]
    )
    assert evaluate(found, there).rates.true_positives == 2
    done = evaluate(found, there, criterion=within("2m"))  # widened by the accuracy only
    assert done.rates.true_positives == 1
    assert any("accuracy" in str(note) for note in done.notes)


def test_pixels_of_a_raster_against_the_map(tmp_path: Path) -> None:
    image = raster(tmp_path / "a.tif")
    found = table(
        tmp_path / "f.csv", "source,x,y,score", [("a.tif", 20.25, 10.25, 1), ("a.tif", 60.2, 60.2, 1)]
    )
    there = layer(tmp_path / "t.gpkg", at((10.125, -5.125), (20, -20)))
    done = evaluate(found, there, image=image, criterion=within("1px"))
    assert done.rates.true_positives == 1
    assert done.position.rmse == pytest.approx(0, abs=1e-6)


# -- shapes ------------------------------------------------------------------------------------------------


def test_shapes_by_iou_unless_said_otherwise(tmp_path: Path) -> None:
    found = layer(
        tmp_path / "f.gpkg", [shapely.box(X0, Y0, X0 + 4, Y0 + 4), shapely.box(X0 + 9, Y0, X0 + 10, Y0 + 1)]
    )
    there = layer(tmp_path / "t.gpkg", [shapely.box(X0, Y0, X0 + 4, Y0 + 3)])
    done = evaluate(found, there)
    assert done.criterion == "IoU ≥ 0.5"
    assert (done.rates.true_positives, done.rates.false_positives) == (1, 1)
    assert evaluate(found, there, criterion=Criterion("iou", 0.76)).rates.true_positives == 0


def test_outlines_against_boxes_compare_boxes(tmp_path: Path) -> None:
    disc = shapely.Point(X0, Y0).buffer(5)
    found = layer(tmp_path / "f.gpkg", [disc])
    there = layer(tmp_path / "t.gpkg", [shapely.box(*disc.bounds)])
    done = evaluate(found, there, criterion=Criterion("iou", 0.9))
    assert done.criterion == "IoU of bounding boxes ≥ 0.9"
    assert done.rates.true_positives == 1


@pytest.mark.parametrize("truth_crs", [4326, 32647])
def test_boxes_are_straight_in_the_crs_of_their_raster(tmp_path: Path, truth_crs: int) -> None:
    """A scan's GeoJSON holds longitude and latitude, in which the boxes of a raster in UTM lie askew."""
    discs = [shapely.Point(1_000_000 + 30 * n, 217_000).buffer(5) for n in range(3)]
    truth = geopandas.GeoDataFrame(geometry=discs, crs=32647).to_crs(truth_crs)
    truth.to_file(tmp_path / "t.gpkg")
    boxes = geopandas.GeoDataFrame(geometry=[shapely.box(*disc.bounds) for disc in discs], crs=32647)
    found = json.loads(boxes.to_crs(4326).to_json())
    said = {
        "rasters": [{"source": "it.tif", "crs": "EPSG:32647"}]
    }  # in front of the features, as `scan` does
    whole = {"type": found["type"], "ecodetect": said, "features": found["features"]}
    (tmp_path / "f.geojson").write_text(json.dumps(whole))
    done = evaluate(tmp_path / "f.geojson", tmp_path / "t.gpkg", criterion=Criterion("iou", 0.98))
    assert done.criterion == "IoU of bounding boxes ≥ 0.98"
    assert done.rates.true_positives == 3


def test_points_against_polygons_lie_inside(tmp_path: Path) -> None:
    crowns = [shapely.Point(X0 + x, Y0).buffer(4) for x in (0, 20)]
    there = layer(tmp_path / "t.gpkg", crowns)
    found = layer(tmp_path / "f.gpkg", at((1, 1), (2, 2), (50, 0)))
    done = evaluate(found, there)
    assert done.criterion == "inside"
    assert (done.rates.true_positives, done.rates.false_positives, done.duplicates) == (1, 2, 1)
    assert evaluate(there, found).rates.true_positives == 1


# -- classes, doubt, area ----------------------------------------------------------------------------------


def test_classes_are_told_apart_and_confusions_counted(tmp_path: Path) -> None:
    found = layer(
        tmp_path / "f.gpkg", at((0, 0), (10, 0), (20, 0)), label=["oak", "Pine", "oak"], score=[1, 1, 1]
    )
    there = layer(tmp_path / "t.gpkg", at((0, 0), (10, 0), (20, 0)), species=["oak", "pine", "pine"])
    done = evaluate(found, there, criterion=within("1m"), class_column="species")
    assert [(c.name, c.rates.true_positives) for c in done.classes] == [("oak", 1), ("pine", 1)]
    assert done.confusions == {("oak", "pine"): 1}
    assert done.ap is not None
    assert done.ap.n_classes == 2


def test_figures_of_each_class_are_those_of_that_class_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    there, found = rng.uniform(0, 60, (2, 120, 2))
    labels, true_labels = rng.choice(["a", "b", "c", "d"], (2, 120))
    plots = [shapely.box(X0 + x, Y0, X0 + x + 30, Y0 + 60) for x in (0, 30)]
    layer(tmp_path / "plots.gpkg", plots)
    score = rng.random(120)

    def judged(names: str) -> Evaluation:
        mine, true = np.isin(labels, list(names)), np.isin(true_labels, list(names))
        one = layer(tmp_path / f"f{names}.gpkg", at(*found[mine]), label=labels[mine], score=score[mine])
        other = layer(tmp_path / f"t{names}.gpkg", at(*there[true]), label=true_labels[true])
        return evaluate(one, other, criterion=within("4m"), area=tmp_path / "plots.gpkg")

    for of_all in judged("abcd").classes:
        alone = judged(of_all.name)
        assert of_all.rates == alone.rates
        assert of_all.rates.true_positives > 0
        assert of_all.count == alone.count
        assert of_all.position == alone.position
        assert of_all.ap == alone.classes[0].ap


def test_one_class_without_a_common_name_is_compared_anyway(tmp_path: Path) -> None:
    found = layer(tmp_path / "f.gpkg", at((0, 0)), label=["object"])
    there = layer(tmp_path / "t.gpkg", at((0, 0), (9, 9)), label=["oak", "pine"])
    done = evaluate(found, there, criterion=within("1m"))
    assert done.rates.true_positives == 1
    assert any(note.text.startswith("Classes aren't compared") for note in done.notes)


@pytest.mark.parametrize("how", ["label", "file", "column"])
def test_doubtful_ones_are_neither_right_nor_wrong(tmp_path: Path, how: str) -> None:
    found = layer(tmp_path / "f.gpkg", at((0, 0), (10, 0), (10, 1), (30, 0)), label=["shrub"] * 4)
    real, doubtful = [(0, 0), (20, 0)], [(10, 0), (40, 0)]
    ignore: list[str] = []
    if how == "file":
        there = layer(tmp_path / "t.gpkg", at(*real), label=["shrub"] * 2)
        ignore = [str(layer(tmp_path / "d.gpkg", at(*doubtful)))]
    elif how == "label":
        there = layer(tmp_path / "t.gpkg", at(*real, *doubtful), label=["shrub"] * 2 + ["maybe"] * 2)
        ignore = ["maybe"]
    else:
        there = layer(tmp_path / "t.gpkg", at(*real, *doubtful), label=["shrub"] * 4, ignore=[0, 0, 1, 1])
    done = evaluate(found, there, criterion=within("2m"), ignore=ignore)
    r = done.rates
    assert (r.true_positives, r.false_positives, r.false_negatives) == (1, 1, 1)
    assert (done.ignored, done.absorbed) == (2, 2)


def test_outside_the_area_nothing_is_judged(tmp_path: Path) -> None:
    area = layer(tmp_path / "area.gpkg", [shapely.box(X0, Y0, X0 + 100, Y0 + 100)])
    # True and false inside; false outside; outside, its truth inside; inside, its truth outside.
    found = layer(tmp_path / "f.gpkg", at((10, 10), (50, 50), (150, 50), (100.5, 20), (99.5, 80)))
    there = layer(tmp_path / "t.gpkg", at((10, 10), (99.5, 20), (100.5, 80), (300, 300)))
    done = evaluate(found, there, criterion=within("2m"), area=area)
    r = done.rates
    assert (r.true_positives, r.false_positives, r.false_negatives) == (2, 1, 0)
    assert (done.outside, done.absorbed, done.ignored) == (1, 1, 0)


def test_several_polygons_are_plots(tmp_path: Path) -> None:
    plots = [shapely.box(X0 + 100 * i, Y0, X0 + 100 * i + 50, Y0 + 50) for i in range(4)]
    area = layer(tmp_path / "plots.gpkg", plots, plot=["A", "B", "C", "D"])
    found = layer(tmp_path / "f.gpkg", at((10, 10), (210, 10)))
    there = layer(tmp_path / "t.gpkg", at((10, 10), (110, 10), (310, 10)), ignore=[0, 0, 1])
    done = evaluate(found, there, criterion=within("2m"), area=area)
    assert [each.name for each in done.units] == ["A", "B", "C", "D"]
    assert done.unit == "plot"
    t = done.presence
    assert t is not None
    assert (t.true_positives, t.false_negatives, t.false_positives, t.true_negatives) == (1, 1, 1, 0)
    assert t.n_unknown == 1  # D holds a doubtful one only
    assert (done.count.mae, done.count.n) == (0.5, 4)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_annotations_mean_is_said_as_to_train(tmp_path: Path, ecodetect: Run) -> None:
    """The options that `check` and `train` have: radius, the raster's edge, ground that is complete."""
    image = write_raster(tmp_path / "a.tif", noise(3, 64, 64), gsd_m=None)
    found = table(tmp_path / "f.csv", "x,y", [(3.5, 30.5), (30.5, 30.5), (40.5, 50.5)])
    there = table(tmp_path / "t.csv", "x,y", [(1.5, 9.5), (30.5, 33.5), (60.5, 40.5)])
    arguments = ("evaluate", found, there, "--image", image, "--radius", "4px")

    def counts(*more: object) -> tuple[int, int, int]:
        done = ecodetect(*arguments, *more, "--json")
        assert done.code == 0, done.err
        rates = json.loads(done.out)
        return rates["true_positives"], rates["false_positives"], rates["false_negatives"]

    assert counts() == (1, 2, 2)
    assert counts("--ignore-edge", "5px") == (1, 1, 0)
    plot = tmp_path / "plot.geojson"
    ring = [[20, 20], [50, 20], [50, 45], [20, 45], [20, 20]]
    shape = {"type": "Polygon", "coordinates": [ring]}
    plot.write_text(
        json.dumps({"type": "FeatureCollection", "ecodetect:frame": "pixel", "features": [
            {"type": "Feature", "properties": {}, "geometry": shape}]}),
        encoding="utf-8",
    )  # fmt: skip
    assert counts("--area", plot) == counts("--complete", plot)
    assert "2 of 3 annotations lie outside" in ecodetect(*arguments, "--complete", plot).err
    assert counts("--complete", "image") == (1, 2, 2)
    assert "give a length" in ecodetect(*arguments[:5], "--radius", "contour").err


# -- images ------------------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path: Path) -> tuple[Path, Path]:
    """Detections in three of four images; the annotations are a folder that knows all, one without any."""
    found = table(
        tmp_path / "f.csv",
        "source,x,y,score",
        [("a.png", 5.5, 5.5, 0.9), ("b.png", 5.5, 5.5, 0.8), ("c.png", 1.5, 1.5, 0.7)],
    )
    folder = tmp_path / "truth"
    folder.mkdir()
    for name, rows in {"a": [(5.5, 5.5)], "b": [], "c": [(9.5, 9.5)], "d": []}.items():
        table(folder / f"{name}.csv", "x,y", rows)
    return found, folder


def test_images_are_matched_one_by_one(many: tuple[Path, Path]) -> None:
    done = evaluate(*many, criterion=within("2px"))
    assert [(each.name, each.rates.true_positives) for each in done.units] == [
        ("a", 1), ("b", 0), ("c", 0), ("d", 0)
    ]  # fmt: skip
    t = done.presence
    assert t is not None
    assert (t.true_positives, t.false_negatives, t.true_negatives, t.false_positives) == (2, 0, 1, 1)
    assert any("can't say whether" in str(note) for note in done.notes)


def test_a_table_of_many_images_leaves_unnamed_ones_unjudged(many: tuple[Path, Path], tmp_path: Path) -> None:
    there = table(tmp_path / "t.csv", "source,x,y", [("a.png", 5.5, 5.5), ("c.png", 9.5, 9.5)])
    done = evaluate(many[0], there, criterion=within("2px"))
    assert done.rates.false_positives == 1
    assert any("b.png" in note.text and note.parameter == "empty_images" for note in done.notes)
    assert evaluate(many[0], there, criterion=within("2px"), empty_images=True).rates.false_positives == 2


def test_coco_lists_its_empty_images(many: tuple[Path, Path], tmp_path: Path) -> None:
    there = tmp_path / "t.json"
    images = [
        {"id": n, "file_name": f"{name}.png", "width": 20, "height": 20} for n, name in enumerate("abcd")
    ]
    boxes = [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [3, 3, 5, 5]}]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "x"}]}
    there.write_text(json.dumps(content), encoding="utf-8")
    done = evaluate(many[0], there)
    assert (done.rates.true_positives, done.rates.false_positives, done.count.n) == (1, 2, 4)


def test_a_scan_of_a_folder_knows_what_it_searched(tmp_path: Path, ecodetect: Run) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    dots = np.full((64, 64), 220, np.uint8)
    dots[20:32, 20:32] = 10
    for name, pixels in (("a", dots), ("b", np.full((64, 64), 220, np.uint8))):
        Image.fromarray(pixels).save(pictures / f"{name}.png")
    assert (
        ecodetect("scan", pictures, "-m", "threshold", "--set", "level=100", "-o", f"{tmp_path / 'f'}/").code
        == 0
    )
    truth = table(tmp_path / "t.csv", "source,x,y", [("a.png", 26.5, 26.5), ("never.png", 1.5, 1.5)])
    done = evaluate(tmp_path / "f", truth)
    assert (done.criterion, done.rates.true_positives, done.rates.false_negatives) == ("inside", 1, 0)
    assert any(note.code == "images-unsearched" and "never.png" in note.text for note in done.notes)


# -- awkward -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "there", "counts"),
    [([], [(1.5, 1.5)], (0, 0, 1)), ([(1.5, 1.5)], [], (0, 1, 0)), ([], [], (0, 0, 0))],
)
def test_nothing_there_or_nothing_found(
    tmp_path: Path, ecodetect: Run, found: list[Any], there: list[Any], counts: tuple[int, int, int]
) -> None:
    own = table(tmp_path / "f.csv", "source,x,y,score", [("a.png", x, y, 0.5) for x, y in found])
    truth = table(tmp_path / "t.csv", "x,y", there)
    done = evaluate(own, truth, criterion=within("2px"))
    r = done.rates
    assert (r.true_positives, r.false_positives, r.false_negatives) == counts
    json.dumps(done.to_dict(), allow_nan=False)
    outcome = ecodetect("evaluate", own, truth, "--within", "2px")
    assert (outcome.code, "error" in outcome.err) == (0, False)


def test_all_doubtful(tmp_path: Path) -> None:
    found = layer(tmp_path / "f.gpkg", at((0, 0), (9, 9)), label=["a"] * 2)
    there = layer(tmp_path / "t.gpkg", at((0, 0)), label=["maybe"])
    done = evaluate(found, there, criterion=within("2m"), ignore=["maybe"])
    assert (done.rates.n_truths, done.rates.false_positives, done.absorbed) == (0, 1, 1)
    assert math.isnan(done.rates.recall)


def test_truths_in_a_doubtful_shape_are_doubtful(tmp_path: Path) -> None:
    found = layer(tmp_path / "f.gpkg", at((0, 0), (50, 0)))
    there = layer(tmp_path / "t.gpkg", at((0, 0), (50, 0), (52, 3)))
    shade = layer(tmp_path / "d.gpkg", [shapely.box(X0 + 40, Y0 - 10, X0 + 60, Y0 + 10)])
    done = evaluate(found, there, criterion=within("1m"), ignore=[str(shade)])
    assert (done.rates.true_positives, done.rates.false_positives, done.rates.n_truths) == (1, 0, 1)
    (note,) = (note for note in done.notes if note.code == "inside-ignored")
    assert note.text.startswith("2 of 3 annotations")


def test_what_has_no_class_is_compared_by_place_on_either_side(tmp_path: Path) -> None:
    places = at((0, 0), (20, 0), (40, 0))
    named = layer(tmp_path / "a.gpkg", places, label=["oak", "ash", "oak"])
    partly = layer(tmp_path / "b.gpkg", places, label=["oak", "ash", None])
    for found, there in ((named, partly), (partly, named)):
        done = evaluate(found, there, criterion=within("1m"))
        assert (done.rates.true_positives, done.rates.false_positives) == (3, 0)
        assert {each.name: each.rates.true_positives for each in done.classes} == {"ash": 1, "oak": 2}
        assert [note.code for note in done.notes].count("class-unknown") == 1


def test_the_strip_along_the_edge_is_no_doubtful_individual(tmp_path: Path) -> None:
    image = raster(tmp_path / "a.tif", size=64)
    places = [shapely.Point(X0 + 16, Y0 - 16), shapely.Point(X0 + 1, Y0 - 16)]
    there = layer(tmp_path / "t.gpkg", places)
    edge = Length(5.0, "px")
    done = evaluate(there, there, image=image, criterion=within("1m"), edge=edge)
    assert (done.rates.n_truths, done.ignored) == (1, 1)


def test_what_is_drawn_without_an_image_counts_for_the_nearest_one(tmp_path: Path) -> None:
    places = at((0, 0), (20, 0), (500, 0), (520, 0))
    names = ["a.tif", "a.tif", "b.tif", "b.tif"]
    found = layer(tmp_path / "a.gpkg", places, source=names)
    there = layer(tmp_path / "b.gpkg", [*places, *at((40, 0))], source=[*names, None])
    done = evaluate(found, there, criterion=within("1m"))
    assert {unit.name: unit.rates.false_negatives for unit in done.units} == {"a": 1, "b": 0}
    (note,) = (note for note in done.notes if note.code == "image-by-place")
    assert note.text.startswith("1 feature names no image")


def test_names_of_individuals_are_not_compared_as_classes(tmp_path: Path) -> None:
    places = at(*((20 * n, 0) for n in range(12)))
    found = layer(tmp_path / "a.gpkg", places, label=["oak", "ash"] * 6)
    there = layer(tmp_path / "b.gpkg", places, name=[f"tree {n}" for n in range(12)])
    done = evaluate(found, there, criterion=within("1m"))
    assert (done.rates.f1, [each.name for each in done.classes]) == (1, ["all"])
    (note,) = (note for note in done.notes if note.code == "classes-not-compared")
    assert "and 7 more" in note.text


def test_a_layer_cut_at_a_score_says_so(tmp_path: Path, ecodetect: Run) -> None:
    image = raster(tmp_path / "a.tif")
    asked = ("scan", image, "-m", "threshold", "--set", "min_area=1px", "--score", "0.2")
    assert ecodetect(*asked, "-o", tmp_path / "f.gpkg").code == 0
    there = table(tmp_path / "t.csv", "x,y", [(5.5, 5.5)])
    done = evaluate(tmp_path / "f.gpkg", there, image=image)
    assert any("cut at a score of 0.2" in str(note) for note in done.notes)


# -- output ------------------------------------------------------------------------------------------------


def test_rates_by_size_and_intervals(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    xy = [(25.0 * i, 25.0 * j) for i in range(8) for j in range(8)]
    radius = rng.uniform(1, 6, 64)
    crowns = [p.buffer(r) for p, r in zip(at(*xy), radius, strict=True)]
    there = layer(tmp_path / "t.gpkg", crowns)
    found = layer(tmp_path / "f.gpkg", [c for c, r in zip(crowns, radius, strict=True) if r > 2.6])
    done = evaluate(found, there)
    assert [each.unit for each in done.sizes] == ["m"] * 3
    assert sum(each.rates.n_truths for each in done.sizes) == 64
    assert done.sizes[0].rates.recall < 0.6
    assert done.sizes[2].rates.recall == 1
    recall = done.intervals["recall"]
    assert done.drawn == "block"
    assert recall.low < done.rates.recall < recall.high
    assert evaluate(found, there).intervals == done.intervals


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".csv"])
def test_errors_as_a_layer(tmp_path: Path, ecodetect: Run, suffix: str) -> None:
    image = raster(tmp_path / "a.tif")
    box = shapely.box
    found = layer(
        tmp_path / "f.gpkg",
        [box(X0 + 2, Y0 - 8, X0 + 6, Y0 - 4), box(X0 + 20, Y0 - 24, X0 + 24, Y0 - 20)],
        score=[0.9, 0.4],
    )
    there = layer(
        tmp_path / "t.gpkg", [box(X0 + 2, Y0 - 8, X0 + 6, Y0 - 4.5), box(X0 + 10, Y0 - 14, X0 + 12, Y0 - 12)]
    )
    out, sheet = tmp_path / f"errors{suffix}", tmp_path / "sheet.png"
    outcome = ecodetect("evaluate", found, there, "--image", image, "-o", out, "--sheet", sheet)
    assert outcome.code == 0, outcome.err
    written = formats.read(out) if suffix != ".csv" else formats.read(out, image="a.tif")
    assert sorted(written.columns["label"].tolist()) == ["false", "missed", "true"]
    assert Image.open(sheet).width > 200
    again = ecodetect("evaluate", found, there, "--image", image, "-o", out)
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "--overwrite" in again.err


def test_the_command_prints_a_table_or_json(tmp_path: Path, ecodetect: Run) -> None:
    found = layer(tmp_path / "f.gpkg", at((0, 0), (10, 0)), score=[0.9, 0.8])
    there = layer(tmp_path / "t.gpkg", at((0, 1), (40, 0)))
    outcome = ecodetect("evaluate", found, there, "--within", "3m")
    assert outcome.code == 0
    assert "matched one to one by distance ≤ 3 m" in outcome.out
    assert "count: 2 detected, 2 there" in outcome.out
    numbers = json.loads(ecodetect("evaluate", found, there, "--within", "3m", "--json").out)
    assert (numbers["precision"], numbers["recall"], numbers["f1"]) == (0.5, 0.5, 0.5)
    assert numbers["units"][0]["n_truths"] == 2


# -- what can't be -----------------------------------------------------------------------------------------


def test_what_is_wrong_is_one_sentence(tmp_path: Path, ecodetect: Run) -> None:
    found = layer(tmp_path / "f.gpkg", at((0, 0)), label=["a"])
    there = layer(tmp_path / "t.gpkg", at((0, 0)), label=["b"])
    several = layer(tmp_path / "s.gpkg", at((0, 0), (1, 1)), label=["c", "d"])
    species = layer(tmp_path / "s2.gpkg", at((0, 0), (1, 1)), label=["x", "y"])
    pixels = table(tmp_path / "p.csv", "source,x,y", [("a.png", 1.5, 1.5), ("b.png", 1.5, 1.5)])
    other = table(tmp_path / "o.csv", "source,x,y", [("c.png", 1.5, 1.5), ("d.png", 1.5, 1.5)])
    mute = table(tmp_path / "m.csv", "x,y", [(1.5, 1.5)])
    elsewhere = layer(tmp_path / "e.gpkg", [shapely.Point(103.6, 1.4)], crs="EPSG:4326", label=["a"])
    far = layer(tmp_path / "far.gpkg", [shapely.box(X0 + 9e4, Y0, X0 + 9.1e4, Y0 + 9)])
    cases: list[tuple[list[object], str]] = [
        ([found, there], "Neither radius nor accuracy"),
        ([found, there, "--within", "3"], "unit"),
        ([found, there, "--within", "3px"], "--image"),
        ([found, there, "--within", "3m", "--inside"], "give one"),
        ([found, there, "--iou", "0.5"], "points"),
        ([found, there, "--iou", "1.5"], "at most 1"),
        ([found, there, "--inside"], "points only"),
        ([found, there, "--within", "3m", "--ignore", "maybe"], "neither a file nor a class"),
        ([found, there, "--within", "3m", "--ignore", "no.gpkg"], "doesn't exist"),
        ([found, there, "--within", "3m", "--class-column", "no"], "no column 'no'"),
        ([found, there, "--within", "3m", "--area", far], "meets none"),
        ([found, there, "--within", "3m", "--area", there], "no polygon"),
        ([found, there, "--within", "3m", "-o", "x.nope"], "suffix"),
        ([found, there, "--within", "3m", "--sheet", tmp_path / "x.png"], "cut from rasters"),
        ([species, several, "--within", "3m"], "no class"),
        ([pixels, other, "--within", "3px"], "no image in common"),
        ([pixels, mute, "--within", "3px"], "doesn't say which image"),
        ([mute, found, "--within", "3px"], "name the raster"),
        ([mute, mute, "--within", "3m"], "--gsd"),
        ([found, elsewhere, "--within", "3m"], "lie far apart: at -3"),
        ([tmp_path / "no.gpkg", there], "doesn't exist"),
    ]  # fmt: skip
    for arguments, words in cases:
        outcome = ecodetect("evaluate", *arguments)
        assert (outcome.code, outcome.out) == (2, ""), arguments
        assert words in outcome.err, (arguments, outcome.err)
        assert outcome.err.splitlines()[-1].startswith("error: "), outcome.err


# -- places ------------------------------------------------------------------------------------------------


def test_truth_where_the_model_was_trained_is_warned_of(tmp_path: Path, ecodetect: Run) -> None:
    lonlat = geopandas.GeoSeries(at((0, 0)), crs=UTM).to_crs("EPSG:4326")[0]
    here = [math.floor(lonlat.x * 100) / 100, math.floor(lonlat.y * 100) / 100]
    facts = {"name": "shrubs", "unit": "m", "gsd": 0.5, "largest": 9.0}
    bundle.write(
        tmp_path / "m.safetensors", learned.bundle(learned.card(**facts, trained_on=({"places": [here]},)))
    )
    far = learned.card(**facts, trained_on=({"places": [[here[0] + 1, here[1]]]}, {"name": "no place"}))
    bundle.write(tmp_path / "far.safetensors", learned.bundle(far))
    found = layer(tmp_path / "f.gpkg", at((0, 0), (10, 0)))
    there = layer(tmp_path / "t.gpkg", at((0, 0), (10, 0), (60_000, 0)))
    done = ecodetect("evaluate", found, there, "--within", "3m", "-m", tmp_path / "m.safetensors")
    assert done.code == 0, done.err
    assert "Within about 1 km of where the model 'shrubs' was trained: 2 of 3 individuals" in done.err
    other = evaluate(found, there, criterion=within("3m"), model=tmp_path / "far.safetensors")
    assert not any("was trained" in str(note) for note in other.notes)


def test_a_layer_of_our_own_says_itself_where_its_model_was_trained(tmp_path: Path, ecodetect: Run) -> None:
    image = raster(tmp_path / "a.tif")
    lonlat = geopandas.GeoSeries(at((5, -5)), crs=UTM).to_crs("EPSG:4326")[0]
    here = [math.floor(lonlat.x * 100) / 100, math.floor(lonlat.y * 100) / 100]
    card = learned.card(
        name="shrubs",
        bands=("grey",),
        unit="m",
        gsd=0.5,
        largest=9.0,
        trained_on=({"places": [here, [9, 9]]},),
    )
    bundle.write(tmp_path / "m.safetensors", learned.bundle(card))
    there = layer(tmp_path / "t.gpkg", at((5, -5)))
    for suffix in (".gpkg", ".geojson"):
        out = tmp_path / f"f{suffix}"
        assert ecodetect("scan", image, "-m", tmp_path / "m.safetensors", "-o", out).code == 0
        assert formats.read_metadata(out)["rasters"][0]["trained_here"] == [here]  # and of no other place
        done = evaluate(out, there, criterion=within("3m"))
        assert any(
            "1 of 1 individuals" in note.text and "'shrubs' was trained" in note.text for note in done.notes
        )


def test_the_scans_own_gsd_is_believed(tmp_path: Path, ecodetect: Run) -> None:
    image = raster(tmp_path / "a.tif", crs=None)
    asked = ("scan", image, "-m", "blobs", "--gsd", "0.5", "--set", "min_diameter=2m")
    assert ecodetect(*asked, "-o", tmp_path / "f.gpkg").code == 0
    there = table(tmp_path / "t.csv", "x,y", [(5.5, 5.5)])
    done = evaluate(tmp_path / "f.gpkg", there, image=image, criterion=within("3m"))
    assert done.position.unit == "m"
    assert evaluate(tmp_path / "f.gpkg", there, criterion=within("3m")).rates == done.rates
    sized = layer(tmp_path / "s.gpkg", [shapely.Point(1, 1)], crs=None, diameter_m=[2.0])
    refused = ecodetect("evaluate", sized, there, "--image", image, "--within", "3px")
    assert refused.code == 2
    assert "s.gpkg gives sizes of points in metres" in refused.err


def test_counts_are_off_by_file_class_and_size(tmp_path: Path, ecodetect: Run) -> None:
    rows = [(f"{image}.png", 20.5 * n + 9, 9.5, 2.0 + n, "oak" if n % 2 else "elm")
            for image in "ab" for n in range(10)]  # fmt: skip
    there = table(tmp_path / "t.csv", "source,x,y,radius_px,label", rows)
    found = table(tmp_path / "f.csv", "source,x,y,radius_px,label", rows[:16])
    done = evaluate(found, there)
    oak = next(each for each in done.classes if each.name == "oak")
    assert (oak.count.error, oak.count.bias, oak.count.mae, oak.count.n) == (-2, -1.0, 1.0, 2)
    assert [each.count.error for each in done.sizes] == [0, 0, -4]
    assert done.sizes[2].count.bias == -2
    out = ecodetect("evaluate", found, there).out
    assert "count off by" in out
    assert next(line for line in out.splitlines() if line.startswith("b ")).endswith("-4 (-40.0%)")
    assert "count of oak: 8 detected, 10 there: -2 (-20.0%); per file" in out
    json.dumps(done.to_dict(), allow_nan=False)


def test_a_sheet_of_errors_from_many_images(tmp_path: Path, ecodetect: Run) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in "abc":
        Image.fromarray(np.full((64, 64), 120, np.uint8)).save(pictures / f"{name}.png")
    found = table(tmp_path / "f.csv", "source,x,y", [("a.png", 9.5, 9.5), ("b.png", 30.5, 30.5)])
    there = table(tmp_path / "t.csv", "source,x,y", [("a.png", 9.5, 9.5), ("c.png", 50.5, 50.5)])
    asked = ("evaluate", found, there, "--within", "3px", "--empty-images", "--sheet", tmp_path / "s.png")
    done = ecodetect(*asked, "--image", pictures)
    assert done.code == 0, done.err
    with Image.open(tmp_path / "s.png") as sheet:
        colours = set(map(tuple, np.asarray(sheet.convert("RGB")).reshape(-1, 3).tolist()))
    assert {PALETTE[0], PALETTE[1]} <= colours  # a false one and a missed one
    bare = ecodetect(*asked)
    assert (bare.code, "--image" in bare.err) == (2, True)
    with Image.open(tmp_path / "s.png") as sheet:
        ground = (np.asarray(sheet.convert("RGB")) == 120).all(axis=2).mean()
    assert ecodetect(*asked, "--image", pictures, "--nodata", 120, "--overwrite").code == 0
    with Image.open(tmp_path / "s.png") as sheet:
        # Paper shows where there is no data.
        assert (np.asarray(sheet.convert("RGB")) == 120).all(axis=2).mean() < 0.1 * ground


@pytest.mark.parametrize(("size", "least"), [("", 24), ("40", 40)])
def test_a_cutout_of_individuals_of_unknown_size_shows_them_and_their_surroundings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str, least: float
) -> None:
    """Points on points: a detection next to its truth says nothing of how large an individual is."""
    image = raster(tmp_path / "a.tif", size=400, crs=None)
    places = [(x + 0.5, y + 0.5) for x in range(30, 400, 90) for y in range(30, 400, 90)]
    there = table(tmp_path / "t.csv", "x,y", places)
    own = [(x + 0.7, y + 0.3, size) for x, y in places[1:]] + [(390.2, 5.7, size)]
    found = table(tmp_path / "f.csv", "x,y,diameter_px", own)
    panels: list[Panel] = []
    monkeypatch.setattr(worst, "draw_panels", lambda shown, *_, **__: panels.extend(shown))
    evaluate(found, there, image=image, criterion=within("9px")).draw_errors(tmp_path / "s.png")
    widths = [float(np.ptp(cut.one.bounds()[0][[0, 2]])) for panel in panels for cut in panel.cuts]
    assert len(widths) == 2  # one missed, one false
    assert all(least * 0.95 <= width <= 90 for width in widths)


# -- against others, from file to number -------------------------------------------------------------------

Boxes = list[tuple[int, list[float], float]]  # image, x y w h, score


def coco_files(folder: Path, images: int, truths: Boxes, crowd: set[int], found: Boxes) -> tuple[Path, Path]:
    head = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 200, "height": 200} for n in range(images)],
        "categories": [{"id": 1, "name": "tree"}],
    }
    paths = (folder / "truth.json", folder / "found.json")
    for path, boxes in zip(paths, (truths, found), strict=True):
        rows = [
            {"id": n + 1, "image_id": image, "category_id": 1, "bbox": box, "area": box[2] * box[3],
             "iscrowd": int(path == paths[0] and n in crowd), "score": score}
            for n, (image, box, score) in enumerate(boxes)
        ]  # fmt: skip
        path.write_text(json.dumps({**head, "annotations": rows}), encoding="utf-8")
    return paths


def ap_of_pycocotools(truth: Path, found: Path) -> float:
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        there, own = coco.COCO(str(truth)), coco.COCO(str(found))
        done = COCOeval(there, own, "bbox")
        done.params.iouThrs, done.params.maxDets = np.array([0.5]), [10_000]
        done.params.areaRng, done.params.areaRngLbl = [[0, 1e10]], ["all"]
        done.evaluate()
        done.accumulate()
    precision = done.eval["precision"]
    return float(precision[precision > -1].mean()) if (precision > -1).any() else math.nan


CASES = {
    "random": (6, 40, 4, 60, 9), "ties in score": (4, 30, 3, 50, 1), "all of one score": (4, 20, 0, 40, 0),
    "no truth": (3, 0, 0, 9, 3), "no detection": (3, 9, 0, 0, 3), "nothing at all": (3, 0, 0, 0, 3),
    "all doubtful": (3, 0, 8, 30, 3), "one of many has something": (30, 6, 0, 12, 3),
    "found many times over": (1, 3, 0, 60, 3), "one": (1, 1, 0, 1, 3),
}  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("case", CASES)
def test_files_give_the_numbers_of_pycocotools_and_scipy(tmp_path: Path, case: str, seed: int) -> None:
    images, real, crowds, n, digits = CASES[case]
    rng = np.random.default_rng(seed)
    lucky = 1 if case == "one of many has something" else images

    def some(count: int, of: int) -> Boxes:
        sides = 2 * rng.integers(4, 20, (count, 2))
        cells = rng.permutation(max(count, 100))[:count]  # no two with one centre: they would count once
        centres = 20 + 15 * np.stack([cells % 10, cells // 10], axis=1)
        places = rng.integers(0, of, count)
        rows = zip(places.tolist(), np.hstack([centres - sides // 2, sides]).tolist(), strict=True)
        return [(place, [float(v) for v in box], 0.0) for place, box in rows]

    truths = some(real + crowds, lucky)
    found: Boxes = []
    for image, box, _ in some(n, images):
        if truths and rng.random() < 0.7:  # near a truth, or just it
            image, near, _ = truths[rng.integers(len(truths))]
            box = [max(1.0, v + float(s)) for v, s in zip(near, rng.integers(-4, 5, 4), strict=True)]
        found.append((image, box, float(np.round(rng.random(), digits))))
    crowd = set(range(real, real + crowds))
    paths = coco_files(tmp_path, images, truths, crowd, found)
    done = evaluate(paths[1], paths[0], criterion=Criterion("iou", 0.5))
    ap = math.nan if done.ap is None else done.ap.coco
    assert ap == pytest.approx(ap_of_pycocotools(*paths), abs=1e-9, nan_ok=True)
    pairs = 0
    for image in range(images):
        own = [shapely.box(x, y, x + w, y + h) for i, (x, y, w, h), _ in found if i == image]
        there = [shapely.box(x, y, x + w, y + h) for k, (i, (x, y, w, h), _) in enumerate(truths)
                 if i == image and k not in crowd]  # fmt: skip
        iou = np.array([[a.intersection(b).area / a.union(b).area for b in there] for a in own])
        if iou.size:
            rows, columns = linear_sum_assignment(np.where(iou >= 0.5 - 1e-12, 1 - iou, 1e3))
            pairs += int(np.count_nonzero(iou[rows, columns] >= 0.5 - 1e-12))
    assert done.rates.true_positives == pairs
    assert done.rates.n_truths == real
    assert done.rates.n_detections + done.absorbed == len(found)


@pytest.mark.parametrize("seed", range(4))
def test_points_in_a_folder_give_the_numbers_of_scipy(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs, total = 0, 0.0
    for side in ("found", "truth"):
        (tmp_path / side).mkdir()
    for image in range(5):
        there = rng.integers(0, 60, (rng.integers(0, 12), 2)) + 0.25
        own = np.concatenate(
            [there[::2] + rng.integers(-3, 4, there[::2].shape), rng.integers(0, 60, (4, 2))]
        )
        own = np.concatenate([own, own[:1]])  # a duplicate
        for side, xy in (("found", own), ("truth", there)):
            table(tmp_path / side / f"{image}.csv", "x,y", (xy + 0.0625).tolist())
        off = np.hypot(*(own[:, None] - there[None]).transpose(2, 0, 1))
        rows, columns = linear_sum_assignment(np.where(off <= 4, off, 1e4))
        near = off[rows, columns] <= 4
        pairs += int(np.count_nonzero(near))
        total += float((off[rows, columns][near] ** 2).sum())
    done = evaluate(tmp_path / "found", tmp_path / "truth", criterion=within("4px"))
    assert done.rates.true_positives == pairs
    assert done.count.n == 5
