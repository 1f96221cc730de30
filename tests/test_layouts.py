"""Folders as annotation programs and data sets lay them out, given to training as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ecodetect.annotations.files import opened
from ecodetect.annotations.object_masks import ObjectMasks
from ecodetect.annotations.sources import Gathered, gather
from ecodetect.annotations.splits import split
from ecodetect.errors import LayerError, UserError
from ecodetect.formats import files as formats
from ecodetect.grid import Grid

YOLO = "0 0.5 0.5 0.2 0.2\n"


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(path)


def text(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def mask(path: Path, values: list[int]) -> None:
    pixels = np.zeros((30, 40), np.uint8)
    for place, value in enumerate(values):
        pixels[5:9, 5 + 7 * place : 9 + 7 * place] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def voc(name: str) -> str:
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6</ymax></bndbox>"
    return f"<annotation><filename>{name}</filename><object><name>oak</name>{box}</object></annotation>"


def coco(*names: str) -> dict[str, Any]:
    images = [{"id": n, "file_name": name, "width": 40, "height": 30} for n, name in enumerate(names)]
    marks = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 4, 4]} for n in range(len(names))]
    return {"images": images, "categories": [{"id": 1, "name": "oak"}], "annotations": marks}


def found(gathered: Gathered) -> dict[str, tuple[int, set[str]]]:
    return {each.name: (len(each.annotations), set(each.annotations.label)) for each in gathered.sources}


OAK = (1, {"oak"})


def test_pascal_voc(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / f"JPEGImages/{name}.jpg")
        text(tmp_path / f"Annotations/{name}.xml", voc(f"{name}.jpg"))
    text(tmp_path / "ImageSets/Main/train.txt", "a\nb\n")
    mask(tmp_path / "SegmentationObject/a.png", [1, 2])
    assert found(gather([tmp_path])) == {"a.jpg": OAK, "b.jpg": OAK}


@pytest.mark.parametrize("place", ["", "images/"])
def test_coco_2017_with_both_its_sides(tmp_path: Path, place: str) -> None:
    for side, name in (("train2017", "a"), ("train2017", "b"), ("val2017", "c")):
        picture(tmp_path / f"{place}{side}/{name}.jpg")
    text(tmp_path / "annotations/instances_train2017.json", coco("a.jpg", "b.jpg"))
    text(tmp_path / "annotations/instances_val2017.json", coco("c.jpg"))
    text(tmp_path / "annotations/captions_val2017.json", {"annotations": [{"caption": "trees"}]})
    gathered = gather([tmp_path])
    assert found(gathered) == {"a.jpg": OAK, "b.jpg": OAK, "c.jpg": OAK}
    sides = split(gathered.sources)
    held = {gathered.sources[number].name for number in sides.validation}
    assert held == {"c.jpg"}


@pytest.mark.parametrize("place", ["images", "images/default"])
def test_coco_of_cvat(tmp_path: Path, place: str) -> None:
    for name in "ab":
        picture(tmp_path / place / f"{name}.jpg")
    text(tmp_path / "annotations/instances_default.json", coco("a.jpg", "b.jpg"))
    assert found(gather([tmp_path])) == {"a.jpg": OAK, "b.jpg": OAK}
    assert found(gather([tmp_path / "images", tmp_path / "annotations"])) == {"a.jpg": OAK, "b.jpg": OAK}


def test_yolo_of_cvat(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / f"obj_train_data/{name}.jpg")
        text(tmp_path / f"obj_train_data/{name}.txt", YOLO)
    text(tmp_path / "obj.names", "oak\n")
    text(tmp_path / "obj.data", "classes = 1\nnames = obj.names\ntrain = train.txt\n")
    text(tmp_path / "train.txt", "obj_train_data/a.jpg\nobj_train_data/b.jpg\n")
    assert found(gather([tmp_path])) == {"a.jpg": OAK, "b.jpg": OAK}


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc", "csv"])
def test_roboflow(tmp_path: Path, kind: str) -> None:
    for side, name in (("train", "a"), ("valid", "b")):
        picture(tmp_path / side / ("images" if kind == "yolo" else "") / f"{name}.jpg")
        header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
        text(
            *{
                "coco": (tmp_path / side / "_annotations.coco.json", coco(f"{name}.jpg")),
                "yolo": (tmp_path / side / f"labels/{name}.txt", YOLO),
                "voc": (tmp_path / side / f"{name}.xml", voc(f"{name}.jpg")),
                "csv": (tmp_path / side / "_annotations.csv", f"{header}{name}.jpg,40,30,oak,1,2,5,6\n"),
            }[kind]
        )
    text(tmp_path / "data.yaml", "train: ../train/images\nval: ../valid/images\nnames: [oak]\n")
    text(tmp_path / "README.dataset.txt", "exported\n")
    assert found(gather([tmp_path])) == {"a.jpg": OAK, "b.jpg": OAK}


def data_science_bowl(folder: Path) -> None:
    for name, count in (("a1", 3), ("b2", 1)):
        picture(folder / name / "images" / f"{name}.png")
        for number in range(count):
            values = [0] * number + [255]
            mask(folder / name / "masks" / f"{number}ff.png", values)


def test_one_mask_for_each_object(tmp_path: Path) -> None:
    data_science_bowl(tmp_path)
    gathered = gather([tmp_path])
    assert {name: count for name, (count, _) in found(gathered).items()} == {"a1.png": 3, "b2.png": 1}
    one = gather([tmp_path / "a1/images/a1.png", tmp_path / "a1/masks"])
    assert [len(each.annotations) for each in one.sources] == [3]


def test_one_mask_beside_one_image_is_a_label_image(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.jpg")
    mask(tmp_path / "masks/a.png", [1, 2, 3])
    assert not isinstance(opened(tmp_path), ObjectMasks)
    assert [count for count, _ in found(gather([tmp_path])).values()] == [3]


def test_a_label_image_among_masks_of_objects_is_refused(tmp_path: Path) -> None:
    data_science_bowl(tmp_path)
    mask(tmp_path / "a1/masks/all.png", [1, 2])
    with pytest.raises(LayerError, match="has several values: it is a label image"):
        formats.read(tmp_path / "a1/masks", grid=Grid(40, 30))


@pytest.mark.parametrize(
    ("image", "masks"),
    [
        ("a.png", "a_masks.png"),
        ("a_img.png", "a_masks.png"),
        ("a.tif", "a_cp_masks.png"),
        ("a.jpg", "a_mask.png"),
    ],
)
def test_cellpose_masks_beside_their_images(tmp_path: Path, image: str, masks: str) -> None:
    for stem in "ab":
        picture(tmp_path / image.replace("a", stem, 1))
        mask(tmp_path / masks.replace("a", stem, 1), [1, 2, 3])
        mask(tmp_path / f"{stem}_cp_outlines.png", [1])
        (tmp_path / f"{stem}_seg.npy").write_bytes(b"\x93NUMPY")
    gathered = gather([tmp_path])
    assert [count for count, _ in found(gathered).values()] == [3, 3]
    assert gathered.notes == ()


def test_pickled_masks_alone_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a_seg.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"a_seg\.npy can hold a pickle"):
        gather([tmp_path])


@pytest.mark.parametrize("is_renamed", [True, False])
def test_label_studio_exports(tmp_path: Path, is_renamed: bool) -> None:
    codes = {"a": "1a2b3c4d-a", "b": "00ff00ff-b"}
    for name, upload in codes.items():
        picture(tmp_path / "images" / f"{upload if is_renamed else name}.jpg")
        text(tmp_path / "labels" / f"{upload}.txt", YOLO)
    text(tmp_path / "classes.txt", "oak\n")
    text(tmp_path / "notes.json", {"categories": [{"id": 0, "name": "oak"}], "info": {}})
    assert list(found(gather([tmp_path])).values()) == [OAK, OAK]
