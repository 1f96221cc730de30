"""Which of the images that an annotation file speaks of is the raster at hand: by name and by size.

Names in such files carry folders of other machines, another suffix after a conversion, another case.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecodetect.errors import LayerError
from ecodetect.grid import Grid
from ecodetect.layer import Layer
from ecodetect.notes import Note
from ecodetect.wording import counted

# Columns in which people name the image, compared without case, blanks and underscores.
_COLUMNS = ("source", "image", "imagepath", "imagename", "filename", "file")


class OtherSize(LayerError):
    """A file states another size of its image than the raster has."""


def base_name(name: str) -> str:
    """The last part of a path written on any system."""
    return (_parts(name) or [""])[-1]


def without_code(name: str) -> str:
    """A name without the eight hexadecimal digits that Label Studio puts before uploads: `1a2b3c4d-x.jpg`."""
    base = base_name(name)
    return name[: len(name) - len(base)] + re.sub(r"^[0-9a-f]{8}-(?=.)", "", base, flags=re.IGNORECASE)


def meant(names: Iterable[str], image: str, path: Path) -> frozenset[str]:
    """Those of `names` that mean `image`, written with more or fewer folders; empty if none does.

    The same base name counts before the same but for case, then the same without suffix, then the same but
    for the code that Label Studio puts before an upload's name; of several folders those that `image` shares.
    Raises LayerError when that leaves more than one image.
    """
    names = list(names)
    likeness = {name: _likeness(name, image) for name in names}
    best = max(likeness.values(), default=(0, 0))
    if best[0] == 0:
        likeness = {name: _likeness(without_code(name), without_code(image)) for name in names}
        best = max(likeness.values(), default=(0, 0))
        uploads = {base_name(name) for name, (rank, _) in likeness.items() if rank == best[0] > 0}
        if len(uploads) > 1:
            raise LayerError(
                f"{path.name} has {len(uploads)} uploads of {base_name(image)}: {listed(sorted(uploads))};"
                " keep the annotations of one."
            )
    if best[0] == 0:
        return frozenset()
    alike = [name for name, (rank, _) in likeness.items() if rank == best[0]]
    nearest = [name for name in alike if likeness[name] == best]
    # `plot.tif` and `a/plot.tif` can be one image, `a/plot.tif` and `b/plot.tif` can't.
    longest = max(nearest, key=lambda name: len(_parts(name)))
    if not all(_fits(name, longest) for name in nearest):
        raise LayerError(
            f"{path.name} has {len(nearest)} images that could be {base_name(image)}:"
            f" {', '.join(nearest[:3])}; keep the rows of one."
        )
    return frozenset(name for name in alike if _fits(name, longest))


def lookup_keys(name: str) -> frozenset[str]:
    """What two names that `meant` may take for one image have in common: at least one of these.

    So that among thousands of names only those that are alike are compared.
    """
    base = unicodedata.normalize("NFC", base_name(name)).casefold()
    return frozenset(key for each in (base, without_code(base)) for key in (each, PurePosixPath(each).stem))


def meant_or_refused(names: Iterable[str], image: str, path: Path) -> frozenset[str]:
    """As `meant`, but raises LayerError, naming the images there are, when none is `image`."""
    names = list(dict.fromkeys(names))
    found = meant(names, image, path)
    if not found:
        there = f"it is about {listed(names)}" if names else "it names no image"
        raise LayerError(f"{path.name} says nothing about {base_name(image)}: {there}; is it the right file?")
    return found


def image_column(layer: Layer) -> NDArray[np.object_] | None:
    """The column with the images' names, (N,); one called `source` may hold something else."""
    for name, values in layer.columns.items():
        plain = name.casefold().replace("_", "").replace(" ", "")
        if plain in _COLUMNS and values.dtype.kind in "OU":
            texts = values.astype(object)
            if plain != "source" or any(re.search(r"\.\w{2,5}$", str(text)) for text in set(texts.tolist())):
                return texts
    return None


def stated_size(width: object, height: object) -> tuple[int, int] | None:
    """Width and height in pixels as a file states them (numbers or text); None where it doesn't."""
    sides = []
    for value in (width, height):
        try:
            side = float(value) if isinstance(value, (int, float, str)) else 0.0
        except (ValueError, OverflowError):
            side = 0.0
        if not (1 <= side <= 1e9 and side == int(side)):
            return None
        sides.append(int(side))
    return sides[0], sides[1]


def check_size(size: tuple[int, int] | None, grid: Grid | None, path: Path) -> None:
    """Raise OtherSize when a file states another size of the image than the raster has."""
    if grid is None or size is None or size == (grid.width, grid.height):
        return
    raise OtherSize(
        f"Sizes differ: {path.name} was made on an image of {size[0]} x {size[1]} px, but the raster has"
        f" {grid.width} x {grid.height} px; give the raster it was made on."
    )


def left_out(others: Mapping[str, int], path: Path, unit: str) -> Note:
    """The note for each `unit` (row, annotation, …) that belongs to other images: {image: how many}."""
    text = f"{counted(sum(others.values()), unit)} of other images left out ({listed(others)})."
    return Note("other-images", text, about=path.name)


def only_image(metadata: Mapping[str, Any]) -> str:
    """The image that a layer to be written is about, for features that don't say; "" where unknown."""
    rasters = metadata.get("rasters")
    if isinstance(rasters, list) and len(rasters) == 1 and isinstance(rasters[0], dict):
        return str(rasters[0].get("source", ""))
    return ""


def listed(names: Iterable[str], most: int = 3) -> str:
    """The first few base names, and how many more."""
    names = list(dict.fromkeys(base_name(name) for name in names))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[\\/]+", name.strip()) if part not in ("", ".")]


def _folders(name: str) -> list[str]:
    """The folders of a name, the innermost first."""
    return [folder.casefold() for folder in reversed(_parts(name)[:-1])]


def _fits(one: str, other: str) -> bool:
    """Whether one name can be the other with fewer folders."""
    return all(a == b for a, b in zip(_folders(one), _folders(other), strict=False))


def _likeness(one: str, other: str) -> tuple[int, int]:
    """Similarity of base names (4 equal, 3 except case, 2 and 1 without suffix, 0 none); equal folders."""
    # macOS stores umlauts decomposed, the others composed.
    a, b = (base_name(unicodedata.normalize("NFC", name)) for name in (one, other))
    if not a or not b:
        return 0, 0
    alike = max(_alike(a, b, same=4, stem=2), _alike(a.casefold(), b.casefold(), same=3, stem=1))
    pairs = zip(_folders(one), _folders(other), strict=False)
    return alike, len(list(takewhile(lambda pair: pair[0] == pair[1], pairs))) if alike else 0


def _alike(a: str, b: str, *, same: int, stem: int) -> int:
    if a == b:
        return same
    stem_a, stem_b = PurePosixPath(a).stem, PurePosixPath(b).stem
    return stem if stem_a in (stem_b, b) or a == stem_b else 0
