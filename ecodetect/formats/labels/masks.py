"""Masks of pixels as polygons along the pixels' edges: arrays of labels, and run lengths of COCO and CVAT."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.formats.collecting import Shape, Unusable

MOST_PIXELS = 2**27  # one byte each, and as much again while it is unpacked: 256 MB


def outlines(labels: NDArray[Any], x: int = 0, y: int = 0) -> Iterator[tuple[int, Shape]]:
    """Each 4-connected area of equal labels other than 0, as (label, polygon with holes).

    labels : (H, W) of uint8, uint16, int16 or int32; its first pixel is pixel (x, y) of the image.
    Polygons are in pixels, corners on whole numbers.
    """
    import rasterio
    from rasterio.features import shapes

    place = rasterio.Affine.translation(x, y)
    for shape, value in shapes(labels, mask=labels != 0, connectivity=4, transform=place):
        shell, *holes = shape["coordinates"]
        yield int(value), shapely.Polygon(shell, holes)


def outline(mask: NDArray[np.bool_], x: int = 0, y: int = 0) -> Shape:
    """All pixels of a mask as one Polygon or MultiPolygon; raises Unusable when it has none."""
    parts = [shape for _, shape in outlines(mask.astype(np.uint8), x, y)]
    if not parts:
        raise Unusable("an empty mask")
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def from_runs(counts: Sequence[Any], lines: int, length: int) -> tuple[NDArray[np.bool_], int, int]:
    """The mask of run lengths, cut to the pixels that are set.

    counts : lengths of runs along the lines, in turn off and on, beginning with off.
    lines, length : how many lines, and pixels in each: rows and columns for CVAT, columns and rows for
    COCO. Returns the mask (n, m) with its first line and its first position within the lines. Raises
    Unusable when the runs don't fit the size or nothing is set.
    """
    if lines < 1 or length < 1 or len(counts) > lines * length + 1:
        raise Unusable("a mask whose runs don't fit its size")
    if not all(isinstance(count, int) and 0 <= count <= lines * length for count in counts):
        raise Unusable("a mask whose runs are not whole numbers of pixels")
    runs = np.array(counts, dtype=np.int64)
    ends = np.cumsum(runs)
    starts, ends = (ends - runs)[1::2], ends[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts]
    if len(starts) == 0:
        raise Unusable("an empty mask")
    if ends[-1] > lines * length:
        raise Unusable("a mask whose runs don't fit its size")
    first, last = int(starts[0]) // length, (int(ends[-1]) - 1) // length
    size = (last - first + 1) * length
    if size > MOST_PIXELS:
        raise Unusable(f"a mask of more than {MOST_PIXELS:,} pixels")
    steps = np.zeros(size + 1, np.int8)
    # Runs that touch (a length of 0 between them) end and start at the same place: the steps add up.
    np.add.at(steps, starts - first * length, 1)
    np.add.at(steps, ends - first * length, -1)
    mask = np.cumsum(steps[:-1], dtype=np.int8).astype(np.bool_).reshape(-1, length)
    used = np.flatnonzero(mask.any(axis=0))
    return mask[:, used[0] : used[-1] + 1], first, int(used[0])
