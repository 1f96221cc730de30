"""The pipeline of one raster: units are read, searched and entered into the journal in parallel.

One thread reads (GDAL handles aren't thread safe, and a single reader decodes each block once), others
detect, the caller's thread writes the journal. Queues are bounded, so memory is bounded.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from queue import Empty, Full, Queue
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ecodetect.chip import Chip
from ecodetect.cores import core_count
from ecodetect.detections import Detections
from ecodetect.detectors.protocol import Detector
from ecodetect.grid import Floats, Window
from ecodetect.raster.pixels import padded
from ecodetect.raster.reading import Raster
from ecodetect.scanning.process_memory import freed_is_kept
from ecodetect.scanning.question import ScanPlan
from ecodetect.scanning.searched_ground import packed
from ecodetect.scanning.tiling import Tile, Unit, in_cells

_PATIENCE_S = 0.1  # how often a waiting thread checks whether it should stop


@dataclass(frozen=True, eq=False, slots=True)
class UnitResult:
    """The results of a unit.

    searched : the pixels of its core that were searched, as `searched_ground.packed` has it.
    too_large : objects left out.
    expected : individuals of each class by the detector's density, (K,); (0,) where it has none.
    scores : float32 (K, h, w), the map of scores on the cells of the core, NaN where nothing was searched;
        None if it isn't kept.
    """

    unit: Unit
    candidates: Detections
    searched: bytes
    too_large: int
    expected: Floats
    scores: NDArray[np.float32] | None = None


def worth_cutting(plan: ScanPlan, raster: Raster, number: int) -> bool:
    """Whether a unit may hold anything: a faster test than `worth_reading`, for many empty units."""
    return not raster.is_empty(_native(plan, plan.cuts.square(number).grown(plan.cuts.halo_px)))


def worth_reading(plan: ScanPlan, raster: Raster, unit: Unit) -> bool:
    """Whether an object can be centred in a unit: it meets the area of interest and the extent of the data.

    The box of an object, and so its centre, lies inside the extent of the data that the unit reads.
    """
    if plan.area is not None and not plan.area.meets(unit.core):
        return False
    read = _native(plan, unit.read)
    if raster.is_empty(read):
        return False
    # Resampled pixels are valid from half their area: objects reach half a pixel over the edge of the data.
    margin = _margin(plan.detector) + (0 if plan.grid == plan.native else 1)
    core = _native(plan, unit.core.grown(math.ceil(margin)))
    return bool(core.clipped(raster.extent(read)).area)


def _native(plan: ScanPlan, window: Window) -> Window:
    """The part of the raster that a window of the scanned grid covers, or a little more."""
    if plan.grid == plan.native:
        return window
    a, _, c, _, e, f = plan.native.pixels_from(plan.grid)
    x0, y0 = math.floor(a * window.x + c) - 1, math.floor(e * window.y + f) - 1
    x1, y1 = math.ceil(a * window.right + c) + 1, math.ceil(e * window.bottom + f) + 1
    return Window(x0, y0, x1 - x0, y1 - y0)


def run(plan: ScanPlan, raster: Raster, numbers: Iterable[int], done: Callable[[UnitResult], None]) -> None:
    """Process the units with these numbers; `done` is called in this thread for each, as it completes.

    Raises what a thread raised; units already passed to `done` stay finished. KeyboardInterrupt stops the
    threads after their current unit and is raised again.
    """
    stop, workers = threading.Event(), plan.layout.threads
    chips: Queue[tuple[Unit, Chip] | None] = Queue(maxsize=1)
    results: Queue[UnitResult | BaseException | None] = Queue(maxsize=workers + 1)
    unread: list[BaseException] = []

    def read() -> None:
        try:
            with raster.env(cache_bytes=plan.layout.cache_bytes, threads=core_count()):
                for number in numbers:
                    unit = plan.cuts.unit(number)
                    if stop.is_set() or not _put(chips, (unit, read_unit(plan, raster, unit)), stop):
                        return
        except BaseException as error:  # noqa: BLE001 - raised when what was read is done
            unread.append(error)
        finally:
            for _ in range(workers):
                _put(chips, None, stop)

    def detect() -> None:
        try:
            while (item := _get(chips, stop)) is not None:
                found = detect_unit(plan, *item)
                del item
                if not _put(results, found, stop):
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
            _put(results, error, stop)
        finally:
            _put(results, None, stop)

    threads = [threading.Thread(target=read, name="reader", daemon=True)]
    threads += [threading.Thread(target=detect, name=f"detector-{i}", daemon=True) for i in range(workers)]
    with freed_is_kept(), _without_spinning():
        for thread in threads:
            thread.start()
        try:
            for result in _arriving(results, workers):
                done(result)
        except BaseException:
            raster.give_up()  # otherwise we wait for the reader, and it for a server
            raise
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    if unread:
        raise unread[0]


def _arriving(results: Queue[UnitResult | BaseException | None], workers: int) -> Iterator[UnitResult]:
    """The results of the detecting threads, until all have ended; raises what one of them raised."""
    finished = 0
    while finished < workers:
        # A timeout lets Ctrl-C through on systems where a blocking get() doesn't.
        try:
            result = results.get(timeout=_PATIENCE_S)
        except Empty:
            continue
        if result is None:
            finished += 1
        elif isinstance(result, BaseException):
            raise result
        else:
            yield result


@contextmanager
def _without_spinning() -> Iterator[None]:
    """OpenCV without its own threads, which spin while they wait: our threads use all cores."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _put(queue: Queue[Any], item: Any, stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            queue.put(item, timeout=_PATIENCE_S)
            return True
        except Full:
            continue
    return False


