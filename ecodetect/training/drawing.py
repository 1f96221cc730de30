"""Sampling of training chips: random chips, most of them with objects.

`Drawn` gives the loop a data set and its split. Half of the chips lie around an individual (rare classes, and
rasters with few individuals, are oversampled), the others anywhere on known ground. Validation ground is cut
once, each piece with a margin that isn't judged.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ecodetect.annotations.dataset import Dataset, Spot
from ecodetect.annotations.sample import Sample
from ecodetect.grid import Window

_ABOUT_OBJECTS = 0.5
_JUDGED_PX = 512  # side of a piece of validation ground
_SURROUNDINGS_PX = 64  # seen around it


class Drawn:
    """Chips for the loop.

    size : side of the chips that are read, in pixels.
    """

    def __init__(self, training: Dataset, validation: Dataset | None, size: int) -> None:
        self._training, self._size = training, size
        # Data sets work in one thread only; reading is a small part of what the loop's threads do.
        self._lock = threading.Lock()
        self._places = training.places(size)
        where, labels = [], []
        for source in training.used:
            objects = training.objects(source)
            where += [(source, x, y) for x, y in objects.xy.tolist()]
            labels.append(objects.label)
        self._objects = where
        label = np.concatenate([np.empty(0, np.int64), *labels])
        # A compromise between equal weight per individual and per class: the square root of a class's number.
        # The same for rasters: one picture with a thousand isn't a thousand pictures.
        there = np.array([source for source, _, _ in where], np.int64)
        weight = 1 / np.sqrt(_numbers(label) * _numbers(there))
        self._sum = np.cumsum(weight)
        self.validation = Pieces(validation)

    def __len__(self) -> int:
        """Chips that cover the ground once."""
        return len(self._places)

    def chip(self, rng: np.random.Generator) -> Sample:
        """A random chip, a function of the generator's state."""
        size = self._size
        if self._objects and rng.random() < _ABOUT_OBJECTS:
            row = int(np.searchsorted(self._sum, rng.random() * self._sum[-1], side="right"))
            source, x, y = self._objects[min(row, len(self._objects) - 1)]
            # Anywhere in the middle half: augmentation may cut off the rest.
            left, top = np.floor(np.array([x, y]) - size * rng.uniform(0.25, 0.75, 2)).astype(int)
        else:
            place = self._places[int(rng.integers(len(self._places)))]
            source = place.source
            shift = rng.integers(-(size // 2), size // 2 + 1, 2)
            left, top = place.window.x + shift[0], place.window.y + shift[1]
        place = Spot(source, self._inside(source, int(left), int(top)))
        with self._lock:
            return self._training.chip(place)

    def _inside(self, source: int, left: int, top: int) -> Window:
        """The window moved into the raster, or a quarter over its edge.

        In a scan, ground beyond the raster's edge is padding, so the network must learn it: an individual cut
        by a raster's edge is annotated by its visible part, an individual cut by a chip's edge isn't.
        """
        grid, size = self._training.grids[source], self._size
        over = size // 4
        x, y = (
            min(max(begin, min(-over, spare // 2)), max(spare + over, spare // 2))
            for begin, spare in ((left, grid.width - size), (top, grid.height - size))
        )
        return Window(x, y, size, size)


def _numbers(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """The size of each member's group."""
    return np.bincount(group)[group] if len(group) else group


class Pieces(Sequence[Sample]):
    """Ground of a data set, cut into pieces that don't overlap; none for None.

    places : where each piece lies, in order.
    """

    def __init__(self, ground: Dataset | None) -> None:
        self._ground = ground
        self.places = [] if ground is None else ground.places(_JUDGED_PX)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """A piece with its margin, where nothing is judged."""
        assert self._ground is not None
        place = self.places[index]
        grid = self._ground.grids[place.source]
        seen = place.window.clipped(grid.window).grown(_SURROUNDINGS_PX)
        sample = self._ground.chip(Spot(place.source, seen))
        core = place.window.clipped(grid.window)
        outside = np.ones(sample.valid.shape, np.bool_)
        rows = slice(core.y - seen.y, core.bottom - seen.y)
        outside[rows, core.x - seen.x : core.right - seen.x] = False
        return replace(sample, ignored=sample.ignored | outside)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))
