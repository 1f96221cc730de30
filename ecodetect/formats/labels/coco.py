"""COCO JSON: polygons, run-length masks (plain and compressed) and boxes in pixels, for one or many images.

Coordinates are continuous, (0, 0) the outer corner of the first pixel, as ours. Masks run down the columns.
CVAT's export of a turned box has the upright one and an attribute `rotation`: it is turned as in CVAT's XML.
Not read: keypoints. Holes can't be written: COCO's polygons have none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import shapely

from ecodetect.errors import LayerError
from ecodetect.formats import metadata
from ecodetect.formats.collecting import (
    Collector,
    Shape,
    Unusable,
    areal,
    box,
    check_box,
    number,
    polygon,
    scalar,
    turned,
)
from ecodetect.formats.content import Content, seal_in_place
from ecodetect.formats.image_matching import (
    base_name,
    check_size,
    left_out,
    listed,
    meant_or_refused,
    only_image,
    stated_size,
)
from ecodetect.formats.json_stream import JsonStream
from ecodetect.formats.labels.masks import from_runs, outline
from ecodetect.formats.protocol import Written
from ecodetect.formats.text_reading import read_json
from ecodetect.grid import Grid
from ecodetect.layer import Geometries, Layer, Stream
from ecodetect.notes import Note
from ecodetect.wording import counted

SUFFIXES = (".json",)
_DESCRIPTION = "ecodetect"


def read(
    path: Path, *, layer: str | None, grid: Grid | None, image: str | None, names_from: Path | None = None
) -> Layer:
    """Annotations of `image` (or of all, with a column `source`) in pixels of `grid`.

    Columns: `label` (category name), `source`, `id`, `score`, `iscrowd` and scalar `attributes`, as far as
    there are any. A list of detections (COCO results) speaks of images and categories by numbers: those of
    the COCO file `names_from`, where it is given. Without it the number or text is the image's name.
    """
    content = read_json(path)
    parts = _results(content, names_from, path) if isinstance(content, list) else _parts(content, path)
    collector = Collector(path, "annotation")
    info = content.get("info") if isinstance(content, dict) else None
    collector.are_ours = isinstance(info, dict) and info.get("description") == "ecodetect"
    names = [name for name, _ in parts.images.values() if name]
    wanted = None
    if image is None:
        collector.images = tuple(dict.fromkeys(names))
        collector.sizes = {name: size for name, size in parts.images.values() if name and size is not None}
    elif parts.has_names:
        wanted = meant_or_refused(names, image, path)
    elif len(names) > 1:
        wanted = _numbered(names, image, path)
    if isinstance(content, list):
        _doubt_results(collector, parts)
    for name, size in parts.images.values():
        if wanted is None or name in wanted:
            check_size(size, grid, path)
            if wanted is not None or len(parts.images) == 1:
                collector.size = size
    others: Counter[str] = Counter()
    crowds = 0
    for index, annotation in enumerate(parts.annotations):
        where = f"annotation {index + 1}"
        if not isinstance(annotation, dict):
            collector.leave_out("not an annotation", where)
            continue
        source, _ = parts.images.get(_key(annotation.get("image_id")), ("", None))
        if wanted is not None and source not in wanted:
            others[source or "unknown"] += 1
            continue
        try:
            shape = _shape(annotation, grid)
        except Unusable as reason:
            collector.leave_out(reason, where)
            continue
        crowds += annotation.get("iscrowd") in (1, True)
        named = source if image is None else base_name(image)
        collector.add(shape, _attributes(annotation, parts.categories, named))
    if others:
        collector.notes.append(left_out(others, path, "annotation"))
    if crowds:
        text = f"{counted(crowds, 'annotation')} with iscrowd 1 (a crowd) kept, with that column."
        collector.note("crowds", text)
    return collector.layer(grid)


def _doubt_results(collector: Collector, parts: _Parts) -> None:
    """Note what a list of results lacks: names of its images, unexplained classes."""
    if not parts.has_names:
        text = "it is a list of COCO results, which numbers its images and classes without naming them."
        collector.note("results-unnamed", text, "doubt")
    strange = _strange(parts)
    if strange:
        known = ", ".join(f"{number} {name}" for number, name in parts.categories.items())
        numbers = ", ".join(f"{number} ({count})" for number, count in sorted(strange.items()))
        text = f"class number {numbers} isn't one of those explained ({known}); are all numbers shifted?"
        collector.note("results-unnamed", text, "doubt")


Images = dict[str, tuple[str, tuple[int, int] | None]]  # id: (name, size)


@dataclass(frozen=True, slots=True)
class _Parts:
    """A COCO file taken apart.

    has_names : the images' names are names of files, not numbers.
    """

    images: Images
    categories: dict[str, str]  # id: name
    annotations: list[Any]
    has_names: bool = True


def _parts(content: Any, path: Path) -> _Parts:
    """Images and category names by id, and the annotations."""
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise LayerError(f"{path.name} is not COCO: it has no list 'annotations'.")
    images: Images = {}
    for entry in _entries(content, "images"):
        size = stated_size(entry.get("width"), entry.get("height"))
        images[_key(entry.get("id"))] = (_file_name(entry), size)
    categories = {
        _key(entry.get("id")): str(entry.get("name", "")) for entry in _entries(content, "categories")
    }
    return _Parts(images, categories, content["annotations"], has_names=bool(images))


def _results(entries: list[Any], names_from: Path | None, path: Path) -> _Parts:
    """A list of detections, with the images and categories of the file that explains its numbers."""
    ids: dict[str, str] = {}  # as in the list: name of the file, where an entry says it
    for entry in entries:
        if isinstance(entry, dict):
            name = _file_name(entry)
            ids.setdefault(_key(entry.get("image_id")), name)
    known = None if names_from is None else _explained(names_from)
    if known is None:
        # Ultralytics and others write the stem of the file's name, as a number where it is one.
        images: Images = {key: (name or key, None) for key, name in ids.items()}
        has_names = not ids or any(name or not key.isdigit() for key, name in ids.items())
        return _Parts(images, {}, entries, has_names=has_names)
    by_stem = {PurePosixPath(base_name(name)).stem: (name, size) for name, size in known.images.values()}
    by_stem |= {str(int(stem)): of for stem, of in by_stem.items() if stem.isascii() and stem.isdigit()}
    stems = {key: PurePosixPath(base_name(name or key)).stem for key, name in ids.items()}
    of_ids = {key: known.images[key] for key in ids if key in known.images}
    of_stems = {key: by_stem[stem] for key, stem in stems.items() if stem in by_stem}
    found = of_ids if len(of_ids) >= len(of_stems) else of_stems
    if ids and not found:
        raise LayerError(
            f"{path.name} is about images {listed(ids)}, of which {names_from.name if names_from else ''}"
            " has none; do they belong together?"
        )
    images = {
        **{f"image {key}": of for key, of in known.images.items() if of not in found.values()},
        # An image that the file doesn't know keeps its number, so that it can be said.
        **{key: found.get(key, (name or key, None)) for key, name in ids.items()},
    }
    return _Parts(images, known.categories, entries)


def _strange(parts: _Parts) -> Counter[str]:
    """Numbers of classes that nothing explains, among others that are explained: how often each."""
    if not parts.categories:
        return Counter()
    entries = (entry for entry in parts.annotations if isinstance(entry, dict))
    numbers = Counter(_key(entry.get("category_id")) for entry in entries if not entry.get("category_name"))
    return Counter({key: count for key, count in numbers.items() if key not in parts.categories})


def _numbered(numbers: list[str], image: str, path: Path) -> frozenset[str]:
    """The number that is the name of `image`; raises LayerError where there is none."""
    stem = PurePosixPath(base_name(image)).stem
    number = str(int(stem)) if stem.isascii() and stem.isdigit() else stem
    if number not in numbers:
        raise LayerError(
            f"{path.name} is a list of detections in {len(numbers)} images that it numbers"
            f" ({listed(numbers)}) and doesn't name; `evaluate` looks them up in the COCO annotations that it"
            " is given."
        )
    return frozenset([number])


def _explained(path: Path) -> _Parts | None:
    """The COCO file that explains the numbers of results; None where it is none."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    content = read_json(path)
    parts = _parts(content, path) if isinstance(content, dict) and "annotations" in content else None
    return parts if parts is not None and parts.images else None


