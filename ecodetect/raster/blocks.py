"""Which blocks of a GeoTIFF were written, from the index of blocks in its header.

A sparse GeoTIFF leaves out blocks without data: they are read as nodata and skipped without decoding. A block
that should be there but lies beyond the end of the file means that the file was cut off.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecodetect.errors import RasterError
from ecodetect.grid import Window

# Reading the index costs about 1 µs per block; beyond this number they aren't checked.
_MOST = 4_000_000
_FARTHEST = 2**63 - 1  # a damaged file may say more, which is beyond its end too


class Blocks:
    """The index of blocks of an open dataset; of formats other than GeoTIFF nothing is known.

    is_known : False where looking is not worth it.
    sizes : bytes of each block in the file, int64 (bands, rows, columns) of blocks, 0 where it is absent; one
        "band" where the file holds all bands of a pixel together. None when unknown.
    """

    def __init__(self, dataset: Any, *, is_known: bool = True) -> None:
        self._high, self._wide = dataset.block_shapes[0]
        rows, columns = -(-dataset.height // self._high), -(-dataset.width // self._wide)
        is_planar = dataset.interleaving is not None and dataset.interleaving.name == "band"
        bands = dataset.count if is_planar else 1
        self.sizes: NDArray[np.int64] | None = None
        self._ends = np.empty(0, np.int64)
        if not is_known or dataset.driver != "GTiff" or bands * rows * columns > _MOST:
            return
        sizes = np.zeros((bands, rows, columns), np.int64)
        ends = np.zeros_like(sizes)
        ask = dataset.get_tag_item
        for band in range(bands):
            for row in range(rows):
                for column in range(columns):
                    offset = ask(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=band + 1)
                    if offset is not None:
                        size = int(ask(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=band + 1) or 0)
                        sizes[band, row, column] = min(size, _FARTHEST)
                        ends[band, row, column] = min(int(offset) + size, _FARTHEST)
        self.sizes = sizes
        self._ends = ends
        self._present: NDArray[np.bool_] = np.any(sizes > 0, axis=0)
        self.has_gaps = not bool(self._present.all())

    has_gaps = False

    def check_within(self, file_bytes: int, shown: str) -> None:
        """Raise RasterError when a block lies beyond the end of the file."""
        beyond = self._ends > file_bytes
        if beyond.any():
            _, row, column = (int(place) for place in np.argwhere(beyond)[0])
            raise RasterError(
                f"{shown} is damaged or truncated: {int(beyond.sum())} of its {beyond.size} blocks lie "
                f"beyond the end of the file, the first at pixel x {column * self._wide}, "
                f"y {row * self._high}; copy it again."
            )

    def absent_places(self) -> list[Window]:
        """One pixel in the first and one in the last absent block."""
        if not self.has_gaps:
            return []
        rows, columns = np.nonzero(~self._present)
        return [
            Window(int(columns[place]) * self._wide, int(rows[place]) * self._high, 1, 1) for place in (0, -1)
        ]

    def is_empty(self, window: Window) -> bool:
        """Whether no block under a window inside the raster was ever written."""
        return self.has_gaps and not self._under(window).any()

    def extent(self, window: Window) -> Window:
        """The smallest window around all that was written in one inside the raster; 0 px wide if nothing."""
        if not self.has_gaps:
            return window
        under = self._under(window)
        rows, columns = np.flatnonzero(under.any(axis=1)), np.flatnonzero(under.any(axis=0))
        if not len(rows):
            return Window(window.x, window.y, 0, 0)
        x, y = (window.x // self._wide + int(columns[0])), (window.y // self._high + int(rows[0]))
        across, down = int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1
        whole = Window(x * self._wide, y * self._high, across * self._wide, down * self._high)
        return whole.clipped(window)

    def written(self, window: Window) -> NDArray[np.bool_] | None:
        """Which pixels of a window inside the raster lie in written blocks, (H, W); None: all of them."""
        if not self.has_gaps:
            return None
        under = self._under(window)
        if under.all():
            return None
        # Row after row of blocks: looked up pixel by pixel it would take as long as decoding.
        across = np.bincount(np.arange(window.x, window.right) // self._wide - window.x // self._wide)
        down = np.bincount(np.arange(window.y, window.bottom) // self._high - window.y // self._high)
        return under.repeat(across, axis=1).repeat(down, axis=0)

    def _under(self, window: Window) -> NDArray[np.bool_]:
        high, wide = self._high, self._wide
        return self._present[
            window.y // high : (window.bottom - 1) // high + 1,
            window.x // wide : (window.right - 1) // wide + 1,
        ]
