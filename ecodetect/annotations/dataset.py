"""Chips with their annotations, read straight from rasters: what a network is trained on.

Nothing is written in between. A `Contract` says how rasters are seen (the part of a card that concerns
them), a `Dataset` gives a `Sample` for any window of any source at the contract's GSD. Memory is bounded:
some rasters stay open, and of small ones the pixels are kept up to a limit.
"""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.annotations.sample import Objects, Sample
from ecodetect.annotations.sources import Source, object_px, spacing
from ecodetect.bundle.file import Card, Learned, Scaling, metres_per_pixel
from ecodetect.bundle.input_spec import InputSpec, input_spec
from ecodetect.bundle.scaling import scaled, surveyed
from ecodetect.bundle.value_survey import survey
from ecodetect.bundle.values import Measured, Unit, learned_from, unit_of
from ecodetect.chip import Chip
from ecodetect.errors import UserError
from ecodetect.grid import Floats, Grid, Window
from ecodetect.notes import Note
from ecodetect.raster.bands import listed, stand_ins
from ecodetect.raster.reading import Raster
from ecodetect.region import Area

OPEN_RASTERS = 16
KEPT_BYTES = 512 * 2**20  # pixels of small rasters that stay decoded
KEPT_RASTER_PX = 2**22  # a raster of more pixels is read window by window
_SURVEYED = 256  # cells of 512 x 512 px looked at, in all rasters together
# An object as wide as this is drawn finely enough for a network that sees some tens of pixels around it, and
# small enough to be seen whole. Measured sets: trees-naip 8 px, nuclei 20, shrubs of zone1 24 at 0.45 m.
TYPICAL_PX, LEAST_PX = 24.0, 10.0
# Individuals stand no closer than they are wide; without sizes their spacing is all that is known of them.
_SPACING_PX = 32.0
# Small objects are enlarged: a network made for ImageNet sees little in a few pixels. On trees of 4 to 15 px,
# after as many pixels seen, F1 rose from 0.751 to 0.762, in a city left out from 0.638 to 0.660. Finer still
# wasn't tried, for it costs as much more.
FINER = 1.5
_REACH = 1.0  # objects belong to a sample if their centre is at most so many of their sizes outside
_LARGE = 95  # percentile of the widths of individuals
_POINT_REACH_PX = 16.0  # and those without a size so many pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """How a model sees rasters: the part of its card that concerns pixels and classes.

    unit : "m" or "um": rasters are read at `gsd` of it per pixel; "px": at `gsd` of their own
        pixels, as they are if it is None.
    """

    bands: tuple[str, ...]
    unit: Literal["m", "um", "px"]
    gsd: float | None
    scaling: Scaling
    fill: float
    classes: tuple[str, ...]
    learned: Learned | None = None
    name: str = "the model"

    @classmethod
    def of(cls, card: Card) -> Contract:
        """That of a model."""
        return cls(
            bands=card.bands,
            unit=card.unit,
            gsd=card.gsd,
            scaling=card.scaling,
            fill=card.fill,
            classes=card.classes,
            learned=card.learned,
            name=card.name,
        )

    @property
    def gsd_m(self) -> float | None:
        """Metres per pixel that rasters are read at; None: their own, or `gsd` of them."""
        return metres_per_pixel(self.unit, self.gsd)

    @property
    def unit_per_px(self) -> float:
        """How wide a pixel is, in `unit`; 1 where rasters are read as they are."""
        return self.gsd or 1.0


@dataclass(frozen=True, eq=False, slots=True)
class Ground:
    """The part of a raster that one side of a split may use, in its native pixels.

    seen : pixels that may be looked at; outside a sample is blind.
    counted : the part of it in which objects are learned or judged; the rest is ignored.
    """

    seen: Area
    counted: Area


@dataclass(frozen=True, order=True, slots=True)
class Place:
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

    Use one from one thread at a time. Copies in other processes open the rasters anew.

    Attributes
    ----------
    sources, contract : as given.
    grids : the grid that each source is read in.
    """

    def __init__(
        self,
        sources: Sequence[Source],
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
        self._specs = [_spec(contract, source) for source in self.sources]
        self.grids = tuple(spec.grid for spec in self._specs)
        self._number = {name: number for number, name in enumerate(contract.classes)}
        self._laid: dict[int, _Laid] = {}
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
        return Dataset(self.sources, self.contract, ground, is_shaped=self._is_shaped)

    @property
    def used(self) -> tuple[int, ...]:
        """Numbers of the sources of which anything may be used."""
        return tuple(i for i in range(len(self.sources)) if self._ground is None or i in self._ground)

    # -- what is known -------------------------------------------------------------------------------------

    def objects(self, source: int) -> Objects:
        """The individuals of a source on its ground, in pixels of its working grid."""
        laid = self._of(source)
        return laid.objects[laid.counted]

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
            laid = self._of(source)
            ignored += int(np.count_nonzero(~self.sources[source].kept))
            if laid.known is not None:
                known += float(
                    laid.known.shape.area
                    if laid.ground is None
                    else laid.known.shape.intersection(laid.ground.counted.shape).area
                )
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

    def places(self, size: int, stride: int | None = None) -> list[Place]:
        """Windows of `size` px on a lattice that cover the ground where anything is known, in order.

        stride : from one to the next; `size` if not given, so that each pixel is in one of them.
        """
        step = stride or size
        found = []
        for number in self.used:
            laid, grid = self._of(number), self.grids[number]
            boxes, known = self._useful(laid)
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
                Place(number, Window(columns[i], rows[j], size, size)) for j, i in np.argwhere(met).tolist()
            ]
        return found

    def _useful(self, laid: _Laid) -> tuple[Floats, shapely.Geometry | None]:
        """Where there is anything to learn: boxes (N, 4) around objects, and known ground; None: nowhere."""
        boxes = _footprints(laid.objects[laid.counted], _POINT_REACH_PX)
        if laid.known is None:
            return boxes, None
        known = laid.known.shape
        if laid.ground is not None:
            known = known.intersection(laid.ground.counted.shape)
        if known.is_empty or (known.area == 0 and not len(boxes)):
            return boxes, None
        shapely.prepare(known)
        return boxes, known

    # -- samples -------------------------------------------------------------------------------------------

    def chip(self, place: Place) -> Sample:
        """The sample at a place."""
        window, laid = place.window, self._of(place.source)
        shape = (window.height, window.width)
        chip = self._chip(place.source, window)
        valid = np.ones(shape, np.bool_) if chip.valid is None else chip.valid.copy()
        ignored = np.zeros(shape, np.bool_)
        if laid.ground is not None:
            valid &= laid.ground.seen.pixels(window)
            ignored |= ~laid.ground.counted.pixels(window)
        known = laid.known.pixels(window) if laid.known is not None else np.zeros(shape, np.bool_)
        beside = None
        box = shapely.box(window.x, window.y, window.right, window.bottom)
        _paint(ignored, laid.ignored[laid.tree.query(box)], window)
        if laid.edge_px > 0:
            grid = self.grids[place.source]
            ignored |= _edge(laid.edge_px, window, grid)
            # The middle of what the edge cuts lies farther inside, and what is cut may be unmarked.
            cut = _edge(laid.edge_px + self._half_px(), window, grid)
            if (known & cut).any():
                beside = known & cut
            known &= ~cut
        image = scaled(chip.pixels, valid, self._scaling(place.source), self.contract.fill)
        return Sample(image, valid, known, ignored, _near(laid.objects[laid.counted], window), beside)

    def _half_px(self) -> float:
        """Half the width of a large individual."""
        if self._half is None:
            sizes = [self._of(source).objects.size for source in self.used]
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

    def _of(self, source: int) -> _Laid:
        if source not in self._laid:
            ground = None if self._ground is None else self._ground[source]
            self._laid[source] = _lay(
                self.sources[source], self.grids[source], ground, self._number, is_shaped=self._is_shaped
            )
        return self._laid[source]


