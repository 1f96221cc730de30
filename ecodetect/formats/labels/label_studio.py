"""Label Studio JSON (tasks, and the short JSON-MIN): regions in percent of the image; read only.

Boxes turn about their top-left corner, clockwise. If one task has several annotations (by several people),
one is read: the ground truth, else the last. Cancelled annotations and predictions are not read. Brush
strokes (a run-length code of Label Studio's own) are left out and counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import shapely

from ecodetect.errors import LayerError
from ecodetect.formats.collecting import Collector, Shape, Unusable, ellipse, number, polygon, scalar, turned
from ecodetect.formats.image_matching import (
    base_name,
    check_size,
    left_out,
    meant,
    meant_or_refused,
    stated_size,
)
from ecodetect.formats.text_reading import read_json
from ecodetect.grid import Grid
from ecodetect.layer import Layer
from ecodetect.wording import counted

_KINDS = ("rectangle", "polygon", "ellipse", "keypoint", "brush")
_IMAGE_FIELDS = ("image", "img", "url", "image_url", "ocr", "captioning")


def recognises(path: Path, head: bytes) -> bool:
    """Whether a JSON file is of Label Studio: tasks with results, or regions in their short form."""
    text = head.replace(b"\0", b"")  # UTF-16
    return any(name in text for name in (b'"result"', b'"completions"', b'"original_width"', b'"data"'))


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """Regions of `image` (or of all tasks, with a column `source`) in pixels of `grid`.

    Columns: `label`, `source`, `id`.
    """
    content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get("tasks"), list):
        content = content["tasks"]
    tasks = content if isinstance(content, list) else [content]
    is_known = any(isinstance(task, dict) and (_has_annotations(task) or _short_form(task)) for task in tasks)
    if not is_known or not all(isinstance(task, dict) for task in tasks):
        raise LayerError(f"{path.name} is not of Label Studio: it is not a list of tasks with annotations.")
    collector = Collector(path, "region")
    names = [_names(task) for task in tasks]
    wanted = None if image is None or not tasks else _wanted(names, image, path)
    others: Counter[str] = Counter()
    for task, (name, _) in zip(tasks, names, strict=True):
        regions = _regions(task, name, collector)
        if wanted is not None and name not in wanted:
            others[name] += len(regions)
            continue
        _collect(regions, name if image is None else base_name(image), grid, collector)
        if wanted is None and collector.size is not None:
            collector.sizes[name] = collector.size
    if len(tasks) > 1 and wanted is None:
        collector.size = None
    if sum(others.values()):
        collector.notes.append(left_out(others, path, "region"))
    return collector.layer(grid)


def _names(task: Mapping[str, Any]) -> tuple[str, str]:
    """The image's name, and that of the upload without the code that Label Studio puts before it."""
    data = task.get("data") if isinstance(task.get("data"), dict) else task
    assert isinstance(data, Mapping)
    values = [data.get(key) for key in (*_IMAGE_FIELDS, *data)]
    address = next(
        (value for value in values if isinstance(value, str) and re.search(r"\.\w{2,5}(\?|$)", value)), ""
    )
    address = unquote(address)
    _, is_local, local = address.partition("?d=")  # /data/local-files/?d=plots/x.tif
    name = local if is_local else address.partition("?")[0]
    upload = task.get("file_upload")
    original = upload if isinstance(upload, str) else base_name(name)
    return name or original, re.sub(r"^[0-9a-fA-F]{4,8}-", "", original)


def _wanted(names: list[tuple[str, str]], image: str, path: Path) -> frozenset[str]:
    found = meant([name for name, _ in names], image, path)
    if not found:
        uploads = meant_or_refused([upload for _, upload in names], image, path)
        found = frozenset(name for name, upload in names if upload in uploads)
    return found


def _has_annotations(task: Mapping[str, Any]) -> bool:
    return isinstance(task.get("annotations", task.get("completions")), list)


def _short_form(task: Mapping[str, Any]) -> list[Any]:
    """The regions of JSON-MIN, which stand in a member of the task called like the control."""
    lists = [value for value in task.values() if isinstance(value, list)]
    return [region for found in lists for region in found if _kind(region) is not None]