def _entries(content: Mapping[str, Any], name: str) -> Iterable[dict[str, Any]]:
    found = content.get(name)
    return (entry for entry in found if isinstance(entry, dict)) if isinstance(found, list) else ()


def _key(value: Any) -> str:
    """Ids are numbers, and text in some exports; both files of a pair need not agree."""
    return str(value)


def _file_name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("file_name") or entry.get("path") or entry.get("coco_url") or "")


def _attributes(annotation: Mapping[str, Any], categories: Mapping[str, str], source: str) -> dict[str, Any]:
    category = _key(annotation.get("category_id"))
    stated = annotation.get("category_name")  # as sahi writes it
    label = stated if isinstance(stated, str) and stated else categories.get(category)
    values: dict[str, Any] = {"label": label or f"category {category}", "source": source}
    for name in ("id", "score", "iscrowd"):
        value = scalar(annotation.get(name))
        if value is not None:
            values[name] = value
    extra = annotation.get("attributes")
    if isinstance(extra, dict):  # where CVAT and we keep what COCO has no member for
        values.update(
            {
                name: scalar(value)
                for name, value in extra.items()
                if name not in ("label", "source", "rotation")  # the shape is turned by it
            }
        )
    return values


def _shape(annotation: Mapping[str, Any], grid: Grid | None) -> Shape:
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        return _mask(segmentation, grid)
    drawn = None
    if isinstance(segmentation, list) and segmentation:
        rings = segmentation if isinstance(segmentation[0], list) else [segmentation]
        parts = [_ring(ring) for ring in rings]
        # Parts that overlap are one area; parts apart are one object in pieces.
        drawn = parts[0] if len(parts) == 1 else areal(shapely.union_all(parts))
    degrees = _rotation(annotation)
    if drawn is not None and (not degrees or drawn.area < (1 - 1e-3) * drawn.envelope.area):
        return drawn  # turned already, or no box
    x0, y0, x1, y1 = _corners(annotation) if drawn is None else drawn.bounds
    if degrees:
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        return turned(corners, degrees, ((x0 + x1) / 2, (y0 + y1) / 2))
    return box(x0, y0, x1, y1)


