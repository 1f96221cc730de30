"""The features of each image, from a file about one or many images or from a folder of such files.

`train`, `check` and `evaluate` ask here which features belong to an image, so all three read the same files
the same way. The caller decides which images there are and what their annotations mean.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.annotations.class_names import key as class_key
from ecodetect.errors import LayerError, UserError
from ecodetect.formats import files as formats
from ecodetect.formats.image_matching import (
    base_name,
    image_column,
    listed,
    lookup_keys,
    meant,
    meant_or_refused,
    without_code,
)
from ecodetect.grid import Grid
from ecodetect.layer import Geometries, Layer
from ecodetect.notes import Note
from ecodetect.raster.finding import OUR_MARKS, is_kept, stem_of
from ecodetect.wording import counted

# Suffixes that label images share with ordinary images.
PICTURES = (".tif", ".tiff", ".png")
# Endings of the stems of files that lie beside an image with the beginning of that stem.
MARKS = ("cp_masks", "mask", "masks", "label", "labels", "instances")
# Endings of the stems of pictures that Cellpose puts beside an image; they are neither images nor masks.
_BY_PRODUCTS = ("cp_outlines", "outlines", "flows", "cp_output")
_IMAGE_MARKS = ("img", "image")  # Cellpose's `x_img.png` has its masks in `x_masks.png`
WITHOUT_RASTER = ("pixel-coordinates", "share-coordinates")  # codes of notes that hold without a raster
# Stems of files without features.
_LISTS = ("classes", "notes", "obj", "readme", "license", "predefined_classes")


class Found(NamedTuple):
    """The features of an image, and the name of the file they come from."""

    layer: Layer
    file: str


def opened(
    path: str | os.PathLike[str],
    *,
    layer: str | None = None,
    are_detections: bool = False,
    names_from: str | os.PathLike[str] | None = None,
) -> AnnotationFiles:
    """A file of features, or a folder with a file (or masks) for each image.

    layer : which layer, in a file with several.
    are_detections : in a folder that holds both, read the outputs of scans, not the annotations.
    names_from : as `formats.read` takes it.
    Raises LayerError where there is no file, or no file with features.
    """
    source, layer = formats.source_of(path, layer)
    if source.is_dir() and ObjectMasks.are_in(source):
        return ObjectMasks(source)
    if source.is_dir() and len(files := sorted(source.glob("instances_*.json"))) == 1:
        return AnnotationFile(files[0], layer, names_from=names_from)
    if source.is_dir() and source.suffix.lower() not in formats.suffixes(writing=False):
        files = [file for file in features_in(source) if file.suffix.lower() not in PICTURES]
        if len(files) == 1 and _is_of_several(files[0]):
            return AnnotationFile(files[0], layer, names_from=names_from)
        return AnnotationFolder(source, are_detections=are_detections)
    if not source.exists():
        raise LayerError(f"{source} doesn't exist.")
    return AnnotationFile(source, layer, names_from=names_from)


class AnnotationFolder:
    """A file of features for each image, with the image's name; also in sub-folders.

    path : of the folder.
    names : of the images: the names of the files, with their folders inside `path`.
    """

    has_crs = False
    is_empty = False
    lists_images = True

    def __init__(self, path: Path, *, are_detections: bool = False) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        self.rasters: list[dict[str, Any]] = []
        self._files: dict[str, list[Path]] = {}  # by the key of the image with the file's stem
        self._marked: dict[str, list[Path]] = {}  # the same without mark or code
        files = _meant_files(features_in(path), are_detections=are_detections)
        if not files:
            raise LayerError(
                f"The folder {path} holds no file of features; name one with a file for each image."
            )
        photographs = _photographs(files)
        files = [file for file in files if file not in photographs]
        for file in files:
            stem = _own_stem(file)
            self._files.setdefault(_key(stem), []).append(file)
            for plain in {_without_mark(stem), without_code(stem)} - {stem}:
                self._marked.setdefault(_key(plain), []).append(file)
        self._used: dict[Path, str] = {}  # file -> the image that used it
        self._notes: list[Note] = []
        self.names = tuple(dict.fromkeys(self._name(file) for file in _without_photographs(files)))

    def meant(self, image: str) -> frozenset[str]:
        """Those of `names` that are this image; empty if there is no file for it."""
        file = self._file(image)
        return frozenset() if file is None else frozenset([self._name(file)])

    def of(self, image: str | None, grid: Grid | None, *, is_one: bool) -> Found | None:
        """The features of an image; None where there is no file for it.

        image : its path or name.  grid : of the raster; None where it isn't known.
        is_one : whether this is the only raster.
        """
        file = None if image is None else self._file(image)
        if file is None:
            return None
        other = self._used.setdefault(file, image or "")
        if other != image:
            text = f"it is read for both {other} and {image}; does it describe both?"
            self._notes.append(Note("annotations-shared", text, about=file.name, kind="doubt"))
        # A file for one image may use another name for it; only a file that may name several is asked by
        # name.
        is_asked = grid is not None and file.suffix.lower() in (".json", ".xml")
        layer = formats.read(file, grid=grid, image=image if is_asked else None)
        self.metadata = dict(layer.metadata) or self.metadata
        self.rasters += rasters_of(layer.metadata)
        return Found(layer, file.name)

    def notes(self, images: Sequence[str]) -> Iterator[Note]:
        """Notes on the files, once all images (their rasters) have been looked up."""
        yield from dict.fromkeys(self._notes)
        if not images:
            return
        used = self._used.keys() | {Path(image) for image in images}
        files = [files for files in self._files.values() if not used & {*files}]
        if files and len(files) < len(self._files):
            names = listed(str(each[0]) for each in files)
            text = f"{counted(len(files), 'file')} without an image of that name ({names})."
            yield Note("images-missing", text, about=self.path.name, kind="doubt")

    def _file(self, image: str) -> Path | None:
        """The file for an image: with its stem, else its whole name, else its stem with a mark or code."""
        stem, base = stem_of(base_name(image)), base_name(image)
        files: list[Path] = []
        names = ((self._files, stem), (self._files, base), (self._marked, stem))
        more = ((self._files, without_code(stem)), (self._marked, _without(stem, _IMAGE_MARKS)))
        for among, name in (*names, *more):
            files = files or [file for file in among.get(_key(name), ()) if not _is_same(file, image)]
        # Among names that differ in case, the one spelled like the image; among folders, those that it
        # shares.
        files = [file for file in files if _own_stem(file) in (stem, base)] or files
        if len(files) > 1:
            shared = [_shared_folders(file, image) for file in files]
            files = [file for file, each in zip(files, shared, strict=True) if each == max(shared)]
        if len({file.parent for file in files}) > 1:
            raise LayerError(
                f"{self.path} has {len(files)} files for {base_name(image)}:"
                f" {', '.join(map(str, files[:3]))}; keep one."
            )
        # Geometry is preferred to a mask of it.
        files = [file for file in files if file.suffix.lower() not in PICTURES] or files
        if len(files) > 1:
            text = f"it was read for {base_name(image)}; not read: {listed(map(str, files[1:]))}."
            self._notes.append(Note("annotations-chosen", text, about=files[0].name, kind="choice"))
        return files[0] if files else None

    def _name(self, file: Path) -> str:
        stem = _own_stem(file)
        plain = _without_mark(stem) if file.suffix.lower() in PICTURES else stem
        return file.relative_to(self.path).with_name(plain + file.suffix).as_posix()


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


class ObjectMasks:
    """Folders with a mask for each object, as in the Data Science Bowl 2018: `X/images/X.png`, `X/masks/…`.

    path : the folder of one image, or of such folders.
    names : of the images.  images : their paths.
    """

    has_crs = False
    is_empty = False
    lists_images = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        self.rasters: list[dict[str, Any]] = []
        self._masks = {image.as_posix(): folder / "masks" for folder, image in self._pairs(path)}
        self.images = list(self._masks)
        self.names = tuple(self.images)

    @classmethod
    def are_in(cls, path: Path) -> bool:
        """Whether a folder has this layout."""
        return next(cls._pairs(path), None) is not None

    @staticmethod
    def _pairs(path: Path) -> Iterator[tuple[Path, Path]]:
        """Each folder of one image, and the image."""
        one = path.parent if path.name == "masks" else path
        inner = [each for each in sorted(path.iterdir()) if each.is_dir()] if one == path else []
        for folder in (one, *inner):
            images, masks = (_shown(folder / name) for name in ("images", "masks"))
            # One mask beside one image can be a label image of all objects.
            is_one_each = len(images) == 1 and len(masks) >= (2 if folder == one else 1)
            if is_one_each and formats.is_folder_of("labels.object_masks", folder / "masks"):
                yield folder, images[0]

    def meant(self, image: str) -> frozenset[str]:
        """Those of `names` that are this image."""
        return frozenset([image]) & self._masks.keys() or meant(self.names, image, self.path)

    def of(self, image: str | None, grid: Grid | None, *, is_one: bool) -> Found | None:
        """The objects of an image; None where there are no masks for it."""
        wanted = frozenset(self.names[:1]) if image is None else self.meant(image)
        if not wanted:
            return None
        folder = self._masks[min(wanted)]
        return Found(formats.read(folder, grid=grid, image=image), f"{folder.parent.name}/masks")

    def notes(self, images: Sequence[str]) -> Iterator[Note]:
        """None: their reader's notes come with the objects."""
        yield from ()


