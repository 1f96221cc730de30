"""Features of each image: from one file about one or many, or from a folder with a file for each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ecodetect import formats
from ecodetect.errors import LayerError
from ecodetect.formats.image_matching import image_column, meant, meant_or_refused
from ecodetect.grid import Grid
from ecodetect.inputs import OUR_MARKS
from ecodetect.layer import Layer


def opened(
    path: str | os.PathLike[str], layer: str | None, *, names_from: str | os.PathLike[str] | None = None
) -> LayerFile | LayerFolder:
    """A file of features, or a folder with one for each image; LayerError where the folder has none.

    names_from : as `formats.read` takes it.
    """
    source = Path(path)
    if source.is_dir() and source.suffix.lower() not in formats.suffixes(writing=False):
        known = formats.suffixes(writing=False)
        files = sorted(p for p in source.iterdir() if p.suffix.lower() in known and p.is_file())
        named = {_stem(p): p for p in files if p.stem not in ("classes", "obj") and p.suffix[1:2] != "y"}
        if named:
            return LayerFolder(source, named)
        raise LayerError(
            f"The folder {source} holds no file of features; name one with a file for each image, or a file."
        )
    return LayerFile(source, layer, None if names_from is None else Path(names_from))


def _stem(path: Path) -> str:
    stem = path.stem
    for mark in OUR_MARKS:
        stem = stem.removesuffix(mark)
    return stem


class LayerFolder:
    """A file of features for each image, with the image's name."""

    def __init__(self, path: Path, files: dict[str, Path]) -> None:
        self.path, self.files = path, files
        self.names = tuple(files)
        self.has_crs = False
        self.is_empty = False
        self.lists_images = True
        self.metadata: dict[str, Any] = {}
        self.rasters: list[dict[str, Any]] = []

    def of(self, name: str | None, grid: Grid | None, *, is_one_of_many: bool) -> Layer:
        """The features of an image; none where there is no file for it."""
        pick = meant if is_one_of_many else meant_or_refused
        wanted = sorted(pick(self.names, name or "", self.path))
        if not wanted:
            return nothing_on(grid)
        layer = formats.read(self.files[wanted[0]], grid=grid, image=None if grid is None else name)
        self.metadata = dict(layer.metadata) or self.metadata
        self.rasters += _rasters(layer.metadata)
        return layer


class LayerFile:
    """One file of features of one or many images."""

    def __init__(self, path: Path, layer: str | None, names_from: Path | None = None) -> None:
        self.path, self.layer, self.names_from = path, layer, names_from
        self._whole: Layer | None = None

    @property
    def whole(self) -> Layer:
        """All features as they were read, without a raster."""
        if self._whole is None:
            self._whole = formats.read(self.path, layer=self.layer, names_from=self.names_from)
        return self._whole

    @property
    def metadata(self) -> dict[str, Any]:
        """What the scan that made the file says of itself; empty for other files."""
        if self._whole is not None and "settings" in self._whole.metadata:
            return dict(self._whole.metadata)
        try:
            return dict(formats.read_metadata(self.path))
        except LayerError:  # not a file of ours
            return {}

    @property
    def rasters(self) -> list[dict[str, Any]]:
        """What that scan says of each raster."""
        return _rasters(self.metadata)

    @property
    def listed(self) -> tuple[str, ...]:
        """The images that the file says it is about, also those without a feature."""
        sources = [each.get("source") for each in self.rasters]
        return tuple(str(name) for name in [*self.whole.metadata.get("images", ()), *sources] if name)

    @property
    def lists_images(self) -> bool:
        """Whether an image that isn't listed wasn't searched; a table knows only those with a detection."""
        return bool(self.listed) and self.path.suffix.lower() not in (".csv", ".tsv", ".txt")

    @property
    def names(self) -> tuple[str, ...]:
        """The images that it speaks of, as far as it says."""
        values = image_column(self.whole)
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
            return nothing_on(grid)
        if grid is None:
            layer = self.whole
        else:
            layer = formats.read(
                self.path, layer=self.layer, grid=grid, image=name, names_from=self.names_from
            )
        values = image_column(layer)
        if name is None or values is None:
            return layer
        images = set(values.tolist())
        if len(images) < 2 and not is_one_of_many:
            return layer  # of one image: it goes by its place, whatever its name
        pick = meant if is_one_of_many else meant_or_refused
        return layer[np.isin(values.astype(str), list(pick(images, name, self.path)))]


def _rasters(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [each for each in metadata.get("rasters") or () if isinstance(each, dict)]


def nothing_on(grid: Grid | None) -> Layer:
    """A layer without features."""
    return Layer(np.empty(0, dtype=object), grid=grid)
