"""Formats of labelling programs and label images: what others write is read, what we write is exact."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from pycocotools import mask as cocomask
from pycocotools.coco import COCO
from pyproj import CRS

from ecodetect.errors import LayerError
from ecodetect.formats import files as formats
from ecodetect.formats.collecting import Unusable
from ecodetect.formats.labels import label_image, masks
from ecodetect.formats.labels.coco import decompressed
from ecodetect.grid import Grid
from ecodetect.layer import Layer, Stream

GRID = Grid(40, 30, (0.5, 0.1, 404_000.0, 0.1, -0.5, 3_285_000.0), CRS.from_epsg(32617))
HOLED = shapely.Polygon([(1, 1), (9, 1), (9, 9), (1, 9)], [[(3, 3), (5, 3), (5, 5), (3, 5)]])


def read(path: Path, content: Any, *, grid: Grid | None = GRID, image: str | None = "plot.tif") -> Layer:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return formats.read(path, grid=grid, image=image)


def boxes(layer: Layer) -> list[list[float]]:
    return np.round(shapely.bounds(layer.geometry), 9).tolist()


def stream_of(
    shapes: list[Any], grid: Grid = GRID, *, classes: tuple[str, ...] = (), **columns: Any
) -> Stream:
    geometry = np.empty(len(shapes), dtype=object)
    geometry[:] = shapes
    kinds = {
        name: {"f": "float", "i": "int"}.get(np.array(v).dtype.kind, "str") for name, v in columns.items()
    }
    arrays = {
        name: np.array(values, dtype=object if kinds[name] == "str" else None)
        for name, values in columns.items()
    }
    layer = Layer(geometry, arrays, grid=grid)
    batches = [layer[start : start + 2] for start in range(0, len(layer), 2)]
    return Stream(
        batches, "Polygon", kinds, grid=grid, classes=classes, metadata={"rasters": [{"source": "plot.tif"}]}
    )


def random_shapes(count: int = 40) -> list[Any]:
    rng = np.random.default_rng(3)
    shapes = []
    for x, y in rng.uniform(5, 25, (count, 2)):
        angles = np.sort(rng.uniform(0, 2 * math.pi, 7))
        radii = rng.uniform(1, 4, 7)
        shapes.append(shapely.Polygon(np.c_[x + radii * np.cos(angles), y + radii * np.sin(angles)]))
    return [shape for shape in shapes if shape.is_valid]


# -- COCO ----------------------------------------------------------------------------------------------------


def coco(*annotations: Mapping[str, Any], name: str = "plot.tif", **image: Any) -> dict[str, Any]:
    images = [{"id": 7, "file_name": name, "width": 40, "height": 30, **image}]
    made = [{"id": i, "image_id": 7, "category_id": 3, **one} for i, one in enumerate(annotations, start=90)]
    return {"images": images, "categories": [{"id": 3, "name": "Tree"}], "annotations": made}


def test_coco_polygons_boxes_and_their_columns(tmp_path: Path) -> None:
    layer = read(
        tmp_path / "a.json",
        coco(
            {"segmentation": [[1, 2, 5, 2, 5, 6, 1, 6]], "score": 0.5},
            {"segmentation": [[1, 2, 5, 2, 5, 6, 1, 6], [10, 10, 12, 10, 12, 12]]},
            {"bbox": [1, 2, 3, 4]},
            {"segmentation": [], "bbox": ["1", "2", "3", "4.5"], "attributes": {"id": "q", "list": [1]}},
            {"segmentation": [1, 2, 5, 2, 5, 6]},
            name="flights\\2018\\PLOT.tif",
        ),
    )
    assert boxes(layer) == [[1, 2, 5, 6], [1, 2, 12, 12], [1, 2, 4, 6], [1, 2, 4, 6.5], [1, 2, 5, 6]]
    assert layer.geometry[1].geom_type == "MultiPolygon"
    assert layer.columns["label"].tolist() == ["Tree"] * 5
    assert layer.columns["source"].tolist() == ["plot.tif"] * 5
    assert layer.columns["id"].tolist() == ["90", "91", "92", "q", "94"]
    assert layer.columns["score"][0] == 0.5


def test_a_turned_box_of_cvat_is_the_same_in_coco_as_in_its_xml(tmp_path: Path) -> None:
    element = '<box label="a" xtl="5" ytl="10" xbr="15" ybr="14" rotation="{}"/>'
    upright = [5, 10, 15, 10, 15, 14, 5, 14]
    for degrees in (0.0, 30.0, 90.0, 348.5):
        there = read(tmp_path / "a.xml", cvat(element.format(degrees))).geometry[0]
        turn = {"occluded": False, "rotation": degrees}
        for drawn in ([], [upright], None):
            entry = {"bbox": [5, 10, 10, 4], "segmentation": drawn, "attributes": turn}
            found = read(tmp_path / "a.json", coco(entry))
            assert shapely.equals_exact(found.geometry[0].normalize(), there.normalize(), 1e-9)
            assert "rotation" not in found.columns
    # A ring that is turned already stays.
    ring = [5, 12, 8, 9, 11, 12, 8, 15]
    entry = {"bbox": [5, 9, 6, 6], "segmentation": [ring], "attributes": {"rotation": 45.0}}
    assert boxes(read(tmp_path / "a.json", coco(entry))) == [[5, 9, 11, 15]]
    with pytest.raises(LayerError, match="rotation is not a number"):
        read(tmp_path / "a.json", coco({"bbox": [5, 10, 10, 4], "attributes": {"rotation": []}}))


def test_coco_leaves_out_what_is_no_area_and_says_why(tmp_path: Path) -> None:
    layer = read(
        tmp_path / "a.json",
        coco(
            {"bbox": [1, 2, 3, 4]},
            {"bbox": [1, 2, 0, 4]},
            {"bbox": [1, 2]},
            {"segmentation": [[1, 2, 3]]},
            {"segmentation": [[1, 2, 3, 4]]},
            {"segmentation": [[1, 2, 3, None, 5, 6]]},
            {"segmentation": {"counts": [1, 2], "size": [3, 3]}},
            {"keypoints": [1, 2, 2]},
        ),
    )
    assert len(layer) == 1
    assert str(layer.notes[0]).startswith("a.json: 7 annotations left out: a box without area (annotation 2)")


def test_coco_masks_agree_with_pycocotools(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    mask = np.zeros((30, 40), np.uint8)
    mask[3:20, 5:30] = rng.random((17, 25)) < 0.7
    rle = cocomask.encode(np.asfortranarray(mask))
    text = rle["counts"].decode()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel(), [2]])))
    plain = np.diff(np.concatenate([[0], edges])).tolist()
    layer = read(
        tmp_path / "a.json",
        coco(
            {"segmentation": {"size": [30, 40], "counts": text}},
            {"segmentation": {"size": [30, 40], "counts": plain}, "iscrowd": 1},
        ),
    )
    for shape in layer.geometry:
        assert shape.is_valid
        assert shape.area == mask.sum()
        drawn = rasterio.features.rasterize([shape], out_shape=(30, 40))
        assert np.array_equal(drawn, mask)
    assert "1 annotation with iscrowd 1" in str(layer.notes[0])


def test_compressed_runs_agree_with_pycocotools() -> None:
    rng = np.random.default_rng(2)
    for density in (0.01, 0.5, 0.99):
        mask = (rng.random((200, 300)) < density).astype(np.uint8)
        text = cocomask.encode(np.asfortranarray(mask))["counts"].decode()
        cut, x, y = masks.from_runs(decompressed(text), 300, 200)
        whole = np.zeros_like(mask)
        whole[y : y + cut.shape[1], x : x + cut.shape[0]] = cut.T
        assert np.array_equal(whole, mask)
    for text in ("é", "P", "o" * 30):
        with pytest.raises(Unusable):
            decompressed(text)


def test_a_small_mask_of_a_huge_image_costs_little() -> None:
    cut, line, start = masks.from_runs([10**10 + 5, 7, 10], 10**6, 10**6)
    assert (cut.sum(), line, start) == (7, 10_000, 5)


def test_coco_images_and_sizes(tmp_path: Path) -> None:
    content = coco({"bbox": [1, 2, 3, 4]})
    content["images"].append({"id": 8, "file_name": "empty.tif", "width": 9, "height": 9})
    assert len(read(tmp_path / "a.json", content)) == 1
    assert len(read(tmp_path / "a.json", content, image="empty.tif", grid=Grid(9, 9))) == 0
    with pytest.raises(LayerError, match=r"nothing about other.tif.*plot.tif, empty.tif"):
        read(tmp_path / "a.json", content, image="other.tif")
    with pytest.raises(LayerError, match=r"Sizes differ: a\.json .* 40 x 30 px, .* 99 x 9 px"):
        read(tmp_path / "a.json", content, grid=Grid(99, 9))
    alone = read(tmp_path / "a.json", coco({"bbox": [1, 2, 3, 4]}), image=None, grid=None)
    assert alone.grid == Grid(40, 30)
    several = read(tmp_path / "a.json", content, image=None, grid=None)
    assert several.grid is None
    assert several.columns["source"].tolist() == ["plot.tif"]


def test_coco_results_of_one_image(tmp_path: Path) -> None:
    found = [{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.25}]
    layer = read(tmp_path / "a.json", found)
    assert layer.columns["label"].tolist() == ["category 2"]
    with pytest.raises(LayerError, match="2 images"):
        read(tmp_path / "a.json", [*found, {"image_id": 2, "bbox": [1, 2, 3, 4]}])


def test_coco_written_is_what_pycocotools_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = random_shapes()
    path = tmp_path / "out.json"
    labels = [f"class {i % 3}" for i in range(len(shapes))]
    ids = [f"id{i}" for i in range(len(shapes))]
    scores = np.linspace(0, 1, len(shapes))
    stream = stream_of(shapes, label=labels, id=ids, score=scores, classes=("class 2", "class 0", "class 1"))
    assert formats.write(path, stream).features == len(shapes)
    theirs = COCO(str(path))
    capsys.readouterr()
    assert [one["name"] for one in theirs.loadCats([1, 2, 3])] == ["class 2", "class 0", "class 1"]
    (image,) = theirs.loadImgs(theirs.getImgIds())
    assert (image["file_name"], image["width"], image["height"]) == ("plot.tif", 40, 30)
    for annotation, shape in zip(theirs.loadAnns(theirs.getAnnIds()), shapes, strict=True):
        assert annotation["area"] == pytest.approx(shape.area, abs=1e-5)
        assert np.abs(np.array(annotation["bbox"][:2]) - shape.bounds[:2]).max() < 1e-6
        drawn = theirs.annToMask(annotation).sum()
        assert drawn == pytest.approx(shape.area, rel=0.35, abs=6)
    back = formats.read(path, grid=GRID, image="plot.tif")
    assert back.columns["id"].tolist() == ids
    assert back.columns["score"].tolist() == scores.tolist()
    assert back.columns["label"].tolist() == labels
    assert back.notes == ()
    for mine, shape in zip(back.geometry, shapes, strict=True):
        assert mine.hausdorff_distance(shape) < 1e-6


def test_coco_fills_holes_and_keeps_parts(tmp_path: Path) -> None:
    parts = shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(3, 3, 5, 5)])
    written = formats.write(tmp_path / "a.json", stream_of([HOLED, parts]))
    assert [note.text for note in written.notes] == ["1 polygon with holes filled: COCO can't hold holes."]
    back = formats.read(tmp_path / "a.json", grid=GRID, image="plot.tif")
    assert [shape.area for shape in back.geometry] == [64, 5]
    assert back.columns["label"].tolist() == ["object", "object"]


# -- Pascal VOC ----------------------------------------------------------------------------------------------


def voc(*boxes: str, filename: str = "plot.tif", size: str = "<width>40</width><height>30</height>") -> str:
    objects = "".join(f"<object><name>Tree</name><difficult>1</difficult>{box}</object>" for box in boxes)
    name = f"<filename>{filename}</filename>" if filename else ""
    return f"<annotation>{name}<size>{size}</size>{objects}</annotation>"


def bndbox(x0: object, y0: object, x1: object, y1: object) -> str:
    return f"<bndbox><xmax>{x1}</xmax><ymax>{y1}</ymax><xmin>{x0}</xmin><ymin>{y0}</ymin></bndbox>"


def test_voc_is_read_as_written(tmp_path: Path) -> None:
    layer = read(tmp_path / "a.xml", voc(bndbox(1, 2, 3, 4), bndbox(" -1.5", 2.25, 99, 4)))
    assert boxes(layer) == [[1, 2, 3, 4], [-1.5, 2.25, 99, 4]]
    assert layer.columns["label"].tolist() == ["Tree", "Tree"]
    assert layer.columns["difficult"].tolist() == [1, 1]


def test_voc_turned_boxes_and_bad_ones(tmp_path: Path) -> None:
    turned = "<robndbox><cx>10</cx><cy>10</cy><w>6</w><h>2</h><angle>1.5707963267948966</angle></robndbox>"
    layer = read(tmp_path / "a.xml", voc(turned, bndbox(3, 2, 1, 4), bndbox("a", 2, 3, 4), "<point/>"))
    assert boxes(layer) == [[9, 7, 11, 13]]
    assert "3 objects left out" in str(layer.notes[0])


@pytest.mark.parametrize("filename", ["plot.jpg", "D:\\x\\PLOT.tif", ""])
def test_voc_belongs_to_the_image_that_it_names(tmp_path: Path, filename: str) -> None:
    assert len(read(tmp_path / "a.xml", voc(bndbox(1, 2, 3, 4), filename=filename))) == 1


def test_voc_belongs_to_the_image_that_is_called_like_it(tmp_path: Path) -> None:
    assert len(read(tmp_path / "plot.xml", voc(bndbox(1, 2, 3, 4), filename="IMG_1.jpg"))) == 1
    with pytest.raises(LayerError, match=r"nothing about plot\.tif"):
        read(tmp_path / "b.xml", voc(bndbox(1, 2, 3, 4), filename="IMG_1.jpg"))


def test_voc_size(tmp_path: Path) -> None:
    zero = "<width>0</width><height>0</height>"
    assert len(read(tmp_path / "a.xml", voc(bndbox(1, 2, 3, 4), size=zero))) == 1
    with pytest.raises(LayerError, match="Sizes differ"):
        read(tmp_path / "a.xml", voc(bndbox(1, 2, 3, 4), size="<width>400</width><height>300</height>"))


def test_a_folder_of_voc(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a.xml").write_text(voc(bndbox(1, 2, 3, 4)), encoding="utf-8")
    (tmp_path / "f" / "b.xml").write_text(voc(bndbox(1, 2, 3, 9), filename="b.tif"), encoding="utf-8")
    assert boxes(formats.read(tmp_path / "f", grid=GRID, image="plot.tif")) == [[1, 2, 3, 4]]
    both = formats.read(tmp_path / "f")
    assert both.columns["source"].tolist() == ["plot.tif", "b.tif"]
    with pytest.raises(LayerError, match=r"nothing about c\.tif"):
        formats.read(tmp_path / "f", grid=GRID, image="c.tif")
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "ortho.aux.xml").write_text("<PAMDataset/>", encoding="utf-8")
    with pytest.raises(LayerError, match="none of its XML files is Pascal VOC"):
        formats.read(tmp_path / "g")


def test_voc_round_trip(tmp_path: Path) -> None:
    shapes = [shapely.box(1.123456, 2, 3, 4), shapely.box(10, 5, 12, 7), HOLED]
    stream = stream_of(shapes, label=["a&<b>", "ü", ""], id=["x", "y", "z"], score=[0.5, 1.0, math.nan])
    written = formats.write(tmp_path / "out.xml", stream)
    assert [note.text for note in written.notes] == ["1 shape written as the box around: VOC holds boxes."]
    back = formats.read(tmp_path / "out.xml", grid=GRID, image="plot.tif")
    assert boxes(back) == [[1.123456, 2, 3, 4], [10, 5, 12, 7], [1, 1, 9, 9]]
    assert back.columns["label"].tolist() == ["a&<b>", "ü", "object"]
    assert back.columns["id"].tolist() == ["x", "y", "z"]
    formats.write(tmp_path / "out.xml", stream_of([]), overwrite=True)
    assert len(formats.read(tmp_path / "out.xml", grid=GRID, image="plot.tif")) == 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_with_a_doctype_is_refused(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "secret").write_text("s", encoding="utf-8")
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE annotation [<!ENTITY e SYSTEM "secret">]>'
    (tmp_path / "a.xml").write_text(text + voc("&e;"), encoding=encoding)
    with pytest.raises(LayerError):
        formats.read(tmp_path / "a.xml", grid=GRID, image="plot.tif")
    if encoding == "utf-8":
        with pytest.raises(LayerError, match="DOCTYPE"):
            formats.read(tmp_path / "a.xml", grid=GRID, image="plot.tif")


@pytest.mark.parametrize("text", ["<annotation>", "<annotation><object></annotation>", "<annotation>" * 99])
def test_broken_xml_is_one_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(LayerError, match=r"a\.xml is n"):
        read(tmp_path / "a.xml", text)


# -- YOLO ----------------------------------------------------------------------------------------------------


def dataset(tmp_path: Path, yaml: str) -> Path:
    for part in ("images/train", "labels/train"):
        (tmp_path / part).mkdir(parents=True)
    for image in ("plot.png", "empty.png", "bare.png"):
        (tmp_path / "images/train" / image).write_bytes(b"")
    (tmp_path / "labels/train/plot.txt").write_text(
        "0 0.5 0.5 0.5 0.2\n1 0.1 0.1 0.1 0.1\n", encoding="utf-8"
    )
    (tmp_path / "labels/train/empty.txt").write_text("", encoding="utf-8")
    (tmp_path / "data.yaml").write_text(yaml, encoding="utf-8")
    return tmp_path / "data.yaml"


@pytest.mark.parametrize(
    "names",
    [
        "names:\n  0: Tree\n  1: Snag",
        "names: [Tree, 'Snag']",
        'names: {0: Tree, 1: "Snag"}',
        "names:\n- Tree\n- Snag  # dead",
        "nc: 2\nnames: [Tree,\n        Snag]",
    ],
)
def test_yolo_dataset(tmp_path: Path, names: str) -> None:
    path = dataset(tmp_path, f"# made\npath: .\ntrain: images/train\nval: images/train\n{names}\n")
    layer = formats.read(path, grid=GRID, image="plot.tif")
    assert boxes(layer) == [[10, 12, 30, 18], [2, 1.5, 6, 4.5]]
    assert layer.columns["label"].tolist() == ["Tree", "Snag"]
    for image in ("empty.png", "bare.png"):
        assert len(formats.read(path, grid=GRID, image=image)) == 0
    assert len(formats.read(tmp_path, grid=GRID, image="plot.png")) == 2
    alone = formats.read(tmp_path / "labels/train/plot.txt", grid=GRID, image="other.tif")
    assert alone.columns["label"].tolist() == ["Tree", "Snag"]
    assert len(formats.read(tmp_path / "labels/train/empty.txt", grid=GRID, image="empty.png")) == 0
    folder = formats.read(tmp_path / "labels/train", grid=GRID, image="plot.png")
    assert folder.columns["label"].tolist() == ["Tree", "Snag"]
    with pytest.raises(LayerError, match=r"nothing about no\.tif"):
        formats.read(path, grid=GRID, image="no.tif")
    with pytest.raises(LayerError, match=r"name the (image|raster)"):
        formats.read(path)


@pytest.mark.parametrize(
    "where", ["path: /not/here\ntrain: images/train", "train: ../images/train", "train:\n  - images/train"]
)
def test_yolo_datasets_from_another_machine(tmp_path: Path, where: str) -> None:
    path = dataset(tmp_path, where)
    assert len(formats.read(path, grid=GRID, image="plot.png")) == 2


def test_yolo_lines_of_every_kind(tmp_path: Path) -> None:
    lines = [
        "0 0.5 0.5 0.5 0.2",
        "0 0.5 0.5 0.5 0.2 0.75",
        "1 0 0 0.5 0 0.5 0.5",
        "1 0 0 0.5 0 0.5 0.5 0.25",
        "2 0.25 0.2 0.75 0.2 0.75 0.4 0.25 0.4",
        "",
        "x 1 2 3 4",
        "0 0.5 0.5 0.5",
        "0 12 13 20 30",
        "0 0.5 0.5 0 0.5",
        "-1 0.5 0.5 0.5 0.5",
        "0.0 0.5 0.5 0.5 nan",
    ]
    layer = read(tmp_path / "a.txt", "\n".join(lines))
    assert boxes(layer) == [
        [10, 12, 30, 18],
        [10, 12, 30, 18],
        [0, 0, 20, 15],
        [0, 0, 20, 15],
        [10, 6, 30, 12],
    ]
    assert layer.columns["label"].tolist() == ["0", "0", "1", "1", "2"]
    assert layer.columns["score"][[1, 3]].tolist() == [0.75, 0.25]
    assert any("6 lines left out" in str(note) for note in layer.notes)
    assert any("classes.txt" in str(note) for note in layer.notes)


def test_yolo_keypoints_are_left_to_the_box(tmp_path: Path) -> None:
    path = dataset(tmp_path, "train: images/train\nkpt_shape: [1, 3]\n")
    (tmp_path / "labels/train/plot.txt").write_text("0 0.5 0.5 0.5 0.2 0.5 0.5 2\n", encoding="utf-8")
    assert boxes(formats.read(path, grid=GRID, image="plot.png")) == [[10, 12, 30, 18]]


def test_yolo_class_lists(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("Tree\nSnag\n", encoding="utf-8")
    layer = read(tmp_path / "a.txt", "1 0.5 0.5 0.5 0.2\n")
    assert layer.columns["label"].tolist() == ["Snag"]


def test_yolo_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    labels = ["b", "a", "b"]
    rectangles = [shapely.box(1.123456789, 2, 3, 4), shapely.box(10, 5, 12, 7), shapely.box(0, 0, 40, 30)]
    formats.write(path, stream_of(rectangles, label=labels, score=[0.5, 1.0, 0.25], classes=("b", "a")))
    assert (tmp_path / "out.names").read_text(encoding="utf-8") == "b\na\n"
    assert [len(line.split()) for line in path.read_text(encoding="utf-8").splitlines()] == [6, 6, 6]
    back = formats.read(path, grid=GRID, image="plot.tif")
    assert np.abs(shapely.bounds(back.geometry) - shapely.bounds(rectangles)).max() < 1e-9
    assert back.columns["label"].tolist() == labels
    assert back.columns["score"].tolist() == [0.5, 1.0, 0.25]
    formats.write(path, stream_of([*rectangles, HOLED], label=[*labels, "c"]), overwrite=True)
    back = formats.read(path, grid=GRID, image="plot.tif")
    assert [shape.area for shape in back.geometry[1:]] == pytest.approx([4, 1200, 64])
    assert back.columns["label"].tolist() == [*labels, "c"]
    assert sorted(found.name for found in tmp_path.iterdir()) == ["out.names", "out.txt"]


# -- CVAT ----------------------------------------------------------------------------------------------------


def cvat(*shapes: str, name: str = "set\\plot.tif") -> str:
    image = f'<image id="0" name="{name}" width="40" height="30">{"".join(shapes)}</image>'
    other = '<image id="1" name="b.tif"><tag label="x"/></image>'
    return f"<annotations><version>1.1</version>{image}{other}</annotations>"


def test_cvat_shapes(tmp_path: Path) -> None:
    layer = read(
        tmp_path / "a.xml",
        cvat(
            '<box label="T" xtl="1" ytl="2" xbr="5" ybr="6"><attribute name="s">F</attribute></box>',
            '<box label="T" xtl="4" ytl="9" xbr="16" ybr="11" rotation="90"/>',
            '<polygon label="T" points="1,1;5.5,1;5.5,7"/>',
            '<ellipse label="T" cx="10" cy="10" rx="4" ry="2"/>',
            '<points label="P" points="10.5,20.5;30,25"/>',
            '<mask label="T" rle="1, 1, 2, 2" left="20" top="10" width="3" height="2"/>',
            '<polyline label="L" points="0,0;5,5"/>',
            '<cuboid label="C"/>',
            '<tag label="x"/>',
            '<box label="T" xtl="5" ytl="2" xbr="1" ybr="6"/>',
            '<mask label="T" rle="1, 99" left="20" top="10" width="3" height="2"/>',
        ),
    )
    kinds = [shape.geom_type for shape in layer.geometry]
    assert kinds == ["Polygon"] * 4 + ["Point"] * 2 + ["Polygon"]
    assert boxes(layer)[:3] == [[1, 2, 5, 6], [9, 4, 11, 16], [1, 1, 5.5, 7]]
    assert layer.geometry[3].area == pytest.approx(math.pi * 8)
    assert layer.geometry[6].equals(
        shapely.union_all([shapely.box(21, 10, 22, 11), shapely.box(21, 11, 23, 12)])
    )
    assert layer.columns["s"].tolist()[0] == "F"
    assert "4 shapes left out" in str(layer.notes[-1])


def test_cvat_tracks(tmp_path: Path) -> None:
    box = '<box frame="{}" outside="0" xtl="1" ytl="2" xbr="5" ybr="6"/>'
    one = f'<annotations><track id="0" label="Seal">{box.format(3)}</track></annotations>'
    assert boxes(read(tmp_path / "a.xml", one)) == [[1, 2, 5, 6]]
    two = f'<annotations><track id="0" label="Seal">{box.format(3)}{box.format(4)}</track></annotations>'
    with pytest.raises(LayerError, match="2 frames"):
        read(tmp_path / "a.xml", two)


# -- Label Studio --------------------------------------------------------------------------------------------


def region(kind: str, value: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    named = {f"{kind}labels": ["Tree"]} if "labels" not in kind else {}
    return {
        "id": "r",
        "type": f"{kind}labels",
        "original_width": 40,
        "original_height": 30,
        "value": {**value, **named},
        **more,
    }


def task(*regions: Any, image: str = "/data/upload/1/3f2a1b00-plot.tif", **annotation: Any) -> dict[str, Any]:
    return {"data": {"image": image}, "annotations": [{"result": list(regions), **annotation}]}


BOX = {"x": 25, "y": 50, "width": 50, "height": 20, "rotation": 0}


def test_label_studio_shapes(tmp_path: Path) -> None:
    layer = read(
        tmp_path / "a.json",
        [
            task(
                region("rectangle", BOX),
                region("rectangle", {**BOX, "rotation": 90}),
                region("polygon", {"points": [[0, 0], [50, 0], [50, 50]]}),
                region("ellipse", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 10}),
                region("keypoint", {"x": 50, "y": 50, "width": 1}),
                region("brush", {"rle": [1, 2], "format": "rle"}),
                region("rectangle", BOX, image_rotation=90),
                {"type": "choices", "value": {"choices": ["x"]}},
                "nonsense",
            )
        ],
    )
    assert boxes(layer)[:3] == [[10, 15, 30, 21], [4, 15, 10, 35], [0, 0, 20, 15]]
    assert layer.geometry[3].area == pytest.approx(math.pi * 12)
    assert shapely.get_coordinates(layer.geometry[4]).tolist() == [[20, 15]]
    assert "2 regions left out" in str(layer.notes[-1])
    assert "brush" in str(layer.notes[-1])


@pytest.mark.parametrize(
    "image",
    [
        "plot.tif",
        "/data/local-files/?d=plots%5Cplot.tif",
        "s3://bucket/x/plot.tif",
        "https://host/plot.tif?sig=1",
        "/data/upload/1/3f2a1b00-plot.tif",
    ],
)
def test_label_studio_image_names(tmp_path: Path, image: str) -> None:
    other = task(region("rectangle", BOX), region("rectangle", BOX), image="other.tif")
    layer = read(tmp_path / "a.json", [task(region("rectangle", BOX), image=image), other])
    assert len(layer) == 1
    assert "2 regions of other images left out (other.tif)" in str(layer.notes[0])


def test_label_studio_reads_one_annotation_of_a_task(tmp_path: Path) -> None:
    several = task(region("rectangle", BOX), was_cancelled=True)
    several["annotations"] += [
        {"result": [region("rectangle", BOX)] * 2, "updated_at": "2024-02-01T00:00:00Z"},
        {"result": [region("rectangle", BOX)] * 3, "updated_at": "2024-01-01T00:00:00Z"},
    ]
    several["predictions"] = [{"result": [region("rectangle", BOX)] * 9}]
    assert len(read(tmp_path / "a.json", [several])) == 2
    several["annotations"][2]["ground_truth"] = True
    assert len(read(tmp_path / "a.json", several)) == 3
    several["annotations"] = []
    layer = read(tmp_path / "a.json", [several])
    assert len(layer) == 0
    assert "predictions are not read" in str(layer.notes[0])


def test_label_studio_labels_apart_from_their_shapes(tmp_path: Path) -> None:
    bare = {**region("rectangle", BOX), "type": "rectangle", "value": BOX}
    labels = {"id": "r", "type": "labels", "value": {**BOX, "labels": ["Seal"]}}
    assert read(tmp_path / "a.json", [task(bare, labels)]).columns["label"].tolist() == ["Seal"]


def test_label_studio_short_form(tmp_path: Path) -> None:
    short = {**BOX, "rectanglelabels": ["Tree"], "original_width": 40, "original_height": 30}
    layer = read(tmp_path / "a.json", [{"image": "/data/plot.tif", "id": 1, "label": [short]}])
    assert boxes(layer) == [[10, 15, 30, 21]]
    assert layer.columns["label"].tolist() == ["Tree"]


@pytest.mark.parametrize("wrap", [lambda tasks: {"tasks": tasks}, lambda tasks: tasks[0]])
def test_label_studio_wrapped_otherwise(tmp_path: Path, wrap: Any) -> None:
    assert len(read(tmp_path / "a.json", wrap([task(region("rectangle", BOX))]))) == 1
    with pytest.raises(LayerError, match="not a list of tasks"):
        read(tmp_path / "a.json", wrap([{"data": {"image": "plot.tif"}, "predictions": [{"result": []}]}]))


def test_label_studio_on_a_copy_of_another_size(tmp_path: Path) -> None:
    layer = read(tmp_path / "a.json", [task(region("rectangle", BOX))], grid=Grid(400, 300))
    assert boxes(layer) == [[100, 150, 300, 210]]
    with pytest.raises(LayerError, match="Sizes differ"):
        read(tmp_path / "a.json", [task(region("rectangle", BOX))], grid=Grid(400, 400))


# -- label images --------------------------------------------------------------------------------------------


def label(path: Path, values: Any, **profile: Any) -> Path:
    bands = np.atleast_3d(np.asarray(values).T).T
    height, width = bands.shape[1:]
    size = {"width": width, "height": height, "count": len(bands), "dtype": bands.dtype.name}
    with rasterio.open(
        path, "w", driver="PNG" if path.suffix == ".png" else "GTiff", **size, **profile
    ) as file:
        file.write(bands)
    return path


IDS = np.zeros((30, 40), np.uint16)
IDS[2:6, 3:8] = 1000
IDS[2:6, 8:12] = 1001  # touches it
IDS[20:22, 1:3] = 1000  # a part apart
IDS[7:11, 20:24] = 5
IDS[8:10, 21:23] = 0  # a hole


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_label_images_have_one_object_per_value(tmp_path: Path, dtype: str) -> None:
    layer = formats.read(label(tmp_path / "a.tif", IDS.astype(dtype), nodata=0), grid=GRID)
    assert layer.columns["id"].tolist() == [5, 1000, 1001]
    assert [shape.area for shape in layer.geometry] == [12, 24, 16]
    assert boxes(layer) == [[20, 7, 24, 11], [1, 2, 8, 22], [8, 2, 12, 6]]
    assert layer.grid == GRID


@pytest.mark.parametrize("value", [1, 7, 255])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_masks_have_one_object_per_connected_part(tmp_path: Path, value: int, bands: int) -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[2:4, 2:4] = mask[4:6, 4:6] = mask[9, 9] = value  # two squares meet at a corner
    picture = np.stack([mask] * min(bands, 3)) if bands != 2 else np.stack([mask])
    if bands in (2, 4):
        picture = np.concatenate([picture, np.full((1, 30, 40), 255, np.uint8)])
    layer = formats.read(label(tmp_path / "a.png", picture), grid=GRID)
    assert [shape.area for shape in layer.geometry] == [8, 1]
    assert "connected part" in str(layer.notes[0])


def test_label_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="Sizes differ"):
        formats.read(label(tmp_path / "a.tif", IDS), grid=Grid(40, 31))
    rng = np.random.default_rng(0)
    with pytest.raises(LayerError, match="colour"):
        formats.read(label(tmp_path / "a.png", rng.integers(0, 9, (3, 30, 40), np.uint8)), grid=GRID)
    with pytest.raises(LayerError, match="fractions"):
        formats.read(label(tmp_path / "a.tif", IDS / 3), grid=GRID)
    elsewhere = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 3_285_000)
    with pytest.raises(LayerError, match="elsewhere"):
        formats.read(label(tmp_path / "b.tif", IDS, transform=elsewhere, crs="EPSG:32617"), grid=GRID)
    (tmp_path / "c.tif").write_text("<VRTDataset/>", encoding="utf-8")
    with pytest.raises(LayerError, match=r"c\.tif can't be read"):
        formats.read(tmp_path / "c.tif", grid=GRID)


def test_few_values_in_many_parts_are_classes(tmp_path: Path) -> None:
    mask = np.zeros((30, 40), np.uint8)
    for number in range(8):
        mask[2:4, 4 * number + 1 : 4 * number + 4] = 1 + number % 2
    layer = formats.read(label(tmp_path / "a.png", mask), grid=GRID)
    assert len(layer) == 8
    assert sorted(layer.columns["label"]) == ["1"] * 4 + ["2"] * 4
    assert "values are classes" in str(layer.notes[0])
    assert len(formats.read(label(tmp_path / "a.tif", mask.astype(np.uint16)), grid=GRID)) == 2


def test_an_empty_label_image_has_no_objects(tmp_path: Path) -> None:
    assert len(formats.read(label(tmp_path / "a.tif", IDS * 0), grid=GRID)) == 0


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_label_image_round_trip(tmp_path: Path, suffix: str) -> None:
    shapes = [
        shapely.box(1, 1, 4, 4),
        HOLED,
        shapely.box(20.4, 20.4, 23.4, 22.6),
        shapely.box(0.1, 0.1, 0.2, 0.2),
    ]
    path = tmp_path / f"out{suffix}"
    written = formats.write(path, stream_of(shapes))
    assert written.features == 3
    assert [note.text for note in written.notes] == [
        "1 object without a pixel: too small for a pixel's centre, or under others."
    ]
    back = formats.read(path, grid=None if suffix == ".tif" else GRID)
    assert back.grid is not None
    assert np.allclose(back.grid.transform, GRID.transform)
    assert back.columns["id"].tolist() == [1, 2, 3]
    # The second lies over the first, but for its hole and the first's own rim of pixels at 0.
    assert [shape.area for shape in back.geometry] == [1, 60, 9]
    again = tmp_path / f"again{suffix}"
    formats.write(again, stream_of(shapes))
    assert again.read_bytes() == path.read_bytes()


def test_a_label_image_too_large_to_hold_is_refused(tmp_path: Path) -> None:
    large = Grid(20_000, 20_000)
    with pytest.raises(LayerError, match="held whole"):
        formats.write(tmp_path / "a.tif", stream_of([], large))
    with pytest.raises(LayerError, match=re.escape("65,535")):
        label_image.write_labels(tmp_path / "a.png", np.full((2, 2), 70_000, np.uint32), Grid(2, 2))


# -- all that hold areas of one image ------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".json", ".xml", ".txt"])
def test_points_are_refused_where_only_areas_fit(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"a{suffix}"
    with pytest.raises(LayerError, match="points"):
        formats.write(target, stream_of([shapely.Point(1, 1)]))
    assert not target.exists()
    written = formats.write(target, stream_of([shapely.Point(1, 1), shapely.box(1, 1, 2, 2)]))
    assert (written.features, written.dropped) == (1, 1)
    assert "1 feature without area left out" in str(written.notes[0])


@pytest.mark.parametrize("suffix", [".json", ".xml", ".txt", ".tif"])
def test_the_size_of_the_image_must_be_known(tmp_path: Path, suffix: str) -> None:
    shapes = np.array([shapely.box(1, 1, 2, 2)])
    with pytest.raises(LayerError, match=r"name the (image|raster)"):
        formats.write(tmp_path / f"a{suffix}", Stream([Layer(shapes)], "Polygon", {}))


@pytest.mark.parametrize("suffix", [".xml", ".txt", ".tif"])
def test_one_file_is_about_one_image(tmp_path: Path, suffix: str) -> None:
    shapes = np.array([shapely.box(1, 1, 2, 2)])
    batches = [Layer(shapes, grid=GRID), Layer(shapes, grid=Grid(9, 9))]
    with pytest.raises(LayerError, match="one image"):
        formats.write(tmp_path / f"a{suffix}", Stream(batches, "Polygon", {}))


def test_coco_holds_several_images(tmp_path: Path) -> None:
    shapes = np.array([shapely.box(1, 1, 2, 2)])
    batches = [
        Layer(shapes, {"source": np.array([name], dtype=object)}, grid=grid)
        for name, grid in (("a.tif", GRID), ("b.tif", Grid(9, 9)))
    ]
    formats.write(tmp_path / "a.json", Stream(batches, "Polygon", {"source": "str"}))
    made = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert [(one["file_name"], one["width"]) for one in made["images"]] == [("a.tif", 40), ("b.tif", 9)]
    assert [one["image_id"] for one in made["annotations"]] == [1, 2]
