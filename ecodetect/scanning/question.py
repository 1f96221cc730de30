"""What a scan asks of one raster, in one `ScanPlan`: detector, grid, area of interest, cuts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ecodetect.bundle.card import Card
from ecodetect.bundle.input_spec import working_grid
from ecodetect.bundle.value_survey import choice_of, survey
from ecodetect.bundle.values import Choice, check_mappable, is_mapped, remarks
from ecodetect.detectors import ensemble
from ecodetect.detectors import table as detectors
from ecodetect.detectors.protocol import Detector, scene_of
from ecodetect.errors import UserError
from ecodetect.grid import Grid
from ecodetect.models import choosing as models
from ecodetect.notes import Note
from ecodetect.raster.bands import stand_ins
from ecodetect.raster.reading import Raster
from ecodetect.region import Region
from ecodetect.runtime.onnx_file import OnnxModel
from ecodetect.scanning.layout import Layout, PixelCost, lay_out
from ecodetect.scanning.overlaps import Footprint
from ecodetect.scanning.settings import Settings
from ecodetect.scanning.tiling import Cuts
from ecodetect.version import __version__

_MOST_RESIZED = 16.0  # ratio of stated and learned object sizes: beyond it the unit was probably wrong
# A row of samples from a file of strips needs 512 whole rows: 20,000 px of RGB fit.
_SURVEY_CACHE_BYTES = 32_000_000


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class ScanPlan:
    """The question about one raster, and the plan to answer it. It outlives the open file.

    detector : as `question` builds it; once prepared, with the values measured on the whole raster.
    native : the raster's own grid.
    grid : the scanned grid: the raster's own, or a resampled one.
    area : area of interest in pixels of `grid`, or None.
    score : lowest score kept, one per class of the detector.
    key : hash of everything that determines the result.
    image : path or URL of the raster.  source : its name.
    fingerprint : of its content.  state : of its files when it was opened.
    reading : how its stored numbers become the pixels that the detector sees; JSON-able.
    unit : of its values, if a model uses them.
    laid_out : its layout; None until `prepare`.
    batch : batch size: the largest number of chips given to the detector at once.
    is_mapped : whether the map of scores is kept, of a detector that has one.
    classifiers : everything that determines the species from classifiers on it.
    number : of the raster in the journal.
    notes : on the raster and this plan.
    """

    detector: Detector
    native: Grid
    grid: Grid
    area: Region | None = None
    score: tuple[float, ...]
    key: str = ""
    image: str = ""
    source: str = ""
    fingerprint: str = ""
    state: str = ""
    reading: Mapping[str, Any] = field(default_factory=dict)
    unit: Choice | None = None
    laid_out: Layout | None = None
    batch: int = 1
    is_mapped: bool = False
    classifiers: tuple[str, ...] = ()
    number: int = 0
    notes: tuple[Note, ...] = ()

    @property
    def layout(self) -> Layout:
        """The layout of a prepared raster."""
        assert self.laid_out is not None
        return self.laid_out

    @property
    def cuts(self) -> Cuts:
        """The cuts of a prepared raster."""
        return self.layout.cuts

    @property
    def footprint(self) -> Footprint:
        """The searched ground."""
        return Footprint(self.source, self.native, self.area)

    def with_cuts(self, cuts: Cuts) -> ScanPlan:
        """The same raster with other cuts."""
        return replace(self, laid_out=replace(self.layout, cuts=cuts))


def question(raster: Raster, asked: Settings) -> ScanPlan:
    """What `asked` means for this raster; pixels are read for the fingerprint and, where its type leaves that
    open, for the unit of its values.

    Raises UserError when raster and settings don't fit together.
    """
    unit = _unit(raster, asked)
    scene = scene_of(raster, None if unit is None else unit.unit, is_stated=asked.values is not None)
    members = [
        models.build(
            name, scene, asked.options, source=raster.name, device=asked.device, threads=asked.workers
        )
        for name in asked.models
    ]
    detector = ensemble.of(members, flips=asked.flips)
    grid = _read_at(raster, detector, asked)
    least = detector.needs.least_px
    if min(grid.width, grid.height) < least:
        raise UserError(
            f"{raster.name} is {grid.width} x {grid.height} px as {detector.name} reads it, smaller than one"
            f" window of {least} px; take a larger raster, or smaller windows."
        )
    area = asked.region(raster)
    if area is not None:
        area = area.moved_to(grid)
    score = _scores(asked.score, detector)
    reading = raster.reading(detector.needs.bands)
    facts = {
        "ecodetect": __version__,
        "raster": raster.fingerprint,
        "source": raster.name,
        # How stored numbers become the pixels that the detector sees: what else is done to them goes here.
        "pixels": reading,
        "gsd": raster.grid.stated_gsd,
        "size": [grid.width, grid.height, f"{grid.pixels_from(raster.grid)[0]:.9g}"],  # as it is read
        "model": detector.name,
        "settings": dict(detector.settings),
        "area": None if area is None else area.fingerprint,
        "score": score,
    }
    return ScanPlan(
        detector=detector,
        native=raster.grid,
        grid=grid,
        area=area,
        score=score,
        key=hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32],
        image=raster.path,
        source=raster.name,
        fingerprint=raster.fingerprint,
        state=raster.state,
        reading=reading,
        unit=unit,
        batch=asked.batch,
    )


def journal_key(key: str, asked: Settings, *, is_mapped: bool = False) -> str:
    """The key of a raster in a journal: the question's key, and the cuts of its units."""
    stated = (key, asked.tile_px, asked.batch, asked.max_memory, is_mapped)
    return hashlib.sha256(repr(stated).encode()).hexdigest()[:32]


