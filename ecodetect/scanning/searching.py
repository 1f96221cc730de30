"""The search of one raster: what is decided beforehand, the units that are done, the detections that survive.

`scanning` calls these for one raster or many and writes the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ecodetect.bundle.file import Card
from ecodetect.bundle.input_spec import working_grid
from ecodetect.bundle.value_survey import Companions, choice_of, survey
from ecodetect.bundle.values import Choice, Measured, Unit, check_mappable, is_mapped, remarks
from ecodetect.detections import Detections
from ecodetect.detectors import ensemble
from ecodetect.detectors import table as detectors
from ecodetect.detectors.protocol import Detector, Scene
from ecodetect.errors import UserError
from ecodetect.grid import Floats, Grid, Window
from ecodetect.models import choosing as models
from ecodetect.notes import Note
from ecodetect.raster.bands import stand_ins
from ecodetect.raster.reading import Raster
from ecodetect.region import Area, read_area
from ecodetect.scanning.journal import Journal
from ecodetect.scanning.layout import Layout, Source, lay_out
from ecodetect.scanning.pipeline import Found, Work, run, worth_cutting, worth_reading
from ecodetect.scanning.score_maps import cut
from ecodetect.scanning.tiling import in_cells
from ecodetect.settling import Settler
from ecodetect.sizes import Length
from ecodetect.version import __version__

Progress = Callable[[str, float, float], None]  # raster name, megapixels done, megapixels in all
_VERIFIED_SHARE = 0.03  # of the units
_MOST_RESIZED = 16.0  # between objects as stated and as learned: beyond it a unit was meant otherwise
# A row of samples from a file of strips needs 512 whole rows: 20,000 px of RGB fit.
_SURVEY_CACHE_BYTES = 32_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a user asks of a scan.

    model : file of a model, name of one that comes with ecodetect, or name of a detector.
    others : more models that answer together with it (boxes only).
    flips : whether each tile is looked at turned over too (boxes only).
    options : their options, `name=value` texts.
    bands : names or numbers of bands, comma-separated; None: by the raster's own names.
    aoi : vector file with polygons to search, in any CRS.  aoi_layer : its layer.
    gsd_m : metres per pixel, where the raster doesn't say.
    nodata : value that stands for no data, where the raster declares none or another; see `open_raster`.
    diameter : of usual objects, for a model without a GSD: the raster is read so that they are as large as
        those it has learned.
    values : what counts as black and white in the rasters; None: told by their values.
    companions : rasters that are searched together, so that those of one folder share a unit.
    score : lowest score kept, for all classes or by class name.
    device : where a network runs: auto, cpu, cuda or mps.
    tile_px, batch, workers, max_memory : None: chosen for detector, machine and raster. max_memory in bytes.
    """

    model: str
    others: tuple[str, ...] = ()
    flips: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    bands: str | None = None
    aoi: str | None = None
    aoi_layer: str | None = None
    gsd_m: float | None = None
    nodata: float | None = None
    diameter: Length | None = None
    values: Unit | None = None
    companions: Companions | None = field(default=None, compare=False)
    score: float | Mapping[str, float] | None = None
    device: str = "auto"
    tile_px: int | None = None
    batch: int = 1
    workers: int | None = None
    max_memory: int | None = None
    allow_vrt: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (
            ("--tile", self.tile_px, 16),
            ("--batch", self.batch, 1),
            ("--workers", self.workers, 1),
        ):
            if value is not None and value < least:
                raise UserError(f"{name} must be at least {least}; got {value}.")
        if self.gsd_m is not None and not 0 < self.gsd_m < 1e6:
            raise UserError(f"--gsd must be a positive number of metres per pixel; got {self.gsd_m:g}.")
        if self.diameter is not None and not self.diameter.value > 0:
            raise UserError(f"--diameter must be above 0; got {self.diameter}.")
        scores = self.score.values() if isinstance(self.score, Mapping) else [self.score]
        for score in scores:
            if score is not None and not 0 <= score <= 1:
                raise UserError(f"--score must lie between 0 and 1; got {score:g}.")

    def described(self) -> dict[str, Any]:
        """What goes into the output's metadata: stated settings that change the answer."""
        stated = {
            "options": dict(self.options),
            "bands": self.bands,
            "gsd_m": self.gsd_m,
            # JSON knows no NaN.
            "nodata": None if self.nodata is None else f"{self.nodata:.10g}",
            "diameter": None if self.diameter is None else str(self.diameter),
            "values": None if self.values is None else f"{self.values.low:g}:{self.values.high:g}",
            "score": self.score,
        }
        return {name: value for name, value in stated.items() if value not in (None, {})}