def _regions(task: Mapping[str, Any], name: str, collector: Collector) -> list[Any]:
    """The regions of the one annotation that counts."""
    made = task.get("annotations", task.get("completions"))
    if not isinstance(made, list):
        return _short_form(task)
    made = [one for one in made if isinstance(one, dict) and isinstance(one.get("result"), list)]
    done = [one for one in made if not one.get("was_cancelled") and not one.get("skipped")]
    if len(done) < len(made):
        cancelled = counted(len(made) - len(done), "cancelled annotation")
        collector.note("annotations-cancelled", f"{cancelled} of {base_name(name)} not read.")
    if not done:
        if task.get("predictions") and not made:
            text = f"{base_name(name)} has predictions but no annotation; predictions are not read."
            collector.note("predictions-unread", text, "doubt")
        return []
    if len(done) > 1:
        text = f"{base_name(name)} has {len(done)} annotations; the ground truth, else the last, is read."
        collector.note("annotation-chosen", text, "choice")
    _, best = max(
        enumerate(done), key=lambda item: (item[1].get("ground_truth") is True, _changed(item[1]), item[0])
    )
    return list(best["result"])


def _changed(annotation: Mapping[str, Any]) -> str:
    return str(annotation.get("updated_at") or "")  # ISO 8601: later is greater


def _collect(regions: list[Any], source: str, grid: Grid | None, collector: Collector) -> None:
    labels: dict[str, str] = {}  # a region drawn without a label has it in a second entry with the same id
    for region in regions:
        if isinstance(region, dict) and isinstance(region.get("id"), str):
            labels.setdefault(region["id"], "")
            labels[region["id"]] = _label(region) or labels[region["id"]]
    for index, region in enumerate(regions):
        kind = _kind(region)
        if kind is None:  # a choice, a text, a relation
            continue
        try:
            shape = _shape(kind, region, grid, collector)
        except Unusable as reason:
            collector.leave_out(reason, f"region {region.get('id', index + 1)}"[:40])
            continue
        named = scalar(region.get("id"))
        label = _label(region) or labels.get(named, "") if isinstance(named, str) else _label(region)
        collector.add(shape, {"label": label, "source": source, "id": named})


def _value(region: Mapping[str, Any]) -> Mapping[str, Any]:
    value = region.get("value")
    return value if isinstance(value, dict) else region  # JSON-MIN has no `value`


def _kind(region: Any) -> str | None:
    if not isinstance(region, dict):
        return None
    value = _value(region)
    words = [str(region.get("type", "")), *map(str, value)]
    found = next((kind for kind in _KINDS if any(word in (kind, f"{kind}labels") for word in words)), None)
    if region.get("type") in ("labels", "choices", "textarea", "taxonomy", "rating", "number"):
        return None
    return found


def _label(region: Mapping[str, Any]) -> str:
    for name, value in _value(region).items():
        if name.endswith("labels") and isinstance(value, list) and value:
            return str(value[0])
    return ""


def _shape(kind: str, region: Mapping[str, Any], grid: Grid | None, collector: Collector) -> Shape:
    value = _value(region)
    if kind == "brush":
        raise Unusable("a brush stroke; export polygons, or masks as label images")
    stated = stated_size(region.get("original_width"), region.get("original_height"))
    if grid is None and stated is None:
        raise Unusable("percent of an image whose size isn't stated; name it")
    width, height = (grid.width, grid.height) if grid is not None else stated or (1, 1)
    if stated is not None and stated != (width, height):
        # Percent fit a smaller copy of the raster as well, but not another picture.
        if abs(stated[0] / stated[1] * height / width - 1) > 0.01:
            check_size(stated, grid, collector.path)
        text = f"drawn on a copy of {stated[0]} x {stated[1]} px, laid over the raster's {width} x {height}."
        collector.note("drawn-on-a-copy", text, "choice")
    collector.size = stated
    if number(region.get("image_rotation") or 0) % 360:
        raise Unusable("drawn on a turned image")
    degrees = number(value.get("rotation") or 0, "rotation")

    def across(name: str) -> float:
        return number(value.get(name), name) * width / 100

    def down(name: str) -> float:
        return number(value.get(name), name) * height / 100

    if kind == "polygon":
        points = value.get("points")
        if not isinstance(points, list):
            raise Unusable("a polygon without points")
        return polygon(list(_points(points, width, height)))
    if kind == "rectangle":
        x, y, w, h = across("x"), down("y"), across("width"), down("height")
        if w <= 0 or h <= 0:
            raise Unusable("a box without area")
        return turned([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], degrees, (x, y))
    if kind == "ellipse":
        return ellipse(across("x"), down("y"), across("radiusX"), down("radiusY"), degrees)
    return shapely.Point(across("x"), down("y"))


def _points(points: list[Any], width: int, height: int) -> Iterator[tuple[float, float]]:
    for point in points:
        if not isinstance(point, list) or len(point) != 2:
            raise Unusable("a polygon whose points can't be read")
        yield number(point[0]) * width / 100, number(point[1]) * height / 100