def _get(queue: Queue[Any], stop: threading.Event) -> Any:
    while not stop.is_set():
        try:
            return queue.get(timeout=_PATIENCE_S)
        except Empty:
            continue
    return None


def read_unit(plan: ScanPlan, raster: Raster, unit: Unit) -> Chip:
    """The pixels of a unit with its halo, in one read.

    With an area of interest, only the pixels that its objects depend on are read, because reading over the
    web is slow; the rest of the chip isn't valid.
    """
    bands, window = plan.detector.needs.bands, unit.read
    if plan.area is not None:
        window = window.clipped(plan.area.bounds.grown(plan.cuts.halo_px))
    chip = raster.read(window, bands, plan.grid)
    if window == unit.read:
        return chip
    pixels, valid = padded(chip.pixels, chip.valid, window, unit.read)
    return Chip(pixels, valid, chip.bands, unit.read, plan.grid.crop(unit.read))


def detect_unit(plan: ScanPlan, unit: Unit, chip: Chip) -> UnitResult:
    """Search the tiles of a unit and keep the detections that its cores own."""
    needs = plan.detector.needs
    margin = _margin(plan.detector)
    empty = Detections.empty(plan.grid, plan.detector.kind, plan.detector.classes)
    kept: list[Detections] = []
    expected = np.empty(0)
    scores = _nothing_known(plan, unit) if plan.is_mapped else None
    too_large = 0
    tiles = [tile for tile in unit.tiles if _worth_searching(chip, tile, math.ceil(margin))]
    for part in _batches(tiles, plan.cuts.batch(plan.batch)):
        chips = [
            replace(
                chip.crop(tile.read), asked=tile.core.grown(math.ceil(margin)), wants_map=scores is not None
            )
            for tile in part
        ]
        for tile, local in zip(part, plan.detector.detect(chips), strict=True):
            if local.density is not None:
                here = _summed(plan, tile, chip, local.density)
                expected = expected + here if len(expected) else here
            if scores is not None and local.score_map is not None:
                _enter(scores, local.score_map, plan, unit, tile, chip)
            found = local.shifted(tile.read.x, tile.read.y, plan.grid)
            found = found[_owned(tile.core, found, margin)]
            if plan.area is not None:
                # Before settling, because detections outside depend on the position of the area relative to
                # the tiles.
                found = found[plan.area.contains(found.centres())]
            bounds = found.bounds()
            sides = bounds[:, 2:] - bounds[:, :2]
            # 1e-6 px: the sides of a box around a point are rounded differences.
            fits = (sides <= needs.largest_px + 1e-6).all(axis=1)
            too_large += int(np.count_nonzero(~fits))
            kept.append(found[fits & (found.score >= np.array(plan.score)[found.label])])
    candidates = Detections.concatenate(kept) if kept else empty
    return UnitResult(unit, candidates, packed(_searched(plan, unit.core, chip)), too_large, expected, scores)


