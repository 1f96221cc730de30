"""From journals to one file: the layer of detections, its metadata, and a summary for people."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ecodetect.bundle.file import Bundle
from ecodetect.bundle.footprint import cells_on
from ecodetect.classification.answering import Answers, ClassifierEnsemble, column_kinds
from ecodetect.cores import core_count
from ecodetect.detections import GeometryType
from ecodetect.detectors.ensemble import Ensemble
from ecodetect.detectors.learned_detector import LearnedDetector
from ecodetect.detectors.protocol import Detector
from ecodetect.errors import UserError
from ecodetect.formats import files as formats
from ecodetect.formats.content import Tally
from ecodetect.grid import Floats, Grid, authority_of, describe_crs
from ecodetect.layer import Layer, Stream
from ecodetect.notes import Note, merged
from ecodetect.raster.bands import stand_ins
from ecodetect.raster.reading import Raster
from ecodetect.runtime.opening import in_words
from ecodetect.scanning import score_maps
from ecodetect.scanning.journal import Journal
from ecodetect.scanning.overlaps import Footprint, overlapping
from ecodetect.scanning.process_memory import give_back
from ecodetect.scanning.question import ScanPlan
from ecodetect.scanning.seams import Counted, counted
from ecodetect.scanning.searching import Progress, identities, searched, survivors
from ecodetect.scanning.settings import Output, Settings
from ecodetect.version import __version__

GEOMETRY = {"point": "Point", "box": "Polygon", "polygon": "Polygon"}
SIZES = {True: ("area_m2", "diameter_m"), False: ("area_px", "diameter_px")}  # with a known GSD, or without


@dataclass(frozen=True, slots=True)
class RasterSummary:
    """The result of a scan for one raster; fields as in `Summary`."""

    source: str
    counts: Mapping[str, int]
    area_ha: float | None
    megapixels: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a scan, for one output file.

    counts : detections per class, in the order of classes.
    area_ha : searched ground in hectares (valid pixels inside the area of interest); None where the size of
        pixels is unknown.
    megapixels : pixels searched, in millions.
    rasters : the same for each raster.
    too_large : objects wider than the detector's largest object, left out; None where the file doesn't say.
    elsewhere : detections left out because another raster has the ground they lie on, or shows the same
        individual; None as before.
    dropped : detections that the format can't hold (no place on the Earth), left out; None as before.
    expected : individuals per class by the sum of the detector's density, which also counts individuals too
        close to each other to be separated; None where it has no density.
    score_map : file of the map of scores; None if not requested.
    species : class names of the classifier -> number of detections; None without a classifier.
    verified : share of detections found again on a shifted lattice, and their number; None if not requested.
    in_work : another process is working on it, so it was skipped.
    runtime : what ran the networks, with its version, and where; None where none ran.
    """

    path: Path
    sources: tuple[str, ...]
    model: str
    counts: Mapping[str, int]
    area_ha: float | None
    megapixels: float
    rasters: tuple[RasterSummary, ...] = ()
    too_large: int | None = 0
    elsewhere: int | None = 0
    dropped: int | None = 0
    expected: Mapping[str, float] | None = None
    seconds: float = 0.0
    resumed: bool = False
    already_done: bool = False
    score_map: Path | None = None
    verified: tuple[float, int] | None = None
    species: Mapping[str, int] | None = None
    notes: tuple[Note, ...] = ()
    in_work: bool = False
    runtime: str | None = None

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @classmethod
    def skipped(cls, path: Path, images: Sequence[str], model: str) -> Summary:
        """The summary of an output that another process is working on."""
        note = Note("in-work", "another scan is working on it, so it is skipped.", about=path.name)
        sources = tuple(PurePath(image).name for image in images)
        return cls(path, sources, model, {}, None, 0.0, notes=(note,), in_work=True)

    @classmethod
    def known(
        cls,
        path: Path,
        stated: Mapping[str, Any],
        tally: Tally,
        classes: Sequence[str],
        answers: Sequence[str],
    ) -> Summary:
        """The summary of an existing file that answers exactly this question.

        stated : its metadata.  tally : its contents.  classes : of the detector.  answers : class names of
            the
        classifier, for a scan with one.
        """
        rasters, expected = [], []
        for each in stated["rasters"]:
            there = tally.of(each["source"], each["fingerprint"])
            counts = {**dict.fromkeys(classes, 0), **there}
            searched = each.get("searched", {})
            megapixels = searched.get("pixels", 0) / 1e6
            rasters.append(RasterSummary(each["source"], counts, searched.get("area_ha"), megapixels))
            expected.append(each.get("expected", {}))
        total: Counter[str] = Counter(dict.fromkeys(classes, 0))
        for one in rasters:
            total.update(one.counts)
        return cls(
            path=path,
            sources=tuple(one.source for one in rasters),
            model=str(stated["model"]),
            counts=dict(total),
            area_ha=stated["area_ha"],
            megapixels=sum(one.megapixels for one in rasters),
            rasters=tuple(rasters),
            too_large=None,
            elsewhere=None,
            dropped=None,
            expected=_sum_of(expected),
            species={n: tally.species[n] for n in answers if tally.species[n]} if answers else None,
            already_done=True,
        )


