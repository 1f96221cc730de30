"""Which detections and which annotations are about the same image, and the plane in which both lie.

Files come in all shapes: one layer for one picture, one table for many, a folder with a file for each
picture. Here they become pairs, one for each image, in pixels of one grid: the raster's where there is one,
else a grid laid over the coordinates of both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect import formats
from ecodetect.annotations import Annotations, on_raster
from ecodetect.errors import LayerError, UserError
from ecodetect.formats.collecting import pixels_note
from ecodetect.formats.image_matching import listed, meant, meant_or_refused
from ecodetect.grid import Floats, Grid, describe_crs
from ecodetect.inputs import expand, stem_of
from ecodetect.layer import Geometries, Layer
from ecodetect.raster import open_raster

# Columns in which people name the image, compared without case and underscores.
_IMAGE_COLUMNS = ("source", "image", "imagepath", "imagename", "filename", "file")
_OURS = (".detections", ".candidates")
_IN_PIXELS = pixels_note(Path()).partition(":")[2]  # what readers say of every file without a raster


@dataclass(frozen=True, eq=False, slots=True)
class Pair:
    """One image with what was detected on it and what people marked on it.

    name : of the image.
    image : path of the raster, or None where none was given.
    has_pixels : whether `grid` counts pixels of an image, so that lengths in px mean something.
    detections, truths : in pixels of `grid`.
    ignored : shapes in pixels of `grid` that are neither right nor wrong.
    plots : polygons in pixels of `grid` inside of which the truth is complete, with their names; None:
        everywhere.
    """

    name: str
    image: str | None
    grid: Grid
    has_pixels: bool
    detections: Annotations
    truths: Annotations
    ignored: Geometries
    plots: tuple[Geometries, tuple[str, ...]] | None


@dataclass(frozen=True, eq=False, slots=True)
class Pairs:
    """All pairs of two files or folders.

    unjudged : names of images with detections that the annotations say nothing about.
    unsearched : names of annotated images that the detections' file doesn't list as searched.
    lowest_score : score below which the detections' file says that nothing was kept; None if it doesn't say.
    notes : sentences for the user.
    """

    pairs: tuple[Pair, ...]
    unjudged: tuple[str, ...]
    unsearched: tuple[str, ...]
    lowest_score: Any
    notes: tuple[str, ...]

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True, slots=True)
class Asked:
    """How two files are laid upon each other.

    class_column : column of the annotations with their class.  layer : layer of the annotations.
    ignore : files of shapes that are neither right nor wrong.  area : file of polygons inside of which the
    truth is complete.  gsd_m : metres per pixel where the raster doesn't say.
    empty_images : images that the annotations don't name are empty, not unknown.
    """

    class_column: str | None = None
    layer: str | None = None
    ignore: tuple[str, ...] = ()
    area: str | None = None
    gsd_m: float | None = None
    empty_images: bool = False


def paired(
    detections: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    asked: Asked,
) -> Pairs:
    """Bring together detections and annotations of the same images.

    images : rasters, folders or patterns; may be empty where the files say themselves where they lie.
    Raises UserError in one sentence where it can't be told what belongs together.
    """
    found, there = _opened(detections, None), _opened(annotations, asked.layer)
    rasters = expand(images)
    if len(rasters) == 1:
        name = rasters[0]
        return _laid(found, there, [_Match(stem_of(name), name, name, name)], asked)
    is_one = not rasters and isinstance(found, _File) and isinstance(there, _File)
    if is_one and len(found.names) < 2 and len(there.names) < 2:
        name = (*found.names, *there.names, stem_of(found.path.name))[0]
        return _laid(found, there, [_Match(name, None, None, None)], asked)
    if not there.names or not (found.names or found.is_empty):
        if found.has_crs and there.has_crs:
            return _laid(found, there, [_Match(found.path.name, None, None, None)], asked)
        silent = there if not there.names else found
        raise UserError(
            f"{silent.path} doesn't say which image each feature belongs to; it needs a column 'source' with"
            " the images' names, or give one image with --image."
        )
    matches, unjudged, unsearched = _by_name(found, there, rasters, asked)
    pairs = _laid(found, there, matches, asked, unjudged, unsearched)
    bare = [match.name for match in matches if not meant(found.names, match.name, found.path)]
    if bare and not found.lists_images:
        note = (
            f"{found.path.name} can't say whether images without a detection were searched:"
            f" {len(bare)} annotated ones ({listed(bare)}) count as searched."
        )
        pairs = replace(pairs, notes=(*pairs.notes, note))
    return pairs


@dataclass(frozen=True, slots=True)
class _Match:
    """What one image is called: for people, its raster's path, in the detections, in the annotations.

    None: the file isn't asked by name.  is_unmarked : the annotations say nothing about it.
    """

    name: str
    image: str | None
    found: str | None
    there: str | None
    is_unmarked: bool = False


def _by_name(
    found: _File | _Folder, there: _File | _Folder, rasters: Sequence[str], asked: Asked
) -> tuple[list[_Match], tuple[str, ...], tuple[str, ...]]:
    """The images to judge, the names of those that only the detections know, and of those never searched."""
    matches: list[_Match] = []
    seen: set[str] = set()
    is_shared = False
    unjudged, unsearched = [], []
    for name in rasters or (*there.names, *found.names):
        if name in seen:
            continue
        of_found, of_there = (meant(side.names, name, side.path) for side in (found, there))
        if of_there and not of_found and found.lists_images:
            unsearched.append(name)
        elif of_there or (of_found and asked.empty_images):
            image = name if rasters else None
            matches.append(_Match(stem_of(name), image, name, name, is_unmarked=not of_there))
        elif of_found:
            unjudged.append(name)
        is_shared |= bool(of_found and of_there)
        seen |= of_found | of_there | {name}
    if not is_shared and not found.is_empty:
        raise UserError(
            f"{found.path.name} and {there.path.name} have no image in common: {listed(found.names)} there,"
            f" {listed(there.names)} here."
        )
    return matches, tuple(unjudged), tuple(unsearched)


# -- one side ----------------------------------------------------------------------------------------------


def _opened(path: str | os.PathLike[str], layer: str | None) -> _File | _Folder:
    source = Path(path)
    if source.is_dir() and source.suffix.lower() not in formats.suffixes(writing=False):
        known = formats.suffixes(writing=False)
        files = sorted(p for p in source.iterdir() if p.suffix.lower() in known and p.is_file())
        named = {_stem(p): p for p in files if p.stem not in ("classes", "obj") and p.suffix[1:2] != "y"}
        if named:
            return _Folder(source, named)
        raise LayerError(f"The folder {source} holds no file of features.")
    return _File(source, layer)


def _stem(path: Path) -> str:
    stem = path.stem
    for mark in _OURS:
        stem = stem.removesuffix(mark)
    return stem


class _Folder:
    """A file of features for each image, with the image's name."""

    def __init__(self, path: Path, files: dict[str, Path]) -> None:
        self.path, self.files = path, files
        self.names = tuple(files)
        self.has_crs = False
        self.is_empty = False
        self.lists_images = True
        self.metadata: dict[str, Any] = {}

    def of(self, name: str | None, grid: Grid | None, *, is_one_of_many: bool) -> Layer:
        """The features of an image; none where there is no file for it."""
        pick = meant if is_one_of_many else meant_or_refused
        wanted = sorted(pick(self.names, name or "", self.path))
        if not wanted:
            return _nothing(grid)
        layer = formats.read(self.files[wanted[0]], grid=grid, image=None if grid is None else name)
        self.metadata = dict(layer.metadata) or self.metadata
        return layer


