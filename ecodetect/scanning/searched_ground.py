"""Which pixels of a raster were searched: valid ones inside the area of interest, a packed mask per unit."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ecodetect.grid import Floats, Window
from ecodetect.scanning.journal import Journal
from ecodetect.scanning.question import ScanPlan

Mask = NDArray[np.bool_]
_HELD = 16  # masks in memory, half a megabyte each


def packed(mask: Mask | None) -> bytes:
    """A mask of a unit's core (H, W) as the journal keeps it; nothing where all of it is searched (None)."""
    if mask is None or mask.all():
        return b""
    return zlib.compress(np.packbits(mask, axis=1).tobytes(), 1)


def unpacked(blob: bytes, core: Window) -> Mask | None:
    """The mask again; None: all of the core."""
    if not blob:
        return None
    bits = np.frombuffer(zlib.decompress(blob), np.uint8).reshape(core.height, -1)
    return np.unpackbits(bits, axis=1, count=core.width).astype(bool)


def per_row(mask: Mask | None, core: Window) -> NDArray[np.int64]:
    """How many pixels of each row of a core are searched, (H,).  mask : None for all."""
    if mask is None:
        return np.full(core.height, core.width, np.int64)
    return np.asarray(np.count_nonzero(mask, axis=1), np.int64)


class SearchedGround:
    """The searched pixels of one raster, in the scanned grid.

    is_whole : every pixel was searched.
    """

    def __init__(self, plan: ScanPlan, journal: Journal) -> None:
        self._plan, self._journal = plan, journal
        self._is_full = {number: not blob for number, _, blob in journal.units(plan.number)}
        self._held: OrderedDict[int, Mask] = OrderedDict()
        self.is_whole = len(self._is_full) == len(plan.cuts) and all(self._is_full.values())

    def units(self) -> Iterator[tuple[int, Window, Mask | None]]:
        """Number, core and mask of each unit that was searched; None: all of it."""
        for number, _, blob in self._journal.units(self._plan.number):
            core = self._plan.cuts.unit(number).core
            yield number, core, unpacked(blob, core)

    def at(self, xy: Floats) -> Mask:
        """Whether the pixels under positions (N, 2) of the scanned grid were searched, (N,)."""
        cuts = self._plan.cuts
        inside = self._plan.grid.window.owns(xy)
        if self.is_whole or not inside.any():
            return inside
        rows = np.flatnonzero(inside)
        x, y = np.floor(xy[rows]).astype(np.int64).T
        numbers = (y + cuts.offset_px) // cuts.unit_px * cuts.columns + (x + cuts.offset_px) // cuts.unit_px
        for number in np.unique(numbers).tolist():
            here = numbers == number
            if number not in self._is_full:
                inside[rows[here]] = False
            elif not self._is_full[number]:
                core = cuts.unit(number).core
                inside[rows[here]] = self._mask(number, core)[y[here] - core.y, x[here] - core.x]
        return inside

    def _mask(self, number: int, core: Window) -> Mask:
        if number not in self._held:
            mask = unpacked(self._journal.searched(self._plan.number, number), core)
            assert mask is not None, "it isn't full"
            self._held[number] = mask
            if len(self._held) > _HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(number)
        return self._held[number]
