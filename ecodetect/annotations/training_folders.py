"""A folder of training data: which files in it are images, and which their annotations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ecodetect.annotations import layouts
from ecodetect.annotations.annotation_file import names_images
from ecodetect.annotations.file_names import PICTURES, features_in, files_in, is_label_image
from ecodetect.annotations.files import AnnotationFiles, opened
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.errors import UserError
from ecodetect.formats import files as formats
from ecodetect.formats.image_matching import listed
from ecodetect.notes import Note
from ecodetect.raster.finding import expand, stem_of
from ecodetect.wording import counted

# Names of folders and files with annotations in a folder of training data, those that say most first.
ANNOTATION_FOLDERS = ("annotations", "labels", "points", "boxes", "polygons", "masks", "truth", "instances")
TRAINING_WORDS, VALIDATION_WORDS = ("train", "training"), ("val", "valid", "validation")


def pairs_of(
    given: Sequence[str], asked: AnnotationOptions, notes: list[Note]
) -> list[tuple[list[str], AnnotationFiles]]:
    """Images with the files of their annotations.

    given : one folder of training data, or image, annotations, image, annotations, …; see `sources.gather`.
    notes : to which is added what was chosen.
    Raises UserError where these can't be told apart.
    """
    pairs: list[tuple[list[str], AnnotationFiles]] = []
    if len(given) == 1:
        known = layouts.parts_of(Path(given[0]))
        pairs += [(images, opened(annotations, layer=asked.layer)) for images, annotations in known]
        if not known:
            pairs += [_in_folder(folder, asked, notes) for folder in _sides(Path(given[0]))]
    elif len(given) % 2 == 0 and given:
        for image, annotations in zip(given[::2], given[1::2], strict=True):
            pairs.append((expand([image]), opened(annotations, layer=asked.layer)))
    else:
        raise UserError(
            "Training takes one folder, or images and annotations in turn (IMAGE ANNOTATIONS IMAGE …);"
            f" got {counted(len(given), 'name')}."
        )
    return pairs


def _sides(folder: Path) -> list[Path]:
    """The folders of training data in a folder: itself, or its `train` and `val` with images of their own."""
    if (folder / "images").is_dir() or (folder.is_dir() and _rasters(folder)):
        return [folder]
    found = [folder / name for name in (*TRAINING_WORDS, *VALIDATION_WORDS) if (folder / name).is_dir()]
    return found or [folder]


def _in_folder(
    folder: Path, asked: AnnotationOptions, notes: list[Note]
) -> tuple[list[str], AnnotationFiles]:
    """Images and annotations of a folder of training data."""
    if not folder.is_dir():
        raise UserError(f"{folder} isn't a folder; give a raster together with its annotations.")
    inner = folder / "images"
    if inner.is_dir():
        images = expand([inner])
    else:
        inner = folder
        images = [path for path in _rasters(folder) if not is_label_image(Path(path))]
    if not images:
        raise UserError(f"The folder {folder} holds no images; they are looked for in it and in its images/.")
    stems = {stem_of(image).casefold() for image in images}
    folders = [folder / name for name in ANNOTATION_FOLDERS if (folder / name).is_dir()]
    candidates: list[Path] = [path for path in folders if features_in(path)]
    beside = files_in(inner)
    is_by_image = any(
        path.stem.casefold() in stems if path.suffix.lower() not in PICTURES else is_label_image(path)
        for path in beside
    )
    candidates += [inner] if is_by_image else []
    files = [path for path in dict.fromkeys([*files_in(folder), *beside]) if _may_be_about_all(path)]
    named = [path for path in files if path.stem.casefold() in ANNOTATION_FOLDERS]
    rest = [path for path in files if path not in named and path.stem.casefold() not in stems]
    candidates += sorted(named, key=lambda path: ANNOTATION_FOLDERS.index(path.stem.casefold()))
    candidates += rest if not candidates else []
    if not candidates:
        for path in sorted(inner.glob("*_seg.npy"))[:1]:
            formats.read(path)  # says why not
        raise UserError(
            f"The folder {folder} has images ({len(images)}) but no annotations: these are looked for in"
            f" folders {', '.join(ANNOTATION_FOLDERS[:5])}, beside the images, and in one file about all."
        )
    if len(candidates) > 1 and candidates[0] in rest:
        raise UserError(
            f"{folder} has {len(candidates)} files that could be the annotations"
            f" ({listed(str(path) for path in candidates)}); give images and annotations by name."
        )
    if len(candidates) > 1:
        others = listed(str(path) for path in candidates[1:])
        text = f"annotations are those in {candidates[0].name}; not read: {others}."
        notes.append(Note("annotations-chosen", text, about=folder.name, kind="choice"))
    return images, opened(candidates[0], layer=asked.layer)


def _rasters(folder: Path) -> list[str]:
    try:
        return [path for path in expand([folder]) if Path(path).parent == folder]
    except UserError:
        return []


def _may_be_about_all(path: Path) -> bool:
    """Whether a file beside images can hold the annotations of all of them."""
    suffix = path.suffix.lower()
    if suffix in (".txt", *PICTURES):
        return False
    if suffix not in (".csv", ".tsv"):
        return True
    return names_images(path)
