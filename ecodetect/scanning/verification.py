"""Verification: searches a few percent of a raster again with other tiles, which should find the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ecodetect.detections import Detections
from ecodetect.grid import Floats, Window
from ecodetect.raster.reading import Raster
from ecodetect.scanning.journal import Journal
from ecodetect.scanning.pipeline import UnitResult, run, worth_reading
from ecodetect.scanning.question import ScanPlan
from ecodetect.scanning.searching import settled, survivors_as_scanned

_VERIFIED_SHARE = 0.03  # of the units


def verify(plan: ScanPlan, raster: Raster, journal: Journal) -> tuple[float, int]:
    """Search a few percent of the units again on a lattice shifted by half a tile.

    Returns the share of detections that both searches found, of those that either found, and their number;
    1.0 for 0. Call it while the raster is open, after `search`.
    """
    cores, again = _again(_shifted(plan), raster)
    first = [
        batch[np.logical_or.reduce([core.owns(batch.centres()) for core in cores])]
        for batch in survivors_as_scanned(plan, journal)
        if cores
    ]
    one = {_place(xy) for batch in first for xy in batch.centres()}
    two = {_place(xy) for batch in again for xy in batch.centres()}
    either = len(one | two)
    return (len(one & two) / either if either else 1.0), either


def _shifted(plan: ScanPlan) -> ScanPlan:
    """The same raster on a lattice shifted by half a tile."""
    cuts, stride = plan.cuts, plan.detector.needs.stride_px
    half = cuts.tile_px // 2 // stride * stride
    shifted = replace(cuts, offset_px=(cuts.offset_px + half) % cuts.tile_px)
    return replace(plan.with_cuts(shifted), is_mapped=False)


def _again(plan: ScanPlan, raster: Raster) -> tuple[list[Window], list[Detections]]:
    """The detections of a few units, and the part of each where no neighbour for settling is missing."""
    needs = plan.detector.needs
    numbers = [n for n in plan.cuts.walk() if worth_reading(plan, raster, plan.cuts.unit(n))]
    numbers = numbers[:: max(1, round(1 / _VERIFIED_SHARE))] if len(numbers) > 2 else numbers[-1:]
    # Near the edge of the ground that is searched again, neighbours for settling are missing.
    rim = 0 if needs.settling is None else int(np.ceil(needs.largest_px))
    cores: list[Window] = []
    again: list[Detections] = []

    def enter(found: UnitResult) -> None:
        core = found.unit.core
        if min(core.width, core.height) <= 2 * rim:
            return
        core = core.grown(-rim)
        candidates = found.candidates
        if needs.settling is not None:
            order = np.argsort(candidates.centres()[:, 1], kind="stable")
            candidates = Detections.concatenate(list(settled(plan, iter([candidates[order]]))))
        cores.append(core)
        again.append(candidates[core.owns(candidates.centres())])

    run(plan, raster, numbers, enter)
    return cores, again


def _place(xy: Floats) -> tuple[int, int]:
    """A centre to a tenth of a pixel; equal centres count as found again."""
    return round(float(xy[0]) * 10), round(float(xy[1]) * 10)