# -- annotations in the working grid -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class _Laid:
    """What is known of a source, in pixels of its working grid.

    objects : individuals.  counted : which of them lie on the ground.
    """

    objects: Objects
    counted: NDArray[np.bool_]
    known: Area | None
    ignored: NDArray[np.object_]
    tree: shapely.STRtree
    edge_px: float
    ground: Ground | None


def _lay(
    source: Source, grid: Grid, ground: Ground | None, number: Mapping[str, int], *, is_shaped: bool
) -> _Laid:
    a, b, c, d, e, f = grid.pixels_from(source.grid)
    matrix, step = np.array([[a, b], [d, e]]).T, np.array([c, f])

    def moved(xy: Floats) -> Floats:
        there: Floats = xy @ matrix + step
        return there

    marked = source.annotations
    scale = np.array([abs(a), abs(e)])
    boxes = _moved_boxes(source.boxes, moved)
    boxes[~(boxes[:, 2:] > boxes[:, :2]).all(axis=1)] = np.nan
    gsd = grid.gsd
    accuracy = np.zeros(len(marked)) if gsd is None else marked.accuracy_m / np.sqrt(gsd[0] * gsd[1])
    label = np.array([number.get(class_of(str(name)), -1) for name in marked.label], np.int64)
    kept = source.kept & (label >= 0)
    outlines = None
    if is_shaped:
        outlines = outlines_of(shapely.transform(marked.geometry, moved), boxes)
    every = Objects(moved(source.xy), boxes, label, np.nan_to_num(accuracy, nan=0.0), outlines)
    objects = every[kept]
    moved_ground = None
    counted = np.ones(len(objects), np.bool_)
    strangers = objects[:0]
    if ground is not None:
        moved_ground = Ground(ground.seen.moved_to(grid), ground.counted.moved_to(grid))
        counted = moved_ground.counted.contains(objects.xy)
        strangers = objects[~counted]
    typical = object_px([source]) * float(np.sqrt(scale.prod()))
    shapes = [shapely.transform(shape, moved) for shape in source.ignored]
    marks = marked.geometry[~kept]
    for shape, mark_size in zip(marks, every.size[~kept], strict=True):
        there = shapely.transform(shape, moved)
        radius = np.nanmean(mark_size) / 2 if np.isfinite(mark_size).any() else typical / 2
        shapes.append(there if there.area > 0 else there.buffer(radius))
    shapes += shapely.box(*_footprints(strangers, typical / 2).T).tolist()
    ignored = np.empty(len(shapes), dtype=object)
    ignored[:] = shapes
    known = None if source.complete is None else source.complete.moved_to(grid)
    edge = source.edge_px * float(np.sqrt(scale.prod()))
    return _Laid(objects, counted, known, ignored, shapely.STRtree(ignored), edge, moved_ground)


