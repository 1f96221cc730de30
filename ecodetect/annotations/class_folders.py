"""Pictures in folders by class, as a classifier is taught: one folder a class, one individual a picture.

`FOLDER/<Class>/*.jpg`, or the same in `FOLDER/train` and `FOLDER/val`. Each picture is a source whose one
annotation is the whole of it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.annotations.annotated_raster import AnnotatedRaster
from ecodetect.annotations.class_names import joined
from ecodetect.annotations.dataset import Dataset, Spot
from ecodetect.annotations.laying import Annotations
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.annotations.sample import Objects, Sample
from ecodetect.annotations.sources import Gathered, with_units
from ecodetect.annotations.training_folders import ANNOTATION_FOLDERS, TRAINING_WORDS, VALIDATION_WORDS
from ecodetect.errors import UserError
from ecodetect.grid import Window
from ecodetect.notes import Note
from ecodetect.raster.finding import expand
from ecodetect.region import Region

_LEAST = 2  # pictures of a class: one to learn from, one to be judged by


def are_classes(paths: Sequence[str | os.PathLike[str]]) -> bool:
    """Whether this is one folder of pictures by class."""
    return len(paths) == 1 and bool(_sides(Path(paths[0])))


def pictures(folder: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """Class -> its pictures, sorted, in all parts (train, val) of a folder; empty for other folders."""
    found: dict[str, list[Path]] = {}
    for side in _sides(Path(folder)):
        for name in _classes(side):
            found.setdefault(name.name, []).extend(_images(name))
    return dict(sorted(found.items()))


def _sides(folder: Path) -> list[Path]:
    """The folders whose folders are classes: itself, or its `train` and `val`."""
    if not folder.is_dir():
        return []
    if _is_of_classes(folder):
        return [folder]
    inner = [
        folder / name for name in (*TRAINING_WORDS, *VALIDATION_WORDS, "test") if (folder / name).is_dir()
    ]
    return inner if inner and all(map(_is_of_classes, inner)) else []


def _is_of_classes(folder: Path) -> bool:
    """At least two folders, all but hidden ones with pictures, none with a name of another meaning."""
    other = {*ANNOTATION_FOLDERS, "images", *TRAINING_WORDS, *VALIDATION_WORDS, "test"}
    inner = _classes(folder)
    if len(inner) < 2 or any(path.name.casefold() in other for path in inner):
        return False
    return not _images(folder) and all(map(_images, inner))


def _classes(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    try:
        return [Path(path) for path in expand([folder]) if Path(path).parent == folder]
    except UserError:
        return []


def gather_classes(folder: str | os.PathLike[str], asked: AnnotationOptions | None = None) -> Gathered:
    """The pictures of a folder of classes as sources.

    Raises UserError, naming the class, where it has too few pictures to learn from.
    """
    asked = asked or AnnotationOptions()
    known, notes = spelt_once(pictures(folder), Path(folder).name, keep_spelling=asked.keep_spelling)
    for name, paths in known.items():
        if len(paths) < _LEAST:
            raise UserError(
                f"The class '{name}' in {folder} has {len(paths)} picture; give it at least {_LEAST}, and"
                " some 50 for a classifier that is of use."
            )
    sources = [picture(path, name, asked) for name, paths in known.items() for path in paths]
    return Gathered(with_units(sources, asked, is_one_folder=True), notes)


def spelt_once(
    known: Mapping[str, list[Path]], folder: str, *, keep_spelling: bool = False
) -> tuple[dict[str, list[Path]], tuple[Note, ...]]:
    """Class -> its pictures, where several folders write one class in several ways; and what to say of it.

    folder : what messages call the folder of all.
    """
    labels = np.array([name for name, paths in known.items() for _ in paths], dtype=object)
    (names,), notes = joined([labels], keep_spelling=keep_spelling)
    found: dict[str, list[Path]] = {}
    every = [path for paths in known.values() for path in paths]
    for name, path in zip(names.tolist(), every, strict=True):
        found.setdefault(name, []).append(path)
    return dict(sorted(found.items())), tuple(note.of(folder) for note in notes)


def picture(path: Path, label: str, asked: AnnotationOptions) -> AnnotatedRaster:
    """A picture of one individual of the class `label` as a source."""
    with asked.opened(path) as raster:
        grid, bands, dtype = raster.grid, raster.bands, raster.dtype
    whole = shapely.box(0, 0, grid.width, grid.height)
    one = np.array([whole], dtype=object)
    nan = np.full(1, np.nan)
    marked = Annotations(grid, one, np.array([label], dtype=object), nan, nan, np.zeros(1, np.bool_))
    none = np.empty(0, dtype=object)
    area = Region(whole, grid)
    name = f"{path.parent.name}/{path.name}"
    return AnnotatedRaster(str(path), name, grid, bands, dtype, asked, marked, area, "image", none)


class ClassPictures(Sequence[Sample]):
    """Pictures of a data set, each brought to one size, as samples.

    side : of the samples, in pixels.
    """

    def __init__(self, ground: Dataset | None, side: int) -> None:
        self._ground, self._side = ground, side
        self._sources = () if ground is None else ground.used

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        assert self._ground is not None
        return _whole(self.image(index), self._ground.objects(self._sources[index]).label)

    def image(self, index: int) -> NDArray[np.float32]:
        """A picture alone, (B, side, side), scaled as the contract says."""
        assert self._ground is not None
        source = self._sources[index]
        grid = self._ground.grids[source]
        image, side = (
            self._ground.chip(Spot(source, Window(0, 0, grid.width, grid.height))).image,
            self._side,
        )
        if image.shape[1:] != (side, side):
            shrinks = max(image.shape[1:]) > side
            how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image = np.stack([cv2.resize(band, (side, side), interpolation=how) for band in image])
        return image

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def _whole(image: np.ndarray, label: np.ndarray) -> Sample:
    """An image of one individual that fills it, however its border is."""
    shape = image.shape[1:]
    middle, size = np.array([[shape[1] / 2, shape[0] / 2]]), np.array([[shape[1], shape[0]]], np.float64)
    objects = Objects.about(middle, size, label[:1], np.zeros(1))
    yes = np.ones(shape, np.bool_)
    return Sample(image, yes, yes.copy(), ~yes, objects)


class DrawnPatches:
    """Pictures for the loop: each class as often as the root of its number asks, validation as they are.

    side : of the pictures.  size : of what is read, so that turned ones have corners: mirrored ground.
    """

    def __init__(self, training: Dataset, validation: Dataset | None, side: int, size: int) -> None:
        self._patches, self._over = ClassPictures(training, side), max(0, size - side + 1) // 2
        self._lock = threading.Lock()  # data sets are for one thread
        label = np.array([int(training.objects(source).label[0]) for source in training.used], np.int64)
        weight = 1 / np.sqrt(np.bincount(label)[label])
        self._sum = np.cumsum(weight)
        self.validation = ClassPictures(validation, side)

    def __len__(self) -> int:
        return len(self._patches)

    def chip(self, rng: np.random.Generator) -> Sample:
        """A random picture, a function of the generator's state."""
        row = int(np.searchsorted(self._sum, rng.random() * self._sum[-1], side="right"))
        with self._lock:
            sample = self._patches[min(row, len(self._patches) - 1)]
        around = [(0, 0), (self._over, self._over), (self._over, self._over)]
        return _whole(np.pad(sample.image, around, mode="symmetric"), sample.objects.label)
