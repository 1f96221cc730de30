"""Small rasters and annotations for the tests of training data."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

ORIGIN = (562000.0, 4076200.0)  # UTM 30 N
RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def write_raster(
    path: Path,
    pixels: NDArray[Any],
    *,
    gsd_m: float | None = 0.5,
    shift_m: tuple[float, float] = (0.0, 0.0),
    crs: str = "EPSG:32630",
) -> Path:
    """A GeoTIFF of (B, H, W): east and south of ORIGIN by `shift_m`, or without a place for `gsd_m` None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile: dict[str, Any] = {}
    if gsd_m is not None:
        x, y = ORIGIN[0] + shift_m[0], ORIGIN[1] - shift_m[1]
        profile = {"crs": crs, "transform": Affine(gsd_m, 0, x, 0, -gsd_m, y)}
    bands, height, width = pixels.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", width=width, height=height, count=bands, dtype=pixels.dtype, **profile
        ) as file:
            if bands == 3:
                file.colorinterp = RGB
            file.write(pixels)
    return path


def noise(bands: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(1, 255, (bands, height, width), dtype=np.uint8)


def write_points(path: Path, xy: Sequence[Sequence[float]], **columns: Sequence[Any]) -> Path:
    """A CSV of x, y in pixels and other columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [",".join(["x", "y", *columns])]
    for number, (x, y) in enumerate(xy):
        rows.append(",".join([f"{x:.2f}", f"{y:.2f}", *(str(values[number]) for values in columns.values())]))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def write_boxes(path: Path, boxes: Sequence[Sequence[float]], labels: Sequence[str] | None = None) -> Path:
    """A CSV of boxes in pixels."""
    names = labels or ["shrub"] * len(boxes)
    rows = [f"{a},{b},{c},{d},{name}" for (a, b, c, d), name in zip(boxes, names, strict=True)]
    path.write_text("xmin,ymin,xmax,ymax,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def write_coco(path: Path, images: dict[str, list[tuple[float, float, float, float]]], side: int) -> Path:
    """A COCO file: name of the image -> boxes x, y, w, h."""
    names = list(images)
    facts = {
        "images": [
            {"id": number, "file_name": name, "width": side, "height": side}
            for number, name in enumerate(names)
        ],
        "annotations": [
            {"id": 100 * number + row, "image_id": number, "category_id": 1, "bbox": list(box), "iscrowd": 0}
            for number, name in enumerate(names)
            for row, box in enumerate(images[name])
        ],
        "categories": [{"id": 1, "name": "seal"}],
    }
    path.write_text(json.dumps(facts), encoding="utf-8")
    return path
