"""Label images: rasters whose pixels say which object they belong to, or which class, or that there is one.

Read: each value is an object, all its parts one shape. Two kinds are masks, whose 8-connected parts are
objects: those with one value besides 0, and 8-bit ones with few values (classes) in many parts. Written:
objects are numbered from 1 in the order of the layer; a pixel belongs to the object that its centre lies
in, the last one where several overlap.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import CRSError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.features import rasterize

from ecodetect.errors import GridError, LayerError
from ecodetect.formats.collecting import Collector, pixels_note
from ecodetect.formats.image_matching import check_size
from ecodetect.formats.labels.masks import outlines
from ecodetect.formats.protocol import Written
from ecodetect.grid import Grid, transformed
from ecodetect.guarding.crs_files import read_crs
from ecodetect.layer import Layer, Stream
from ecodetect.notes import Note
from ecodetect.raster.references import check_references
from ecodetect.raster.side_files import check_sides
from ecodetect.wording import counted

MOST_PIXELS = 2**27  # held whole, with up to 12 bytes a pixel
_MOST_CLASSES = 32  # of an 8-bit mask; more values are numbers of objects
_STRIP = 256  # rows converted and written at once
_MOST_BLOCK_BYTES = 2**28  # a small file can hold a block that unpacks to gigabytes


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """Objects of a label image, along the edges of its pixels, in pixels of `grid`.

    Without `grid` the label image's own place counts. 0, negative and nodata pixels are background.
    Columns: `id` (int64), the value or the number of the part; `label`, the value of a class. Raises
    LayerError when its size is not that of the raster, when it is a colour picture or has fractions.
    """
    values, own = read_band(path)
    check_size((own.width, own.height), grid, path)
    if grid is not None:
        _check_place(own, grid, path)
    collector = Collector(path, "object")
    collector.size = (own.width, own.height)
    objects = _objects(values)
    if objects.note:
        collector.notes.append(objects.note.of(path.name))
    if grid is None and own.frame == "pixel":
        collector.notes.append(pixels_note(path))
    parts: dict[int, list[Any]] = {}
    for value, shape in outlines(objects.labels):
        parts.setdefault(value, []).append(shape)
    for value in sorted(parts):
        shapes = parts[value]
        whole = shapes[0] if len(shapes) == 1 else shapely.MultiPolygon(shapes)
        columns: dict[str, Any] = {"id": value if objects.ids is None else int(objects.ids[value])}
        if objects.classes is not None:
            columns["label"] = str(objects.classes[value])
        collector.add(whole, columns)
    return collector.layer(own if grid is None else grid)


def read_band(path: Path) -> tuple[NDArray[Any], Grid]:
    """The values, background 0, of a type that holds whole numbers; and their place."""
    with path.open("rb") as head:
        # One driver, by content: another could be a VRT or its like, which read other files.
        driver = "PNG" if head.read(4) == b"\x89PNG" else "GTiff"
    check_sides(path, driver, path.name)
    check_references(path, driver, path.name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, driver=driver, sharing=False) as file:
                _check_bounded(file, path)
                bands = file.read()
                nodata = file.nodata
                crs = None if file.crs is None else read_crs(file.crs.to_wkt(), path.name, error=LayerError)
                grid = Grid(file.width, file.height, tuple(file.transform)[:6], crs)
    except (RasterioError, CRSError) as error:
        raise LayerError(f"{path.name} can't be read as a label image: {error}.") from error
    if len(bands) in (2, 4):  # the last one is the alpha band
        bands = bands[:-1]
    if any(not np.array_equal(bands[0], band) for band in bands[1:]):
        raise LayerError(
            f"{path.name} is a colour picture; a label image has one band with the objects' numbers."
        )
    values = bands[0]
    if values.dtype.kind == "f":
        values = np.where(np.isfinite(values), values, 0)
        if not np.array_equal(values, np.round(values)) or np.abs(values).max() >= 2**53:
            raise LayerError(f"{path.name} has fractions; a label image holds whole numbers.")
        values = values.astype(np.int64)
    elif values.dtype.kind not in "iub":
        raise LayerError(f"{path.name} has pixels of type {values.dtype}; a label image holds whole numbers.")
    background = values < 0
    if nodata is not None:
        background |= values == nodata
    return np.where(background, values.dtype.type(0), values), grid


def _check_bounded(file: Any, path: Path) -> None:
    if file.count > 4:
        raise LayerError(f"{path.name} has {file.count} bands; a label image has one.")
    if file.width * file.height > MOST_PIXELS:
        raise LayerError(
            f"{path.name} has {file.width} x {file.height} px and is read whole, up to {MOST_PIXELS:,} px;"
            " cut it and the raster into parts."
        )
    for (rows, columns), dtype in zip(file.block_shapes, file.dtypes, strict=True):
        itemsize = 1 if dtype.startswith("complex") else np.dtype(dtype).itemsize
        if rows * columns * itemsize * file.count > _MOST_BLOCK_BYTES:
            raise LayerError(
                f"{path.name} has a block that unpacks to more than {_MOST_BLOCK_BYTES // 2**20} MB."
            )


def _check_place(own: Grid, grid: Grid, path: Path) -> None:
    """Raise LayerError when a label image of the right size lies elsewhere on the map."""
    if own.crs is None or grid.crs is None:
        return
    corners = np.array([(0.0, 0.0), (own.width, own.height)])
    try:
        there = grid.to_pixel(transformed(own.to_world(corners), own.crs, grid.crs))
    except GridError:
        return
    if not np.abs(there - corners).max() <= 0.5:
        raise LayerError(
            f"{path.name} has the raster's size but lies elsewhere on the map; give the raster it is of."
        )


@dataclass(frozen=True, slots=True)
class _Objects:
    """Which pixel belongs to which object.

    labels : (H, W) of a type that `outlines` takes, 0 for none.
    ids : what each label stands for; None: itself.
    classes : class of each label; None where there are none.
    note : for the user, without the file.
    """

    labels: NDArray[Any]
    ids: NDArray[Any] | None = None
    classes: list[int] | None = None
    note: Note | None = None


def _objects(values: NDArray[Any]) -> _Objects:
    is_set = values != 0
    highest = values.max()
    if highest == values.min(where=is_set, initial=highest):
        text = "all its pixels but the background have one value, so each connected part is an object."
        note = Note("mask-parts", text, kind="choice")
        return _Objects(_parts(is_set)[0], note=note if highest else None)
    if values.dtype == np.uint8 and highest <= _MOST_CLASSES:
        found = _of_classes(values)
        if found is not None:
            return found
    if values.dtype in (np.uint8, np.uint16, np.int16, np.int32):
        return _Objects(values)
    ids = np.unique(values)
    if ids[0] != 0:
        ids = np.concatenate([np.zeros(1, ids.dtype), ids])
    return _Objects(np.searchsorted(ids, values).astype(np.int32), ids)


def _of_classes(values: NDArray[np.uint8]) -> _Objects | None:
    """The connected parts of each value, if there are so many that the values can't be single objects."""
    classes = [int(value) for value in np.unique(values) if value]
    labels, class_of = np.zeros(values.shape, np.int32), [0]
    for value in classes:
        mask = values == value
        parts, count = _parts(mask)
        labels[mask] = parts[mask] + (len(class_of) - 1)
        class_of += [value] * count
    if len(class_of) - 1 < 3 * len(classes):
        return None
    text = f"{len(classes)} values in {len(class_of) - 1} parts: values are classes, each part is an object."
    return _Objects(labels, classes=class_of, note=Note("mask-parts", text, kind="choice"))