AnnotationFiles = AnnotationFile | AnnotationFolder | ObjectMasks


# -- files of shapes, and labels, to ignore ----------------------------------------------------------------


def is_file(text: str) -> bool:
    """Whether a text that may name a file or a class names a file."""
    path, _ = formats.source_of(text)
    return path.exists() or "/" in text or "\\" in text or path.suffix.lower() in _VECTORS


def opened_shapes(text: str, layer: str | None = None, *, parameter: str) -> AnnotationFile:
    """A file of shapes beside the annotations: where they are complete, or what is ignored.

    parameter : the option that names it, for messages.
    """
    path, layer = formats.source_of(text, layer)
    if not path.exists():
        raise UserError(f"{path} doesn't exist.", parameter=parameter)
    return AnnotationFile(path, layer)


_VECTORS = frozenset(formats.suffixes(writing=False)) - {"/"}


def check_labels(labels: Iterable[str], there: Iterable[object], *, keep_spelling: bool) -> None:
    """Raise UserError for a class to ignore that no annotation has.

    there : the annotations' classes.  keep_spelling : classes spelled differently are different.
    """
    known = {str(label) for label in there}
    keys = set() if keep_spelling else {class_key(label) for label in known}
    for label in labels:
        if label not in known and class_key(label) not in keys:
            named = ", ".join(sorted(filter(None, known))[:12]) or "none"
            raise UserError(
                f"'{label}' can't be ignored: it is neither a file nor a class of the annotations ({named}).",
                parameter="ignore",
            )