@dataclass(frozen=True, eq=False, slots=True)
class Job:
    """One raster, ready to be searched: what stays when its file is closed again.

    state : of its files when it was opened.
    """

    image: str
    source: str
    grid: Grid
    fingerprint: str
    work: Work
    layout: Layout
    key: str
    notes: tuple[Note, ...]
    state: str = ""

    def entered(self, journal: Journal, asked: Settings) -> tuple[Job, int]:
        """This job with its number in the journal, and with the cuts of the units that are done already.

        How cuts are chosen depends on what memory and cores there are; units of other cuts can't be mixed.
        What is to be said of what lay in the journal is among its notes.
        """
        plan = self.layout.plan
        entry = journal.raster(
            journal_key(self.key, asked, is_mapped=self.work.is_mapped),
            json.dumps([plan.tile_px, plan.halo_px, plan.tiles_per_unit, plan.offset_px]),
            self.state,
        )
        notes = self.notes
        if entry.is_replaced:
            text = (
                "its file has been changed since the scan was stopped, so it is searched from the beginning."
            )
            notes = (*notes, Note("raster-replaced", text, about=self.source))
        if entry.damaged:
            units = "one part" if entry.damaged == 1 else f"{entry.damaged:,} parts"
            text = f"{units} of what had been done was damaged in the journal and is searched again."
            notes = (*notes, Note("journal-damaged", text, about=self.source))
        number = entry.number
        tile, halo, per_unit, offset = json.loads(entry.cuts)
        plan = replace(plan, tile_px=tile, halo_px=halo, tiles_per_unit=per_unit, offset_px=offset)
        layout = replace(self.layout, plan=plan)
        return replace(self, layout=layout, work=replace(self.work, plan=plan), notes=notes), number


def journal_key(key: str, asked: Settings, *, is_mapped: bool = False) -> str:
    """The key of a raster in a journal: that of the question, and what its units are cut by."""
    stated = (key, asked.tile_px, asked.batch, asked.max_memory, is_mapped)
    return hashlib.sha256(repr(stated).encode()).hexdigest()[:32]


@dataclass(frozen=True, eq=False, slots=True)
class Question:
    """What is asked of one raster: the detector before any survey, grid, area, and the hash of it all.

    unit : of the raster's values, where a model is to see them.
    values : what was surveyed for it, with the raster's bands; None: nothing was.
    """

    detector: Detector
    grid: Grid
    area: Area | None
    score: tuple[float, ...]
    unit: Choice | None
    values: Measured | None
    key: str


