"""A file of features of one or many images."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.annotations.found import WITHOUT_RASTER, Found, nothing_on, rasters_of, touching
from ecodetect.errors import LayerError, UserError
from ecodetect.formats import files as formats
from ecodetect.formats.image_matching import (
    image_column,
    listed,
    lookup_keys,
    meant,
    meant_or_refused,
)
from ecodetect.grid import Grid
from ecodetect.layer import Layer
from ecodetect.notes import Note
from ecodetect.wording import counted


class AnnotationFile:
    """One file of features of one or many images.

    path : of the file.  layer : which of its layers to read.
    """

    def __init__(
        self, path: Path, layer: str | None = None, *, names_from: str | os.PathLike[str] | None = None
    ) -> None:
        self.path, self.layer = path, layer
        self._names_from = names_from
        self._is_said = True  # until one image among several is asked for
        self._whole: Layer | None = None
        self._said_beside: dict[str, Any] | None = None  # read once: it grows with the number of images
        self._names: tuple[str, ...] | None = None
        self._alike: dict[str, list[str]] = {}  # lookup key -> names

    @property
    def whole(self) -> Layer:
        """All features as they were read, without a raster."""
        if self._whole is None:
            self._whole = formats.read(self.path, layer=self.layer, names_from=self._names_from)
        return self._whole

    @property
    def names(self) -> tuple[str, ...]:
        """The images that it names."""
        if self._names is None:
            column = _names_of(self.whole)
            own = () if column is None else filter(None, column.tolist())
            self._names = tuple(dict.fromkeys([*self._listed, *own]))
            for name in self._names:
                for key in lookup_keys(name):
                    self._alike.setdefault(key, []).append(name)
        return self._names

    @property
    def _listed(self) -> tuple[str, ...]:
        """The images that the file lists, also those without a feature."""
        sources = [each.get("source") for each in self.rasters]
        return tuple(str(name) for name in [*self.whole.metadata.get("images", ()), *sources] if name)

    @property
    def lists_images(self) -> bool:
        """Whether an image that isn't listed wasn't searched; a table names only images with a feature."""
        return bool(self._listed) and self.path.suffix.lower() not in (".csv", ".tsv", ".txt")

    @property
    def is_empty(self) -> bool:
        return not len(self.whole)

    @property
    def has_crs(self) -> bool:
        return self.whole.frame_crs is not None

    @property
    def metadata(self) -> dict[str, Any]:
        """What the scan that made the file says about itself; empty for other files."""
        if self._whole is not None and "settings" in self._whole.metadata:
            return dict(self._whole.metadata)
        if self._said_beside is None:
            try:
                self._said_beside = dict(formats.read_metadata(self.path))
            except LayerError:  # not written by ecodetect
                self._said_beside = {}
        return dict(self._said_beside)

    @property
    def rasters(self) -> list[dict[str, Any]]:
        """What that scan says about each raster."""
        return rasters_of(self.metadata)

    def meant(self, image: str) -> frozenset[str]:
        """Those of `names` that are this image; only similar names are compared."""
        if not self.names:
            return frozenset()
        alike = dict.fromkeys(name for key in lookup_keys(image) for name in self._alike.get(key, ()))
        return meant(alike, image, self.path)

    def of(self, image: str | None, grid: Grid | None, *, is_one: bool) -> Found | None:
        """The features of an image; None where the file says nothing about it.

        image : its path or name; None: all features.  grid : of the raster; None where it isn't known.
        is_one : whether this is the only raster: a file that names at most one image is then about it.
        Raises LayerError where features can't be told apart by image.
        """
        self._is_said = image is None or is_one  # the reader's own notes come with the features
        if image is None:
            return Found(self._read(grid, None), self.path.name)
        if is_one:
            return Found(self._alone(image, grid), self.path.name)
        if not self.names:
            return self._by_place(grid)
        wanted = self.meant(image)
        if not wanted:
            return None
        column = _names_of(self.whole)
        if column is None:
            return Found(nothing_on(grid), self.path.name)
        if grid is not None and self._needs_raster(grid, wanted):
            rows = self._read(grid, image)
            if (column := image_column(rows)) is not None:
                named = np.isin(column.astype(str), list(meant(column.astype(str), image, self.path)))
                rows = rows[named | _by_place_alone(rows, column, grid)]
        else:
            named = np.isin(column.astype(str), list(wanted))
            unnamed = (
                _near_alone(self.whole, column, wanted)
                if grid is None
                else _by_place_alone(self.whole, column, grid)
            )
            rows = self.whole[named | unnamed]
            if rows.frame_crs is None and rows.grid is None and grid is not None:
                rows = replace(rows, grid=grid)
        return Found(replace(rows, notes=()), self.path.name)

    def notes(self, images: Sequence[str]) -> Iterator[Note]:
        """Notes on the file, once all images (their rasters) have been looked up."""
        if self._is_said:
            return
        yield from (note for note in self.whole.notes if note.code not in WITHOUT_RASTER)
        if not self.names:
            return
        if not images:
            yield from self._unnamed()
            return
        known = {key for image in images for key in lookup_keys(image)}
        others = [name for name in self.names if not known & lookup_keys(name)]
        if others:
            text = f"{counted(len(others), 'image')} named in it but not given ({listed(others)})."
            yield Note("images-missing", text, about=self.path.name, kind="doubt")

    def _unnamed(self) -> Iterator[Note]:
        """Notes on features that name no image, in a file where others do and no raster is given."""
        column = _names_of(self.whole)
        count = 0 if column is None else int(np.count_nonzero(column.astype(str) == ""))
        if not count:
            return
        name = "1 feature names no image" if count == 1 else f"{count:,} features name no image"
        if self.whole.frame_crs is None:
            text = f"{name}, and no raster says where: left out."
            yield Note("features-unusable", text, about=self.path.name, kind="doubt")
        else:
            text = f"{name}: each counts for that of its nearest neighbour; name the image to be sure."
            yield Note("image-by-place", text, about=self.path.name, kind="choice", parameter="image")

    def _read(self, grid: Grid | None, image: str | None) -> Layer:
        if grid is None:
            return self.whole
        return formats.read(self.path, layer=self.layer, grid=grid, image=image, names_from=self._names_from)

    def _alone(self, image: str, grid: Grid | None) -> Layer:
        """The features of the only raster there is: all, unless the file names several images."""
        layer = self._read(grid, image)
        column = image_column(layer)
        names = set() if column is None else set(column.astype(str).tolist()) - {""}
        if column is None or len(names) < 2:
            return layer
        named = np.isin(column.astype(str), list(meant_or_refused(names, image, self.path)))
        return layer[named | _by_place_alone(layer, column, grid)]

    def _by_place(self, grid: Grid | None) -> Found | None:
        """The features on the raster of a file that names no images."""
        if self.whole.frame_crs is None or grid is None:
            raise UserError(
                f"{self.path} doesn't say which image each feature belongs to; it needs a column 'source'"
                " with the images' names."
            )
        inside = touching(self.whole.in_pixels(grid), grid)
        if not inside.any():
            return self._exchanged(grid)
        return Found(replace(self.whole[inside], notes=()), self.path.name)

    def _exchanged(self, grid: Grid) -> Found | None:
        """The features that lie on the raster if x and y are swapped; the reader decides whether they are."""
        geometry = shapely.transform(self.whole.in_world(), lambda xy: xy[:, ::-1])
        flipped = Layer(geometry, crs=self.whole.frame_crs)
        if not touching(flipped.in_pixels(grid), grid).any():
            return None
        found = self._read(grid, None)
        inside = touching(found.in_pixels(grid), grid)
        return Found(found[inside], self.path.name) if inside.any() else None

    def _needs_raster(self, grid: Grid, wanted: Iterable[str]) -> bool:
        """Whether features need the raster to be placed: its size isn't as stated, or it has no CRS."""
        sizes = self.whole.metadata.get("image_sizes", {})
        size = (grid.width, grid.height)
        if any(sizes.get(name, size) != size for name in wanted):
            return True
        if grid.orientation != 1:  # a photograph that viewers rotate
            return True
        is_pixel = self.whole.grid is not None or self.whole.metadata.get("frame") == "pixel"
        return self.whole.frame_crs is None and not is_pixel