def touching(shapes: Geometries, grid: Grid) -> NDArray[np.bool_]:
    """Which shapes, in pixels of `grid`, may touch its raster, judged by their bounds."""
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    with np.errstate(invalid="ignore"):
        meets = (bounds[:, 2:] >= 0).all(axis=1) & (bounds[:, :2] <= (grid.width, grid.height)).all(axis=1)
    return np.asarray(meets & np.isfinite(bounds).all(axis=1))


# -- files and names ---------------------------------------------------------------------------------------


def files_in(folder: Path) -> list[Path]:
    """Files directly in a folder that may hold features; lists and descriptions are left out."""
    known = formats.suffixes(writing=False)
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and path.suffix.lower() in known
        and not path.name.startswith(".")
        and path.stem.lower() not in _LISTS
        and not _is_by_product(path)
        and not is_kept(path)
        and path.suffix.lower() not in (".yaml", ".yml")
    ]


def features_in(folder: Path) -> list[Path]:
    """Files of features in a folder, also in its sub-folders."""
    inner = sorted(path for path in folder.rglob("*") if path.is_dir())
    return [path for each in [folder, *inner] for path in files_in(each)]


def is_label_image(path: Path) -> bool:
    """Whether a picture beside an image is, by its name, the label image."""
    return _without_mark(path.stem) != path.stem or _is_by_product(path)