def question(raster: Raster, asked: Settings) -> Question:
    """What `asked` means for this raster; pixels are read for the fingerprint and, where its type leaves that
    open, for the unit of its values.

    Raises UserError when raster and settings don't fit together.
    """
    unit, values = _unit(raster, asked)
    scene = Scene(
        raster.bands,
        raster.grid.gsd,
        raster.dtype,
        raster.value_range,
        None if unit is None else unit.unit,
        asked.values is not None,
    )
    members = [
        models.build(
            name, scene, asked.options, source=raster.name, device=asked.device, threads=asked.workers
        )
        for name in (asked.model, *asked.others)
    ]
    detector = ensemble.of(members, flips=asked.flips)
    grid = _read_at(raster, detector, asked)
    least = detector.needs.least_px
    if min(grid.width, grid.height) < least:
        raise UserError(
            f"{raster.name} is {grid.width} x {grid.height} px as {detector.name} reads it, smaller than one"
            f" window of {least} px; take a larger raster, or smaller windows."
        )
    area = None
    if asked.aoi is not None:
        area = read_area(asked.aoi, raster.grid, layer=asked.aoi_layer, image=raster.name).moved_to(grid)
    score = _scores(asked.score, detector)
    facts = {
        "ecodetect": __version__,
        "raster": raster.fingerprint,
        "source": raster.name,
        # How stored numbers become the pixels that the detector sees: what else is done to them goes here.
        "pixels": raster.reading(detector.needs.bands),
        "gsd": raster.grid.stated_gsd,
        "size": [grid.width, grid.height, f"{grid.pixels_from(raster.grid)[0]:.9g}"],  # as it is read
        "model": detector.name,
        "settings": dict(detector.settings),
        "area": None if area is None else area.fingerprint,
        "score": score,
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    return Question(detector, grid, area, score, unit, values, key)


def _cards(asked: Settings) -> list[Card]:
    """Of the models that are asked; detectors without one have none."""
    found = [models.opened(name) for name in (asked.model, *asked.others)]
    return [each.card for each in found if each is not None]


def _unit(raster: Raster, asked: Settings) -> tuple[Choice | None, Measured | None]:
    """The unit of a raster's values where a model is to see them, and what was surveyed for it."""
    cards = _cards(asked)
    if not cards:
        if asked.values is not None:
            raise UserError(
                f"{asked.model} takes what is dark and bright from the raster; leave out --values."
            )
        return None, None
    bands = tuple(dict.fromkeys(band for card in cards for band in card.bands))
    if asked.values is None and not any(is_mapped(card) for card in cards):
        return None, None
    unit, values = choice_of(raster, bands, stated=asked.values, companions=asked.companions)
    if unit is not None:
        for card in cards:
            check_mappable(raster.name, card, unit)
    return unit, values


def _said_of_values(raster: Raster, plain: Question, asked: Settings) -> list[Note]:
    """What is to be said of a raster's values before models see them."""
    notes: list[Note] = []
    for card in _cards(asked):
        bands = stand_ins(card.bands, raster.bands)
        assert bands is not None, "the detector is built"
        found = survey(raster, bands) if card.learned is not None else None
        notes += remarks(raster.name, card, plain.unit, found)
    return notes


def _read_at(raster: Raster, detector: Detector, asked: Settings) -> Grid:
    """The grid that the detector works on: of its GSD, or on which objects are as large as it knows them."""
    needs = detector.needs
    if asked.diameter is None:
        if needs.gsd_m is not None:
            return working_grid(raster.grid, needs.gsd_m)
        return working_grid(raster.grid, None, needs.own_px)
    if needs.gsd_m is not None:
        raise UserError(
            f"{detector.name} reads every raster at {needs.gsd_m:g} m per pixel; leave out --diameter."
        )
    if needs.typical_px is None:
        raise UserError(f"{detector.name} has learned no size of objects; leave out --diameter.")
    factor = asked.diameter.pixels(raster.grid.gsd, name="--diameter") / needs.typical_px
    if not 1 / _MOST_RESIZED < factor < _MOST_RESIZED:
        raise UserError(
            f"--diameter {asked.diameter} is too far from the {needs.typical_px:.3g} px that"
            f" {detector.name} has learned: at most {_MOST_RESIZED:g} times more or less."
        )
    return working_grid(raster.grid, None, factor)


def prepare(image: str, raster: Raster, asked: Settings, *, is_mapped: bool = False) -> Job:
    """Everything that is decided before the first unit is read: what a survey finds, and the cuts.

    is_mapped : whether the map of scores is to be kept.
    Raises UserError when raster and settings don't fit together.
    """
    plain = question(raster, asked)
    detector, grid, area = plain.detector, plain.grid, plain.area
    if is_mapped and detector.needs.map_px is None:
        raise UserError(_mapless(detector))
    notes = [*raster.notes, *_said_of_values(raster, plain, asked)]
    native = raster.grid.gsd
    gsd_m = detector.needs.gsd_m
    if gsd_m is not None and native is not None and max(native) > 2 * gsd_m:
        text = (
            f"it has {max(native):.3g} m per pixel, far coarser than the {gsd_m:.3g} m that {detector.name}"
            " works at: small objects can't be found."
        )
        notes.append(Note("raster-coarse", text, about=raster.name, kind="doubt"))
    if detector.needs.survey:
        with raster.env(cache_bytes=_SURVEY_CACHE_BYTES):
            samples = raster.samples(grid, detector.needs.bands, None if area is None else area.bounds)
            detector = detector.surveyed(samples)
    needs = detector.needs  # a survey may find out how large the objects are
    native_scale = grid.pixels_from(raster.grid)[0] if grid != raster.grid else 1.0
    source = Source(
        raster.block_shape,
        cached_bytes=raster.bytes_per_pixel,
        chip_bytes=len(needs.bands) * np.dtype(raster.dtype).itemsize,
        scale=1 / abs(native_scale),
        map_bytes=4 * len(detector.classes) / (needs.map_px or 1) ** 2 if is_mapped else 0.0,
    )
    layout = lay_out(
        grid,
        needs,
        source,
        tile_px=asked.tile_px,
        workers=1 if needs.is_threaded else asked.workers,
        limit=asked.max_memory,
        batch=asked.batch,
    )
    work = Work(raster, detector, grid, layout.plan, area, plain.score, asked.batch, is_mapped)
    return Job(
        image,
        raster.name,
        raster.grid,
        raster.fingerprint,
        work,
        layout,
        plain.key,
        tuple(notes),
        raster.state,
    )


def _mapless(detector: Detector) -> str:
    """That there is no map of scores, and whose there is."""
    if isinstance(detector, ensemble.Ensemble):
        return (
            "Several models, and one with --flips, give fused boxes and no map of scores; leave out"
            f" --score-map, or scan with {detector.members[0].name} as it is."
        )
    return (
        f"{detector.name} reads its detections off no map of scores; leave out --score-map, or take a model"
        f" of {' or '.join(detectors.with_score_map())}."
    )


def _scores(score: float | Mapping[str, float] | None, detector: Detector) -> tuple[float, ...]:
    usual = detector.needs.scores or (0.0,) * len(detector.classes)
    if score is None:
        return usual
    if not isinstance(score, Mapping):
        return (score,) * len(detector.classes)
    unknown = sorted(set(score) - set(detector.classes))
    if unknown:
        raise UserError(
            f"{detector.name} has no class '{unknown[0]}'; it has: {', '.join(detector.classes)}."
        )
    return tuple(score.get(name, least) for name, least in zip(detector.classes, usual, strict=True))


def search(job: Job, journal: Journal, raster_id: int, progress: Progress | None) -> bool:
    """Do the units that aren't done; returns whether some had been done before."""
    work, plan = job.work, job.layout.plan
    done = journal.done(raster_id)
    todo = [n for n in plan.walk() if n not in done and worth_cutting(work, plan, n)]
    todo = [n for n in todo if worth_reading(work, plan.unit(n))]
    pixels = sum(plan.unit(n).core.area for n in todo) / 1e6
    finished = 0.0
    step = work.detector.needs.map_px or 1

    def enter(found: Found) -> None:
        nonlocal finished
        journal.add(
            raster_id,
            found.unit.number,
            found.candidates,
            found.valid_rows,
            found.too_large,
            found.expected,
            [] if found.scores is None else cut(in_cells(found.unit.core, step), found.scores),
        )
        finished += found.unit.core.area / 1e6
        if progress is not None:
            progress(job.source, finished, pixels)

    if progress is not None:
        progress(job.source, 0.0, pixels)
    run(work, todo, enter, workers=job.layout.workers, reading=lambda: _reading(job))
    return bool(done)


def _reading(job: Job) -> Any:
    """The context of the reader thread: the block cache of the layout, decoding on all cores."""
    return job.work.raster.env(cache_bytes=job.layout.cache_bytes, threads=os.cpu_count() or 1)


def survivors(job: Job, journal: Journal, raster_id: int) -> Iterator[Detections]:
    """Settled detections inside the area of interest, in pixels of the raster's own grid, sorted by place."""
    for batch in _survivors_as_scanned(job, journal, raster_id):
        yield batch.moved_to(job.grid)


def _survivors_as_scanned(job: Job, journal: Journal, raster_id: int) -> Iterator[Detections]:
    work, detector = job.work, job.work.detector
    stream = journal.candidates(raster_id, work.grid, detector.kind, detector.classes)
    if detector.needs.settling is not None:
        stream = _settled(stream, _settler(job))
    yield from (batch for batch in stream if len(batch))


def _settler(job: Job) -> Settler:
    needs = job.work.detector.needs
    assert needs.settling is not None
    criterion, limit = needs.settling.criterion, needs.settling.limit
    return Settler(
        criterion=criterion, limit=limit, reach_px=limit if criterion == "distance" else needs.largest_px
    )


def _settled(stream: Iterator[Detections], settler: Settler) -> Iterator[Detections]:
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
            if y != row:  # sorted by y: names of earlier rows can't come again
                row = y
                seen.clear()
            plain = f"{fingerprint[:8]}-{x:x}-{y:x}"
            seen[plain] += 1
            names.append(plain if seen[plain] == 1 else f"{plain}-{seen[plain]}")
        return names

    return name


def searched(job: Job, journal: Journal, raster_id: int) -> tuple[int, float | None, int]:
    """Pixels searched, their ground in hectares (None if unknown), and objects left out as too large.

    Summed by pixel rows, so that it doesn't depend on the tiles.
    """
    plan, grid = job.layout.plan, job.work.grid
    rows = np.zeros(grid.height, np.int64)
    too_large = 0
    for number, left_out, valid in journal.units(raster_id):
        core = plan.unit(number).core
        rows[core.y : core.bottom] += valid
        too_large += left_out
    used = np.flatnonzero(rows)
    if grid.gsd is None:
        return int(rows.sum()), None, too_large
    middle = np.stack([np.full(len(used), grid.width / 2), used + 0.5], axis=1)
    pixel_m2 = np.abs(np.linalg.det(grid.metres_per_pixel(middle))) if len(used) else np.empty(0)
    square_metres = float(np.nansum(rows[used] * pixel_m2))
    return int(rows.sum()), float(f"{square_metres / 10_000:.8g}"), too_large


def verify(job: Job, journal: Journal, raster_id: int) -> tuple[float, int]:
    """Search a few percent of the units again on a lattice shifted by half a tile.

    Returns the share of detections that both searches found, of those that either found, and their number;
    1.0 for 0. Call it while the raster is open, after `search`.
    """
    work, needs = job.work, job.work.detector.needs
    plan = job.layout.plan
    half = plan.tile_px // 2 // needs.stride_px * needs.stride_px
    shifted = replace(plan, offset_px=(plan.offset_px + half) % plan.tile_px)
    work = replace(work, plan=shifted, is_mapped=False)
    numbers = [n for n in work.plan.walk() if worth_reading(work, work.plan.unit(n))]
    numbers = numbers[:: max(1, round(1 / _VERIFIED_SHARE))] if len(numbers) > 2 else numbers[-1:]
    # Near the edge of what is looked at again the neighbours that settle a candidate are missing.
    rim = 0 if needs.settling is None else int(np.ceil(needs.largest_px))
    again: list[Detections] = []
    cores: list[Window] = []

    def enter(found: Found) -> None:
        core = (
            found.unit.core.grown(-rim)
            if min(found.unit.core.width, found.unit.core.height) > 2 * rim
            else None
        )
        if core is None:
            return
        candidates = found.candidates
        if needs.settling is not None:
            order = np.argsort(candidates.centres()[:, 1], kind="stable")
            candidates = candidates[order]
            settler = _settler(job)
            candidates = Detections.concatenate(list(_settled(iter([candidates]), settler)))
        candidates = candidates[core.owns(candidates.centres())]
        cores.append(core)
        again.append(candidates)

    run(work, numbers, enter, workers=job.layout.workers, reading=lambda: _reading(job))
    first = [
        batch[np.logical_or.reduce([core.owns(batch.centres()) for core in cores])]
        for batch in _survivors_as_scanned(job, journal, raster_id)
        if cores
    ]
    one = {_place(xy) for batch in first for xy in batch.centres()}
    two = {_place(xy) for batch in again for xy in batch.centres()}
    either = len(one | two)
    return (len(one & two) / either if either else 1.0), either


def _place(xy: Floats) -> tuple[int, int]:
    """A centre to a tenth of a pixel: what counts as found again."""
    return round(float(xy[0]) * 10), round(float(xy[1]) * 10)