def _moved_boxes(boxes: Floats, moved: Callable[[Floats], Floats]) -> Floats:
    """Boxes (N, 4) in another grid, whose axes are parallel but may run the other way."""
    one, other = moved(boxes[:, :2]), moved(boxes[:, 2:])
    return np.concatenate([np.minimum(one, other), np.maximum(one, other)], axis=1)


def outlines_of(shapes: NDArray[np.object_], boxes: Floats) -> NDArray[np.object_]:
    """Areas as they are; of what has a size but no area (a point with a radius) the circle."""
    found = np.array(shapely.make_valid(shapes), dtype=object)
    for row in np.flatnonzero(shapely.area(found) == 0):
        x0, y0, x1, y1 = boxes[row]
        middle = shapely.Point((x0 + x1) / 2, (y0 + y1) / 2) if np.isfinite(boxes[row]).all() else None
        found[row] = shapely.Polygon() if middle is None else middle.buffer((x1 - x0 + y1 - y0) / 4)
    return found


def class_of(label: str) -> str:
    """The class of an annotation with this label: where nobody names one, all are objects."""
    return label or "object"


def _footprints(objects: Objects, radius: float) -> Floats:
    """Boxes of objects, (N, 4); `radius` around those without a size."""
    around = np.concatenate([objects.xy - radius, objects.xy + radius], axis=1)
    boxes: Floats = np.where(np.isfinite(objects.box), objects.box, around)
    return boxes


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