def _is_by_product(path: Path) -> bool:
    is_text = path.suffix.lower() == ".txt" and path.stem.lower().endswith("_cp_outlines")
    return is_text or (path.suffix.lower() in PICTURES and _without(path.stem, _BY_PRODUCTS) != path.stem)


def names_images(path: Path) -> bool:
    """Whether a table says which image each row belongs to."""
    try:
        return bool(AnnotationFile(path).names)
    except LayerError:  # a table of something else
        return False


def _is_of_several(path: Path) -> bool:
    """Whether a file names several images, like exports of CVAT and Label Studio."""
    try:
        return len(AnnotationFile(path).names) > 1
    except LayerError:
        return False


def rasters_of(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a scan says about each raster in the metadata of its output."""
    return [each for each in metadata.get("rasters") or () if isinstance(each, dict)]


def nothing_on(grid: Grid | None) -> Layer:
    """A layer without features."""
    return Layer(np.empty(0, dtype=object), grid=grid)


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


def _shown(folder: Path) -> list[Path]:
    """The visible contents of a folder; empty where there is no folder."""
    return [file for file in folder.iterdir() if not file.name.startswith(".")] if folder.is_dir() else []


def _key(name: str) -> str:
    # macOS stores umlauts decomposed, other systems composed.
    return unicodedata.normalize("NFC", name).casefold()


def _own_stem(path: Path) -> str:
    """Stem of a file without the marks that ecodetect adds."""
    stem = path.stem
    for mark in OUR_MARKS:
        stem = stem.removesuffix(mark)
    return stem


def _without_mark(stem: str) -> str:
    return _without(stem, MARKS)


def _without(stem: str, marks: Sequence[str]) -> str:
    """A stem without one of these marks at its end."""
    return re.sub(rf"[._-]({'|'.join(marks)})$", "", stem, flags=re.IGNORECASE)


def _meant_files(files: Sequence[Path], *, are_detections: bool) -> list[Path]:
    """Annotations or outputs of scans, where one folder holds both; all where there is one kind."""
    ours = [file for file in files if _own_stem(file) != file.stem]
    others = [file for file in files if file not in set(ours)]
    if are_detections:
        return ours or others
    return others if any(file.suffix.lower() not in PICTURES for file in others) else list(files)


def _without_photographs(files: Sequence[Path]) -> list[Path]:
    """Files without photographs: pictures that lie beside a file of the same stem that isn't a picture."""
    shapes = {_key(_own_stem(file)) for file in files if file.suffix.lower() not in PICTURES}
    plain = [file for file in files if file.suffix.lower() in PICTURES and not is_label_image(file)]
    if not any(_key(file.stem) in shapes for file in plain):
        return list(files)
    return [file for file in files if file not in set(plain)]


def _photographs(files: Sequence[Path]) -> set[Path]:
    """Pictures that are photographs: label images, with a mark in their names, lie beside some of them."""
    pictures = [file for file in files if file.suffix.lower() in PICTURES]
    plain = [file for file in pictures if not is_label_image(file)]
    marked = {(file.parent, _key(_without_mark(file.stem))) for file in {*pictures} - {*plain}}
    stems = ((file.parent, (file.stem, _without(file.stem, _IMAGE_MARKS))) for file in plain)
    has_masks = any((folder, _key(stem)) in marked for folder, both in stems for stem in both)
    return set(plain) if has_masks else set()


def _is_same(file: Path, image: str) -> bool:
    return file == Path(image) or (file.name == base_name(image) and file.resolve() == Path(image).resolve())


def _shared_folders(file: Path, image: str) -> int:
    """How many folders a file and an image have in common, from the innermost."""
    one, other = (reversed(PurePath(path).parent.parts) for path in (file, image.replace("\\", "/")))
    same = takewhile(lambda pair: pair[0].casefold() == pair[1].casefold(), zip(one, other, strict=False))
    return len(list(same))
