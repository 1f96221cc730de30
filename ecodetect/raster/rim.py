"""Fill along a raster's edge: an undeclared nodata value, or a seam of compression beside nodata.

Looked at once for a raster, in few places: eight at its edge; only where these are filled, along nine rows
and nine columns from the edge to where the filling ends. Nothing here reads files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ecodetect.grid import Window

Mask = NDArray[np.bool_]
Read = Callable[[Window], tuple[NDArray[Any], Mask | None]]

_SIDE = 16  # px, of the places at the edge
_LINES = 9  # rows, and columns
_STEPS = 64  # at most, along one of them
WHOLE_PX = 2**22  # rasters up to this size are read whole once their edge is filled
_LEAST_SHARE = 0.01
_EVEN = 2  # in 8 bit: a filling of 0 or 255 may be so uneven after compression
# JPEG writes blocks of 8 or, of colours, 16 px: measured at qualities of 50 to 90, what should be fill
# differs from it by up to 30 (99 %), and no further than 16 px from the ground; in a wedge between two blocks
# that hold ground it is a little further to what is just the value.
REACH_PX = 24
NEAR = 32
SOLID_PX = 5
_SURELY_NEAR = 12  # differences that make evidence: dark ground differs more, or for longer than `REACH_PX`
_LEAST_EVIDENCE, _LEAST_ENDS = 0.5, 3
_MOST_FADING = 0.5
# What programs write where there is nothing, beside 0 and the highest value of a type.
_FILLS = (
    -9999.0, -32768.0, -32767.0, -2147483648.0, 65535.0, 1e20, -1e20,
    float(np.finfo(np.float32).min), float(np.finfo(np.float32).max), float(np.finfo(np.float64).min),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fill:
    """A value that fills a raster from its edge inwards and isn't declared as no data.

    share : of all pixels; estimated if not `is_counted`.
    """

    value: float
    share: float
    is_counted: bool


@dataclass(frozen=True, slots=True)
class _Ends:
    """Where a filling ends along rows or columns.

    first, last : lengths of the filling from both ends of each line, in pixels.
    evidence : of each end on ground, whether a narrow seam of nearly the same values lies there.
    fading : of each, whether nothing else than nearly the same values lies there (8 bit), or the same value
        once more.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    evidence: list[bool]
    fading: list[bool]