def _near(objects: Objects, window: Window) -> Objects:
    """The objects that reach into a window with what is learned of them, in its pixels."""
    reach = np.where(np.isfinite(objects.size), objects.size * _REACH, _POINT_REACH_PX)
    x, y = objects.xy[:, 0], objects.xy[:, 1]
    near = (x >= window.x - reach[:, 0]) & (x <= window.right + reach[:, 0])
    near &= (y >= window.y - reach[:, 1]) & (y <= window.bottom + reach[:, 1])
    return objects[near].shifted(np.array([-window.x, -window.y]))


def _paint(mask: NDArray[np.bool_], shapes: NDArray[np.object_], window: Window) -> None:
    """Set the pixels under shapes; what is thinner than a pixel takes those that it touches."""
    if len(shapes):
        shape = shapely.union_all(shapely.make_valid(shapes))
        shapely.prepare(shape)
        mask |= Area(shape, Grid(window.width, window.height)).pixels(window)


def _edge(width: float, window: Window, grid: Grid) -> NDArray[np.bool_]:
    """Which pixels of a window are less than `width` from the raster's edge."""
    x = np.arange(window.x, window.right) + 0.5
    y = np.arange(window.y, window.bottom) + 0.5
    across: NDArray[np.bool_] = ((x < width) | (x > grid.width - width))[None, :]
    return across | ((y < width) | (y > grid.height - width))[:, None]


# -- pixels ------------------------------------------------------------------------------------------------


def _spec(contract: Contract, source: Source) -> InputSpec:
    """How a source is seen."""
    unit = None if source.unit is None else source.unit.unit
    is_stated = source.unit is not None and source.unit.by == "stated"
    return input_spec(contract, source, unit, is_stated=is_stated)


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


# -- a contract chosen anew --------------------------------------------------------------------------------


def contract(
    sources: Sequence[Source],
    *,
    classes: Sequence[str] | None = None,
    bands: Sequence[str] | None = None,
    gsd: float | None = None,
    scaling: Literal["auto", "fixed", "survey"] = "auto",
    typical_px: float = TYPICAL_PX,
    onto: Unit | None = None,
) -> tuple[Contract, tuple[Note, ...]]:
    """How a model trained on these sources should see rasters, and sentences that say what was chosen.

    Parameters
    ----------
    classes, bands : in the order of the model; what the sources have in common if not given.
    gsd : metres per pixel; chosen from the objects' sizes if not given.
    scaling : "fixed": band by band to mean 0 and standard deviation 1 of all sources; "survey": percentiles
        of each raster, for pictures whose brightness means nothing. "auto": fixed if all rasters have 8 bits
        and their GSD is known, else survey.
    typical_px : width that usual objects shall have.
    onto : unit that a model has learned already: values are mapped to it, with a fixed scaling.

    Raises
    ------
    UserError
        When the sources have no band in common, or the GSD is known of some only.
    """
    notes: list[Note] = []
    chosen_bands = tuple(bands) if bands is not None else _common_bands(sources, notes)
    native = [source.grid.gsd for source in sources]
    if any(each is None for each in native) and any(each is not None for each in native):
        known = next(source for source in sources if source.grid.gsd is not None)
        unknown = next(source for source in sources if source.grid.gsd is None)
        raise UserError(
            f"The size of a pixel is known of {known.name}, but not of {unknown.name}; state it with --gsd."
        )
    unit: Literal["m", "px"] = "px" if native[0] is None else "m"
    if unit == "px" and gsd is not None:
        raise UserError("The rasters have no CRS, so a model can't have a GSD; state theirs with --gsd.")
    chosen_gsd = gsd
    if gsd is None:
        chosen_gsd = (_choose_step if unit == "px" else _choose_gsd)(sources, typical_px, notes)
    names = tuple(classes) if classes is not None else classes_of(sources)
    mode = scaling
    if mode == "auto":
        eight = all(source.dtype == "uint8" for source in sources)
        mode = "fixed" if onto is not None or (eight and unit == "m") else "survey"
    first = Contract(
        bands=chosen_bands,
        unit=unit,
        gsd=chosen_gsd,
        scaling=Scaling(mode=mode, offset=(0.0,), span=(1.0,)) if mode == "fixed" else Scaling(mode=mode),
        fill=0.0,
        classes=names,
        learned=_unit_learned(sources, mode, notes)
        if onto is None
        else Learned(dtypes=(), low=onto.low, high=onto.high),
    )
    (mean, deviation), learned = _moments(sources, first)
    made = Scaling(mode=mode, offset=mean, span=deviation)
    return replace(first, scaling=made, learned=learned), tuple(notes)


