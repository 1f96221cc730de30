"""MegaDetector's results (and of what speaks its format: AddaxAI, SpeciesNet): boxes with scores; read only.

Boxes are shares of the image's width and height, from the top-left corner; the short form of PyTorch-Wildlife
has pixels. A box's best classification, where there is one, is its class, with its score beside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecodetect.errors import LayerError
from ecodetect.formats.collecting import Collector, Shape, Unusable, box, number, scalar
from ecodetect.formats.image_matching import base_name, left_out, meant_or_refused
from ecodetect.formats.text_reading import read_json
from ecodetect.grid import Grid
from ecodetect.layer import Layer
from ecodetect.wording import counted


def recognises(path: Path, head: bytes) -> bool:
    """Whether a JSON file holds such results: detections by file."""
    text = head.replace(b"\0", b"")  # UTF-16
    if b'"detection_categories"' in text:
        return True
    return all(name in text for name in (b'"file"', b'"detections"'))


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """Detections in `image` (or in all, with a column `source`) in pixels of `grid`.

    Columns: `label`, `source`, `score`, and where a classifier has looked at them `detection` (animal,
    person, vehicle) and `classification_score`. Images that could not be read are unknown, not empty. Without
    a grid the coordinates are shares of the images' sizes (`metadata["frame"]`).
    """
    content = read_json(path)
    entries, categories, species = _parts(content, path)
    collector = Collector(path, "detection")
    collector.frame = "pixel" if isinstance(content, list) else "share"
    done = [name for name, entry in entries if isinstance(entry.get("detections"), list)]
    failed = len(entries) - len(done)
    wanted = None
    if image is None:
        collector.images = tuple(done)
    else:
        wanted = meant_or_refused([name for name, _ in entries], image, path)
        unread = [name for name, entry in entries if name in wanted and name not in set(done)]
        if unread:
            raise LayerError(f"{path.name} has no result for {base_name(image)}: it could not be read there.")
    if failed and wanted is None:
        text = f"its detector could not read {counted(failed, 'image')}: unknown, not empty."
        collector.note("images-unread", text, "doubt")
    low = _typical_threshold(content)
    others: Counter[str] = Counter()
    below = 0
    for name, entry in entries:
        found = entry.get("detections")
        for index, detection in enumerate(found if isinstance(found, list) else (), start=1):
            if wanted is not None and name not in wanted:
                others[name] += 1
                continue
            try:
                if not isinstance(detection, dict):
                    raise Unusable("not a detection")
                values = _values(detection, categories, species)
                shape = _shape(detection, is_share=collector.frame == "share")
            except Unusable as reason:
                collector.leave_out(reason, f"{base_name(name)[:60]} {index}")
                continue
            below += values["score"] is not None and values["score"] < low
            collector.add(shape, {**values, "source": name if image is None else base_name(image)})
    if sum(others.values()):
        collector.notes.append(left_out(others, path, "detection"))
    if below:
        collector.note(
            "scores-low",
            f"{counted(below, 'detection')} of {len(collector)} with a score below {low:g}, the threshold"
            " that its detector recommends; all are read.",
        )
    return collector.layer(grid)


def _parts(
    content: Any, path: Path
) -> tuple[list[tuple[str, Mapping[str, Any]]], Mapping[str, str], Mapping[str, str]]:
    """The entries of images with their names, and the names of categories and of classifications by id."""
    listed_ = content.get("images") if isinstance(content, dict) else content
    if not isinstance(listed_, list):
        raise LayerError(f"{path.name} is not of MegaDetector: it has no list of images with detections.")
    entries: list[tuple[str, Mapping[str, Any]]] = [
        (entry["file"], entry)
        for entry in listed_
        if isinstance(entry, dict) and isinstance(entry.get("file"), str)
    ]
    if not entries and listed_:
        raise LayerError(f"{path.name} is not of MegaDetector: its images have no 'file' with their name.")
    members = content if isinstance(content, dict) else {}
    return entries, _names(members, "detection_categories"), _names(members, "classification_categories")


def _names(content: Mapping[str, Any], member: str) -> Mapping[str, str]:
    found = content.get(member)
    return {str(key): str(name) for key, name in found.items()} if isinstance(found, dict) else {}


def _typical_threshold(content: Any) -> float:
    """The score from which on the detector's authors count a detection; 0 where the file doesn't say."""
    value: Any = content
    for member in ("info", "detector_metadata", "typical_detection_threshold"):
        value = value.get(member) if isinstance(value, dict) else None
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1 else 0.0


def _values(
    detection: Mapping[str, Any], categories: Mapping[str, str], species: Mapping[str, str]
) -> dict[str, Any]:
    if detection.get("frame_number") is not None:
        raise Unusable("a frame of a video")
    category = str(detection.get("category", ""))
    if categories and category not in categories:
        raise Unusable(f"the category {category[:20]}, which the file doesn't name")  # "no detection"
    label = categories.get(category, category)
    score = detection.get("conf", detection.get("confidence"))
    values: dict[str, Any] = {
        "label": label,
        "score": None if scalar(score) is None else number(score, "conf"),
    }
    best = detection.get("classifications")
    if isinstance(best, list) and best and isinstance(best[0], list) and len(best[0]) == 2:
        name, how_sure = best[0]  # in descending order
        values.update(label=species.get(str(name), str(name)), detection=label)
        values["classification_score"] = number(how_sure, "a classification's score")
    return values


def _shape(detection: Mapping[str, Any], *, is_share: bool) -> Shape:
    corners = detection.get("bbox")
    if not isinstance(corners, list) or len(corners) != 4:
        raise Unusable("no bbox")
    x, y, right, bottom = (number(value) for value in corners)
    if not is_share:
        return box(x, y, right, bottom)
    if max(abs(x), abs(y), right, bottom) > 2:
        raise Unusable("coordinates that are not shares of the image's size")
    return box(x, y, x + right, y + bottom)
