"""The search of one raster: unfinished units are searched, and surviving detections are read.

`question` makes the plan; `run` calls these functions for one raster or many and writes the file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ecodetect.detections import Detections
from ecodetect.grid import Floats
from ecodetect.notes import Note
from ecodetect.raster.reading import Raster
from ecodetect.scanning.journal import Journal
from ecodetect.scanning.pipeline import UnitResult, run, worth_cutting, worth_reading
from ecodetect.scanning.question import ScanPlan, journal_key
from ecodetect.scanning.score_maps import cut
from ecodetect.scanning.searched_ground import per_row, unpacked
from ecodetect.scanning.settings import Settings
from ecodetect.scanning.tiling import in_cells
from ecodetect.settling import Settler

Progress = Callable[[str, float, float], None]  # raster name, megapixels done, megapixels in all


def entered(plan: ScanPlan, journal: Journal, asked: Settings) -> ScanPlan:
    """The plan with the raster's number in the journal, and with the cuts of its finished units.

    The choice of cuts depends on memory and cores, and units of different cuts can't be mixed. Notes on the
    journal's contents are added.
    """
    cuts = plan.cuts
    entry = journal.raster(
        journal_key(plan.key, asked, is_mapped=plan.is_mapped),
        json.dumps([cuts.tile_px, cuts.halo_px, cuts.tiles_per_unit, cuts.offset_px]),
        plan.state,
    )
    notes = plan.notes
    if entry.is_replaced:
        text = "its file has changed since the scan was stopped, so it is searched from the beginning."
        notes = (*notes, Note("raster-replaced", text, about=plan.source))
    if entry.damaged:
        units = "one part" if entry.damaged == 1 else f"{entry.damaged:,} parts"
        text = f"{units} of finished work was damaged in the journal and is searched again."
        notes = (*notes, Note("journal-damaged", text, about=plan.source))
    tile, halo, per_unit, offset = json.loads(entry.cuts)
    known = replace(cuts, tile_px=tile, halo_px=halo, tiles_per_unit=per_unit, offset_px=offset)
    return replace(plan.with_cuts(known), number=entry.number, notes=notes)


def search(plan: ScanPlan, raster: Raster, journal: Journal, progress: Progress | None) -> bool:
    """Search the unfinished units; returns whether some had been finished before."""
    cuts = plan.cuts
    done = journal.done(plan.number)
    todo = [n for n in cuts.walk() if n not in done and worth_cutting(plan, raster, n)]
    todo = [n for n in todo if worth_reading(plan, raster, cuts.unit(n))]
    pixels = sum(cuts.unit(n).core.area for n in todo) / 1e6
    finished = 0.0
    step = plan.detector.needs.map_px or 1

    def enter(found: UnitResult) -> None:
        nonlocal finished
        journal.add(
            plan.number,
            found.unit.number,
            found.candidates,
            found.searched,
            found.too_large,
            found.expected,
            [] if found.scores is None else cut(in_cells(found.unit.core, step), found.scores),
        )
        finished += found.unit.core.area / 1e6
        if progress is not None:
            progress(plan.source, finished, pixels)

    if progress is not None:
        progress(plan.source, 0.0, pixels)
    run(plan, raster, todo, enter)
    return bool(done)


def survivors(plan: ScanPlan, journal: Journal) -> Iterator[Detections]:
    """Settled detections inside the area of interest, in pixels of the raster's own grid, sorted by place."""
    for batch in survivors_as_scanned(plan, journal):
        yield batch.moved_to(plan.native)


def survivors_as_scanned(plan: ScanPlan, journal: Journal) -> Iterator[Detections]:
    """The same in pixels of the scanned grid."""
    detector = plan.detector
    stream = journal.candidates(plan.number, plan.grid, detector.kind, detector.classes)
    if detector.needs.settling is not None:
        stream = settled(plan, stream)
    yield from (batch for batch in stream if len(batch))


def settled(plan: ScanPlan, stream: Iterator[Detections]) -> Iterator[Detections]:
    """Candidates that survive settling, sorted from top to bottom."""
    needs = plan.detector.needs
    assert needs.settling is not None
    criterion, limit = needs.settling.criterion, needs.settling.limit
    reach = limit if criterion == "distance" else needs.largest_px
    settler = Settler(criterion=criterion, limit=limit, reach_px=reach)
    waiting: list[Detections] = []
    first = 0  # number of the first candidate in `waiting`
    for batch in stream:
        waiting.append(batch)
        final = settler.push(batch.bounds(), batch.score)
        whole = Detections.concatenate(waiting)
        yield whole[final - first]
        waiting = [whole[settler.waiting - first :]]
        first = settler.waiting
    if waiting:
        final = settler.finish()
        yield Detections.concatenate(waiting)[final - first]


def identities(fingerprint: str) -> Callable[[Floats], list[str]]:
    """Names objects by place: the raster's fingerprint and the centre to 1/8 px, with a suffix on collision.

    The function returned takes centres (N, 2) in native pixels, in their final order, batch after batch.
    """
    seen: Counter[str] = Counter()
    row = -1

    def name(centres: Floats) -> list[str]:
        nonlocal row
        names = []
        for x, y in np.floor(centres * 8).astype(np.int64).tolist():
            if y != row:  # sorted by y: names of earlier rows can't appear again
                row = y
                seen.clear()
            plain = f"{fingerprint[:8]}-{x:x}-{y:x}"
            seen[plain] += 1
            names.append(plain if seen[plain] == 1 else f"{plain}-{seen[plain]}")
        return names

    return name


def searched(
    plan: ScanPlan, journal: Journal, own: Mapping[int, NDArray[np.int64]] | None = None
) -> tuple[int, float | None, int]:
    """Pixels searched, their ground in hectares (None if unknown), and objects left out as too large.

    own : of a raster that shares ground with others, the pixels per row of each unit's core that count for
        this one.
    Summed by pixel rows, so that the sums don't depend on the tiles.
    """
    grid = plan.grid
    rows = np.zeros(grid.height, np.int64)
    too_large = 0
    for number, left_out, blob in journal.units(plan.number):
        core = plan.cuts.unit(number).core
        rows[core.y : core.bottom] += per_row(unpacked(blob, core), core) if own is None else own[number]
        too_large += left_out
    used = np.flatnonzero(rows)
    if grid.gsd is None:
        return int(rows.sum()), None, too_large
    middle = np.stack([np.full(len(used), grid.width / 2), used + 0.5], axis=1)
    pixel_m2 = np.abs(np.linalg.det(grid.metres_per_pixel(middle))) if len(used) else np.empty(0)
    square_metres = float(np.nansum(rows[used] * pixel_m2))
    return int(rows.sum()), float(f"{square_metres / 10_000:.8g}"), too_large
