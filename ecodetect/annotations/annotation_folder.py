"""A folder with a file of features for each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any

from ecodetect.annotations.file_names import (
    IMAGE_MARKS,
    PICTURES,
    features_in,
    meant_files,
    name_key,
    own_stem,
    photographs,
    without_end,
    without_mark,
    without_photographs,
)
from ecodetect.annotations.found import Found, rasters_of
from ecodetect.errors import LayerError
from ecodetect.formats import files as formats
from ecodetect.formats.image_matching import (
    base_name,
    listed,
    without_code,
)
from ecodetect.grid import Grid
from ecodetect.notes import Note
from ecodetect.raster.finding import stem_of
from ecodetect.wording import counted


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
        files = meant_files(features_in(path), are_detections=are_detections)
        if not files:
            raise LayerError(
                f"The folder {path} holds no file of features; name one with a file for each image."
            )
        pictured = photographs(files)
        files = [file for file in files if file not in pictured]
        for file in files:
            stem = own_stem(file)
            self._files.setdefault(name_key(stem), []).append(file)
            for plain in {without_mark(stem), without_code(stem)} - {stem}:
                self._marked.setdefault(name_key(plain), []).append(file)
        self._used: dict[Path, str] = {}  # file -> the image that used it
        self._notes: list[Note] = []
        self.names = tuple(dict.fromkeys(self._name(file) for file in without_photographs(files)))

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
        more = ((self._files, without_code(stem)), (self._marked, without_end(stem, IMAGE_MARKS)))
        for among, name in (*names, *more):
            files = files or [file for file in among.get(name_key(name), ()) if not _is_same(file, image)]
        # Among names that differ in case, the one spelled like the image; among folders, those that it
        # shares.
        files = [file for file in files if own_stem(file) in (stem, base)] or files
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
        stem = own_stem(file)
        plain = without_mark(stem) if file.suffix.lower() in PICTURES else stem
        return file.relative_to(self.path).with_name(plain + file.suffix).as_posix()


def _is_same(file: Path, image: str) -> bool:
    return file == Path(image) or (file.name == base_name(image) and file.resolve() == Path(image).resolve())


def _shared_folders(file: Path, image: str) -> int:
    """How many folders a file and an image have in common, from the innermost."""
    one, other = (reversed(PurePath(path).parent.parts) for path in (file, image.replace("\\", "/")))
    same = takewhile(lambda pair: pair[0].casefold() == pair[1].casefold(), zip(one, other, strict=False))
    return len(list(same))
