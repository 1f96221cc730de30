"""LabelMe JSON (also of AnyLabeling and X-AnyLabeling): the shapes of one image in pixels; read only.

A picture in such a file (`imageData`) isn't read. Lines are neither areas nor places of one
object: left out and said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import shapely

from ecodetect.errors import LayerError
from ecodetect.formats.collecting import Collector, Shape, Unusable, box, ellipse, number, polygon, scalar
from ecodetect.formats.image_matching import base_name, check_size, meant_or_refused, stated_size
from ecodetect.formats.text_reading import read_json
from ecodetect.grid import Grid
from ecodetect.layer import Layer


def recognises(path: Path, head: bytes) -> bool:
    """Whether a JSON file is of LabelMe: shapes, or the picture itself, which some versions write first."""
    text = head.replace(b"\0", b"")  # UTF-16
    return b'"imageData"' in text or (b'"shapes"' in text and b'"shape_attributes"' not in text)


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """The shapes of one image in pixels of `grid`; each point of a group of `points` is a feature.

    Columns: `label`, `source`, and `group_id`, `description`, `score`, `difficult` and the flags that are
    set, as far as there are any. A file that was renamed with its image is taken for that image.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise LayerError(f"{path.name} is not of LabelMe: it has no list 'shapes'.")
    collector = Collector(path, "shape")
    name = scalar(content.get("imagePath"))
    name = name if isinstance(name, str) and name else path.stem
    if image is not None:
        meant_or_refused([name, path.stem], image, path)
    else:
        collector.images = (base_name(name),)
    size = stated_size(content.get("imageWidth"), content.get("imageHeight"))
    check_size(size, grid, path)
    collector.size = size
    if size is not None:
        collector.sizes[base_name(name)] = size
    for index, shape in enumerate(content["shapes"], start=1):
        if not isinstance(shape, dict):
            collector.leave_out("not a shape", f"shape {index}")
            continue
        values = _values(shape, base_name(image or name))
        try:
            for geometry in _geometries(shape):
                collector.add(geometry, values)
        except Unusable as reason:
            collector.leave_out(reason, f"shape {index}")
    return collector.layer(grid)


def _values(shape: Mapping[str, Any], source: str) -> dict[str, Any]:
    label = scalar(shape.get("label"))
    values: dict[str, Any] = {"label": "" if label is None else str(label), "source": source}
    for name in ("group_id", "description", "score", "difficult"):
        value = scalar(shape.get(name))
        if value not in (None, ""):
            values[name] = value
    flags = shape.get("flags")
    if isinstance(flags, dict):
        values.update({name: True for name, is_set in flags.items() if is_set is True and name not in values})
    return values


def _geometries(shape: Mapping[str, Any]) -> list[Shape]:
    kind = shape.get("shape_type") or "polygon"  # the first versions knew nothing else
    points = shape.get("points")
    if not isinstance(points, list) or not all(isinstance(xy, list) and len(xy) == 2 for xy in points):
        raise Unusable("points that can't be read")
    corners = [(number(x), number(y)) for x, y in points]
    if kind in ("polygon", "rotation"):
        return [polygon(corners)]
    if kind == "rectangle":
        if len(corners) not in (2, 4):  # two opposite corners, in any order; AnyLabeling writes all four
            raise Unusable(f"a rectangle of {len(corners)} points")
        xs, ys = zip(*corners, strict=True)
        return [box(min(xs), min(ys), max(xs), max(ys))]
    if kind == "circle":
        if len(corners) != 2:
            raise Unusable(f"a circle of {len(corners)} points")
        (x, y), edge = corners
        radius = math.dist((x, y), edge)
        return [ellipse(x, y, radius, radius)]
    if kind in ("point", "points"):
        return [shapely.Point(xy) for xy in corners]
    if kind == "mask":
        raise Unusable("a mask; turn it into a polygon in LabelMe")
    raise Unusable(f"a {str(kind)[:20]}, which is not the place of one object")