def _rotation(annotation: Mapping[str, Any]) -> float:
    """Degrees by which CVAT has turned a box clockwise about its centre; its `bbox` is the upright one."""
    extra = annotation.get("attributes")
    stated = extra.get("rotation") if isinstance(extra, dict) else None
    return 0.0 if stated in (None, "") else number(stated, "rotation") % 360


def _corners(annotation: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the box."""
    stated = annotation.get("bbox")
    if not isinstance(stated, list) or len(stated) != 4:
        raise Unusable("neither a segmentation nor a box")
    x, y, width, height = (number(value) for value in stated)
    check_box(x, y, x + width, y + height)
    return x, y, x + width, y + height


def _ring(flat: Any) -> Shape:
    if not isinstance(flat, list):
        raise Unusable("a segmentation that is not a list of coordinates")
    if len(flat) % 2:
        raise Unusable("a polygon with an odd number of coordinates")
    values = [number(value) for value in flat]
    return polygon(list(zip(values[::2], values[1::2], strict=True)))


def _mask(segmentation: Mapping[str, Any], grid: Grid | None) -> Shape:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not (
        isinstance(size, list) and len(size) == 2 and all(type(n) is int and 0 < n <= 2**31 for n in size)
    ):
        raise Unusable("a mask without a size")
    height, width = size
    if grid is not None and (width, height) != (grid.width, grid.height):
        raise Unusable(f"a mask of {width} x {height} px, which is not the raster's size")
    if isinstance(counts, str):
        counts = decompressed(counts)
    if not isinstance(counts, list):
        raise Unusable("a mask without run lengths")
    mask, x, y = from_runs(counts, width, height)  # lines are columns
    return outline(mask.T, x, y)


def decompressed(text: str) -> list[int]:
    """Run lengths of COCO's compressed text: 5 bits a character from '0' on, the sixth says that more
    follow; from the fourth run on the difference to the run before the last (`rleFrString` of the COCO
    API).
    """
    counts: list[int] = []
    value = shift = 0
    for char in text:
        bits = ord(char) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise Unusable("a mask whose compressed runs are damaged")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise Unusable("a mask whose compressed runs are damaged")
    return counts


def recognises(path: Path, head: bytes) -> bool:
    """Whether a JSON file is COCO: its members, or a list of detections (COCO results)."""
    head = head.replace(b"\0", b"")  # UTF-16
    start = head.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    if start.startswith(b"["):
        return b'"image_id"' in head or start.strip() == b"[]"
    members = (b'"annotations"', b'"categories"', b'"images"')
    return start.startswith(b"{") and any(name in head for name in members) and b'"result"' not in head


def write(path: Path, stream: Stream) -> Written:
    """Write polygons and boxes as COCO.

    Pixels have 6 decimals; category ids count from 1 in the order of the classes; our stable `id` and
    further columns are in `attributes`. Annotation by annotation, so that a million need not be held: images
    and categories follow at the end, once they are known.
    Raises LayerError for a layer of points and where the image's size is unknown.
    """
    categories = {name: number for number, name in enumerate(stream.classes, start=1)}
    images: dict[str, tuple[int, Grid]] = {}
    features = dropped = holes = 0
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        info = {"description": _DESCRIPTION, **stream.metadata}
        if stream.metadata:
            info[metadata.SEAL_KEY] = metadata.BLANK
        file.write('{\n"info": ' + _text(info) + ',\n"annotations": [')
        for batch in stream:
            grid = batch.grid
            if grid is None:
                raise LayerError(
                    "COCO is in pixels of an image of known size; name the raster.", parameter="image"
                )
            has_area = np.isin(shapely.get_type_id(batch.geometry), (3, 6)) & ~shapely.is_empty(
                batch.geometry
            )
            dropped += int(np.count_nonzero(~has_area))
            batch = batch[has_area]
            holes += _with_holes(batch.geometry)
            for drawn, values in zip(_drawn(batch.geometry), _rows(batch), strict=True):
                source = str(values.pop("source", "") or only_image(stream.metadata))
                image, _ = images.setdefault(source, (len(images) + 1, grid))
                category = categories.setdefault(
                    str(values.pop("label", "") or "object"), len(categories) + 1
                )
                features += 1
                annotation = _annotation(features, image, category, drawn, values)
                file.write((",\n" if features > 1 else "\n") + _text(annotation))
        if not images and stream.grid is not None:  # an image without annotations is listed too
            images[only_image(stream.metadata)] = (1, stream.grid)
        entries = [
            {"id": number, "file_name": name, "width": own.width, "height": own.height}
            for name, (number, own) in images.items()
        ]
        names = [{"id": number, "name": name, "supercategory": ""} for name, number in categories.items()]
        file.write(f'\n],\n"images": {_text(entries)},\n"categories": {_text(names)}\n}}\n')
    if dropped and not features:
        raise LayerError("COCO holds boxes and polygons, but the layer has points; write a .csv or .geojson.")
    return Written(path, features, dropped, _lost(path, dropped, holes))


def _annotation(
    number: int, image: int, category: int, drawn: Mapping[str, Any], values: dict[str, Any]
) -> dict[str, Any]:
    """One annotation as COCO has it; our further columns are its attributes."""
    entry = {
        "id": number,
        "image_id": image,
        "category_id": category,
        **drawn,
        "iscrowd": int(values.pop("iscrowd", 0)),
    }
    if "score" in values:
        entry["score"] = values.pop("score")
    if values:
        entry["attributes"] = values
    return entry


def _lost(path: Path, dropped: int, holes: int) -> tuple[Note, ...]:
    """Notes of what COCO can't hold."""
    notes = []
    if dropped:
        text = f"{counted(dropped, 'feature')} without area left out: COCO holds boxes and polygons."
        notes.append(Note("features-dropped", text, about=path.name, kind="doubt"))
    if holes:
        text = f"{counted(holes, 'polygon')} with holes filled: COCO can't hold holes."
        notes.append(Note("shapes-simplified", text, about=path.name))
    return tuple(notes)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata that `write` put into `info`, in front of the annotations."""
    return {
        name: each for name, each in _info(path).items() if name not in ("description", metadata.SEAL_KEY)
    }


def read_seal(path: Path) -> str | None:
    """The hash that `seal` put there."""
    found = _info(path).get(metadata.SEAL_KEY)
    return found if isinstance(found, str) else None


def _info(path: Path) -> dict[str, Any]:
    """What a file of ours has in `info`; nothing in others, where `info` follows the annotations or is
    somebody else's.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for key, value in JsonStream(file, path.name).members(in_parts="annotations"):
            if key == "annotations":
                break
            if key == "info" and isinstance(value, dict) and value.get("description") == _DESCRIPTION:
                return value
    return {}


def content(path: Path) -> Content:
    """The annotations, gone through one by one, with images and categories."""
    found = Content()
    images: dict[str, str] = {}
    names: dict[str, str] = {}
    rows: Counter[tuple[str, str, str, str]] = Counter()
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for key, value in JsonStream(file, path.name).members(in_parts="annotations"):
            if key == "annotations" and isinstance(value, Iterator):
                for each in value:
                    found.add_json(each)
                    rows.update(_row(each))
            elif key in ("images", "categories"):
                found.add_json({key: value})
                entries = list(_entries({key: value}, key))
                if key == "images":
                    images = {_key(each.get("id")): _file_name(each) for each in entries}
                else:
                    names = {_key(each.get("id")): str(each.get("name", "")) for each in entries}
    for (image, category, beginning, species), n in rows.items():  # images and names come last in the file
        found.tally.counts[images.get(image, ""), beginning, names.get(category, "")] += n
        if species:
            found.tally.species[species] += n
    return found


def _row(annotation: Any) -> list[tuple[str, str, str, str]]:
    """Keys of image and category, beginning of our own id, and species; nothing for a candidate's square."""
    annotation = annotation if isinstance(annotation, dict) else {}
    own = annotation.get("attributes")
    own = own if isinstance(own, dict) else {}
    if own.get("shape") == "patch":
        return []
    of_both = (_key(annotation.get("image_id")), _key(annotation.get("category_id")))
    return [(*of_both, str(own.get("id", "")).partition("-")[0], str(own.get("species", "")))]


def seal(path: Path, digest: str) -> None:
    """Put the hash of the annotations into the metadata, which come before them."""
    head = b""
    with path.open("rb") as file:
        while b'"annotations": [' not in head and (block := file.read(1 << 16)):
            head += block
    seal_in_place(path, digest, 0, len(head))


def _with_holes(geometry: Geometries) -> int:
    parts, owner = shapely.get_parts(geometry, return_index=True)
    return len(np.unique(owner[shapely.get_num_interior_rings(parts) > 0]))


def _drawn(geometry: Geometries) -> Iterator[dict[str, Any]]:
    """`bbox`, `area` and `segmentation` of the outer rings of each shape, in pixels and square pixels."""
    parts, owner = shapely.get_parts(geometry, return_index=True)
    rings = shapely.get_exterior_ring(parts)
    areas = np.bincount(owner, shapely.area(shapely.polygons(rings)), len(geometry)).round(6).tolist()
    xy, ring_of = shapely.get_coordinates(rings, return_index=True)
    flat = xy.round(6).ravel().tolist()
    ends = np.searchsorted(ring_of, np.arange(len(rings)), side="right").tolist()
    # Without the last corner, which is the first again.
    corners = [flat[2 * start : 2 * end - 2] for start, end in zip([0, *ends], ends, strict=False)]
    firsts = np.searchsorted(owner, np.arange(len(geometry) + 1)).tolist()
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    boxes = np.hstack([bounds[:, :2], bounds[:, 2:] - bounds[:, :2]]).round(6).tolist()
    for index, box_ in enumerate(boxes):
        rings_of_shape = corners[firsts[index] : firsts[index + 1]]
        yield {"bbox": box_, "area": areas[index], "segmentation": rings_of_shape}


def _rows(batch: Layer) -> list[dict[str, Any]]:
    """The columns as one dict per feature, of JSON values; missing ones (NaN, empty text) left away."""
    names = list(batch.columns)
    columns = [np.asarray(batch.columns[name]).tolist() for name in names]
    return [
        {
            name: value
            for name, value in zip(names, values, strict=True)
            if value == value and value not in (None, "")
        }
        for values in (zip(*columns, strict=True) if columns else ([] for _ in range(len(batch))))
    ]


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def _text(value: Any) -> str:
    return _ENCODER.encode(value)