def write_results(
    plans: Sequence[ScanPlan],
    journal: Journal,
    path: Path,
    asked: Settings,
    output: Output,
    classifier: ClassifierEnsemble | None = None,
    *,
    keep_any: bool = False,
) -> Summary:
    """Write the surviving detections of all rasters into one file.

    plans : of the searched rasters. Ground that several of them show counts for one of them.
    classifier : None, or the classifier that gives each detection a species.
    keep_any : keep an existing file under another name.
    Raises UserError when the file can't be written; the journal stays.
    """
    first = plans[0]
    detector, patches = first.detector, output.patches
    counts_for = counted(plans, journal, output.alignment_m)
    facts = [searched(plan, journal, part.rows) for plan, part in zip(plans, counts_for, strict=True)]
    by_raster: list[Counter[str]] = [Counter(dict.fromkeys(detector.classes, 0)) for _ in plans]
    expected = [_expected(plan, journal, part) for plan, part in zip(plans, counts_for, strict=True)]
    is_metric = any(plan.native.gsd is not None for plan in plans)
    species: Counter[str] = Counter()
    top = 0 if classifier is None else classifier.top(None)

    def batches() -> Generator[Layer, None, None]:
        for plan, part, counts in zip(plans, counts_for, by_raster, strict=True):
            name = identities(plan.fingerprint)
            with _looking(plan, asked, classifier) as answered:
                for found in part.of(survivors(plan, journal)):
                    counts.update(found.labels.tolist())
                    layer = found.to_layer(source=plan.source, ids=name(found.centres()), is_metric=is_metric)
                    if patches is not None:
                        layer = patches.add_to(layer, found)
                    if answered is not None:
                        answers = answered(found.centres())
                        species.update(answers.first().tolist())
                        layer = replace(layer, columns={**layer.columns, **answers.columns(top)})
                    yield layer
        give_back()  # FlatGeobuf now builds its index, with all features in memory

    geometry, columns = _columns(detector.kind, top, is_metric=is_metric, has_patches=patches is not None)
    with closing(batches()) as layers:
        stream = Stream(
            layers,
            geometry,
            columns,
            grid=first.native if len(plans) == 1 else None,
            crs=first.native.crs,
            classes=detector.classes,
            metadata=_metadata(plans, asked, output, facts, expected, classifier),
        )
        written = formats.write(path, stream, overwrite=True, keep_unknown=True, keep_any=keep_any)
    elsewhere = sum(each.left_out for each in counts_for)
    found = replace(_summed(plans, facts, by_raster, expected, written), elsewhere=elsewhere)
    if classifier is None:
        return found
    return replace(found, species={name: species[name] for name in classifier.names if species[name]})


def _summed(
    plans: Sequence[ScanPlan],
    facts: Sequence[tuple[int, float | None, int]],
    by_raster: Sequence[Counter[str]],
    expected: Sequence[Mapping[str, float]],
    written: formats.Written,
) -> Summary:
    """The summary of all rasters in one file.  facts : of each, as `searched` gives them."""
    detector = plans[0].detector
    return Summary(
        path=written.path,
        sources=tuple(plan.source for plan in plans),
        model=detector.name,
        counts={name: sum(each[name] for each in by_raster) for name in detector.classes},
        area_ha=_total([area for _, area, _ in facts]),
        megapixels=sum(pixels for pixels, _, _ in facts) / 1e6,
        rasters=tuple(
            RasterSummary(plan.source, dict(found), area, pixels / 1e6)
            for plan, found, (pixels, area, _) in zip(plans, by_raster, facts, strict=True)
        ),
        too_large=sum(left_out for _, _, left_out in facts),
        dropped=written.dropped,
        expected=_sum_of(expected),
        notes=merged([*(note for plan in plans for note in plan.notes), *written.notes]),
        runtime=_runtime(detector),
    )


