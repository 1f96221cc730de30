"""Pascal VOC XML: the boxes of one image, in pixels as they are written, never shifted.

Exporters don't agree whether VOC's corners count from 0 or 1 and whether the last pixel belongs to a box; a
shift by guess would be wrong for most files there are. A folder of VOC files is read as one layer.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import shapely

from ecodetect.errors import LayerError
from ecodetect.formats.collecting import Collector, Shape, Unusable, box, number, turned
from ecodetect.formats.image_matching import (
    base_name,
    check_size,
    left_out,
    listed,
    meant,
    only_image,
    stated_size,
)
from ecodetect.formats.labels.xml_writing import escaped
from ecodetect.formats.protocol import Written
from ecodetect.formats.xml_reading import read_xml
from ecodetect.grid import Grid
from ecodetect.layer import Layer, Stream
from ecodetect.notes import Note
from ecodetect.wording import counted

_FLAGS = ("difficult", "truncated", "occluded")
_VALUES = ("score", "area_m2", "diameter_m")


def recognises(path: Path, head: bytes) -> bool:
    """Whether an XML file, or a folder of them, is Pascal VOC."""
    if path.is_dir():
        return any(path.glob("*.xml"))
    return re.search(rb"<annotation[\s>]", head.replace(b"\0", b"")) is not None


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """Objects of one VOC file, or of those in a folder that mean `image`, in pixels of `grid`.

    A file means the image in its `filename`, or the one that has its own name: renamed files rarely have
    their `filename` brought up to date. Columns: `label`, `source`, and `id`, `score`, `difficult`,
    `truncated`, `occluded` as far as there are any.
    """
    collector = Collector(path, "object")
    files = sorted(path.glob("*.xml")) if path.is_dir() else [path]
    others: Counter[str] = Counter()
    seen = []
    strangers = 0
    for file in files:
        root = read_xml(file)
        if root.tag != "annotation":
            strangers += 1
            if strangers < len(files):
                continue
            if path.is_dir():
                raise LayerError(f"{path} holds no annotations: none of its XML files is Pascal VOC.")
            raise LayerError(
                f"{path.name} is not Pascal VOC: its root is <{root.tag[:40]}>, not <annotation>."
            )
        name = _text(root, "filename") or _text(root, "path")
        is_named = bool(name) or path.is_dir()
        if image is not None and is_named and not meant([name or file.name, file.name], image, file):
            others[name or file.name] += len(root.findall("object"))
            continue
        size = root.find("size")
        stated = None if size is None else stated_size(_text(size, "width"), _text(size, "height"))
        check_size(stated, grid, file)
        seen.append(name)
        collector.size = stated if len(files) == 1 or image is not None else None
        _read_objects(
            root, collector, base_name(image or name or file.stem), "" if file == path else f"{file.name} "
        )
    if image is not None and not seen:
        there = listed(others) if others else "no image"
        raise LayerError(
            f"{path.name} says nothing about {base_name(image)}: it is about {there}; is it the right file?"
        )
    if sum(others.values()):
        collector.notes.append(left_out(others, path, "object"))
    return collector.layer(grid)


def _read_objects(root: Element, collector: Collector, source: str, prefix: str) -> None:
    for index, element in enumerate(root.iterfind("object")):
        try:
            shape = _shape(element)
        except Unusable as reason:
            collector.leave_out(reason, f"{prefix}object {index + 1}")
            continue
        values: dict[str, Any] = {"label": _text(element, "name"), "source": source}
        if _text(element, "id"):
            values["id"] = _text(element, "id")
        for name in _FLAGS:
            if _text(element, name) in ("0", "1"):
                values[name] = int(_text(element, name))
        for name in _VALUES:
            try:
                values[name] = number(_text(element, name))
            except Unusable:
                continue
        collector.add(shape, values)


def _shape(element: Element) -> Shape:
    corners = element.find("bndbox")
    if corners is not None:
        names = ("xmin", "ymin", "xmax", "ymax")
        return box(*(number(_text(corners, name) or None, name) for name in names))
    turned_box = element.find("robndbox")  # roLabelImg: centre, size, angle in radians
    if turned_box is None:
        raise Unusable("an object without bndbox")
    cx, cy, w, h, angle = (
        number(_text(turned_box, name) or None, name) for name in ("cx", "cy", "w", "h", "angle")
    )
    if w <= 0 or h <= 0:
        raise Unusable("a box without area")
    ring = [(cx + sx * w / 2, cy + sy * h / 2) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return turned(ring, math.degrees(angle), (cx, cy))


def _text(element: Element, name: str) -> str:
    return (element.findtext(name) or "").strip()


def write(path: Path, stream: Stream) -> Written:
    """Write the boxes around the features of one image: pixels with 6 decimals.

    Raises LayerError for a layer of points, for several images, and where the image's size is unknown.
    """
    features = dropped = shrunk = 0
    grid = stream.grid
    with path.open("w", encoding="utf-8", errors="xmlcharrefreplace", newline="\n") as file:
        body_started = False
        for batch in stream:
            if grid is None:
                grid = batch.grid
            if batch.grid is None or grid is None:
                raise LayerError(
                    "VOC is in pixels of an image of known size; name the raster.", parameter="image"
                )
            if batch.grid != grid:
                raise LayerError(
                    "VOC holds one image per file; write one file for each, into a folder.", parameter="out"
                )
            if not body_started:
                file.write(_opening(_source(batch, stream), grid))
                body_started = True
            has_area = np.isin(shapely.get_type_id(batch.geometry), (3, 6)) & ~shapely.is_empty(
                batch.geometry
            )
            dropped += int(np.count_nonzero(~has_area))
            batch = batch[has_area]
            bounds = shapely.bounds(batch.geometry).reshape(-1, 4)
            boxed = np.prod(bounds[:, 2:] - bounds[:, :2], axis=1)
            shrunk += int(np.count_nonzero(shapely.area(batch.geometry) < boxed * (1 - 1e-6)))
            columns = {name: np.asarray(values).tolist() for name, values in batch.columns.items()}
            for row, corners in enumerate(bounds.tolist()):
                file.write(_object(corners, {name: values[row] for name, values in columns.items()}))
            features += len(batch)
        if not body_started:
            if grid is None:
                raise LayerError(
                    "VOC is in pixels of an image of known size; name the raster.", parameter="image"
                )
            file.write(_opening(only_image(stream.metadata), grid))
        file.write("</annotation>\n")
    notes = []
    if dropped:
        if not features:
            raise LayerError("VOC holds boxes, but the layer has points; write a .csv or .geojson.")
        text = f"{counted(dropped, 'feature')} without area left out: VOC holds boxes."
        notes.append(Note("features-dropped", text, about=path.name, kind="doubt"))
    if shrunk:
        text = f"{counted(shrunk, 'shape')} written as the box around: VOC holds boxes."
        notes.append(Note("shapes-simplified", text, about=path.name))
    return Written(path, features, dropped, tuple(notes))


def _source(batch: Layer, stream: Stream) -> str:
    sources = batch.columns.get("source")
    known = sources is not None and len(sources)
    return str(sources[0]) if sources is not None and known else only_image(stream.metadata)


def _opening(source: str, grid: Grid) -> str:
    return (
        f"<annotation>\n  <filename>{escaped(source)}</filename>\n"
        f"  <size><width>{grid.width}</width><height>{grid.height}</height></size>\n"
    )


def _object(corners: list[float], values: dict[str, Any]) -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    label = escaped(str(values.get("label", "") or "object"))
    lines = [f"  <object>\n    <name>{label}</name>"]
    for name in ("id", *_VALUES, *_FLAGS):
        value = values.get(name)
        if value not in (None, "") and value == value:
            lines.append(f"    <{name}>{escaped(str(value))}</{name}>")
    drawn = "".join(f"<{name}>{value:.6f}</{name}>" for name, value in zip(names, corners, strict=True))
    return "\n".join([*lines, f"    <bndbox>{drawn}</bndbox>", "  </object>\n"])
