"""Which of the images that an annotation file speaks of is the raster at hand: by name and by size.

Names in such files carry folders of other machines, another suffix after a conversion, another case.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from ecodetect.errors import LayerError
from ecodetect.formats.collecting import counted
from ecodetect.grid import Grid


def base_name(name: str) -> str:
    """The last part of a path written on any system."""
    return (_parts(name) or [""])[-1]


def meant(names: Iterable[str], image: str, path: Path) -> str | None:
    """The one of `names` that means `image`, or None.

    The same base name counts before the same but for case, then the same without suffix; of several equally
    good ones that which shares more folders with `image`. Raises LayerError when that leaves more than one.
    """
    wanted = _parts(image)
    ranked = [(_likeness(_parts(name), wanted), name) for name in dict.fromkeys(names)]
    best = max((rank for rank, _ in ranked), default=(0, 0))
    if best[0] == 0:
        return None
    found = [name for rank, name in ranked if rank == best]
    if len(found) > 1:
        raise LayerError(
            f"{path.name} has {len(found)} images that could be {base_name(image)}: {listed(found)};"
            " keep the rows of one."
        )
    return found[0]


def meant_or_refused(names: Iterable[str], image: str, path: Path) -> str:
    """As `meant`, but raises LayerError, naming the images there are, when none is `image`."""
    names = list(dict.fromkeys(names))
    found = meant(names, image, path)
    if found is None:
        there = f"it is about {listed(names)}" if names else "it names no image"
        raise LayerError(f"{path.name} says nothing about {base_name(image)}: {there}; is it the right file?")
    return found


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
    """Raise LayerError when a file states another size of the image than the raster has."""
    if grid is None or size is None or size == (grid.width, grid.height):
        return
    raise LayerError(
        f"Sizes differ: {path.name} was made on an image of {size[0]} x {size[1]} px, but the raster has"
        f" {grid.width} x {grid.height} px; give the raster it was made on."
    )


def left_out(others: Mapping[str, int], path: Path, unit: str) -> str:
    """The note for each `unit` (row, annotation, …) that belongs to other images: {image: how many}."""
    return f"{path.name}: {counted(sum(others.values()), unit)} of other images left out ({listed(others)})."


def listed(names: Iterable[str], most: int = 3) -> str:
    """The first few base names, and how many more."""
    names = list(dict.fromkeys(base_name(name) for name in names))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _parts(name: str) -> list[str]:
    # macOS stores umlauts decomposed, the others composed.
    normal = unicodedata.normalize("NFC", name.strip())
    return [part for part in re.split(r"[\\/]+", normal) if part not in ("", ".")]


def _likeness(name: list[str], wanted: list[str]) -> tuple[int, int]:
    """How alike base names are (4 equal, 3 but for case, 2 and 1 so without suffix, 0 not); equal folders."""
    if not name or not wanted:
        return 0, 0
    alike = _alike(name[-1], wanted[-1], exact=4, stem=2)
    alike = alike or _alike(name[-1].casefold(), wanted[-1].casefold(), exact=3, stem=1)
    folders = 0
    for a, b in zip(reversed(name[:-1]), reversed(wanted[:-1]), strict=False):
        if a.casefold() != b.casefold():
            break
        folders += 1
    return (alike, folders) if alike else (0, 0)


def _alike(a: str, b: str, *, exact: int, stem: int) -> int:
    if a == b:
        return exact
    stem_a, stem_b = PurePosixPath(a).stem, PurePosixPath(b).stem
    return stem if stem_a in (stem_b, b) or a == stem_b else 0