def _runtime(detector: Detector) -> str | None:
    """What ran the networks of a detector, and where; None where it has none."""
    members = detector.members if isinstance(detector, Ensemble) else (detector,)
    looks = [each.look for each in members if isinstance(each, LearnedDetector)]
    ran = [in_words(look.runtime, look.device) for look in looks if look.runtime is not None]
    return " and ".join(dict.fromkeys(ran)) or None


def _columns(
    kind: GeometryType, top: int, *, is_metric: bool, has_patches: bool
) -> tuple[str, dict[str, str]]:
    """The geometry type of a file of detections, and its columns with their types.

    top : number of classes from a classifier per detection; 0 for none.
    """
    area, diameter = SIZES[is_metric]
    columns = {"id": "str", "label": "str", "score": "float"}
    columns |= {area: "float", diameter: "float", "source": "str"}
    geometry = GEOMETRY[kind]
    if has_patches:
        geometry, columns = "Polygon" if geometry == "Polygon" else "Unknown", {**columns, "shape": "str"}
    return geometry, columns | column_kinds(top)


def write_scores(
    plan: ScanPlan,
    journal: Journal,
    path: Path,
    asked: Settings,
    progress: Progress | None,
    *,
    replace: bool,
) -> None:
    """Write the map of scores of a searched raster.

    replace : overwrite an existing file.
    Raises UserError when the file can't be written; the journal stays.
    """
    map_px = plan.detector.needs.map_px
    assert map_px is not None
    metadata = _metadata([plan], asked, Output(), [searched(plan, journal)], [{}], None)
    grid = plan.grid.reduced(map_px)
    with closing(journal.pieces(plan.number)) as pieces:
        score_maps.write(path, pieces, grid, plan.detector.classes, metadata, progress, replace=replace)


@contextmanager
def _looking(
    plan: ScanPlan, asked: Settings, classifier: ClassifierEnsemble | None
) -> Iterator[Callable[[Floats], Answers] | None]:
    """A function that classifies places on a raster, (N, 2) in its own pixels; None without a classifier."""
    if classifier is None:
        yield None
        return
    with asked.opened(plan.image) as raster:
        raster.check_unchanged(plan.state)
        seeing = classifier.seeing(raster, asked.values, asked.companions)

        def answered(xy: Floats) -> Answers:
            # The raster isn't kept open for longer: the layer is written between two batches.
            with raster.env(cache_bytes=plan.layout.cache_bytes, threads=core_count()):
                return seeing.at(xy)

        yield answered
        raster.check_unchanged(plan.state)


def _total(hectares: Sequence[float | None]) -> float | None:
    """The sum, with 8 digits; None if a part is unknown."""
    known = [area for area in hectares if area is not None]
    return float(f"{sum(known):.8g}") if len(known) == len(hectares) else None


def _expected(plan: ScanPlan, journal: Journal, part: Counted) -> dict[str, float]:
    """Individuals per class by the detector's density; nothing where it has none.

    part : what of the raster counts; of a unit that counts in part, the density counts in proportion.
    """
    found = [each * part.shares.get(number, 1.0) for number, each in journal.expected(plan.number)]
    if not found:
        return {}
    # To a tenth: the last digits of sums over cores depend on the tiling.
    total = np.sum(found, axis=0).tolist()
    return {name: round(each, 1) for name, each in zip(plan.detector.classes, total, strict=True)}