def names_images(path: Path) -> bool:
    """Whether a table says which image each row belongs to."""
    try:
        return bool(AnnotationFile(path).names)
    except LayerError:  # a table of something else
        return False


def _by_place_alone(layer: Layer, column: NDArray[np.object_], grid: Grid | None) -> NDArray[np.bool_]:
    """Which features without the name of an image lie on a raster, because they were drawn on a map.

    column : names of the features' images.
    """
    found = column.astype(str) == ""
    if layer.frame_crs is None or grid is None or not found.any():
        return np.zeros(len(layer), np.bool_)
    found[found] = touching(layer[found].in_pixels(grid), grid)
    return np.asarray(found)


def _near_alone(layer: Layer, column: NDArray[np.object_], wanted: Collection[str]) -> NDArray[np.bool_]:
    """Which features without the name of an image are nearest, on a map, to one that names a wanted image.

    column : names of the features' images.
    """
    names = column.astype(str)
    found = names == ""
    if layer.frame_crs is None or not found.any() or found.all():
        return np.zeros(len(layer), np.bool_)
    named = np.flatnonzero(~found)
    nearest = shapely.STRtree(layer.geometry[named]).nearest(layer.geometry[found])
    found[found] = np.isin(names[named[nearest]], list(wanted))
    return np.asarray(found)


def _names_of(layer: Layer) -> NDArray[np.object_] | None:
    """The column with the images' names, also without suffixes where the reader knows which it is."""
    column = image_column(layer)
    return layer.columns.get("source") if column is None and layer.metadata.get("images") else column