def undeclared(
    read: Read, width: int, height: int, block: tuple[int, int], dtype: str, highest: float
) -> Fill | None:
    """The value that fills more than a percent of a raster from its edge inwards; None for none.

    read : pixels (B, H, W) of a window inside, and which of them are data (None: all).
    block : rows and columns that are unpacked together.
    highest : value that a pixel can have.
    """
    if min(width, height) < 2 * _SIDE:
        return None
    found: dict[float, int] = {}
    middle = read(Window(width // 2, height // 2, 1, 1))[0].ravel()
    for place, edge in _places(width, height):
        pixels, valid = read(place)
        if (value := _of_edge(pixels, valid, edge, highest)) is not None:
            found[value] = found.get(value, 0) + 1
    if not found:
        return None
    value = max(found, key=lambda each: (found[each], -abs(each)))
    even = _evenness(value, dtype)
    is_usual = (
        value in (0.0, highest, *_FILLS)
        or abs(value) > 1e30
        or (np.dtype(dtype).kind == "i" and value < -999)
    )
    if not is_usual and (len(middle) < 3 or found[value] < 2):
        return None  # one band of classes may well have one of them along an edge
    across, down = (
        _ends(read, width, height, block, value, even, is_across=is_across) for is_across in (True, False)
    )
    fading = across.fading + down.fading
    if len(fading) >= _LEAST_ENDS and float(np.mean(fading)) >= _MOST_FADING:
        return None  # a dark background, as of fluorescence: what was recorded there is as dark
    if width * height <= WHOLE_PX:
        share, is_counted = _counted(read, width, height, value, even), True
    else:
        share, is_counted = _estimated(across, down, width, height), False
    return Fill(value, share, is_counted) if _LEAST_SHARE < share < 1 else None


def has_seam(read: Read, width: int, height: int, block: tuple[int, int], nodata: float) -> bool:
    """Whether along most of the border of what is no data lies a narrow seam of nearly that value.

    read : as for `undeclared`.  nodata : of all bands; it must lie at the edge, see `touches`.
    """
    ends = [_ends(read, width, height, block, nodata, 0, is_across=is_across) for is_across in (True, False)]
    evidence = ends[0].evidence + ends[1].evidence
    return len(evidence) >= _LEAST_ENDS and float(np.mean(evidence)) >= _LEAST_EVIDENCE


def touches(read: Read, width: int, height: int, nodata: float) -> bool:
    """Whether a value lies in all bands at one of eight places of the edge."""
    return any(bool((read(place)[0] == nodata).all(axis=0).any()) for place, _ in _places(width, height))


def grown(pixels: NDArray[Any], nodata: NDArray[Any], valid: Mask, reach_px: int = REACH_PX) -> Mask:
    """`valid` without what is nearly the nodata value and joins it within some pixels.

    pixels : uint8 (B, H, W).  nodata : of each band.  valid : bool (H, W), False at nodata.
    A pixel's answer depends on those within `reach_px` and twice `SOLID_PX` more.
    """
    square, around = np.ones((SOLID_PX, SOLID_PX), np.uint8), np.ones((3, 3), np.uint8)
    # Only from where much lies together: what is as dark as the nodata value within a dark animal is no rim.
    seeds = cv2.morphologyEx(np.logical_not(valid).astype(np.uint8), cv2.MORPH_OPEN, square)
    if not seeds.any():
        return valid
    zone = cv2.dilate(seeds, around, iterations=reach_px)
    low, high = nodata.astype(np.int64) - NEAR, nodata.astype(np.int64) + NEAR
    are_near = [(band >= a) & (band <= b) for band, a, b in zip(pixels, low, high, strict=True)]
    near = np.all(are_near, axis=0) | (seeds > 0)
    for _ in range(reach_px):
        wider = np.where(near, cv2.dilate(seeds, around), 0)
        if (wider == seeds).all():
            break
        seeds = wider
    kept = np.logical_and(valid, seeds == 0).astype(np.uint8)
    # Beside the ground what should be fill differs more, in points and teeth.
    whole = cv2.morphologyEx(kept, cv2.MORPH_OPEN, square)
    return np.asarray((kept > 0) & ((whole > 0) | (zone == 0)), np.bool_)


# -- the edge ----------------------------------------------------------------------------------------------


def _places(width: int, height: int) -> list[tuple[Window, tuple[slice | int, slice | int]]]:
    """Eight windows at corners and in the middles of sides, with the line of each that is the edge."""
    w, h = min(_SIDE, width), min(_SIDE, height)
    xs, ys = (0, (width - w) // 2, width - w), (0, (height - h) // 2, height - h)
    every = slice(None)
    return [
        (Window(xs[i], ys[j], w, h), (every, 0 if i == 0 else -1) if j == 1 else (0 if j == 0 else -1, every))
        for j in range(3)
        for i in range(3)
        if (i, j) != (1, 1)
    ]


def _of_edge(
    pixels: NDArray[Any],
    valid: Mask | None,
    edge: tuple[slice | int, slice | int],
    highest: float,
) -> float | None:
    """The one value of all bands along the edge of a place, or None."""
    line = pixels[:, edge[0], edge[1]]
    if valid is not None and not valid[edge].all():
        return None
    low, high = float(line.min()), float(line.max())
    if low == high:
        return low
    if pixels.dtype == np.uint8:  # as compression leaves a filling: a dark background has all values alike
        for value in (0, 255) if highest == 255 else (0,):
            if abs(value - low) <= _EVEN and abs(value - high) <= _EVEN and (line == value).mean() > 0.5:
                return float(value)
    return None


def _evenness(value: float, dtype: str) -> int:
    return _EVEN if dtype == "uint8" and value in (0.0, 255.0) else 0


def _is_filled(pixels: NDArray[Any], value: float, even: int) -> Mask:
    if even:
        return np.asarray((np.abs(pixels.astype(np.int16) - int(value)) <= even).all(axis=0), np.bool_)
    return np.asarray((pixels == value).all(axis=0), np.bool_)


# -- how much ----------------------------------------------------------------------------------------------


def _counted(read: Read, width: int, height: int, value: float, even: int) -> float:
    """The share of a raster that is filled and connected to its edge."""
    pixels, valid = read(Window(0, 0, width, height))
    filled = _is_filled(pixels, value, even)
    if valid is not None:
        filled &= valid
    _, labels = cv2.connectedComponents(filled.astype(np.uint8), connectivity=4)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    wanted = np.zeros(int(labels.max()) + 1, bool)
    wanted[edge[edge > 0]] = True
    return float(wanted[labels].mean())


def _estimated(across: _Ends, down: _Ends, width: int, height: int) -> float:
    """The same, estimated from rows and columns: what both cover counts once."""
    # Lines that are filled from end to end say nothing of how wide the filling is beside the others.
    rows, columns = across.first + across.last < width, down.first + down.last < height
    if not rows.any():
        return 1.0
    left, right, y_known = across.first[rows], across.last[rows], _lines(height)[rows]
    alone = [0.0]
    for x, top, bottom in zip(_lines(width)[columns], down.first[columns], down.last[columns], strict=True):
        y = np.arange(64) * height // 64
        from_left, from_right = np.interp(y, y_known, left), np.interp(y, y_known, right)
        is_beside = (x >= from_left) & (x < width - from_right)
        alone.append(float((((y < top) | (y >= height - bottom)) & is_beside).mean()))
    beside = float(np.mean(alone[1:] or alone))
    sides = left + right
    return float(sides.mean()) / width + beside * (1 - float(sides.min()) / width)


def _lines(length: int) -> NDArray[np.int64]:
    return (np.arange(_LINES) * 2 + 1) * length // (2 * _LINES)


def _ends(
    read: Read, width: int, height: int, block: tuple[int, int], value: float, even: int, *, is_across: bool
) -> _Ends:
    """How far a filling reaches along rows (`is_across`) or columns, from both ends."""
    length, lines = (width, _lines(height)) if is_across else (height, _lines(width))
    step = max(block[1 if is_across else 0], -(-length // _STEPS))
    evidence: list[bool] = []
    fading: list[bool] = []

    def line(at: int, start: int, stop: int) -> tuple[NDArray[Any], Mask | None]:
        window = Window(start, at, stop - start, 1) if is_across else Window(at, start, 1, stop - start)
        pixels, valid = read(window)
        return pixels.reshape(len(pixels), 1, -1), None if valid is None else valid.reshape(1, -1)

    def run(is_last: bool) -> NDArray[np.int64]:
        reached = np.zeros(len(lines), np.int64)
        going = list(range(len(lines)))
        # All lines go on together: they share the blocks of a file that is stored in rows.
        for start in range(0, length, step):
            stop = min(length, start + step)
            ends = []
            for index in going:
                place = (length - stop, length - start) if is_last else (start, stop)
                pixels, valid = line(int(lines[index]), *place)
                filled = _is_filled(pixels, value, even)[0]
                if valid is not None:
                    filled |= ~valid[0]
                if is_last:
                    filled = filled[::-1]
                inside = int(np.argmin(filled)) if not filled.all() else len(filled)
                reached[index] = start + inside
                if inside < len(filled):
                    ends.append(index)
            going = [index for index in going if index not in ends]
            if not going:
                break
        for index in range(len(lines)):
            if 0 < reached[index] < length - REACH_PX:
                first = int(reached[index])
                place = (
                    (length - first - REACH_PX - 1, length - first)
                    if is_last
                    else (first, first + REACH_PX + 1)
                )
                place = (max(0, place[0]), min(length, place[1]))
                pixels, _ = line(int(lines[index]), *place)
                near = np.abs(pixels[:, 0].astype(np.float64) - value).max(axis=0) <= _SURELY_NEAR
                evidence.append(bool(near[-1 if is_last else 0]) and not bool(near.all()))
                # What 12 is of other types nobody knows; there the value itself comes back.
                is_byte = pixels.dtype == np.uint8
                fading.append(bool(near.all() if is_byte else _is_filled(pixels, value, even).any()))
        return reached

    first, last = run(False), run(True)
    return _Ends(first, np.minimum(last, length - first), evidence, fading)
