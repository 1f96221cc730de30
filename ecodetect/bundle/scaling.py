"""From pixel values to network input, as a card says: the only normalisation there is.

Training and scanning both go through here, so that a network sees the same numbers in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ecodetect.bundle.card import Scaling
from ecodetect.chip import Chip
from ecodetect.grid import Floats

FARTHEST = 1e6  # no measurement lies as far from what a network has learned
# Enough for a percentile to within a thousandth of the range, and the memory of one chip.
_VALUES_PER_CHIP = 4096


def surveyed(scaling: Scaling, samples: Iterable[Chip]) -> Scaling:
    """The same scaling with what "survey" takes from a raster filled in: one of mode "fixed".

    samples : full-resolution blocks of the raster, with the bands of the card; see `Raster.samples`.
    Without a valid pixel, or where all are equal, values reach the network as 0 to 1 of their own range.
    """
    if scaling.mode == "fixed":
        return scaling
    drawn = []
    for chip in samples:
        pixels = chip.pixels.reshape(len(chip.bands), -1)
        if chip.valid is not None:
            pixels = pixels[:, chip.valid.ravel()]
        # Every n-th pixel of a chip: a function of the raster alone, as the lattice of chips is.
        some = pixels[:, :: max(1, pixels.shape[1] // _VALUES_PER_CHIP)].astype(np.float64)
        drawn.append(some[np.isfinite(some)])
    values = np.concatenate(drawn) if drawn else np.empty(0)
    low, high = np.percentile(values, [scaling.low, scaling.high]) if len(values) else (0.0, 1.0)
    if high <= low:
        high = low + 1.0
    bands = max(len(scaling.offset), 1)
    offset = np.asarray(scaling.offset or (0.0,) * bands)
    span = np.asarray(scaling.span or (1.0,) * bands)
    # ((v - low) / (high - low) - offset) / span, as one subtraction and one division.
    return replace(
        scaling,
        mode="fixed",
        offset=tuple((low + offset * (high - low)).tolist()),
        span=tuple((span * (high - low)).tolist()),
    )


def as_read(stated: Scaling, used: Scaling) -> dict[str, Any]:
    """What a raster's survey or unit has made of a stated scaling, for an output's metadata; else nothing."""
    if used == stated or used.mode != "fixed":
        return {}
    return {"offset": used.offset, "span": used.span}


def scaled(
    pixels: NDArray[Any], valid: NDArray[np.bool_] | None, scaling: Scaling, fill: float
) -> NDArray[np.float32]:
    """Network input of one chip.

    pixels : (B, H, W), any dtype.
    valid : bool (H, W), or None when every pixel is valid.
    scaling : of mode "fixed", with an offset and a span per band, or one for all.
    fill : what stands where there are no data, and for values that are no measurement: those that aren't
        finite, or so large (a fill value that nothing declares, such as -3.4e38) that sums of them aren't.
    Returns float32 (B, H, W).
    """
    if scaling.mode != "fixed":
        raise ValueError("a scaling from the raster's own values must be surveyed before use")
    offset = np.asarray(scaling.offset, np.float64).reshape(-1, 1, 1)
    factor = 1 / np.asarray(scaling.span, np.float64).reshape(-1, 1, 1)
    if pixels.dtype.itemsize > 2:
        # Subtracted before it is rounded: 32-bit numbers may be large and differ little.
        with np.errstate(over="ignore", invalid="ignore"):
            out = ((pixels - offset) * factor).astype(np.float32)
        out[~(np.abs(out) <= FARTHEST)] = fill
    elif pixels.dtype == np.uint8 and pixels.size:
        # A table of all values is three times as fast as the sums, and gives the same.
        every = np.arange(256, dtype=np.uint8).reshape(1, 1, 256)
        tables = np.broadcast_to(_fixed(every, offset, factor), (len(pixels), 1, 256))
        out = np.empty(pixels.shape, np.float32)
        for band, table, made in zip(pixels, tables, out, strict=True):
            cv2.LUT(band, table, made)
    else:
        out = _fixed(pixels, offset, factor)
    if valid is not None:
        np.copyto(out, np.float32(fill), where=~valid)
    return out


def _fixed(pixels: NDArray[Any], offset: Floats, factor: Floats) -> NDArray[np.float32]:
    out = pixels.astype(np.float32) * factor.astype(np.float32)
    out -= (offset * factor).astype(np.float32)
    return out


def network_input(chips: Sequence[Chip], scaling: Scaling, fill: float, stride: int) -> NDArray[np.float32]:
    """Chips of one size as a network takes them, (N, B, H, W) with sides that are multiples of its stride."""
    images = (scaled(chip.pixels, chip.valid, scaling, fill) for chip in chips)
    return batch_of(images, stride, fill)


def batch_of(images: Iterable[NDArray[np.float32]], stride: int, fill: float) -> NDArray[np.float32]:
    """Images (B, H, W) of one size as a batch, (N, B, H', W'), each as `padded_to_stride` makes it."""
    padded = [padded_to_stride(image, stride, fill) for image in images]
    return padded[0][None] if len(padded) == 1 else np.stack(padded)


def padded_to_stride(image: NDArray[np.float32], stride: int, fill: float) -> NDArray[np.float32]:
    """An image (B, H, W) with `fill` on the right and below, up to multiples of a network's stride."""
    lack = [(0, -length % stride) for length in image.shape[1:]]
    if lack == [(0, 0), (0, 0)]:
        return image
    return np.pad(image, ((0, 0), *lack), constant_values=fill)
