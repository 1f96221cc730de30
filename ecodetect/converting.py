"""Converts features from one format to another: what `ecodetect convert` does."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.annotations.class_names import spellings_shown, spelt
from ecodetect.annotations.laying import labels_of, read_annotations
from ecodetect.errors import LayerError, UserError
from ecodetect.formats import files as formats
from ecodetect.formats import parts
from ecodetect.formats.column_roles import class_column as class_column_of
from ecodetect.formats.column_roles import score_column, scores, text_columns
from ecodetect.grid import Grid
from ecodetect.layer import Layer, Stream, geometry_type
from ecodetect.notes import Note
from ecodetect.raster.reading import open_raster
from ecodetect.version import __version__

_BATCH = 10_000  # features per batch for the writer
_LABEL_IMAGES = (".tif", ".tiff", ".png")
PIXEL_FORMATS = (".csv", ".tsv", ".json", ".xml", ".txt", *_LABEL_IMAGES)


@dataclass(frozen=True, slots=True)
class Converted:
    """The result of a conversion.

    path : the written file.
    features : features in it.
    notes : for the user: what was left out, and why.
    """

    path: Path
    features: int
    notes: tuple[Note, ...]


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    image: str | os.PathLike[str] | None = None,
    layer: str | None = None,
    class_column: str | None = None,
    gsd_m: float | None = None,
    allow_vrt: bool = False,
    overwrite: bool = False,
) -> Converted:
    """Convert a layer or annotations to another format.

    Parameters
    ----------
    source, target : str or path-like
        Files (or a folder of label files); the suffix names the format.
    image : str or path-like, optional
        The raster that the features belong to. Formats in pixels need it to become map layers, and vice
        versa. From a file about several images only the features of this one are converted; features
        outside the raster are left out.
    layer : str, optional
        Which layer, where `source` has several.
    class_column : str, optional
        Column of `source` with the class; by default it is found by its name. Formats in pixels hold it as
        the class; map formats keep all columns, and add this one as `label` if it is given.
    gsd_m, allow_vrt : see `open_raster`.
    overwrite : bool
        Replace an existing target.

    Raises
    ------
    UserError
        In one sentence, when something can't be read, placed or written; `target` is then unchanged.
    """
    formats.writable(target)
    suffix = Path(target).suffix.lower()
    if image is None:
        found, name = _without_raster(source, Path(target), layer), ""
    else:
        with open_raster(image, gsd_m=gsd_m, allow_vrt=allow_vrt) as raster:
            grid, name = raster.grid, raster.name
        # The whole path distinguishes two images of the same name in different folders.
        found = read_annotations(source, grid, image=os.fspath(image), layer=layer).to_layer()
        if "source" not in found.columns:
            named: NDArray[np.object_] = np.full(len(found), name, dtype=object)
            found = replace(found, columns={**found.columns, "source": named})
    facts = _stated(source, found, name)
    said = found.notes
    found = _with_class(found, Path(source).name, class_column, is_own_place=suffix in PIXEL_FORMATS)
    if suffix in _LABEL_IMAGES:  # which hold neither class nor score
        found = replace(found, notes=said)
    if name and suffix in PIXEL_FORMATS:  # COCO and VOC name the image even where it has no features
        facts.setdefault("rasters", [{"source": name}])
    if suffix not in PIXEL_FORMATS and found.are_parts is None and _has_pieces(found):
        facts.setdefault("ecodetect", __version__)  # so readers know that features in pieces are one each
    written = formats.write(target, stream_of(replace(found, metadata=facts)), overwrite=overwrite)
    return Converted(written.path, written.features, (*found.notes, *written.notes))


def _without_raster(source: str | os.PathLike[str], target: Path, layer: str | None) -> Layer:
    """The features of a file in a frame that the target can hold, or LayerError where it needs a raster."""
    suffix = target.suffix.lower()
    found = formats.read(source, layer=layer)
    if suffix in PIXEL_FORMATS:
        found, separated = parts.separated(found, Path(source).name)
        found = replace(found, notes=(*found.notes, *separated))
    grid = found.grid
    if found.metadata.get("frame") == "share":
        raise LayerError(
            f"{Path(source).name} holds shares of the image's size; name the image.", parameter="image"
        )
    is_pixel = grid is not None or found.metadata.get("frame") == "pixel"
    if not is_pixel and suffix in PIXEL_FORMATS:
        raise LayerError(f"{target.name} is in pixels of a raster; name the raster.", parameter="image")
    if grid is None and found.metadata.get("frame") == "pixel" and suffix not in PIXEL_FORMATS:
        grid = _around(found.geometry)  # so that the output says that its coordinates are pixels
        found = replace(found, grid=grid, metadata={}, are_parts=None)
    return found


def _has_pieces(layer: Layer) -> bool:
    return bool(np.any(shapely.get_type_id(layer.geometry) == shapely.GeometryType.MULTIPOLYGON))


def _with_class(layer: Layer, name: str, asked: str | None, *, is_own_place: bool) -> Layer:
    """The layer with its class as `label` and its score as `score`, with notes on the columns used.

    name : of its file.  asked : the column that the user names.
    is_own_place : the output format has a place for class and score; otherwise columns stay.
    """
    if not is_own_place and asked is None:
        return layer
    column = class_column_of(layer.columns) if asked is None else asked
    others = text_columns(layer.columns, without=(column,))
    columns, notes = dict(layer.columns), list(layer.notes)
    listed = ", ".join(f"{each} ({count})" for each, count in others.items())
    if column is not None:
        columns["label"] = labels_of(layer, name, asked)
        _, several = spelt(Counter(filter(None, columns["label"].tolist())))
        if several and is_own_place:
            text = f"classes written in several ways stay apart: {spellings_shown(several)}."
            notes.append(Note("spellings-apart", text, about=name, kind="doubt"))
        if is_own_place and column != "label":
            del columns[column]
        if asked is None and column != "label":
            text = f"the class written is that of column {column}; if another has the class, name it."
            notes.append(Note("class-column", text, about=name, kind="choice", parameter="class_column"))
    elif others:
        text = f"no class is written; texts (values) are in {listed}; if one has the class, name it."
        notes.append(Note("class-column", text, about=name, kind="choice", parameter="class_column"))
    score = score_column(layer.columns)
    if is_own_place and score not in (None, "score"):
        columns["score"] = scores(columns.pop(score))
        text = f"the score written is that of column {score}."
        notes.append(Note("score-column", text, about=name, kind="choice"))
    return replace(layer, columns=columns, notes=tuple(notes))


def _stated(source: str | os.PathLike[str], found: Layer, name: str) -> dict[str, Any]:
    """The metadata of the scan that the file comes from, as far as they hold for the converted file.

    The key doesn't: it identifies exactly the file that a scan writes.

    name : of the only raster whose features are converted; "": all are.
    """
    stated = dict(found.metadata)
    if "settings" not in stated:
        with contextlib.suppress(UserError):  # most files weren't written by ecodetect
            stated = dict(formats.read_metadata(source))
    if "settings" not in stated:
        return {}
    facts = {key: value for key, value in stated.items() if key not in ("key", "frame", "images")}
    rasters = [each for each in facts.get("rasters") or () if isinstance(each, dict)]
    if name and len(rasters) > 1:
        rasters = [each for each in rasters if each.get("source") == name] or [{"source": name}]
        areas = [each.get("searched", {}).get("area_ha") for each in rasters]
        facts |= {"rasters": rasters, "area_ha": areas[0] if len(areas) == 1 else None}
    return facts


def stream_of(layer: Layer) -> Stream:
    """A layer that is held whole as the stream that `formats.write` takes, with its metadata."""
    layer = _with_plain_columns(layer)
    return Stream(
        _batches(layer),
        geometry_type(layer.geometry),
        {name: _kind(values) for name, values in layer.columns.items()},
        grid=layer.grid,
        crs=layer.crs,
        classes=_classes(layer),
        metadata=layer.metadata,
    )


def _with_plain_columns(layer: Layer) -> Layer:
    """The layer with the types of columns that a Stream has: yes and no become 1 and 0."""
    columns = {name: v.astype(np.int64) if v.dtype.kind in "bui" else v for name, v in layer.columns.items()}
    return replace(layer, columns=columns)


def _batches(layer: Layer) -> Iterator[Layer]:
    for start in range(0, len(layer), _BATCH):
        yield layer[start : start + _BATCH]


def _kind(values: NDArray[Any]) -> str:
    return {"f": "float", "i": "int"}.get(values.dtype.kind, "str")


def _classes(layer: Layer) -> tuple[str, ...]:
    labels = layer.columns.get("label")
    return () if labels is None else tuple(sorted({str(label) or "object" for label in labels.tolist()}))


def _around(geometry: NDArray[np.object_]) -> Grid:
    """A grid of pixels just large enough."""
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    right, bottom = np.ceil(bounds[:, 2:].max(axis=0, initial=1.0)).astype(int).tolist()
    return Grid(right, bottom)