def _summed(plan: ScanPlan, tile: Tile, chip: Chip, density: NDArray[np.float32]) -> Floats:
    """Individuals of each class on the searched ground of a tile's core."""
    core = tile.core
    x, y = core.x - tile.read.x, core.y - tile.read.y
    there = density[:, y : y + core.height, x : x + core.width]
    mask = _searched(plan, core, chip)
    return np.asarray((there if mask is None else there * mask).sum(axis=(1, 2), dtype=np.float64))


def _nothing_known(plan: ScanPlan, unit: Unit) -> NDArray[np.float32]:
    """The map of scores of a unit before its tiles are searched."""
    cells = in_cells(unit.core, plan.detector.needs.map_px or 1)
    return np.full((len(plan.detector.classes), cells.height, cells.width), np.nan, np.float32)


def _enter(
    scores: NDArray[np.float32],
    found: NDArray[np.float32],
    plan: ScanPlan,
    unit: Unit,
    tile: Tile,
    chip: Chip,
) -> None:
    """Copy the searched cells of a tile's core into the map of its unit.

    A cell is searched if one of its pixels is; the cell of a detection always is.
    """
    step = plan.detector.needs.map_px or 1
    core = in_cells(tile.core, step)
    seen, whole = in_cells(tile.read, step), in_cells(unit.core, step)
    rows, columns = _within(core, seen)
    part = found[:, rows, columns]
    mask = _searched(plan, tile.core, chip)
    if mask is not None:
        missing = (0, core.height * step - mask.shape[0]), (0, core.width * step - mask.shape[1])
        cells = np.pad(mask, missing).reshape(core.height, step, core.width, step).any(axis=(1, 3))
        part = np.where(cells, part, np.float32(np.nan))
    rows, columns = _within(core, whole)
    scores[:, rows, columns] = part


def _within(window: Window, other: Window) -> tuple[slice, slice]:
    """Rows and columns of a window in the array of a larger window."""
    y, x = window.y - other.y, window.x - other.x
    return slice(y, y + window.height), slice(x, x + window.width)


def _margin(detector: Detector) -> float:
    """Margin around a core in which candidates are kept, in pixels; 0 where ownership settles them."""
    return detector.needs.margin_px if detector.needs.settling is not None else 0.0


def _owned(core: Window, found: Detections, margin: float) -> NDArray[np.bool_]:
    if not margin:
        return core.owns(found.centres())
    x, y = found.centres().T
    near: NDArray[np.bool_] = (x >= core.x - margin) & (x < core.right + margin)
    near &= (y >= core.y - margin) & (y < core.bottom + margin)
    return near


def _batches(tiles: Sequence[Tile], most: int) -> Iterator[Sequence[Tile]]:
    """Batches of consecutive tiles with the same size; at the edge of the raster tiles are smaller."""
    for _, alike in groupby(tiles, key=lambda tile: (tile.read.width, tile.read.height)):
        part = list(alike)
        for start in range(0, len(part), most):
            yield part[start : start + most]


def _worth_searching(chip: Chip, tile: Tile, margin: int) -> bool:
    """Whether an object can be centred in a tile: its core meets the extent of the valid pixels it reads.

    The core need not have valid pixels: the centre of an object's box may lie off the data.
    """
    if chip.valid is None:
        return True
    return bool(tile.core.grown(margin).clipped(chip.crop(tile.read).extent).area)


def _searched(plan: ScanPlan, core: Window, chip: Chip) -> NDArray[np.bool_] | None:
    """Which pixels of a core are valid and inside the area of interest; None: all."""
    mask = None if plan.area is None else plan.area.mask(core)
    if chip.valid is None:
        return mask
    x, y = core.x - chip.window.x, core.y - chip.window.y
    valid = chip.valid[y : y + core.height, x : x + core.width]
    return valid if mask is None else mask & valid
