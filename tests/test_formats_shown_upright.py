"""Annotations of photographs that viewers turn lie where they were made, or are refused: never elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from PIL import Image, ImageOps

from ecodetect.annotations.laying import read_annotations
from ecodetect.annotations.sources import gather
from ecodetect.errors import LayerError, UserError
from ecodetect.formats import files as formats
from ecodetect.grid import Grid
from ecodetect.layer import Layer, Stream
from ecodetect.raster.reading import open_raster

WIDTH, HEIGHT = 40, 24
SPOT = (6, 4, 11, 9)  # as stored: left, top, right, bottom


def photograph(path: Path, orientation: int, *, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Grid:
    """A picture that is dark but for one bright spot, with the tag; returns its grid."""
    pixels = np.zeros((size[1], size[0]), np.uint8)
    left, top, right, bottom = SPOT
    pixels[top:bottom, left:right] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, quality=100)
    with open_raster(path) as raster:
        return raster.grid


def shown(path: Path) -> tuple[tuple[int, int], list[int]]:
    """Size of the picture as viewers show it, and the spot's place there."""
    with Image.open(path) as image:
        turned = ImageOps.exif_transpose(image)
    rows, columns = np.nonzero(np.asarray(turned) > 128)
    spot = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return turned.size, [int(value) for value in spot]


def coco(size: tuple[int, int], box: list[int]) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    mark = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
    images = [{"id": 1, "file_name": "p.jpg", "width": size[0], "height": size[1]}]
    return {"images": images, "categories": [{"id": 1, "name": "oak"}], "annotations": [mark]}


def labelme(size: tuple[int, int], box: list[int]) -> dict[str, Any]:
    shape = {"label": "oak", "shape_type": "rectangle", "points": [box[:2], box[2:]]}
    return {"shapes": [shape], "imagePath": "p.jpg", "imageWidth": size[0], "imageHeight": size[1]}


def read(path: Path, content: Any, grid: Grid) -> Layer:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return formats.read(path, grid=grid, image="p.jpg")


def places(layer: Layer) -> list[list[float]]:
    return shapely.bounds(layer.geometry).tolist()


@pytest.mark.parametrize("made", [coco, labelme])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_annotated_as_shown_is_turned_where_sizes_prove_it(
    tmp_path: Path, orientation: int, made: Any
) -> None:
    grid = photograph(tmp_path / "p.jpg", orientation)
    layer = read(tmp_path / "a.json", made(*shown(tmp_path / "p.jpg")), grid)
    assert places(layer) == [list(map(float, SPOT))]
    assert [note.code for note in layer.notes] == ["annotations-turned"]
    layer = read(tmp_path / "a.json", made((WIDTH, HEIGHT), list(SPOT)), grid)  # annotated as stored
    assert places(layer) == [list(map(float, SPOT))]
    assert layer.notes == ()


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_half_turns_and_mirrors_are_refused_with_what_to_do(tmp_path: Path, orientation: int) -> None:
    grid = photograph(tmp_path / "p.jpg", orientation)
    with pytest.raises(LayerError, match=rf"EXIF orientation {orientation}\).*mogrify.*exiftool"):
        read(tmp_path / "a.json", coco(*shown(tmp_path / "p.jpg")), grid)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "image,x,y\np.jpg,6.5,4.5\n"),
        ("a.txt", "0 0.5 0.5 0.2 0.2\n"),
        ("a.json", '{"p.jpg1": {"filename": "p.jpg", "size": 1, "regions": [{"shape_attributes": '
         '{"name": "point", "cx": 6, "cy": 4}, "region_attributes": {}}]}}'),
    ],
)  # fmt: skip
def test_files_that_state_no_size_are_refused(tmp_path: Path, name: str, content: str) -> None:
    grid = photograph(tmp_path / "p.jpg", 6)
    with pytest.raises(LayerError, match="states no size of its image"):
        read(tmp_path / name, content, grid)


def test_a_square_photograph_proves_nothing(tmp_path: Path) -> None:
    grid = photograph(tmp_path / "p.jpg", 6, size=(40, 40))
    with pytest.raises(LayerError, match="can't say it by sizes"):
        read(tmp_path / "a.json", coco((40, 40), list(SPOT)), grid)


def test_label_images_are_turned_too(tmp_path: Path) -> None:
    grid = photograph(tmp_path / "p.jpg", 8)
    size, (left, top, right, bottom) = shown(tmp_path / "p.jpg")
    ids = np.zeros(size[::-1], np.uint8)
    ids[top:bottom, left:right] = 7
    Image.fromarray(ids).save(tmp_path / "m.png")
    assert places(formats.read(tmp_path / "m.png", grid=grid)) == [list(map(float, SPOT))]


def test_upright_photographs_and_other_sizes_are_as_before(tmp_path: Path) -> None:
    grid = photograph(tmp_path / "p.jpg", 1)
    assert places(read(tmp_path / "a.csv", "image,x,y\np.jpg,6.5,4.5\n", grid)) == [[6.5, 4.5, 6.5, 4.5]]
    grid = photograph(tmp_path / "p.jpg", 6)
    with pytest.raises(LayerError, match=r"made on an image of 41 x 24 px"):
        read(tmp_path / "a.json", coco((41, 24), list(SPOT)), grid)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".geojson", ".gpkg"])
def test_our_own_layers_are_of_the_pixels_as_stored(tmp_path: Path, suffix: str) -> None:
    grid = photograph(tmp_path / "p.jpg", 3)
    columns = {"id": np.array(["5f14af02-1342-3f"], object), "source": np.array(["p.jpg"], object)}
    layer = Layer(np.array([shapely.box(*SPOT)], object), columns, grid=grid)
    kinds = dict.fromkeys(columns, "str")
    formats.write(tmp_path / f"out{suffix}", Stream([layer], "Polygon", kinds, grid=grid))
    found = read_annotations(tmp_path / f"out{suffix}", grid, image="p.jpg")
    assert shapely.bounds(found.geometry).tolist() == [list(SPOT)]


def test_training_turns_them_in_a_file_about_several_images(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    photograph(folder / "p.jpg", 6)
    photograph(folder / "q.jpg", 1)
    content = coco(*shown(folder / "p.jpg"))
    content["images"].append({"id": 2, "file_name": "q.jpg", "width": WIDTH, "height": HEIGHT})
    content["annotations"].append({**content["annotations"][0], "id": 2, "image_id": 2, "bbox": [6, 4, 5, 5]})
    (tmp_path / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    gathered = gather([tmp_path])
    assert [shapely.bounds(each.annotations.geometry).tolist() for each in gathered.sources] == [
        [list(map(float, SPOT))]
    ] * 2
    photograph(folder / "q.jpg", 3)
    with pytest.raises(UserError, match="EXIF orientation 3"):
        gather([tmp_path])