def prepare(raster: Raster, asked: Settings, *, is_mapped: bool = False) -> ScanPlan:
    """Everything that is decided before the first unit is read: results of a survey, and the cuts.

    is_mapped : whether to keep the map of scores.
    Raises UserError when raster and settings don't fit together.
    """
    plan = question(raster, asked)
    if is_mapped and plan.detector.needs.map_px is None:
        raise _mapless(plan.detector)
    notes = [
        *raster.notes,
        *_said_of_values(raster, plan.unit, asked),
        *_said_of_gsd(raster, plan.detector),
        *_said_of_runtimes(plan.detector, asked),
    ]
    detector = _surveyed(plan, raster)
    needs = detector.needs  # a survey may find out how large the objects are, and which bands show them
    reading = raster.reading(needs.bands)
    plan = replace(plan, detector=detector, reading=reading, is_mapped=is_mapped, notes=tuple(notes))
    layout = lay_out(
        plan.grid,
        needs,
        _pixel_cost(plan, raster),
        tile_px=asked.tile_px,
        workers=1 if needs.is_threaded else asked.workers,
        limit=asked.max_memory,
        batch=asked.batch,
    )
    return replace(plan, laid_out=layout)


def _surveyed(plan: ScanPlan, raster: Raster) -> Detector:
    """The detector with the values measured on the whole raster, or on its area of interest."""
    detector = plan.detector
    if not detector.needs.survey:
        return detector
    with raster.env(cache_bytes=_SURVEY_CACHE_BYTES):
        within = None if plan.area is None else plan.area.bounds
        return detector.surveyed(raster.samples(plan.grid, detector.needs.bands, within))


def _pixel_cost(plan: ScanPlan, raster: Raster) -> PixelCost:
    """The memory that the raster's pixels take during a scan."""
    needs = plan.detector.needs
    per_native = plan.grid.pixels_from(plan.native)[0] if plan.grid != plan.native else 1.0
    return PixelCost(
        raster.block_shape,
        cached_bytes=raster.bytes_per_pixel,
        chip_bytes=len(needs.bands) * np.dtype(raster.dtype).itemsize,
        scale=1 / abs(per_native),
        map_bytes=4 * len(plan.detector.classes) / (needs.map_px or 1) ** 2 if plan.is_mapped else 0.0,
    )