def _unit_learned(sources: Sequence[Source], mode: Literal["fixed", "survey"], notes: list[Note]) -> Learned:
    """The unit that a model is to learn: that of most rasters; the others are mapped to it."""
    units = [source.unit.unit for source in sources if source.unit is not None]
    counts = Counter(unit for unit in units if unit is not None)
    strange = next((source for source in sources if source.unit is not None and source.unit.is_strange), None)
    if not counts or strange is not None:
        if counts and mode == "fixed" and strange is not None and strange.unit is not None:
            raise UserError(
                f"{strange.name} has values of no known unit ({strange.unit.evidence}), where other rasters"
                " have one; state with --values LOW:HIGH what is black and white in them."
            )
        return Learned(dtypes=(), low=None, high=None)
    (unit, _), *others = counts.most_common()
    for other, number in others if mode == "fixed" else ():
        first = next(source for source in sources if source.unit is not None and source.unit.unit == other)
        more = f" and {number - 1} more" if number > 1 else ""
        evidence = "" if first.unit is None else first.unit.evidence
        text = f"its values ({evidence}) are taken for {other} and mapped to {unit}, which most rasters have"
        notes.append(Note("values-mapped", f"{text}.", about=f"{first.name}{more}", kind="choice"))
    return Learned(dtypes=(), low=unit.low, high=unit.high)


def classes_of(sources: Sequence[Source]) -> tuple[str, ...]:
    """The classes of the annotations that are learned, sorted."""
    found = {class_of(str(name)) for source in sources for name in source.annotations.label[source.kept]}
    return tuple(sorted(found)) or ("object",)


def _common_bands(sources: Sequence[Source], notes: list[Note]) -> tuple[str, ...]:
    """Bands that all rasters have or can show, in the order of the first that has them."""
    kinds = list(dict.fromkeys(source.bands for source in sources))
    most = max(kinds, key=len)
    common = tuple(name for name in most if all(stand_ins((name,), bands) is not None for bands in kinds))
    if not common:
        texts = [_bands_of(sources, bands) for bands in kinds[:2]]
        raise UserError(f"Rasters have no band in common: {texts[0]}, but {texts[1]}; choose with --bands.")
    if len(kinds) > 1:
        texts = [_bands_of(sources, bands) for bands in kinds[:3]]
        text = f"Bands differ: {'; '.join(texts)}; used are {', '.join(common)}."
        notes.append(Note("bands-differ", text, kind="choice"))
    return common


def _bands_of(sources: Sequence[Source], bands: tuple[str, ...]) -> str:
    name = next(source.name for source in sources if source.bands == bands)
    return f"{name} has {listed(bands)}"


