"""DotDotGoose (.pnt): points by image and class, in pixels; read only. Its table of points is read as CSV."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import shapely

from ecodetect.errors import LayerError
from ecodetect.formats.collecting import Collector, Unusable, number
from ecodetect.formats.image_matching import base_name, left_out, meant_or_refused
from ecodetect.formats.text_reading import read_json
from ecodetect.grid import Grid
from ecodetect.layer import Layer


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """Points of `image` (or of all) in pixels of `grid`; columns `label` and `source`."""
    content = read_json(path)
    points = content.get("points") if isinstance(content, dict) else None
    if not isinstance(points, dict) or not isinstance(content.get("classes"), list):
        raise LayerError(f"{path.name} is not of DotDotGoose: it has no points by image and class.")
    collector = Collector(path, "point")
    wanted = None
    if image is None:
        collector.images = tuple(points)
    else:
        wanted = meant_or_refused(points, image, path)
    others: Counter[str] = Counter()
    for name, classes in points.items():
        marked = classes if isinstance(classes, dict) else {}
        if wanted is not None and name not in wanted:
            others[name] += sum(len(found) for found in marked.values() if isinstance(found, list))
            continue
        for label, found in marked.items():
            for index, point in enumerate(found if isinstance(found, list) else (), start=1):
                try:
                    if not isinstance(point, dict):
                        raise Unusable("a point that can't be read")
                    place = shapely.Point(number(point.get("x"), "x"), number(point.get("y"), "y"))
                except Unusable as reason:
                    collector.leave_out(reason, f"{base_name(name)[:60]} {label[:20]} {index}")
                    continue
                collector.add(place, {"label": label, "source": name if image is None else base_name(image)})
    if sum(others.values()):
        collector.notes.append(left_out(others, path, "point"))
    return collector.layer(grid)