def _said_of_runtimes(detector: Detector, asked: Settings) -> list[Note]:
    """A note on each model that torch runs on the CPU because it has no graph."""
    if not detector.needs.is_threaded or find_spec("onnxruntime") is None:
        return []
    text = "it has no graph for ONNX Runtime, so torch runs it, which is slower; `export` gives it one."
    found = {name: models.opened(name) for name in asked.models}
    return [
        Note("no-graph", text, about=Path(str(name)).name)
        for name, model in found.items()
        if model is not None and not isinstance(model, OnnxModel) and not model.graphs
    ]


def _said_of_gsd(raster: Raster, detector: Detector) -> list[Note]:
    """A doubt where pixels are far coarser than the model's GSD."""
    native, gsd_m = raster.grid.gsd, detector.needs.gsd_m
    if gsd_m is None or native is None or max(native) <= 2 * gsd_m:
        return []
    text = (
        f"it has {max(native):.3g} m per pixel, far coarser than the {gsd_m:.3g} m that {detector.name}"
        " works at: small objects can't be found."
    )
    return [Note("raster-coarse", text, about=raster.name, kind="doubt")]


def _cards(asked: Settings) -> list[Card]:
    """Cards of the models; detectors without a model have none."""
    found = [models.opened(name) for name in asked.models]
    return [each.card for each in found if each is not None]


def _unit(raster: Raster, asked: Settings) -> Choice | None:
    """The unit of a raster's values, if a model uses them."""
    cards = _cards(asked)
    if not cards:
        if asked.values is not None:
            raise UserError(
                f"{asked.model} takes what is black and white from the raster itself; don't state it.",
                parameter="values",
            )
        return None
    bands = tuple(dict.fromkeys(band for card in cards for band in card.bands))
    if asked.values is None and not any(is_mapped(card) for card in cards):
        return None
    unit, _ = choice_of(raster, bands, stated=asked.values, companions=asked.companions)
    if unit is not None:
        for card in cards:
            check_mappable(raster.name, card, unit)
    return unit


def _said_of_values(raster: Raster, unit: Choice | None, asked: Settings) -> list[Note]:
    """Notes on a raster's values before models see them."""
    notes: list[Note] = []
    for card in _cards(asked):
        bands = stand_ins(card.bands, raster.bands)
        assert bands is not None, "the detector is built"
        found = survey(raster, bands) if card.learned is not None else None
        notes += remarks(raster.name, card, unit, found)
    return notes


def _read_at(raster: Raster, detector: Detector, asked: Settings) -> Grid:
    """The grid that the detector works on: at its GSD, or where objects have the size it has learned."""
    needs = detector.needs
    if asked.diameter is None:
        if needs.gsd_m is not None:
            return working_grid(raster.grid, needs.gsd_m)
        return working_grid(raster.grid, None, needs.own_px)
    if needs.gsd_m is not None:
        raise UserError(
            f"{detector.name} reads every raster at {needs.gsd_m:g} m per pixel; leave out the diameter.",
            parameter="diameter",
        )
    if needs.typical_px is None:
        raise UserError(
            f"{detector.name} has learned no size of objects; leave out the diameter.", parameter="diameter"
        )
    factor = asked.diameter.pixels(raster.grid.gsd, name="The diameter") / needs.typical_px
    if not 1 / _MOST_RESIZED < factor < _MOST_RESIZED:
        raise UserError(
            f"A diameter of {asked.diameter} is too far from the {needs.typical_px:.3g} px that"
            f" {detector.name} has learned: at most {_MOST_RESIZED:g} times more or less.",
            parameter="diameter",
        )
    return working_grid(raster.grid, None, factor)


def _mapless(detector: Detector) -> UserError:
    """The error that there is no map of scores, naming the models that have one."""
    if isinstance(detector, ensemble.Ensemble):
        return UserError(
            "Several models, and one with flips, give fused boxes and no map of scores; leave out the map, or"
            f" scan with {detector.members[0].name} as it is.",
            parameter="score_map",
        )
    return UserError(
        f"{detector.name} reads its detections off no map of scores; leave out the map, or take a model of"
        f" {' or '.join(detectors.with_score_map())}.",
        parameter="score_map",
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