class _File:
    """One file of features of one or many images."""

    def __init__(self, path: Path, layer: str | None) -> None:
        self.path, self.layer = path, layer
        self._whole: Layer | None = None

    @property
    def whole(self) -> Layer:
        if self._whole is None:
            self._whole = formats.read(self.path, layer=self.layer)
        return self._whole

    @property
    def metadata(self) -> dict[str, Any]:
        if self._whole is not None and "settings" in self._whole.metadata:
            return dict(self._whole.metadata)
        try:
            return dict(formats.read_metadata(self.path))
        except LayerError:  # not a file of ours
            return {}

    @property
    def listed(self) -> tuple[str, ...]:
        """The images that the file says it is about, also those without a feature."""
        rasters = self.metadata.get("rasters")
        sources = [each.get("source") for each in rasters or () if isinstance(each, dict)]
        return tuple(str(name) for name in [*self.whole.metadata.get("images", ()), *sources] if name)

    @property
    def lists_images(self) -> bool:
        """Whether an image that isn't listed wasn't searched; a table knows only those with a detection."""
        return bool(self.listed) and self.path.suffix.lower() not in (".csv", ".tsv", ".txt")

    @property
    def names(self) -> tuple[str, ...]:
        """The images that it speaks of, as far as it says."""
        values = _image_column(self.whole)
        return tuple(
            dict.fromkeys([*self.listed, *([] if values is None else filter(None, values.tolist()))])
        )

    @property
    def is_empty(self) -> bool:
        return not len(self.whole)

    @property
    def has_crs(self) -> bool:
        return self.whole.frame_crs is not None

    def of(self, name: str | None, grid: Grid | None, *, is_one_of_many: bool) -> Layer:
        """The features of an image; of all where it isn't named."""
        if name is not None and is_one_of_many and self.names and not meant(self.names, name, self.path):
            return _nothing(grid)
        if grid is None:
            layer = self.whole
        else:
            layer = formats.read(self.path, layer=self.layer, grid=grid, image=name)
        values = _image_column(layer)
        if name is None or values is None:
            return layer
        images = set(values.tolist())
        if (
            len(images) < 2 and not is_one_of_many
        ):  # a layer of one image goes by its place, whatever its name
            return layer
        wanted = (
            meant(images, name, self.path) if is_one_of_many else meant_or_refused(images, name, self.path)
        )
        return layer[np.isin(values.astype(str), list(wanted))]


