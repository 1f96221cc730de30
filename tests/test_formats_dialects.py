"""Dialects of annotation programs: small files as each program writes them, read with classes and images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from pyproj import CRS

from ecodetect.converting import convert
from ecodetect.errors import LayerError, UserError
from ecodetect.evaluation.evaluating import evaluate
from ecodetect.formats import files as formats
from ecodetect.grid import Grid
from ecodetect.layer import Layer

GRID = Grid(40, 30)
BOX = [1, 2, 5, 6]


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def read(path: Path, content: Any, *, grid: Grid | None = GRID, image: str | None = "plot.jpg") -> Layer:
    return formats.read(written(path, content), grid=grid, image=image)


def bounds(layer: Layer) -> list[list[float]]:
    return np.round(shapely.bounds(layer.geometry), 1).tolist()


def labels(layer: Layer, column: str = "label") -> list[Any]:
    return layer.columns[column].tolist()


# -- LabelMe -------------------------------------------------------------------------------------------------

LABELME = {
    "version": "5.5.0",
    "flags": {},
    "shapes": [
        {"label": "oak", "points": [[1, 2], [5, 2], [5, 6]], "shape_type": "polygon", "group_id": None},
        {"label": "oak", "points": [[5, 6], [1, 2]], "shape_type": "rectangle", "group_id": 3},
        {"label": "pine", "points": [[10, 10], [13, 14]], "shape_type": "circle", "flags": {"dead": True}},
        {"label": "pine", "points": [[3, 4]], "shape_type": "point"},
        {"label": "path", "points": [[3, 4], [5, 6]], "shape_type": "line"},
    ],
    "imagePath": "..\\photos\\plot.jpg",
    "imageData": "AAAA",
    "imageHeight": 30,
    "imageWidth": 40,
}


def test_labelme_shapes_of_every_kind(tmp_path: Path) -> None:
    layer = read(tmp_path / "plot.json", LABELME)
    assert bounds(layer) == [BOX, BOX, [5, 5, 15, 15], [3, 4, 3, 4]]
    assert labels(layer) == ["oak", "oak", "pine", "pine"]
    assert layer.columns["group_id"][1] == 3
    assert any("1 shape left out: a line" in str(note) for note in layer.notes)


def test_labelme_states_the_size_of_its_image(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="made on an image of 41 x 30 px"):
        read(tmp_path / "plot.json", {**LABELME, "imageWidth": 41})


def test_labelme_is_known_where_the_picture_comes_first(tmp_path: Path) -> None:
    first = {"imageData": "A" * 100_000, **{key: v for key, v in LABELME.items() if key != "imageData"}}
    assert len(read(tmp_path / "plot.json", first)) == 4


def test_labelme_of_another_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match=r"says nothing about other\.jpg"):
        read(tmp_path / "plot.json", LABELME, image="other.jpg")


# -- VIA -----------------------------------------------------------------------------------------------------


def via_region(name: str, species: str = "oak", **shape: Any) -> dict[str, Any]:
    return {"shape_attributes": {"name": name, **shape}, "region_attributes": {"species": species}}


VIA = {
    "plot.jpg123": {
        "filename": "plot.jpg",
        "size": 123,
        "file_attributes": {},
        "regions": [
            via_region("rect", x=1, y=2, width=4, height=4),
            via_region("circle", cx=10, cy=10, r=5),
            via_region("ellipse", "pine", cx=20, cy=10, rx=6, ry=3, theta=np.pi / 2),
            via_region("polygon", all_points_x=[1, 5, 5], all_points_y=[2, 2, 6]),
            via_region("point", cx=3, cy=4),
            via_region("polyline", all_points_x=[1, 5], all_points_y=[2, 2]),
        ],
    },
    "b.jpg7": {"filename": "b.jpg", "size": 7, "regions": {"0": via_region("point", cx=1, cy=2)}},
    "none.jpg7": {"filename": "none.jpg", "size": 7, "regions": []},
}


@pytest.mark.parametrize("content", [VIA, {"_via_settings": {}, "_via_img_metadata": VIA}])
def test_via_regions_of_every_kind(tmp_path: Path, content: Any) -> None:
    layer = read(tmp_path / "via.json", content)
    assert bounds(layer) == [BOX, [5, 5, 15, 15], [17, 4, 23, 16], BOX, [3, 4, 3, 4]]
    assert labels(layer) == ["oak", "oak", "pine", "oak", "oak"]
    whole = read(tmp_path / "via.json", content, grid=None, image=None)
    assert whole.metadata["images"] == ("plot.jpg", "b.jpg", "none.jpg")
    assert labels(whole, "source")[-1] == "b.jpg"


def test_via_table(tmp_path: Path) -> None:
    names = "filename,file_size,file_attributes,region_count,region_id"
    header = f"{names},region_shape_attributes,region_attributes\n"
    shape = '"{""name"":""rect"",""x"":1,""y"":2,""width"":4,""height"":4}"'
    rows = f'plot.jpg,123,"{{}}",1,0,{shape},"{{""kind"":""oak""}}"\nnone.jpg,9,"{{}}",0,0,"{{}}","{{}}"\n'
    layer = read(tmp_path / "via.csv", header + rows, grid=None, image=None)
    assert (bounds(layer), labels(layer), labels(layer, "source")) == ([BOX], ["oak"], ["plot.jpg"])
    assert layer.metadata["images"] == ("plot.jpg", "none.jpg")


# -- MegaDetector --------------------------------------------------------------------------------------------

MEGADETECTOR = {
    "info": {"format_version": "1.4", "detector_metadata": {"typical_detection_threshold": 0.2}},
    "detection_categories": {"1": "animal", "2": "person"},
    "classification_categories": {"3": "elk"},
    "images": [
        {
            "file": "cam1\\plot.jpg",
            "max_detection_conf": 0.9,
            "detections": [
                {"category": "1", "conf": 0.9, "bbox": [0.25, 0.5, 0.5, 0.25]},
                {"category": "1", "conf": 0.1, "bbox": [0, 0, 0.5, 0.5], "classifications": [["3", 0.7]]},
                {"category": "9", "conf": 0.8, "bbox": [0, 0, 0.5, 0.5]},
            ],
        },
        {"file": "cam1\\empty.jpg", "detections": []},
        {"file": "cam1\\broken.jpg", "failure": "Failure image access", "detections": None},
    ],
}


def test_megadetector_shares_scores_and_classes(tmp_path: Path) -> None:
    layer = read(tmp_path / "md.json", MEGADETECTOR)
    assert bounds(layer) == [[10, 15, 30, 22.5], [0, 0, 20, 15]]
    assert (labels(layer), labels(layer, "score")) == (["animal", "elk"], [0.9, 0.1])
    assert any("1 detection of 2 with a score below 0.2" in str(note) for note in layer.notes)


def test_megadetector_image_that_could_not_be_read_is_not_empty(tmp_path: Path) -> None:
    whole = read(tmp_path / "md.json", MEGADETECTOR, grid=None, image=None)
    assert whole.metadata["images"] == ("cam1\\plot.jpg", "cam1\\empty.jpg")
    assert whole.metadata["frame"] == "share"
    with pytest.raises(LayerError, match="could not be read"):
        read(tmp_path / "md.json", MEGADETECTOR, image="broken.jpg")


def test_megadetector_shares_need_an_image_to_be_converted(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="name the image"):
        convert(written(tmp_path / "md.json", MEGADETECTOR), tmp_path / "out.csv")


def test_megadetector_is_compared_with_pixels_of_images_of_a_known_size(tmp_path: Path) -> None:
    content = truth()
    detections = [
        {"category": "1", "conf": 0.9, "bbox": [x / 40, y / 30, (x1 - x) / 40, (y1 - y) / 30], "image": n}
        for n, (x, y, x1, y1) in ((7, (1, 2, 6, 8)), (7, (10, 10, 14, 14)), (8, (20, 5, 26, 11)))
    ]
    images = [
        {"file": f"cam/plot{n}.jpg", "detections": [each for each in detections if each["image"] == n]}
        for n in (7, 8, 9)
    ]
    made = {"detection_categories": {"1": "animal"}, "images": images}
    done = evaluate(written(tmp_path / "md.json", made), written(tmp_path / "t.json", content))
    assert (done.rates.n_detections, done.rates.f1) == (3, 1)
    for image in content["images"]:
        del image["width"]
    with pytest.raises(UserError, match="shares of the image's size; name the image"):
        evaluate(tmp_path / "md.json", written(tmp_path / "t.json", content))


def test_megadetector_short_form_is_in_pixels(tmp_path: Path) -> None:
    found = [{"file": "plot.jpg", "detections": [{"category": "animal", "confidence": 0.9, "bbox": BOX}]}]
    assert bounds(read(tmp_path / "md.json", found)) == [BOX]


# -- DotDotGoose and HerdNet ---------------------------------------------------------------------------------


def test_dotdotgoose_points_by_image_and_class(tmp_path: Path) -> None:
    points = {"plot.jpg": {"goose": [{"x": 1.5, "y": 2}], "duck": [{"x": 3, "y": 4}]}, "b.jpg": {}}
    content = {"classes": ["goose", "duck"], "points": points, "colors": {}, "metadata": {}}
    layer = read(tmp_path / "count.pnt", content)
    assert (bounds(layer), labels(layer)) == ([[1.5, 2, 1.5, 2], [3, 4, 3, 4]], ["goose", "duck"])
    assert read(tmp_path / "count.pnt", content, image=None).metadata["images"] == ("plot.jpg", "b.jpg")


# -- QuPath --------------------------------------------------------------------------------------------------


def qupath(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    ring = [[1, 2], [5, 2], [5, 6], [1, 6], [1, 2]]
    geometry = {"type": "Polygon", "coordinates": [ring], "plane": {"c": -1, "z": 0, "t": 0}}
    return {"type": "Feature", "geometry": geometry, "properties": properties, **more}


NEW = qupath(
    {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}}, id="0c1"
)
OLD = qupath(
    {"classification": {"name": "Tumor", "colorRGB": -3670016}, "isLocked": False, "measurements": []},
    id="PathAnnotationObject",
)


@pytest.mark.parametrize("feature", [NEW, OLD])
@pytest.mark.parametrize("is_list", [True, False])
@pytest.mark.parametrize("name", ["q.geojson", "q.json"])
def test_qupath_is_in_pixels_with_classes_by_name(
    tmp_path: Path, feature: Any, is_list: bool, name: str
) -> None:
    bare = {**feature, "properties": {"objectType": "annotation"}}  # not classified
    content = [feature, bare] if is_list else {"type": "FeatureCollection", "features": [feature, bare]}
    on_the_map = Grid(40, 30, (0.5, 0, 404_000.0, 0, -0.5, 3_285_000.0), CRS.from_epsg(32617))
    for grid in (GRID, on_the_map):
        layer = read(tmp_path / name, content, grid=grid)
        assert np.round(shapely.bounds(layer.in_pixels(grid)), 6).tolist() == [BOX, BOX]
        assert labels(layer, "classification") == ["Tumor", ""]


# -- COCO results --------------------------------------------------------------------------------------------


def truth() -> dict[str, Any]:
    images = [{"id": n, "file_name": f"plot{n}.jpg", "width": 40, "height": 30} for n in (7, 8, 9)]
    marks = [(1, 7, 1, BOX), (2, 7, 2, [10, 10, 4, 4]), (3, 8, 1, [20, 5, 6, 6])]
    return {
        "images": images,
        "categories": [{"id": 1, "name": "oak"}, {"id": 2, "name": "pine"}],
        "annotations": [
            {"id": n, "image_id": image, "category_id": kind, "bbox": box} for n, image, kind, box in marks
        ],
    }


@pytest.mark.parametrize("by", ["id", "stem", "category_name"])
def test_coco_results_are_explained_by_the_file_they_are_compared_with(tmp_path: Path, by: str) -> None:
    content = truth()
    results = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.5}
        for a in content["annotations"]
    ]
    for result in results:
        if by == "stem":
            result["image_id"] = f"plot{result['image_id']}"
        if by == "category_name":
            result["category_name"] = {1: "oak", 2: "pine"}[result.pop("category_id")]
    done = evaluate(written(tmp_path / "r.json", results), written(tmp_path / "t.json", content))
    assert done.rates.f1 == 1
    assert {each.name: each.rates.n_truths for each in done.classes} == {"oak": 2, "pine": 1}


def test_coco_results_about_other_images_are_refused(tmp_path: Path) -> None:
    results = [{"image_id": "elsewhere", "category_id": 1, "bbox": BOX, "score": 0.5}]
    with pytest.raises(UserError, match="has none; do they belong together"):
        evaluate(written(tmp_path / "r.json", results), written(tmp_path / "t.json", truth()))


def test_coco_results_of_more_images_than_the_annotations_are_judged_where_these_know(tmp_path: Path) -> None:
    results = [{"image_id": n, "category_id": 1, "bbox": BOX, "score": 0.5} for n in (7, 99)]
    done = evaluate(written(tmp_path / "r.json", results), written(tmp_path / "t.json", truth()))
    assert (done.rates.true_positives, done.rates.false_positives, done.rates.n_truths) == (1, 0, 3)
    (note,) = (note for note in done.notes if note.code == "images-unjudged")
    assert "(99)" in note.text


def test_coco_results_with_a_class_that_nothing_explains_are_doubtful(tmp_path: Path) -> None:
    results = [{"image_id": 7, "category_id": n, "bbox": BOX, "score": 0.5} for n in (0, 1)]
    done = evaluate(written(tmp_path / "r.json", results), written(tmp_path / "t.json", truth()))
    (note,) = (note for note in done.notes if note.code == "results-unnamed")
    assert "class number 0 (1)" in note.text
    assert "1 oak, 2 pine" in note.text


def test_coco_results_without_a_detection_miss_all(tmp_path: Path) -> None:
    done = evaluate(written(tmp_path / "r.json", []), written(tmp_path / "t.json", truth()))
    assert (done.rates.n_detections, done.rates.n_truths) == (0, 3)
    assert "results-unnamed" not in [note.code for note in done.notes]


def test_coco_results_of_one_image_among_several(tmp_path: Path) -> None:
    results = [{"image_id": n, "category_id": 1, "bbox": BOX, "score": 0.5} for n in (12, 13)]
    assert len(read(tmp_path / "r.json", results, image="0012.jpg")) == 1
    with pytest.raises(LayerError, match="that it numbers"):
        read(tmp_path / "r.json", results)


# -- Label Studio's names ------------------------------------------------------------------------------------


def label_studio_coco(*names: str) -> dict[str, Any]:
    images = [{"id": n, "file_name": name, "width": 40, "height": 30} for n, name in enumerate(names)]
    marks = [{"id": n, "image_id": n, "category_id": 0, "bbox": [n, 2, 4, 4]} for n in range(len(names))]
    return {"images": images, "categories": [{"id": 0, "name": "T"}], "annotations": marks}


def test_label_studio_puts_a_code_before_the_name_of_an_upload(tmp_path: Path) -> None:
    content = label_studio_coco("images\\1a2b3c4d-plot.jpg", "images\\00ff00ff-b.jpg")
    assert bounds(read(tmp_path / "a.json", content)) == [[0, 2, 4, 6]]
    assert bounds(read(tmp_path / "a.json", content, image="b.tif")) == [[1, 2, 5, 6]]


def test_two_uploads_of_one_name_are_not_one_image(tmp_path: Path) -> None:
    content = label_studio_coco("1a2b3c4d-plot.jpg", "00ff00ff-plot.jpg")
    with pytest.raises(LayerError, match=r"2 uploads of plot\.jpg"):
        read(tmp_path / "a.json", content)


def test_label_studio_yolo_files_go_by_the_upload(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    written(tmp_path / "labels" / "1a2b3c4d-plot.txt", "0 0.5 0.5 0.5 0.5\n")
    written(tmp_path / "labels" / "00ff00ff-b.txt", "1 0.5 0.5 0.5 0.5\n")
    written(tmp_path / "classes.txt", "oak\npine\n")
    assert labels(formats.read(tmp_path / "labels", grid=GRID, image="plot.jpg")) == ["oak"]


def test_projects_of_via_3_are_refused_with_what_to_do(tmp_path: Path) -> None:
    project = {"project": {"pid": "x"}, "file": {"1": {"fname": "a.jpg"}}, "view": {"1": {"fid_list": ["1"]}}}
    with pytest.raises(LayerError, match="of VIA 3 export COCO"):
        read(tmp_path / "a.json", {**project, "metadata": {"1_x": {"vid": "1", "xy": [2, 1, 2, 3, 4]}}})


# -- what is none of them ------------------------------------------------------------------------------------


def test_json_of_no_dialect_is_answered_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match=r"GeoJSON, .*VIA.*, LabelMe, MegaDetector, COCO, Label Studio"):
        read(tmp_path / "a.json", {"something": 1})


@pytest.mark.parametrize(("name", "says"), [("plot_seg.npy", "pickle"), ("a.zip", "unpack it")])
def test_files_that_are_not_opened(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(LayerError, match=says):
        read(tmp_path / name, "x")