def _choose_gsd(sources: Sequence[Source], typical_px: float, notes: list[Note]) -> float:
    """Metres per pixel at which objects are some `typical_px` wide, but hardly finer than the raster's."""
    own = [float(np.sqrt(np.prod(source.grid.gsd))) for source in sources if source.grid.gsd is not None]
    native = float(np.median(own))
    sizes = np.concatenate(
        [source.size_px[source.kept] * gsd for source, gsd in zip(sources, own, strict=True)]
    )
    sizes = sizes[np.isfinite(sizes)]
    if len(sizes):
        wanted = _wanted(sizes, typical_px)
        why = f"objects are {np.median(sizes):.3g} m wide in the median"
    else:
        spaces = np.concatenate(
            [spacing(source.xy[source.kept]) * gsd for source, gsd in zip(sources, own, strict=True)]
        )
        spaces = spaces[spaces > 0]
        wanted = float(np.median(spaces)) / _SPACING_PX if len(spaces) else native
        why = "their sizes are unknown, and neighbours"
        why += f" {np.median(spaces):.3g} m apart in the median" if len(spaces) else " too"
    # Reading at nearly the native GSD costs sharpness and wins nothing.
    is_native = native / 1.25 < wanted < 1.3 * native
    chosen = float(f"{native:.3g}" if is_native else f"{max(wanted, native / FINER):.2g}")
    if not is_native:
        text = f"Rasters are read at {chosen:g} m per pixel instead of {native:.3g} m: {why}."
        notes.append(Note("read-at", text, kind="choice"))
    if max(own) > 1.05 * min(own):
        text = f"Pixels are {min(own):.3g} to {max(own):.3g} m; all rasters are read at {chosen:.3g} m."
        notes.append(Note("read-at", text, kind="choice"))
    return chosen


def _choose_step(sources: Sequence[Source], typical_px: float, notes: list[Note]) -> float | None:
    """The same in the rasters' own pixels, where their size on the ground is unknown; None: as they are.

    Without sizes nothing is chosen: two pictures may show the same at any scale.
    """
    sizes = np.concatenate([source.size_px[source.kept] for source in sources])
    sizes = sizes[np.isfinite(sizes)]
    wanted = _wanted(sizes, typical_px) if len(sizes) else 1.0
    if 1 / 1.25 < wanted < 1.3:
        return None
    chosen = float(f"{max(wanted, 1 / FINER):.2g}")
    text = (
        f"Pictures are read with pixels of {chosen:g} of their own, for objects are {np.median(sizes):.3g} px"
        " wide in the median."
    )
    notes.append(Note("read-at", text, kind="choice"))
    return chosen


def _wanted(sizes: Floats, typical_px: float) -> float:
    """Length of a pixel at which objects are wide enough, in the unit of their sizes."""
    least_px = typical_px * LEAST_PX / TYPICAL_PX
    return min(float(np.median(sizes)) / typical_px, float(np.percentile(sizes, 10)) / least_px)


def _moments(
    sources: Sequence[Source], asked: Contract
) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], Learned]:
    """Mean and standard deviation of each band, after the percentiles of the raster for mode "survey"; and
    which values there are to learn.
    """
    bands = len(asked.bands)
    surveys: list[tuple[Measured, Unit | None]] = []
    count, total, squares = 0, np.zeros(bands), np.zeros(bands)
    chosen = sources if len(sources) <= _SURVEYED else sources[:: -(-len(sources) // _SURVEYED)]
    each = max(1, _SURVEYED // len(chosen))
    for source in chosen:
        with source.open() as raster:
            spec = _spec(asked, source)
            own_unit = None if source.unit is None else source.unit.unit
            surveys.append((survey(raster, spec.bands, most=each), own_unit))
            samples = raster.samples(spec.grid, spec.distinct, most=each)
            own = spec.scaling if spec.scaling.mode == "fixed" else surveyed(spec.scaling, samples)
            offset, span = (own.offset or (0.0,))[0], (own.span or (1.0,))[0]
            for chip in samples:
                values = chip.picked(spec.bands).pixels.astype(np.float64)
                good = np.isfinite(values).all(axis=0)
                if chip.valid is not None:
                    good &= chip.valid
                inside = (values[:, good] - offset) / span
                count += inside.shape[1]
                total += inside.sum(axis=1)
                squares += (inside**2).sum(axis=1)
    if not count:
        raise UserError("The rasters hold no valid pixel in the places that were looked at.")
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    # A band that hardly varies (an unused one) isn't blown up to as much noise as others have signal.
    deviation = np.maximum(deviation, 0.1 * deviation.max()) if deviation.max() > 0 else np.ones(bands)
    moments = tuple(float(f"{v:.6g}") for v in mean), tuple(float(f"{v:.6g}") for v in deviation)
    return moments, learned_from(surveys, asked.bands, unit_of(asked.learned), asked.scaling)