def _sum_of(expected: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """The sum over all rasters; None where the detector has no density."""
    total: Counter[str] = Counter()
    for each in expected:
        total.update(each)
    return {name: round(value, 1) for name, value in total.items()} or None


def _metadata(
    plans: Sequence[ScanPlan],
    asked: Settings,
    output: Output,
    facts: Sequence[tuple[int, float | None, int]],
    expected: Sequence[Mapping[str, float]],
    classifier: ClassifierEnsemble | None,
) -> dict[str, Any]:
    """facts : of each raster, as `searched` gives them."""
    looks = [] if classifier is None else [each for plan in plans for each in plan.classifiers]
    return {
        "ecodetect": __version__,
        "model": plans[0].detector.name,
        **_hash(plans[0].detector.settings),
        "settings": asked.described(),
        "key": result_key([plan.key for plan in plans], output, looks, [plan.footprint for plan in plans]),
        **({} if classifier is None else {"classified": classifier.described()}),
        "rasters": [
            {
                "source": plan.source,
                "fingerprint": plan.fingerprint,
                **_crs(plan.native),
                **plan.reading,
                "searched": {"area_ha": area_ha, "pixels": pixels},
                "settings": dict(plan.detector.settings),
                **_trained(plan),
                **({"expected": dict(by_density)} if by_density else {}),
            }
            for plan, by_density, (pixels, area_ha, _) in zip(plans, expected, facts, strict=True)
        ],
        "area_ha": _total([area_ha for _, area_ha, _ in facts]),
    }


def _crs(native: Grid) -> dict[str, str]:
    """The CRS of the raster, which may differ from the file's: boxes are upright in it."""
    name = None if native.crs is None else authority_of(native.crs)
    return {} if name is None else {"crs": name}


def _trained(plan: ScanPlan) -> dict[str, Any]:
    """Where on this raster the model was trained, in cells of about 1 km, for a warning of `evaluate`."""
    detector = plan.detector
    cells = cells_on(detector.card.trained_on, plan.native) if isinstance(detector, LearnedDetector) else ()
    return {"trained_here": [list(cell) for cell in cells]} if cells else {}


def _hash(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The hash of the weights, for a model."""
    return {"model_hash": settings["model_hash"]} if "model_hash" in settings else {}


def classifier_facts(bundles: Sequence[Bundle], raster: Raster) -> list[str]:
    """Everything that determines the species on a raster: the classifiers, and the pixels they see."""
    return [
        f"{each.hash} {raster.reading(stand_ins(each.card.bands, raster.bands) or ())}" for each in bundles
    ]


def result_key(
    keys: Sequence[str], output: Output, classifiers: Sequence[str], footprints: Sequence[Footprint]
) -> str:
    """Hash of everything that determines an output: the keys of its rasters, in order, and its geometry.

    classifiers : of each raster, see `classifier_facts`.
    footprints : of the rasters. Only where they overlap, it matters how well they are aligned.
    """
    facts = [*keys, repr(output.patches), *classifiers]
    if len(overlapping(footprints)):
        facts.append(f"alignment {output.alignment_m:g}")
    return hashlib.sha256(" ".join(facts).encode()).hexdigest()[:32]


def check_frames(grids: Mapping[str, Grid], path: Path) -> None:
    """Raise UserError when `path` can't hold detections of all these rasters (name -> grid) in one layer."""
    if formats.needs_lonlat(path):
        title = "KML" if formats.needs_crs(path) else "GeoJSON"
        for name, grid in grids.items():
            if grid.crs is not None and not grid.has_lonlat:
                raise UserError(
                    f"{name} can't become {title}: its CRS, {describe_crs(grid.crs)}, has no longitude and "
                    f"latitude on the Earth; write {path.stem}.gpkg.",
                    parameter="out",
                )
    if formats.needs_crs(path):
        for name, grid in grids.items():
            if grid.crs is None:
                raise UserError(
                    f"{name} has no CRS, and {path.name} holds longitude and latitude; write .gpkg."
                )
    if path.suffix.lower() in (".csv", ".tsv") or len(grids) == 1:
        return
    frames = {describe_crs(grid.crs) for grid in grids.values()}
    without = [name for name, grid in grids.items() if grid.crs is None]
    if formats.needs_lonlat(path) and without:
        raise UserError(f"{path} can't hold {without[0]}, which has no CRS; write .csv, or one file each.")
    if len(frames) > 1 and not formats.needs_lonlat(path):
        raise UserError(
            f"{path} can't hold rasters of different CRSs ({', '.join(sorted(frames))}); "
            f"write {'.csv' if without else '.geojson'}, or one file each into a folder.",
            parameter="out",
        )
