"""A small good file of each text format of annotations, for the tests that spoil them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio

from ecodetect.grid import Grid

IMAGE = "plot.tif"
GRID = Grid(40, 30)

_COCO = {
    "images": [{"id": 1, "file_name": "a/plot.tif", "width": 40, "height": 30}],
    "categories": [{"id": 2, "name": "Tree"}],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 2,
            "bbox": [1, 2, 3, 4],
            "segmentation": [[1, 2, 4, 2, 4, 6]],
        },
        {
            "id": 2,
            "image_id": 1,
            "category_id": 2,
            "segmentation": {"size": [30, 40], "counts": [40, 9, 21, 9, 1121]},
        },
        {"id": 3, "image_id": 1, "category_id": 2, "segmentation": {"size": [30, 40], "counts": "X199]"}},
    ],
}
_REGION = {"original_width": 40, "original_height": 30, "type": "rectanglelabels", "id": "r"}
_LABEL_STUDIO = [
    {
        "data": {"image": "/data/local-files/?d=a%5Cplot.tif"},
        "annotations": [
            {
                "result": [
                    {**_REGION, "value": {"x": 5, "y": 5, "width": 9, "height": 9, "rotation": 15}},
                    {**_REGION, "type": "polygonlabels", "value": {"points": [[1, 1], [9, 1], [9, 9]]}},
                    {
                        **_REGION,
                        "type": "ellipselabels",
                        "value": {"x": 5, "y": 5, "radiusX": 2, "radiusY": 3},
                    },
                ],
                "was_cancelled": False,
            }
        ],
    }
]

_VIA = [
    {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4},
    {"name": "ellipse", "cx": 9, "cy": 9, "rx": 2, "ry": 3, "theta": 0.5},
    {"name": "polygon", "all_points_x": [1, 5, 5], "all_points_y": [1, 1, 5]},
]
_LABELME = {
    "shapes": [
        {"label": "T", "points": [[1, 2], [5, 2], [5, 6]], "shape_type": "polygon", "group_id": 1},
        {"label": "T", "points": [[9, 9], [10, 9]], "shape_type": "circle", "flags": {"dead": True}},
    ],
    "imagePath": "a/plot.tif",
    "imageHeight": 30,
    "imageWidth": 40,
}
_MEGADETECTOR = {
    "info": {"detector_metadata": {"typical_detection_threshold": 0.2}},
    "detection_categories": {"1": "animal"},
    "classification_categories": {"3": "elk"},
    "images": [
        {
            "file": "a/plot.tif",
            "detections": [
                {"category": "1", "conf": 0.9, "bbox": [0.1, 0.2, 0.3, 0.4], "classifications": [["3", 0.9]]}
            ],
        },
        {"file": "b.tif", "failure": "Failure image access"},
    ],
}
_QUPATH = [
    {
        "type": "Feature",
        "id": "PathAnnotationObject",
        "geometry": {"type": "Polygon", "coordinates": [[[1, 2], [5, 2], [5, 6], [1, 2]]]},
        "properties": {"classification": {"name": "Tumor", "colorRGB": -3670016}, "measurements": []},
    }
]

TEXTS = {
    "boxes.csv": (
        "image_path,xmin,ymin,xmax,ymax,label,dbh\nplot.tif,1,2,3,4,Tree,3.5\n"
        'a/plot.tif,0,0,0,0,,\nplot.tif,5.5,6,7e0,8,"Föhre, alt",\nother.tif,1,2,3,4,Tree,1\n'
    ),
    "points.csv": "id;x;y;Art\n1;1,5;2,5;Föhre\n2;3;4;\n3;;;x\n",
    "degrees.csv": "lat;long;x;y\n37°12'30\"N;3 35 48 O;1;2\n-37,5;3.5 E;3,5;4\n",
    "thousands.csv": "este;norte;x;y\n404.005,5;3.284.990;1,5;2\n404.005;3284990;1.000;3\n",
    "wkt.csv": 'wkt\tlabel\n"POLYGON ((1 1, 5 1, 5 5, 1 1))"\ta\nPOINT (3 4)\tb\n',
    "coco.json": json.dumps(_COCO),
    "label_studio.json": json.dumps(_LABEL_STUDIO),
    "via.json": json.dumps(
        {
            "p": {
                "filename": "a/plot.tif",
                "size": 1,
                "regions": [{"shape_attributes": shape, "region_attributes": {"a": "T"}} for shape in _VIA],
            }
        }
    ),
    "via.csv": (
        "filename,region_count,region_shape_attributes,region_attributes\n"
        'plot.tif,1,"{""name"":""point"",""cx"":1,""cy"":2}","{""a"":{""x"":true}}"\n'
    ),
    "labelme.json": json.dumps(_LABELME),
    "megadetector.json": json.dumps(_MEGADETECTOR),
    "goose.pnt": json.dumps({"classes": ["T"], "points": {"plot.tif": {"T": [{"x": 1.5, "y": 2}]}}}),
    "qupath.json": json.dumps(_QUPATH),
    "results.json": json.dumps([{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}]),
    "voc.xml": (
        "<annotation><filename>plot.tif</filename><size><width>40</width><height>30</height></size>"
        "<object><name>T</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3.5</xmax><ymax>4</ymax></bndbox></object>"
        "<object><name>T</name><robndbox><cx>9</cx><cy>9</cy><w>3</w><h>4</h><angle>0.5</angle></robndbox></object>"
        "</annotation>"
    ),
    "cvat.xml": (
        '<annotations><image id="0" name="plot.tif" width="40" height="30">'
        '<box label="T" xtl="1" ytl="2" xbr="3" ybr="4" rotation="15"><attribute name="a">b</attribute></box>'
        '<polygon label="T" points="1,1;5,1;5,5"/><points label="T" points="1,1;5,5"/>'
        '<ellipse label="T" cx="9" cy="9" rx="2" ry="3"/>'
        '<mask label="T" rle="1, 3, 2" left="2" top="3" width="3" height="2"/></image></annotations>'
    ),
    "yolo.txt": "0 0.5 0.5 0.25 0.2\n1 0.1 0.1 0.5 0.1 0.5 0.5\n2 0.5 0.5 0.2 0.2 0.9\n",
    "data.yaml": "path: .\ntrain: images\nnames:\n  0: Tree\n  1: 'Snag'\nkpt_shape: [1, 3]\n",
}


def write_all(folder: Path) -> dict[str, Path]:
    """Write a good file of each format: those of `TEXTS`, and label images. Returns them by name."""
    paths = {name: folder / name for name in TEXTS}
    for name, text in TEXTS.items():
        paths[name].write_text(text, encoding="utf-8", newline="\n")
    for part in ("images", "labels"):
        (folder / part).mkdir()
    (folder / "images" / "plot.png").write_bytes(b"")
    (folder / "labels" / "plot.txt").write_text("0 0.5 0.5 0.25 0.2\n", encoding="utf-8")
    ids = np.zeros((30, 40), np.uint16)
    ids[2:9, 3:7] = 900
    ids[2:9, 7:9] = 901
    for name, driver in (("labels.tif", "GTiff"), ("labels.png", "PNG")):
        paths[name] = folder / name
        with rasterio.open(
            paths[name], "w", driver=driver, width=40, height=30, count=1, dtype="uint16"
        ) as file:
            file.write(ids, 1)
    return paths
