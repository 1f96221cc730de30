"""Annotations of photographs that viewers turn (EXIF orientation): laid on the pixels as they are stored.

A camera held upright stores its picture lying, with a tag that says how to turn it. Some programs annotate
the picture as shown, others as stored, and files rarely say which. Where the sizes that a file states prove
it, the annotations are turned, or taken as they are; else they are refused, for at a wrong place they would
teach nothing but errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely

from ecodetect.errors import LayerError
from ecodetect.formats.collecting import OF_IMAGE
from ecodetect.formats.image_matching import OtherSize
from ecodetect.grid import Floats, Grid
from ecodetect.layer import Layer
from ecodetect.notes import Note

_TRANSPOSED = (5, 6, 7, 8)  # EXIF's values by which width and height change places


def read_turned(read: Callable[[Grid], Layer], grid: Grid, path: Path) -> Layer:
    """A file's features in pixels of a photograph as it is stored.

    read : reads the file on a grid.  grid : of the photograph, with `orientation`.
    Raises LayerError where nothing proves on which picture the annotations were made.
    """
    is_provable = grid.orientation in _TRANSPOSED and grid.width != grid.height
    try:
        found = read(grid)
    except OtherSize:
        if not is_provable:
            raise
        shown = read(Grid(grid.height, grid.width))  # says that sizes differ where this isn't it either
        geometry = shapely.transform(shown.geometry, lambda xy: stored_place(xy, grid))
        text = (
            f"its {len(shown):,} features were made on the photograph as viewers show it"
            f" ({grid.height} x {grid.width} px) and were turned (EXIF orientation {grid.orientation})."
        )
        notes = (*shown.notes, Note("annotations-turned", text, about=path.name, kind="choice"))
        return replace(shown, geometry=geometry, grid=grid, notes=notes)
    size = found.metadata.get(OF_IMAGE, ())
    if size == () or not len(found) or (is_provable and size is not None):
        return found  # of a map, or of pixels as stored, by what the file says
    why = "states no size of its image" if is_provable else "can't say it by sizes, which are equal"
    raise LayerError(
        f"{path.name} may be made on the photograph as stored or as viewers turn it (EXIF orientation"
        f" {grid.orientation}), and {why}: turn the pixels themselves if it was annotated as shown (mogrify"
        " -auto-orient), or remove the tag if as stored (exiftool -Orientation=)."
    )


def stored_place(xy: Floats, grid: Grid) -> Floats:
    """Pixels as stored, (N, 2), of pixels of the photograph as viewers show it.

    grid : of the pixels as stored, with `orientation` as EXIF numbers it (CIPA DC-008, tag 274).
    """
    u, v = xy[:, 0], xy[:, 1]
    width, height = grid.width, grid.height
    x, y = {
        2: (width - u, v),
        3: (width - u, height - v),
        4: (u, height - v),
        5: (v, u),
        6: (v, height - u),
        7: (width - v, height - u),
        8: (width - v, u),
    }.get(grid.orientation, (u, v))
    return np.stack([x, y], axis=1)
