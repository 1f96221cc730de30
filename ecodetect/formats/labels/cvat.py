"""CVAT for images 1.1 (XML): boxes, polygons, ellipses, points and masks in pixels; read only.

Polylines, cuboids and skeletons are neither areas nor places of one object: they are left out with a note.
Tracks of `CVAT for video` are read where they show a single frame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import shapely

from ecodetect.errors import LayerError
from ecodetect.formats.collecting import Collector, Shape, Unusable, ellipse, number, polygon, turned
from ecodetect.formats.collecting import box as upright
from ecodetect.formats.image_matching import base_name, check_size, left_out, meant_or_refused, stated_size
from ecodetect.formats.labels.masks import from_runs, outline
from ecodetect.formats.xml_reading import read_xml
from ecodetect.grid import Grid
from ecodetect.layer import Layer


def recognises(path: Path, head: bytes) -> bool:
    """Whether an XML file is one of CVAT."""
    return path.is_file() and b"<annotations" in head.replace(b"\0", b"")


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """Shapes of `image` (or of all, with a column `source`) in pixels of `grid`.

    Each point of a `points` element is a feature. Columns: `label`, `source`, `occluded` and CVAT's
    attributes.
    """
    root = read_xml(path)
    if root.tag != "annotations":
        raise LayerError(f"{path.name} is not CVAT XML: its root is <{root.tag[:40]}>, not <annotations>.")
    collector = Collector(path, "shape")
    images = root.findall("image")
    if not images:
        return _tracks(root, collector, grid, image)
    names = [element.get("name", "") for element in images]
    wanted = None if image is None else meant_or_refused(names, image, path)
    others: Counter[str] = Counter()
    for element, name in zip(images, names, strict=True):
        if wanted is not None and name not in wanted:
            others[name] += len(element)
            continue
        size = stated_size(element.get("width"), element.get("height"))
        check_size(size, grid, path)
        if wanted is not None or len(images) == 1:
            collector.size = size
        elif size is not None:
            collector.sizes[name] = size
        for child in element:
            _collect(child, child.get("label", ""), name if image is None else base_name(image), collector)
    if sum(others.values()):
        collector.notes.append(left_out(others, path, "shape"))
    return collector.layer(grid)


def _tracks(root: Element, collector: Collector, grid: Grid | None, image: str | None) -> Layer:
    """The shapes of tracks, which are numbered by frames of a video and name no image."""
    seen = [
        (track.get("label", ""), shape)
        for track in root.iterfind("track")
        for shape in track
        if shape.get("frame") is not None and shape.get("outside") != "1"
    ]
    frames = {shape.get("frame") for _, shape in seen}
    if len(frames) > 1:
        raise LayerError(
            f"{collector.path.name} has tracks over {len(frames)} frames of a video;"
            " export the task as 'CVAT for images 1.1'."
        )
    size = root.find("meta//original_size")
    if size is not None:
        collector.size = stated_size(size.findtext("width"), size.findtext("height"))
        check_size(collector.size, grid, collector.path)
    for label, shape in seen:
        _collect(shape, label, base_name(image or ""), collector)
    return collector.layer(grid)


def _collect(element: Element, label: str, source: str, collector: Collector) -> None:
    if element.tag == "tag":  # a word about the whole image
        return
    values: dict[str, Any] = {"label": label, "source": source}
    if element.get("occluded") in ("0", "1"):
        values["occluded"] = int(element.get("occluded", "0"))
    for attribute in element.iterfind("attribute"):
        name = attribute.get("name", "")
        if name and name not in values:
            values[name] = (attribute.text or "").strip()
    try:
        for shape in _shapes(element):
            collector.add(shape, values)
    except Unusable as reason:
        collector.leave_out(reason, f"{element.tag} labelled '{label}'")


def _shapes(element: Element) -> Iterator[Shape]:
    def value(name: str) -> float:
        return number(element.get(name), name)

    degrees = number(element.get("rotation") or 0.0, "rotation")
    if element.tag == "box":
        x0, y0, x1, y1 = (value(name) for name in ("xtl", "ytl", "xbr", "ybr"))
        shape = upright(x0, y0, x1, y1)
        if degrees:
            corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
            shape = turned(corners, degrees, ((x0 + x1) / 2, (y0 + y1) / 2))
        yield shape
    elif element.tag == "polygon":
        yield polygon(_points(element))
    elif element.tag == "ellipse":
        yield ellipse(value("cx"), value("cy"), value("rx"), value("ry"), degrees)
    elif element.tag == "points":
        yield from (shapely.Point(xy) for xy in _points(element))
    elif element.tag == "mask":
        left, top, width, height = (int(value(name)) for name in ("left", "top", "width", "height"))
        try:
            counts = [int(count) for count in element.get("rle", "").split(",")]
        except ValueError:
            raise Unusable("a mask whose run lengths are damaged") from None
        mask, y, x = from_runs(counts, height, width)
        yield outline(mask, left + x, top + y)
    else:
        raise Unusable(f"a {element.tag[:20]}, which is not the place of one object")


def _points(element: Element) -> list[tuple[float, float]]:
    points = []
    for pair in element.get("points", "").split(";"):
        x, comma, y = pair.partition(",")
        if not comma:
            raise Unusable("points that can't be read")
        points.append((number(x), number(y)))
    return points