def _image_column(layer: Layer) -> NDArray[np.object_] | None:
    """The column with the images' names; one called `source` may hold something else."""
    for name, values in layer.columns.items():
        plain = name.casefold().replace("_", "").replace(" ", "")
        if plain in _IMAGE_COLUMNS and values.dtype.kind in "OU":
            texts = values.astype(object)
            if plain != "source" or any(re.search(r"\.\w{2,5}$", text) for text in set(texts.tolist())):
                return texts
    return None


def _nothing(grid: Grid | None) -> Layer:
    return Layer(np.empty(0, dtype=object), grid=grid)


# -- one plane ---------------------------------------------------------------------------------------------


def _laid(
    found: _File | _Folder,
    there: _File | _Folder,
    matches: Sequence[_Match],
    asked: Asked,
    unjudged: tuple[str, ...] = (),
    unsearched: tuple[str, ...] = (),
) -> Pairs:
    ignored = [_File(Path(path), None) for path in asked.ignore]
    area = None if asked.area is None else _File(Path(asked.area), None)
    pairs: list[Pair] = []
    said: list[str] = []
    several = len(matches) > 1
    for match in matches:
        grid = None
        if match.image is not None:
            with open_raster(match.image, gsd_m=asked.gsd_m) as raster:
                grid = raster.grid
        own = found.of(match.found, grid, is_one_of_many=several)
        true = _nothing(grid) if match.is_unmarked else there.of(match.there, grid, is_one_of_many=several)
        has_pixels = True
        said += [note for note in (*own.notes, *true.notes) if not note.endswith(_IN_PIXELS)]
        if grid is None:
            grid, has_pixels, own, true = _common_plane(own, true, found.path, there.path)
            if asked.gsd_m is not None and grid.crs is None:
                grid = grid.with_gsd(asked.gsd_m)
                own, true = _on(own, grid), _on(true, grid)
        column = asked.class_column if len(true) else None
        doubtful = [_shapes(each, match, grid, several)[0] for each in ignored]
        pair = Pair(
            match.name,
            match.image,
            grid,
            has_pixels,
            on_raster(replace(own, notes=()), grid, name=found.path.name),
            on_raster(replace(true, notes=()), grid, name=there.path.name, class_column=column),
            np.concatenate([np.empty(0, object), *doubtful]),
            None if area is None else _polygons(*_shapes(area, match, grid, several), area.path),
        )
        if area is None or (pair.plots is not None and len(pair.plots[0])):
            pairs.append(pair)
        said += [*pair.detections.notes, *pair.truths.notes]
    if not pairs:
        raise UserError(f"The area {asked.area} meets none of the images; does it belong to them?")
    score = found.metadata.get("settings", {}).get("score")
    return Pairs(tuple(pairs), unjudged, unsearched, score, _merged(said))


