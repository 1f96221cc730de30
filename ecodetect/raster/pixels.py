"""From the numbers that GDAL decoded to pixels and their mask: alpha, nodata, NaN, palettes, magnitudes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecodetect.grid import Window
from ecodetect.raster.header import Header

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]


def bands_to_decode(header: Header, names: tuple[str, ...]) -> list[int]:
    """File bands (0-based) that hold the bands `names`, and the alpha band last where there is one."""
    files = [0] if header.palette is not None else [header.bands[name] for name in names]
    return files if header.alpha is None else [*files, header.alpha]


def interpreted(data: Pixels, header: Header, names: tuple[str, ...]) -> tuple[Pixels, Mask | None]:
    """Pixels (B, H, W) of the bands `names`, and which of them are data, (H, W); None: all of them.

    data : (bands_to_decode, H, W), as stored.
    """
    pixels = data if header.alpha is None else data[:-1]
    valid: Mask | None = None
    if header.alpha is not None:
        valid = both(valid, data[-1] != 0)
    if header.nodata is not None:
        files = bands_to_decode(header, names)[: len(pixels)]
        valid = both(valid, _differs(pixels, header.nodata[files]))
    if pixels.dtype.kind in "fc":
        valid = both(valid, np.asarray(np.isfinite(pixels).all(axis=0)))
    if header.palette is not None:
        colours = header.palette[pixels[0]]  # (H, W, C)
        valid = both(valid, colours[..., -1] != 0)
        pixels = np.stack([colours[..., header.bands[name]] for name in names])
    elif pixels.dtype.kind == "c":
        pixels = np.abs(pixels)
    return pixels.astype(header.dtype, copy=False), valid


def both(one: Mask | None, other: Mask | None) -> Mask | None:
    """Where both are valid; None stands for everywhere."""
    if other is None or other.all():
        return one
    return other if one is None else np.logical_and(one, other)


def _differs(pixels: Pixels, nodata: Pixels) -> Mask | None:
    """Where not all bands have their nodata value; None: nowhere have they."""
    same: Mask | None = None
    for band, value in zip(pixels, nodata, strict=True):
        equal = band == value
        same = equal if same is None else same & equal
        if not same.any():
            return None
    return None if same is None else np.logical_not(same)


def padded(pixels: Pixels, valid: Mask | None, inside: Window, window: Window) -> tuple[Pixels, Mask]:
    """Pixels and mask of `window`, whose part `inside` the raster is given; not valid beyond."""
    rows = slice(inside.y - window.y, inside.bottom - window.y)
    columns = slice(inside.x - window.x, inside.right - window.x)
    wide = np.zeros((len(pixels), window.height, window.width), pixels.dtype)
    wide[:, rows, columns] = pixels
    wide_valid = np.zeros((window.height, window.width), bool)
    wide_valid[rows, columns] = True if valid is None else valid
    return wide, wide_valid
