"""An oracle for tests of detectors: a raster in memory, cut into tiles in the plainest way."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.chip import Chip
from ecodetect.detections import Detections
from ecodetect.detectors.protocol import Detector, Scene
from ecodetect.detectors.table import build
from ecodetect.grid import Grid, Window

Rows = list[tuple[Any, ...]]


def scene_of(pixels: NDArray[Any], bands: tuple[str, ...]) -> Scene:
    kind = pixels.dtype
    span = None if kind.kind == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    return Scene(bands, None, kind.name, span)


def chip_of(
    pixels: NDArray[Any], valid: NDArray[np.bool_] | None, bands: tuple[str, ...], window: Window
) -> Chip:
    """The pixels of a window, which may reach beyond the raster and isn't valid there."""
    height, width = pixels.shape[1:]
    inside = window.clipped(Window(0, 0, width, height))
    rows, columns = slice(inside.y, inside.bottom), slice(inside.x, inside.right)
    there = (
        slice(inside.y - window.y, inside.bottom - window.y),
        slice(inside.x - window.x, inside.right - window.x),
    )
    # What isn't valid holds anything.
    cut = np.full((len(pixels), window.height, window.width), 7, pixels.dtype)
    mask = np.zeros((window.height, window.width), np.bool_)
    cut[:, there[0], there[1]] = pixels[:, rows, columns]
    mask[there] = True if valid is None else valid[rows, columns]
    grid = Grid(width, height).crop(window)
    return Chip(cut, None if mask.all() else mask, bands, window, grid)


def built(
    name: str, pixels: NDArray[Any], valid: NDArray[np.bool_] | None, bands: tuple[str, ...], **options: str
) -> Detector:
    """The detector, having surveyed all of the raster."""
    detector = build(name, scene_of(pixels, bands), options)
    chosen = [bands.index(band) for band in detector.needs.bands]
    if not detector.needs.survey:
        return detector
    height, width = pixels.shape[1:]
    whole = Window(0, 0, width, height)
    return detector.surveyed([chip_of(pixels[chosen], valid, detector.needs.bands, whole)])


def searched(
    detector: Detector,
    pixels: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    bands: tuple[str, ...],
    tile: int,
    origin: tuple[int, int] = (0, 0),
) -> Rows:
    """What the cores of all tiles own, sorted; each row is score and coordinates, to the last bit."""
    needs = detector.needs
    height, width = pixels.shape[1:]
    chosen = [bands.index(band) for band in needs.bands]
    halo = math.ceil(needs.largest_px / 2 + needs.reach_px + needs.margin_px)
    rows: Rows = []
    for core in _cores(width, height, tile, origin):
        chip = chip_of(pixels[chosen], valid, needs.bands, core.grown(halo))
        (found,) = detector.detect([chip])
        found = found.moved_to(Grid(width, height))
        box = found.bounds()
        fits = (box[:, 2:] - box[:, :2] <= needs.largest_px).all(axis=1)
        rows += rows_of(found[fits & core.owns(found.centres())])
    return sorted(rows)


def _cores(width: int, height: int, tile: int, origin: tuple[int, int]) -> Iterator[Window]:
    for y in range(origin[1] - tile, height, tile):
        for x in range(origin[0] - tile, width, tile):
            core = Window(x, y, tile, tile).clipped(Window(0, 0, width, height))
            if core.area:
                yield core


def rows_of(found: Detections) -> Rows:
    """One tuple per detection: score, coordinates, diameter."""
    if found.kind == "polygon":
        coordinates = [tuple(shapely.get_coordinates(shape).ravel().tolist()) for shape in found.geometry]
    else:
        coordinates = [tuple(row) for row in found.geometry.tolist()]
    sizes = [()] * len(found) if found.diameter is None else [(d,) for d in found.diameter.tolist()]
    return [
        (score, *at, *size) for score, at, size in zip(found.score.tolist(), coordinates, sizes, strict=True)
    ]
