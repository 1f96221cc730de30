"""What the names of files say: which hold features, which are masks, and which image each is about."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from ecodetect.formats import files as formats
from ecodetect.raster.finding import OUR_MARKS, is_kept

# Suffixes that label images share with ordinary images.
PICTURES = (".tif", ".tiff", ".png")

# Endings of the stems of files that lie beside an image with the beginning of that stem.
MARKS = ("cp_masks", "mask", "masks", "label", "labels", "instances")

# Endings of the stems of pictures that Cellpose puts beside an image; they are neither images nor masks.
_BY_PRODUCTS = ("cp_outlines", "outlines", "flows", "cp_output")

IMAGE_MARKS = ("img", "image")  # Cellpose's `x_img.png` has its masks in `x_masks.png`

# Stems of files without features.
_LISTS = ("classes", "notes", "obj", "readme", "license", "predefined_classes")


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
    return without_mark(path.stem) != path.stem or _is_by_product(path)


def _is_by_product(path: Path) -> bool:
    is_text = path.suffix.lower() == ".txt" and path.stem.lower().endswith("_cp_outlines")
    return is_text or (path.suffix.lower() in PICTURES and without_end(path.stem, _BY_PRODUCTS) != path.stem)


def name_key(name: str) -> str:
    """A key that is the same for spellings of a name that differ in case or in the encoding of accents."""
    # macOS stores umlauts decomposed, other systems composed.
    return unicodedata.normalize("NFC", name).casefold()


def own_stem(path: Path) -> str:
    """Stem of a file without the marks that ecodetect adds."""
    stem = path.stem
    for mark in OUR_MARKS:
        stem = stem.removesuffix(mark)
    return stem


def without_mark(stem: str) -> str:
    """A stem without the mark that tells a label file from its image."""
    return without_end(stem, MARKS)


def without_end(stem: str, marks: Sequence[str]) -> str:
    """A stem without one of these marks at its end."""
    return re.sub(rf"[._-]({'|'.join(marks)})$", "", stem, flags=re.IGNORECASE)


def meant_files(files: Sequence[Path], *, are_detections: bool) -> list[Path]:
    """Annotations or outputs of scans, where one folder holds both; all where there is one kind."""
    ours = [file for file in files if own_stem(file) != file.stem]
    others = [file for file in files if file not in set(ours)]
    if are_detections:
        return ours or others
    return others if any(file.suffix.lower() not in PICTURES for file in others) else list(files)


def without_photographs(files: Sequence[Path]) -> list[Path]:
    """Files without photographs: pictures that lie beside a file of the same stem that isn't a picture."""
    shapes = {name_key(own_stem(file)) for file in files if file.suffix.lower() not in PICTURES}
    plain = [file for file in files if file.suffix.lower() in PICTURES and not is_label_image(file)]
    if not any(name_key(file.stem) in shapes for file in plain):
        return list(files)
    return [file for file in files if file not in set(plain)]


def photographs(files: Sequence[Path]) -> set[Path]:
    """Pictures that are photographs: label images, with a mark in their names, lie beside some of them."""
    pictures = [file for file in files if file.suffix.lower() in PICTURES]
    plain = [file for file in pictures if not is_label_image(file)]
    marked = {(file.parent, name_key(without_mark(file.stem))) for file in {*pictures} - {*plain}}
    stems = ((file.parent, (file.stem, without_end(file.stem, IMAGE_MARKS))) for file in plain)
    has_masks = any((folder, name_key(stem)) in marked for folder, both in stems for stem in both)
    return set(plain) if has_masks else set()