def _merged(notes: Sequence[str]) -> tuple[str, ...]:
    """Notes without repetition; what is said of many files is said once."""
    files: dict[str, list[str]] = {}
    for note in dict.fromkeys(notes):
        name, colon, text = note.partition(": ")
        files.setdefault(text if colon else note, []).append(name if colon else "")
    merged = []
    for text, names in files.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        merged.append(f"{names[0]}{more}: {text}" if names[0] else text)
    return tuple(merged)


def _shapes(side: _File, match: _Match, grid: Grid, is_one_of_many: bool) -> tuple[Geometries, Layer]:
    """The features of a file that lie on the grid, in its pixels, and the same as they were read."""
    layer = side.of(match.there or match.found, grid, is_one_of_many=is_one_of_many)
    if layer.grid is None and layer.crs is None and grid.crs is None:
        layer = _on(layer, grid)
    shapes = layer.in_pixels(grid)
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    meets = np.isfinite(bounds).all(axis=1) & (bounds[:, 2:] >= 0).all(axis=1)
    meets &= (bounds[:, :2] <= (grid.width, grid.height)).all(axis=1)
    if match.image is None and meets.any():  # no raster's edge: the grid only spans what was found or marked
        meets = np.isfinite(bounds).all(axis=1)
    return shapes[meets], layer[meets]


def _polygons(shapes: Geometries, layer: Layer, path: Path) -> tuple[Geometries, tuple[str, ...]]:
    is_area = shapely.area(shapes) > 0
    if len(shapes) and not is_area.any():
        raise UserError(f"{path} has no polygon, so it can't say where the truth is complete.")
    layer = layer[is_area]
    named = next((layer.columns[name] for name in ("plot", "name", "id") if name in layer.columns), None)
    if named is None or len({str(name) for name in named}) < len(layer):
        named = np.arange(1, len(layer) + 1)
    return shapes[is_area], tuple(str(name) for name in named)


def _on(layer: Layer, grid: Grid) -> Layer:
    return replace(layer, grid=grid)


def _common_plane(own: Layer, true: Layer, found: Path, there: Path) -> tuple[Grid, bool, Layer, Layer]:
    """A grid that holds both layers without a raster, whether it counts pixels, and the layers."""
    stated = next((layer.grid for layer in (own, true) if layer.grid is not None), None)
    if stated is not None:  # a label image with its place, or a file that states the image's size
        fixed = [
            layer if layer.frame_crs is not None or layer.grid else _on(layer, stated)
            for layer in (own, true)
        ]
        return stated, True, fixed[0], fixed[1]
    known = [layer for layer in (own, true) if len(layer)]
    crs = {describe_crs(layer.crs) if layer.crs is None else "a CRS" for layer in known}
    if len(crs) > 1:
        without = there if own.crs is not None else found
        raise UserError(
            f"{without} has pixels or no CRS and the other file has one; name the raster with --image."
        )
    frame_crs = known[0].crs if known else None
    has_pixels = frame_crs is None and all(layer.metadata.get("frame") == "pixel" for layer in known)
    grid = Grid(1, 1, crs=frame_crs)
    whole = [np.asarray(shapely.bounds(layer.in_pixels(grid)), np.float64).reshape(-1, 4) for layer in known]
    bounds = np.concatenate([np.empty((0, 4)), *whole])
    bounds = bounds[np.isfinite(bounds).all(axis=1)]
    low, high = (
        (bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)) if len(bounds) else (np.zeros(2), np.ones(2))
    )
    if frame_crs is not None and frame_crs.is_geographic and high[0] - low[0] > 180:
        raise UserError(
            f"{found} and {there} lie on both sides of 180° longitude; name the raster with --image."
        )
    corner = np.zeros(2) if has_pixels and (low >= 0).all() else np.floor(low)
    width, height = (max(1, int(side)) for side in np.ceil(high - corner))
    grid = Grid(width, height, (1.0, 0.0, float(corner[0]), 0.0, 1.0, float(corner[1])), frame_crs)
    # An empty file says nothing of where it lies.
    return grid, has_pixels, own if len(own) else _on(own, grid), true if len(true) else _on(true, grid)


def centres_inside(plots: Geometries, xy: Floats) -> NDArray[np.int64]:
    """The first of the polygons that holds each position (N, 2); -1 where none does."""
    owner = np.full(len(xy), -1, np.int64)
    if len(plots) and len(xy):
        plot, point = shapely.STRtree(shapely.points(xy)).query(plots, "intersects")
        for number in range(len(plots) - 1, -1, -1):
            owner[point[plot == number]] = number
    return owner
