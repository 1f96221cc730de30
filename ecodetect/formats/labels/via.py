"""VGG Image Annotator (VIA 1 and 2): its projects and annotations (JSON, CSV), in pixels; read only.

Polylines aren't areas; they are left out with a note.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import shapely

from ecodetect.errors import LayerError
from ecodetect.formats.collecting import Collector, Shape, Unusable, box, ellipse, number, polygon, scalar
from ecodetect.formats.image_matching import base_name, left_out, meant_or_refused
from ecodetect.formats.text_reading import read_json, read_text
from ecodetect.grid import Grid
from ecodetect.layer import Layer

_CSV_HEAD = re.compile(rb"^\W*#?\W*filename\b[^\r\n]*\bregion_shape_attributes\b")
_MOST_ATTRIBUTES = 1_000  # a column is as long as the layer

Regions = list[tuple[str, Any, Any, str]]  # image, shape, attributes, where it stands


def recognises(path: Path, head: bytes) -> bool:
    """Whether a JSON or CSV file is of VIA."""
    text = head.replace(b"\0", b"")  # UTF-16
    if path.suffix.lower() == ".csv":
        return _CSV_HEAD.search(text) is not None
    if any(name in text for name in (b'"shape_attributes"', b'"_via_', b'"fid_list"')):  # the last: VIA 3
        return True
    return all(name in text for name in (b'"filename"', b'"regions"'))


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """Regions of `image` (or of all, with a column `source`) in pixels of `grid`.

    Columns: `source`, and each region attribute under its name; an only attribute is the `label`, whatever
    its name. Checkboxes give those that are ticked.
    """
    regions, images = _from_csv(path) if path.suffix.lower() == ".csv" else _from_json(path)
    collector = Collector(path, "region")
    wanted = None
    if image is None:
        collector.images = tuple(dict.fromkeys(images))
    elif images:
        wanted = meant_or_refused(images, image, path)
    names = dict.fromkeys(
        name for _, _, attributes, _ in regions if isinstance(attributes, dict) for name in attributes
    )
    if len(names) > _MOST_ATTRIBUTES:
        raise LayerError(f"{path.name} has more than {_MOST_ATTRIBUTES} different attributes.")
    others: Counter[str] = Counter()
    for source, shape, attributes, where in regions:
        if wanted is not None and source not in wanted:
            others[source] += 1
            continue
        try:
            geometry = _geometry(shape)
        except Unusable as reason:
            collector.leave_out(reason, where)
            continue
        values = {name: _text(value) for name, value in _items(attributes)}
        if len(names) == 1:
            values = {"label": next(iter(values.values()), "")}
        values.pop("source", None)
        collector.add(geometry, {**values, "source": source if image is None else base_name(image)})
    if sum(others.values()):
        collector.notes.append(left_out(others, path, "region"))
    return collector.layer(grid)


def _from_json(path: Path) -> tuple[Regions, list[str]]:
    """All regions of a project, or of exported annotations, and the names of all images."""
    content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get("_via_img_metadata"), dict):
        content = content["_via_img_metadata"]
    if not isinstance(content, dict):
        raise LayerError(f"{path.name} is not of VIA: it is not a project and no list of files with regions.")
    regions: Regions = []
    images = []
    for entry in content.values():
        if not isinstance(entry, dict) or not isinstance(entry.get("filename"), str):
            continue
        name = entry["filename"]
        images.append(name)
        for index, region in enumerate(_listed(entry.get("regions")), start=1):
            shape, attributes = (region.get(key) for key in ("shape_attributes", "region_attributes"))
            regions.append((name, shape, attributes, f"{base_name(name)[:60]} region {index}"))
    if not images:
        raise LayerError(
            f"{path.name} has no files with regions as VIA 1 and 2 write them; of VIA 3 export COCO."
        )
    return regions, images


def _listed(regions: Any) -> Iterator[Mapping[str, Any]]:
    """Regions as version 2 has them (a list) and version 1 (by number)."""
    values: Iterable[Any] = regions.values() if isinstance(regions, dict) else regions or ()
    if isinstance(values, (list, type({}.values()))):
        yield from (region for region in values if isinstance(region, dict))


def _from_csv(path: Path) -> tuple[Regions, list[str]]:
    """All regions of a table, and the names of all images; an image without any has a row without a shape."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    regions: Regions = []
    images = []
    header: list[str] = []
    try:
        for row in reader:
            if not row:
                continue
            if not header:
                header = [name.strip().lstrip("#").strip() for name in row]
                continue
            cells = dict(zip(header, row, strict=False))
            name = cells.get("filename", "").strip()
            if not name:
                continue
            images.append(name)
            shape = _object(cells.get("region_shape_attributes", ""))
            if shape:
                attributes = _object(cells.get("region_attributes", ""))
                regions.append((name, shape, attributes, f"line {reader.line_num}"))
    except csv.Error as error:
        raise LayerError(f"{path.name} can't be read at line {reader.line_num}: {error}.") from error
    return regions, images


def _object(cell: str) -> Any:
    """A cell that holds JSON; what isn't is a shape that can't be used."""
    try:
        return json.loads(cell or "{}")
    except (ValueError, RecursionError):
        return {"name": "a text that isn't JSON"}


def _items(attributes: Any) -> Iterable[tuple[str, Any]]:
    return attributes.items() if isinstance(attributes, dict) else ()


def _text(value: Any) -> Any:
    """An attribute's value; of checkboxes the names of the ticked ones."""
    if isinstance(value, dict):
        return ", ".join(name for name, is_ticked in value.items() if is_ticked is True)
    return scalar(value)


def _geometry(shape: Any) -> Shape:
    if not isinstance(shape, dict):
        raise Unusable("a region without a shape")

    def value(name: str) -> float:
        return number(shape.get(name), name)

    kind = shape.get("name")
    if kind == "rect":
        x, y = value("x"), value("y")
        return box(x, y, x + value("width"), y + value("height"))
    if kind == "circle":
        return ellipse(value("cx"), value("cy"), value("r"), value("r"))
    if kind == "ellipse":
        degrees = math.degrees(number(shape.get("theta") or 0, "theta"))  # VIA counts in radians, clockwise
        return ellipse(value("cx"), value("cy"), value("rx"), value("ry"), degrees)
    if kind == "polygon":
        xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            raise Unusable("a polygon whose points can't be read")
        return polygon([(number(x), number(y)) for x, y in zip(xs, ys, strict=True)])
    if kind == "point":
        return shapely.Point(value("cx"), value("cy"))
    raise Unusable(f"a {str(kind)[:20]}, which is not the place of one object")
