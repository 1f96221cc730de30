"""Maps of a window classifier whose graph answers windows: shifted passes put together, or window by window.

What `networks.windows.Valid` and `Windowed` do in torch, in numpy around a graph: the same pixels go in, so
the same answers come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ecodetect.runtime.onnx_network import Running, Session

Maps = NDArray[np.float32]  # (N, K, h, w)

VALID_PX, VALID_STRIDE = 64, 8  # of `networks.windows.Valid`: its window and the step between its cells
_AT_ONCE = 64  # windows that are given together


@dataclass(frozen=True, eq=False, slots=True)
class ShiftedPasses(Running):
    """A classifier of windows of 64 px that gives a cell every 8 px, as a network with another step.

    step : from cell to cell, in pixels: 2, 4, 8 or 16.
    """

    session: Session
    step: int

    @property
    def stride(self) -> int:
        return max(VALID_STRIDE, self.step)

    @property
    def reach_px(self) -> int | None:
        """From a pixel of a cell to the farthest of its window."""
        return (VALID_PX + self.step) // 2

    @property
    def is_local(self) -> bool:
        return True

    def run(self, batch: NDArray[np.float32]) -> list[Maps]:
        """The answers for all windows, (N, K, H / step, W / step); beyond the image is 0."""
        around = (VALID_PX - VALID_STRIDE) // 2
        if self.step > VALID_STRIDE:  # every second cell, between two of the finer ones
            half = (self.step - VALID_STRIDE) // 2
            every = self.step // VALID_STRIDE
            (found,) = self.session.run(
                _padded(batch, around - half, around + half, around - half, around + half)
            )
            return [np.ascontiguousarray(found[:, :, ::every, ::every])]
        passes = VALID_STRIDE // self.step
        # The middle of fine cell k * passes + i lies so far from that of cell k.
        shifts = [self.step * (2 * i + 1 - passes) // 2 for i in range(passes)]
        n, _, height, width = batch.shape
        whole: Maps | None = None
        for row, down in enumerate(shifts):
            for column, across in enumerate(shifts):
                sides = (around - down, around + down, around - across, around + across)
                (found,) = self.session.run(_padded(batch, *sides))
                if passes == 1:
                    return [found]
                if whole is None:
                    whole = np.empty((n, found.shape[1], height // self.step, width // self.step), np.float32)
                whole[:, :, row::passes, column::passes] = found
        assert whole is not None
        return [whole]


@dataclass(frozen=True, eq=False, slots=True)
class EachWindow(Running):
    """A classifier that sees each window alone.

    window, step : in pixels; the step is the stride too.
    """

    session: Session
    window: int
    step: int

    @property
    def stride(self) -> int:
        return self.step

    @property
    def reach_px(self) -> int | None:
        return -(-(self.window + self.step) // 2)

    @property
    def is_local(self) -> bool:
        return True

    def run(self, batch: NDArray[np.float32]) -> list[Maps]:
        """The answers for all windows, (N, K, H / step, W / step); beyond the image is 0."""
        before = (self.window - self.step) // 2
        after = self.window - self.step - before
        padded = _padded(batch, before, after, before, after)
        sides = (self.window, self.window)
        views = sliding_window_view(padded, sides, (2, 3))[:, :, :: self.step, :: self.step]
        n, _, rows, columns = views.shape[:4]
        windows = views.transpose(0, 2, 3, 1, 4, 5)  # a view: windows overlap
        if rows * columns == 1:
            parts = [self.session.run(padded[at : at + _AT_ONCE])[0] for at in range(0, n, _AT_ONCE)]
            return [np.concatenate(parts).reshape(n, -1, 1, 1)]
        found = []
        for image in windows:
            for start in range(0, rows * columns, _AT_ONCE):
                numbers = np.arange(start, min(start + _AT_ONCE, rows * columns))
                some = image[np.unravel_index(numbers, (rows, columns))]
                found.append(self.session.run(some)[0].reshape(len(some), -1))
        answers = np.concatenate(found).reshape(n, rows, columns, -1)
        return [np.ascontiguousarray(answers.transpose(0, 3, 1, 2))]


def _padded(batch: NDArray[np.float32], *sides: int) -> NDArray[np.float32]:
    """Images with so many pixels of 0 above, below, left and right; fewer than none are cut off."""
    top, bottom, left, right = sides
    around = [(max(0, before), max(0, after)) for before, after in ((top, bottom), (left, right))]
    grown = np.pad(batch, ((0, 0), (0, 0), *around))
    cut: Sequence[slice] = [
        slice(max(0, -a), grown.shape[axis] - max(0, -b))
        for axis, (a, b) in ((2, (top, bottom)), (3, (left, right)))
    ]
    return grown[:, :, cut[0], cut[1]]
