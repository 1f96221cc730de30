"""Folders as annotation programs and data sets lay them out: which images go with which annotations.

Known by the names of their sub-folders:

- Pascal VOC, also of CVAT: `JPEGImages` and `Annotations`
- COCO 2017, also of CVAT: `annotations/instances_X.json` about the images in `X`, `images/X` or `images`
- YOLO 1.1 of CVAT: `obj_train_data` with images and labels side by side, `obj.names` above
- Data Science Bowl 2018: a folder for each image, with `images` and `masks` (see `ObjectMasks`)

What isn't known here lies in folders as `sources` describes.
"""

from __future__ import annotations

import re
from pathlib import Path

from ecodetect.annotations.object_masks import ObjectMasks
from ecodetect.errors import UserError
from ecodetect.raster.finding import expand

Part = tuple[list[str], Path]  # images, and the file or folder of their annotations


def parts_of(folder: Path) -> list[Part]:
    """The parts of a folder of a known layout; empty where it is of none."""
    if not folder.is_dir():
        return []
    return _voc(folder) or _coco(folder) or _darknet(folder) or _masks(folder)


def _named(folder: Path, name: str) -> Path | None:
    """The sub-folder of this name, whatever its case."""
    inner = (each for each in sorted(folder.iterdir()) if each.is_dir())
    return next((each for each in inner if each.name.lower() == name), None)


def _images(folder: Path | None) -> list[str]:
    if folder is None:
        return []
    try:
        return expand([folder])
    except UserError:  # no rasters in it
        return []


def _voc(folder: Path) -> list[Part]:
    images, annotations = _images(_named(folder, "jpegimages")), _named(folder, "annotations")
    return [(images, annotations)] if images and annotations is not None else []


def _coco(folder: Path) -> list[Part]:
    annotations = _named(folder, "annotations")
    files = [] if annotations is None else sorted(annotations.glob("instances_*.json"))
    parts: list[Part] = []
    for file in files:
        name = file.stem.removeprefix("instances_").lower()
        pictures = _named(folder, "images")
        places = [_named(folder, name), None if pictures is None else _named(pictures, name)]
        if len(files) == 1 or name == "default":
            places.append(pictures)
        found = next(filter(None, map(_images, places)), None)
        if found is not None:
            parts.append((found, file))
    return parts


def _darknet(folder: Path) -> list[Part]:
    if not (folder / "obj.names").is_file():
        return []
    inner = sorted(each for each in folder.iterdir() if re.fullmatch(r"obj_\w+_data", each.name.lower()))
    return [(images, each) for each in inner if (images := _images(each))]


def _masks(folder: Path) -> list[Part]:
    if not ObjectMasks.are_in(folder):
        return []
    return [(ObjectMasks(folder).images, folder)]
