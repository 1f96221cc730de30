"""YOLO label files: class numbers and shares of the image's width and height, one object per line.

Boxes (`class cx cy w h`), polygons (`class x1 y1 x2 y2 …`) and turned boxes (four corners), each with or
without a confidence at the end. Class numbers are 0-based. Their names come from `STEM.names` beside the
file, from a `data.yaml` in a folder above it, or from a `classes.txt`. A `data.yaml`, or a folder of label
files, is read as the labels of one image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.errors import LayerError
from ecodetect.formats.collecting import Collector, Shape, Unusable, box, number, polygon
from ecodetect.formats.image_matching import base_name, meant_or_refused
from ecodetect.formats.protocol import Written
from ecodetect.formats.text_reading import decoded, read_bytes, read_text
from ecodetect.grid import Grid
from ecodetect.layer import Layer, Stream
from ecodetect.notes import Note
from ecodetect.wording import counted

SIDE_SUFFIXES = (".names",)
CONTENT_SUFFIXES = (".names",)  # which says what the class numbers mean
_YAML = (".yaml", ".yml")
_DATASETS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_CLASS_LISTS = ("classes.txt", "obj.names", "predefined_classes.txt")
_FOLDERS_UP = 4  # labels/train/x.txt: data.yaml is two up; exports add one or two
_IMAGES = {".bmp", ".jpeg", ".jpg", ".jp2", ".png", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True, slots=True)
class _Dataset:
    """Label files by the name of their image, and what their numbers mean."""

    labels: Mapping[str, Path] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    has_keypoints: bool = False


def recognises(path: Path, head: bytes) -> bool:
    """Whether a text file has label lines (numbers apart by blanks), or a folder has label files."""
    if path.is_dir():
        return _yaml_in(path) is not None or any(path.glob("*.txt"))
    if path.suffix.lower() in _YAML:
        return True
    lines = head.decode("utf-8", errors="replace").lstrip("\ufeff").split("\n")
    first = next((line.split() for line in lines if line.strip()), [])
    return not first or (len(first) >= 5 and all(re.fullmatch(r"[-+.\deE]+", word) for word in first))


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """Objects of a label file, or of that of `image` in a `data.yaml` or folder, in pixels of `grid`.

    An empty label file, and an image without one, has no objects. Columns: `label`, `source`, `score`.
    Raises LayerError without a grid: the lines hold shares of the image's size.
    """
    if grid is None:
        raise LayerError(
            f"{path.name} holds shares of the image's width and height; name the image.",
            parameter="image",
        )
    if path.suffix.lower() in _YAML:
        dataset = _from_yaml(path)
    elif path.is_dir():
        data = _yaml_in(path)
        dataset = _from_folder(path) if data is None else _from_yaml(data)
    else:
        near = _near(path)
        dataset = _Dataset({image or path.stem: path}, near.names, near.has_keypoints)
    wanted = list(dataset.labels)
    if image is not None:
        wanted = sorted(meant_or_refused(wanted, image, path))
    collector = Collector(path, "line")
    for name in wanted:
        file = dataset.labels[name]
        if file.is_file():
            _read_lines(file, base_name(name if image is None else image), grid, dataset, collector)
        elif path != file:
            collector.note("no-label-file", f"{base_name(name)} has no label file, so it has no objects.")
    return collector.layer(grid)


def _read_lines(file: Path, source: str, grid: Grid, dataset: _Dataset, collector: Collector) -> None:
    for number_of_line, line in enumerate(decoded(read_bytes(file), file).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            class_id = number(words[0], "the class number")
            if class_id < 0 or class_id != int(class_id):
                raise Unusable(f"a class number {words[0][:20]}")
            shape, score = _shape([number(word) for word in words[1:]], grid, dataset.has_keypoints)
        except Unusable as reason:
            where = f"line {number_of_line}"
            collector.leave_out(reason, where if file == collector.path else f"{file.name} {where}")
            continue
        label = dataset.names.get(int(class_id))
        if label is None:
            text = "it has class numbers without a name; a data.yaml or classes.txt near it can name them."
            collector.note("classes-unnamed", text)
        collector.add(shape, {"label": label or str(int(class_id)), "source": source, "score": score})


def _shape(values: list[float], grid: Grid, has_keypoints: bool) -> tuple[Shape, float | None]:
    """The shape in pixels and the score of what follows the class number."""
    if has_keypoints:
        values = values[:4]
    score = None
    if len(values) == 5 or (len(values) > 6 and len(values) % 2):
        *values, score = values
    if len(values) != 4 and len(values) < 6:
        raise Unusable(f"{len(values)} numbers after the class, where a box has 4 and a polygon 6 or more")
    if max(map(abs, values)) > 2:
        raise Unusable("coordinates that are not shares of the image's size")
    size = (grid.width, grid.height)
    pixels = [value * size[index % 2] for index, value in enumerate(values)]
    if len(values) == 4:
        cx, cy, w, h = pixels
        return box(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), score
    return polygon(list(zip(pixels[::2], pixels[1::2], strict=True))), score


def _yaml_in(folder: Path) -> Path | None:
    return next((folder / name for name in _DATASETS if (folder / name).is_file()), None)


def _from_folder(folder: Path) -> _Dataset:
    files = sorted(file for file in folder.glob("*.txt") if file.name not in _CLASS_LISTS)
    near = _near(folder / "any.txt")
    return _Dataset({file.stem: file for file in files}, near.names, near.has_keypoints)


def _near(file: Path) -> _Dataset:
    """Class names from the files around a label file."""
    lists = [file.with_suffix(".names")]
    for folder in list(file.absolute().parents)[:_FOLDERS_UP]:
        data = _yaml_in(folder)
        if data is not None and not any(found.is_file() for found in lists):
            settings = _settings(read_text(data))
            return _Dataset(names=_names(settings), has_keypoints="kpt_shape" in settings)
        lists += [folder / name for name in _CLASS_LISTS]
    for found in lists:
        if found.is_file() and found != file:
            lines = decoded(read_bytes(found), found).splitlines()
            return _Dataset(names={index: line.strip() for index, line in enumerate(lines) if line.strip()})
    return _Dataset()


def _from_yaml(path: Path) -> _Dataset:
    """All images of a dataset: those in the folders, or the lists of images, under train, val and test."""
    settings = _settings(read_text(path))
    labels: dict[str, Path] = {}
    for part in ("train", "val", "test"):
        given = settings.get(part, [])
        for place in given if isinstance(given, list) else [given]:
            for image in _images(path.parent, str(settings.get("path", "")), str(place)):
                labels[image.as_posix()] = _label_file(image)
    if not labels:
        raise LayerError(
            f"{path.name} leads to no images: the folders under train, val and test aren't there."
        )
    return _Dataset(labels, _names(settings), "kpt_shape" in settings)


def _images(home: Path, root: str, place: str) -> Iterator[Path]:
    if not place:
        return
    # `path` and `train` often belong to another machine, or, in exports, lead one folder too far up.
    inside = re.sub(r"^(\.\./)+", "", place.replace("\\", "/"))
    for base in (home / root / place, home / place, home / inside):
        try:
            if base.is_dir():
                found = [*base.glob("*"), *base.glob("*/*")]
                yield from sorted(file for file in found if file.suffix.lower() in _IMAGES)
                return
            if base.is_file() and base.suffix.lower() == ".txt":
                yield from (
                    base.parent / line.strip() for line in read_text(base).splitlines() if line.strip()
                )
                return
        except (OSError, ValueError):  # a name that this system can't have
            continue


def _label_file(image: Path) -> Path:
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _names(settings: Mapping[str, Any]) -> dict[int, str]:
    names = settings.get("names", [])
    if isinstance(names, list):
        return dict(enumerate(names))
    if isinstance(names, dict):
        return {int(key): name for key, name in names.items() if re.fullmatch(r"\d{1,9}", key)}
    return {}


def _settings(text: str) -> dict[str, Any]:
    """The members of a `data.yaml`: texts, lists of texts and mappings of texts, in block or flow style.

    That is all that such files hold, and it saves a dependency on a YAML library.
    """
    settings: dict[str, Any] = {}
    key = ""
    for line in text.splitlines():
        line = re.sub(r"(^|\s)#.*$", "", line).rstrip()
        if not line.strip():
            continue
        member = re.match(r"([\w-]+)\s*:(?:\s+(.*))?$", line)
        if member:
            key = member[1]
            settings[key] = member[2] or ""
        elif key:
            settings[key] += "\n" + line
    return {key: _value(value) for key, value in settings.items()}


def _value(text: str) -> Any:
    flat = text.strip()
    if flat.startswith(("[", "{")):
        items = re.findall(r"""(?:[^,'"]|'[^']*'|"[^"]*")+""", flat.strip("[]{}").replace("\n", " "))
        pairs = [_pair(item) for item in items if item.strip()]
        return dict(pairs) if flat.startswith("{") else [_unquoted(item) for item in items if item.strip()]
    if not text.startswith("\n"):
        return _unquoted(flat)
    lines = [line.strip() for line in flat.split("\n")]
    if all(line.startswith("-") for line in lines):
        return [_unquoted(line[1:]) for line in lines]
    return dict(_pair(line) for line in lines)


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition(":")
    return _unquoted(key), _unquoted(value)


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text


def write(path: Path, stream: Stream) -> Written:
    """Write boxes, or polygons if any feature is not an upright box, of one image, with 12 decimals.

    The class names go beside the file, into `STEM.names`, one per line. A score is the last number of a
    line. Raises LayerError for a layer of points, for several images, and where the image's size is
    unknown.
    """
    boxes, rings = path.with_suffix(".boxes"), path.with_suffix(".rings")
    try:
        # Trainers read a file either as boxes or as polygons, and which it is shows with the last feature.
        with boxes.open("w", encoding="utf-8") as box_file, rings.open("w", encoding="utf-8") as ring_file:
            written, names, is_boxes = _write_both(path, stream, box_file, ring_file)
        (boxes if is_boxes else rings).replace(path)
    finally:
        boxes.unlink(missing_ok=True)
        rings.unlink(missing_ok=True)
    lines = (re.sub(r"\s+", " ", name) for name in names)
    text = "".join(f"{line}\n" for line in lines)
    path.with_suffix(".names").write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    return written


def _write_both(
    path: Path, stream: Stream, box_file: TextIO, ring_file: TextIO
) -> tuple[Written, list[str], bool]:
    classes = {name: index for index, name in enumerate(stream.classes)}
    grid = stream.grid
    features = dropped = changed = 0
    is_boxes = True
    for batch in stream:
        if batch.grid is None:
            raise LayerError(
                "YOLO files hold shares of the image's size; name the raster.", parameter="image"
            )
        if batch.grid != (grid or batch.grid):
            raise LayerError(
                "A YOLO file holds one image; write one file for each, into a folder.", parameter="out"
            )
        grid = batch.grid
        has_area = np.isin(shapely.get_type_id(batch.geometry), (3, 6)) & ~shapely.is_empty(batch.geometry)
        dropped += int(np.count_nonzero(~has_area))
        batch = batch[has_area]
        size = np.array([grid.width, grid.height], np.float64)
        bounds = shapely.bounds(batch.geometry).reshape(-1, 2, 2) / size
        is_boxes = is_boxes and bool(np.all(_is_box(batch.geometry)))
        labels = batch.columns.get("label", np.full(len(batch), "object", dtype=object))
        scores = batch.columns.get("score", np.full(len(batch), np.nan))
        for shape, (low, high), label, score in zip(batch.geometry, bounds, labels, scores, strict=True):
            class_id = classes.setdefault(str(label) or "object", len(classes))
            end = f" {float(score):.6g}" if score == score else ""
            _line(box_file, class_id, np.concatenate([(low + high) / 2, high - low]), end)
            parts = shapely.get_parts(shape)
            largest = parts[int(np.argmax(shapely.area(parts)))]
            changed += len(parts) > 1 or len(largest.interiors) > 0
            _line(ring_file, class_id, (shapely.get_coordinates(largest.exterior)[:-1] / size).ravel(), end)
        features += len(batch)
    notes = []
    if dropped:
        if not features:
            raise LayerError("YOLO files hold boxes or polygons, but the layer has points; write a .csv.")
        text = f"{counted(dropped, 'feature')} without area left out: YOLO files hold boxes or polygons."
        notes.append(Note("features-dropped", text, about=path.name, kind="doubt"))
    if changed:
        text = f"{counted(changed, 'shape')} without holes and smaller parts now: a YOLO polygon is one ring."
        notes.append(Note("shapes-simplified", text, about=path.name))
    return Written(path, features, dropped, tuple(notes)), list(classes), is_boxes


def _is_box(shapes: NDArray[np.object_]) -> NDArray[np.bool_]:
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    boxed = np.prod(bounds[:, 2:] - bounds[:, :2], axis=1)
    return np.asarray(shapely.area(shapes) >= boxed * (1 - 1e-9))


def _line(file: TextIO, class_id: int, values: NDArray[np.float64], end: str) -> None:
    file.write(f"{class_id} " + " ".join(f"{value:.12f}" for value in values.tolist()) + f"{end}\n")