def _parts(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """8-connected parts of a mask, numbered from 1, and how many."""
    from scipy.ndimage import label

    parts, count = label(mask, structure=np.ones((3, 3)), output=np.int32)
    return parts, count


def write(path: Path, stream: Stream) -> Written:
    """Write a layer as a label image: a GeoTIFF of uint16 (uint32 above 65,535 objects), or a PNG.

    Raises LayerError for several images, where the image's size is unknown, above `MOST_PIXELS`, and for
    more objects than a PNG can number.
    """
    grid, labels, features = stream.grid, None, 0
    for batch in stream:
        grid = grid or batch.grid
        if batch.grid is None or grid is None:
            break
        if batch.grid != grid:
            raise LayerError(
                "A label image shows one image; write one file for each, into a folder.", parameter="out"
            )
        if labels is None:
            labels = _blank(grid)
        numbered = zip(batch.geometry, range(features + 1, features + 1 + len(batch)), strict=True)
        drawable = [(shape, value) for shape, value in numbered if shape is not None and not shape.is_empty]
        if drawable:
            rasterize(drawable, out=labels)
        features += len(batch)
    if grid is None:
        raise LayerError("A label image has the size of its raster; name the raster.", parameter="image")
    if labels is None:
        labels = _blank(grid)
    write_labels(path, labels, grid, metadata=dict(stream.metadata))
    seen = np.zeros(features + 1, np.bool_)
    for row in labels:
        seen[row] = True
    hidden = features - int(np.count_nonzero(seen[1:]))
    text = f"{counted(hidden, 'object')} without a pixel: too small for a pixel's centre, or under others."
    notes = [Note("features-dropped", text, about=path.name, kind="doubt")] if hidden else []
    if len(stream.classes) > 1:
        text = f"it holds numbers of objects, not their classes ({len(stream.classes)})."
        notes.append(Note("classes-lost", text, about=path.name, kind="doubt"))
    return Written(path, features - hidden, hidden, tuple(notes))


def _blank(grid: Grid) -> NDArray[np.uint32]:
    if grid.width * grid.height > MOST_PIXELS:
        raise LayerError(
            f"A label image of {grid.width} x {grid.height} px would be held whole, up to {MOST_PIXELS:,} px;"
            " write a .gpkg or .geojson."
        )
    return np.zeros((grid.height, grid.width), np.uint32)


def write_labels(
    path: Path, labels: NDArray[Any], grid: Grid, *, metadata: dict[str, Any] | None = None
) -> None:
    """Write an array of object numbers (0: none) in the place of `grid`; see `write`."""
    is_png = path.suffix.lower() == ".png"
    highest = int(labels.max(initial=0))
    if is_png and highest > 65_535:
        raise LayerError(f"A PNG can number 65,535 objects, and there are {highest:,}; write a .tif.")
    dtype = "uint16" if highest <= 65_535 else "uint32"
    profile: dict[str, Any] = {"driver": "PNG"}
    if not is_png:
        profile = {
            "driver": "GTiff",
            "compress": "deflate",
            "nodata": 0,
            "transform": rasterio.Affine(*grid.transform),
            "crs": None if grid.crs is None else rasterio.CRS.from_wkt(grid.crs.to_wkt()),
        }
        if min(grid.width, grid.height) >= 512:
            profile.update(tiled=True, blockxsize=256, blockysize=256)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            size = {"width": grid.width, "height": grid.height, "count": 1, "dtype": dtype}
            with rasterio.open(path, "w", **size, **profile) as file:
                for row in range(0, grid.height, _STRIP):
                    strip = labels[row : row + _STRIP].astype(dtype)
                    file.write(strip, 1, window=rasterio.windows.Window(0, row, grid.width, len(strip)))
                if metadata and not is_png:
                    file.update_tags(ecodetect=json.dumps(metadata, ensure_ascii=True))
    except RasterioError as error:
        raise OSError(
            f"{path.name}: {error}"
        ) from error  # `formats.write` tells a full disk from other faults
