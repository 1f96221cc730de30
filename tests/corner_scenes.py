"""Corners of the sample scenes: a fifth of the pixels, with the annotations that lie on them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

CELLS_PX = 340  # of 512
DRYLAND_PX = (480, 400)  # width and height of 1200 x 1000


def write_corners(samples: Path, folder: Path) -> Path:
    """Write cells.png, cells.csv, dryland.tif and dryland_shrubs.geojson; returns the folder."""
    import rasterio
    import rasterio.warp
    from PIL import Image
    from rasterio.windows import Window, bounds

    with Image.open(samples / "cells.png") as picture:
        picture.crop((0, 0, CELLS_PX, CELLS_PX)).save(folder / "cells.png")
    with (samples / "cells.csv").open(encoding="utf-8", newline="") as table:
        first, *rows = csv.reader(table)
    with (folder / "cells.csv").open("w", encoding="utf-8", newline="") as table:
        csv.writer(table).writerows(
            [first, *(row for row in rows if max(float(row[0]), float(row[1])) < CELLS_PX)]
        )
    width, height = DRYLAND_PX
    window = Window(0, 0, width, height)
    with rasterio.open(samples / "dryland.tif") as file:
        pixels, colours, words = file.read(window=window), file.colorinterp, file.descriptions
        profile = {**file.profile, "width": width, "height": height}
        west, south, east, north = rasterio.warp.transform_bounds(
            file.crs, "EPSG:4326", *bounds(window, file.transform)
        )
    with rasterio.open(folder / "dryland.tif", "w", **profile) as file:
        file.colorinterp, file.descriptions = colours, words
        file.write(pixels)
    shrubs = json.loads((samples / "dryland_shrubs.geojson").read_text(encoding="utf-8"))
    shrubs["features"] = [
        shrub
        for shrub in shrubs["features"]
        if all(west < x < east and south < y < north for x, y in shrub["geometry"]["coordinates"][0])
    ]
    (folder / "dryland_shrubs.geojson").write_text(json.dumps(shrubs), encoding="utf-8")
    return folder
