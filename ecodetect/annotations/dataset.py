"""Chips with their annotations, read straight from rasters: what a network is trained on.

Nothing is written in between. A `Dataset` gives a `Sample` for any window of any source at its contract's
GSD. Memory is bounded: some rasters stay open, and of small ones the pixels are kept up to a limit.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.annotations.annotated_raster import AnnotatedRaster, spacing
from ecodetect.annotations.contract import Contract, spec_of
from ecodetect.annotations.laid import Ground, Laid, at_edge, lay, near, paint
from ecodetect.annotations.sample import Objects, Sample
from ecodetect.bundle.card import Scaling
from ecodetect.bundle.scaling import scaled, surveyed
from ecodetect.chip import Chip
from ecodetect.grid import Floats, Grid, Window
from ecodetect.raster.reading import Raster

OPEN_RASTERS = 16
KEPT_BYTES = 512 * 2**20  # pixels of small rasters that stay decoded
KEPT_RASTER_PX = 2**22  # a raster of more pixels is read window by window
_LARGE = 95  # percentile of the widths of individuals


@dataclass(frozen=True, order=True, slots=True)
class Spot:
    """Where a sample lies: the number of its source and a window of that source's working grid.

    It may reach beyond the raster.
    """

    source: int
    window: Window


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """What the annotations of a data set are like, in pixels that the network sees.

    objects : individuals to learn.  per_class : class -> how many.  ignored : annotations that are ignored.
    size_px : their widths, percentiles 5, 50, 95, and the largest; None where no size is known.
    sized : how many have a size.
    spacing_px : distances to the nearest neighbour, percentiles 1, 5, 50; None for fewer than two.
    known_px : pixels in which annotation is complete.
    """

    images: int
    objects: int
    per_class: Mapping[str, int]
    ignored: int
    sized: int
    size_px: tuple[float, float, float, float] | None
    spacing_px: tuple[float, float, float] | None
    known_px: float


class Dataset:
    """Sources as a network sees them: samples at any place.

    Use it in one thread at a time. Copies in other processes open the rasters again.

    Attributes
    ----------
    sources, contract : as given.
    grids : the grid that each source is read in.
    """

    def __init__(
        self,
        sources: Sequence[AnnotatedRaster],
        contract: Contract,
        ground: Mapping[int, Ground] | None = None,
        *,
        is_shaped: bool = False,
    ) -> None:
        """
        ground : what may be used of each source, by its number; sources that aren't named aren't used. None:
            all of all.
        is_shaped : objects have their outlines.
        Raises UserError when a raster lacks a band or its GSD.
        """
        self.sources, self.contract = tuple(sources), contract
        self._ground, self._is_shaped = ground, is_shaped
        self._specs = [spec_of(contract, source) for source in self.sources]
        self.grids = tuple(spec.grid for spec in self._specs)
        self._number = {name: number for number, name in enumerate(contract.classes)}
        self._laid: dict[int, Laid] = {}
        self._everywhere: dict[int, Laid] = {}  # the same of all ground; both sides of a split share it
        self._half: float | None = None
        self._forget()

    def _forget(self) -> None:
        self._open: OrderedDict[int, Raster] = OrderedDict()
        self._pixels: OrderedDict[int, Chip] = OrderedDict()
        self._scalings: dict[int, Scaling] = {}
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        for name in ("_open", "_pixels", "_process"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        scalings = state["_scalings"]
        self.__dict__.update(state)
        self._forget()
        self._scalings = scalings

    def __repr__(self) -> str:
        return (
            f"<Dataset of {len(self.used)} rasters, {sum(len(self.objects(i)) for i in self.used)} objects>"
        )

    def close(self) -> None:
        """Close the rasters and forget their pixels; reading opens them again."""
        for raster in self._open.values():
            raster.close()
        self._open.clear()
        self._pixels.clear()

    def limited(self, ground: Mapping[int, Ground]) -> Dataset:
        """The same sources, on the ground of one side of a split."""
        side = Dataset(self.sources, self.contract, ground, is_shaped=self._is_shaped)
        side._everywhere = self._everywhere
        return side

    @property
    def used(self) -> tuple[int, ...]:
        """Numbers of the sources of which anything may be used."""
        return tuple(i for i in range(len(self.sources)) if self._ground is None or i in self._ground)

    # -- what is known -------------------------------------------------------------------------------------

    def objects(self, source: int) -> Objects:
        """The individuals of a source on its ground, in pixels of its working grid."""
        return self._of(source).objects

    def ignored_shapes(self, source: int) -> NDArray[np.object_]:
        """Shapes in pixels of the working grid that are neither right nor wrong."""
        return self._of(source).ignored

    def statistics(self) -> Statistics:
        """Numbers, sizes and spacing of what is annotated on the ground."""
        counts = np.zeros(len(self.contract.classes), np.int64)
        sizes: list[Floats] = []
        spaces: list[Floats] = []
        ignored, known = 0, 0.0
        for source in self.used:
            objects = self.objects(source)
            counts += np.bincount(objects.label, minlength=len(counts))
            sizes.append(np.sqrt(objects.size[:, 0] * objects.size[:, 1]))
            spaces.append(spacing(objects.xy))
            ignored += int(np.count_nonzero(~self.sources[source].kept))
            counted = self._of(source).counted
            known += 0.0 if counted is None else float(counted.area)
        size = np.concatenate([np.empty(0), *sizes])
        size = size[np.isfinite(size)]
        space = np.concatenate([np.empty(0), *spaces])
        return Statistics(
            images=len(self.used),
            objects=int(counts.sum()),
            per_class={name: int(count) for name, count in zip(self.contract.classes, counts, strict=True)},
            ignored=ignored,
            sized=len(size),
            size_px=_four(np.percentile(size, (5, 50, 95, 100))) if len(size) else None,
            spacing_px=_three(np.percentile(space, (1, 5, 50))) if len(space) else None,
            known_px=known,
        )

    def places(self, size: int, stride: int | None = None) -> list[Spot]:
        """Windows of `size` px on a lattice that cover the ground where anything is known, in order.

        stride : from one to the next; `size` if not given, so that each pixel is in one of them.
        """
        step = stride or size
        found = []
        for number in self.used:
            grid = self.grids[number]
            boxes, known = self._of(number).useful
            bounds = np.concatenate([boxes, np.empty((0, 4)) if known is None else [known.bounds]])
            if not len(bounds):
                continue
            x0, y0 = np.floor(bounds[:, :2].min(axis=0)).astype(int).tolist()
            x1, y1 = np.ceil(bounds[:, 2:].max(axis=0)).astype(int).tolist()
            inside = Window(x0, y0, x1 - x0, y1 - y0).clipped(grid.window)
            columns, rows = (
                _starts(inside.x, inside.width, size, step),
                _starts(inside.y, inside.height, size, step),
            )
            met = met_by_boxes(boxes, columns, rows, size)
            if known is not None:
                lost = np.argwhere(~met)
                x, y = np.array(columns)[lost[:, 1]], np.array(rows)[lost[:, 0]]
                windows = shapely.box(x, y, x + size, y + size)
                met[lost[:, 0], lost[:, 1]] = shapely.intersects(known, windows)
            found += [
                Spot(number, Window(columns[i], rows[j], size, size)) for j, i in np.argwhere(met).tolist()
            ]
        return found

    # -- samples -------------------------------------------------------------------------------------------

    def chip(self, place: Spot) -> Sample:
        """The sample at a place."""
        window, laid = place.window, self._of(place.source)
        chip = self._chip(place.source, window)
        valid = chip.mask().copy()
        ignored = np.zeros_like(valid)
        if laid.ground is not None:
            valid &= laid.ground.seen.pixels(window)
            ignored |= ~laid.ground.counted.pixels(window)
        known = laid.known.pixels(window) if laid.known is not None else np.zeros_like(valid)
        beside = None
        paint(ignored, laid.ignored_in(window), window)
        if laid.edge_px > 0:
            grid = self.grids[place.source]
            ignored |= at_edge(laid.edge_px, window, grid)
            # The middle of what the edge cuts lies farther inside, and what is cut may be unmarked.
            cut = at_edge(laid.edge_px + self._half_px(), window, grid)
            if (known & cut).any():
                beside = known & cut
            known &= ~cut
        image = scaled(chip.pixels, valid, self._scaling(place.source), self.contract.fill)
        return Sample(image, valid, known, ignored, near(laid.objects, window), beside)

    def _half_px(self) -> float:
        """Half the width of a large individual."""
        if self._half is None:
            sizes = [self._anywhere(source).objects.size for source in self.used]
            widths = np.sqrt(np.concatenate([np.empty((0, 2)), *sizes]).prod(axis=1))
            widths = widths[np.isfinite(widths)]
            self._half = float(np.percentile(widths, _LARGE)) / 2 if len(widths) else 0.0
        return self._half

    def _chip(self, source: int, window: Window) -> Chip:
        """Pixels of a window; those of small rasters are read once and kept."""
        if os.getpid() != self._process:  # rasters opened before a fork can't be shared
            self._forget()
        spec = self._specs[source]
        grid, bands = spec.grid, spec.bands
        if grid.window.area > KEPT_RASTER_PX:
            return self._raster(source).read(window, spec.distinct, grid).picked(bands)
        whole = self._pixels.get(source)
        if whole is None:
            whole = self._raster(source).read(grid.window, spec.distinct, grid)
            self._pixels[source] = whole
            while sum(each.pixels.nbytes for each in self._pixels.values()) > KEPT_BYTES:
                self._pixels.popitem(last=False)
        elif source in self._pixels:
            self._pixels.move_to_end(source)
        return _cut(whole, window, grid).picked(bands)

    def _raster(self, source: int) -> Raster:
        raster = self._open.get(source)
        if raster is None:
            raster = self._open[source] = self.sources[source].open()
            while len(self._open) > OPEN_RASTERS:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(source)
        return raster

    def _scaling(self, source: int) -> Scaling:
        """That of a raster; percentiles are of the whole raster, as a scan takes them, on both sides."""
        spec = self._specs[source]
        if spec.scaling.mode == "survey" and source not in self._scalings:
            samples = self._raster(source).samples(spec.grid, spec.distinct)
            self._scalings[source] = surveyed(spec.scaling, samples)
        return self._scalings.get(source, spec.scaling)

    def _of(self, source: int) -> Laid:
        """What is known of a source on its ground."""
        if source not in self._laid:
            ground = None if self._ground is None else self._ground[source]
            self._laid[source] = self._anywhere(source).within(ground, self.grids[source])
        return self._laid[source]

    def _anywhere(self, source: int) -> Laid:
        """The same on all ground."""
        if source not in self._everywhere:
            self._everywhere[source] = lay(
                self.sources[source], self.grids[source], self._number, is_shaped=self._is_shaped
            )
        return self._everywhere[source]


def met_by_boxes(boxes: Floats, columns: Sequence[int], rows: Sequence[int], size: int) -> NDArray[np.bool_]:
    """Which windows of a lattice any of the boxes (N, 4) meets, edges included, (rows, columns).

    columns, rows : where the windows begin, ascending; each is `size` wide and high.
    Takes time for each box and each window, not for each box in each window.
    """
    x, y = np.asarray(columns), np.asarray(rows)
    # Boxes are counted up at the first window they meet and down after the last, in both directions.
    left, right = np.searchsorted(x + size, boxes[:, 0]), np.searchsorted(x, boxes[:, 2], side="right")
    top, bottom = np.searchsorted(y + size, boxes[:, 1]), np.searchsorted(y, boxes[:, 3], side="right")
    there = (left < right) & (top < bottom)
    change = np.zeros((len(y) + 1, len(x) + 1), np.int64)
    for row, column, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(change, (row[there], column[there]), sign)
    met: NDArray[np.bool_] = change.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0
    return met


def _cut(whole: Chip, window: Window, grid: Grid) -> Chip:
    """A window of a raster that is held whole; it may reach beyond."""
    inside = window.clipped(grid.window)
    pixels = np.zeros((len(whole.bands), window.height, window.width), whole.pixels.dtype)
    valid = np.zeros((window.height, window.width), np.bool_)
    if inside.area:
        part = whole.crop(inside)
        rows = slice(inside.y - window.y, inside.bottom - window.y)
        columns = slice(inside.x - window.x, inside.right - window.x)
        pixels[:, rows, columns] = part.pixels
        valid[rows, columns] = True if part.valid is None else part.valid
    return Chip(pixels, valid, whole.bands, window, grid.crop(window))


def _starts(first: int, length: int, size: int, step: int) -> list[int]:
    """Where windows begin so that they cover a length; centred on it."""
    count = max(1, -(-(length - size) // step) + 1)
    begin = first - ((count - 1) * step + size - length) // 2
    return [begin + step * number for number in range(count)]


def _four(values: Floats) -> tuple[float, float, float, float]:
    a, b, c, d = (float(value) for value in values)
    return a, b, c, d


def _three(values: Floats) -> tuple[float, float, float]:
    a, b, c = (float(value) for value in values)
    return a, b, c
