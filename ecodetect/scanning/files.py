"""The scan: from rasters to files of detections, resumable, in bounded memory.

`scan` is the call for Python users; `scan_files` is what the command line runs: many rasters, one file each
or one for all. What happens to one raster is in `searching`; what goes into the file, in `results`.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from ecodetect.bundle.value_survey import Companions
from ecodetect.classification.answering import (
    answers_of,
    check_fits,
    open_classifier,
    read_classifiers,
    said_of_values,
)
from ecodetect.detections import Detections
from ecodetect.detectors import table as detectors
from ecodetect.detectors.protocol import Scene
from ecodetect.errors import Interrupted, InUseError, NetworkError, PackageError, UserError
from ecodetect.formats import files as formats
from ecodetect.grid import Floats, Grid
from ecodetect.layer import Layer
from ecodetect.models import choosing as models
from ecodetect.notes import Note, merged
from ecodetect.pictures import files as picture_files
from ecodetect.pictures.map import draw_map
from ecodetect.pictures.sheet import draw_sheet
from ecodetect.raster.finding import expand, targets
from ecodetect.raster.reading import Raster, open_raster
from ecodetect.region import read_area
from ecodetect.scanning import journal_file, score_maps
from ecodetect.scanning.journal import Journal
from ecodetect.scanning.overlaps import Footprint, overlap_note
from ecodetect.scanning.patches import Patches
from ecodetect.scanning.results import (
    Summary,
    check_frames,
    classifier_facts,
    result_key,
    write_results,
    write_scores,
)
from ecodetect.scanning.searching import (
    Job,
    Progress,
    Settings,
    journal_key,
    prepare,
    question,
    search,
    survivors,
    verify,
)
from ecodetect.version import __version__

_PICTURE_CACHE_BYTES = 64_000_000
_ONLY_LABELS = (".xml", ".txt", ".tif", ".tiff", ".png")  # formats of one class for each object, or none
DETECTIONS_SUFFIX, CANDIDATES_SUFFIX = ".detections.geojson", ".candidates.geojson"


@dataclass(frozen=True, slots=True)
class Output:
    """What is wanted of a scan beside the detections.

    overwrite : replace an existing file.  restart : forget what an interrupted scan has done.
    picture, sheet : files for a map of the detections and for a contact sheet of cut-outs; one raster only.
    verified : search a few percent of the ground again on shifted tiles.
    score_map : GeoTIFF for the map of scores that detections are read off; one raster only.
    patches : write each detection with a square around it, as candidates.
    classify : classifiers that give each detection a species before it is written.
    """

    overwrite: bool = False
    restart: bool = False
    picture: str | None = None
    sheet: str | None = None
    verified: bool = False
    patches: Patches | None = None
    score_map: str | None = None
    classify: tuple[str, ...] = ()


def scan(
    image: str | os.PathLike[str],
    *,
    model: str,
    out: str | os.PathLike[str] | None = None,
    score_map: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    restart: bool = False,
    **settings: Any,
) -> Detections:
    """Search one raster and return what was found, in pixels of the raster's grid.

    image : path or URL of a raster.
    model : file of a model, name of one that comes with ecodetect, or name of a detector.
    out : file to write too; its suffix is the format. None: nothing is written.
    score_map : GeoTIFF to write the map of scores to that the detections are read off; None: nothing.
    settings : see `Settings`.
    All detections are held in memory; for rasters with many millions use `scan_files`.

    Raises UserError (a raster or setting that can't be used), Interrupted (Ctrl-C; the next call goes on).
    """
    asked = Settings(model=model, **settings)
    with tempfile.TemporaryDirectory(prefix="ecodetect-") as folder:
        journal = Path(folder) / "journal" if out is None else _journal_path(Path(out))
        outputs = [] if out is None else [("out", Path(out))]
        _check_apart([os.fspath(image)], outputs, {"score_map": score_map})
        if out is not None:
            formats.writable(out)
            if Path(out).exists() and not overwrite:
                raise UserError(f"{out} exists; say overwrite=True to replace it.")
        if score_map is not None:
            score_maps.writable(score_map)
            if Path(score_map).exists() and not overwrite:
                raise UserError(f"{score_map} exists; say overwrite=True to replace it.")
        with _Run(
            [os.fspath(image)],
            asked,
            journal,
            None if out is None else Path(out),
            restart=restart,
            is_mapped=score_map is not None,
        ) as run:
            if run.failures:
                raise run.failures[0][1]
            (job, number), book = run.jobs[0], run.journal
            empty = Detections.empty(job.grid, job.work.detector.kind, job.work.detector.classes)
            found = list(survivors(job, book, number))
            if score_map is not None:
                run.write_map(Path(score_map), replace=overwrite)
            if out is not None:
                run.write(Path(out), keep_any=not overwrite)
            return Detections.concatenate(found) if found else empty


def scan_files(
    images: Sequence[str | os.PathLike[str]],
    asked: Settings,
    out: str | None = None,
    output: Output | None = None,
    progress: Progress | None = None,
) -> tuple[list[Summary], list[tuple[str, UserError]]]:
    """Search rasters and write their detections.

    images : files, folders, glob patterns, URLs.
    out : file (its suffix is the format) for all of them, or folder for a file each (one that exists, or
        ends in "/"); None: a GeoJSON beside each image, or in the working folder where that can't be
        written to.
    Returns a summary per file written, and the rasters that couldn't be searched with their errors: one bad
    raster doesn't stop the others.
    Raises UserError for what concerns all of them, Interrupted for Ctrl-C.
    """
    output = output or Output()
    rasters = expand(images)
    places = targets(rasters, out, suffix=CANDIDATES_SUFFIX if output.patches else DETECTIONS_SUFFIX)
    groups: dict[Path, list[str]] = {}
    for image, path in places.items():
        groups.setdefault(path, []).append(image)
    if (output.picture or output.sheet) and len(rasters) > 1:
        raise UserError(
            f"--picture and --sheet draw one raster, but there are {len(rasters)}; scan them one by one."
        )
    if output.score_map and len(rasters) > 1:
        raise UserError(
            f"--score-map is a map of one raster, but there are {len(rasters)}; scan them one by one."
        )
    for drawing in filter(None, (output.picture, output.sheet)):
        picture_files.replaceable(drawing, overwrite=output.overwrite)
    flags = {"--score-map": output.score_map, "--picture": output.picture, "--sheet": output.sheet}
    _check_apart(rasters, [("-o", path) for path in groups if out], flags)
    for name in (asked.model, *asked.others):
        models.opened(name)  # a model that can't be used is said once, not for each raster
    read_classifiers(output.classify)
    asked = _together(rasters, asked)
    if output.classify and asked.max_memory is not None:
        raise UserError(
            "--max-memory can't be kept with --classify, whose memory isn't planned; scan first, then give"
            " the layer to `ecodetect classify`."
        )
    for path in groups:
        if out is None or path != Path(out):
            path.parent.mkdir(parents=True, exist_ok=True)  # a folder that the user asked for
        formats.writable(path)
        if output.classify and path.suffix.lower() in _ONLY_LABELS:
            raise UserError(f"{path} has no place for a species beside the class; write a .gpkg or .geojson.")
    if output.score_map:
        score_maps.writable(output.score_map)
    done: dict[Path, Summary] = {}
    failures: list[tuple[str, UserError]] = []

    def scan_group(path: Path) -> None:
        try:
            summary, failed = _scan_group(groups[path], path, asked, output, progress)
        except PackageError:
            raise
        except InUseError:
            if len(groups) == 1:
                raise
            summary, failed = Summary.skipped(path, groups[path], asked.model), []
        except UserError as error:
            if len(groups) == 1:
                raise
            summary, failed = None, [(groups[path][0], error)]
        failures.extend(failed)
        before = done.pop(path, None)
        if summary is not None:
            done[path] = replace(summary, notes=merged([*(before.notes if before else ()), *summary.notes]))

    for path in groups:
        scan_group(path)
    for path in [path for path, summary in done.items() if summary.in_work]:
        scan_group(path)  # the other process may have stopped, or be done with it
    return [done[path] for path in groups if path in done], failures


def fitting_model(
    images: Sequence[str | os.PathLike[str]],
    *,
    bands: str | None = None,
    gsd_m: float | None = None,
    nodata: float | None = None,
    allow_vrt: bool = False,
) -> tuple[str, Note]:
    """The one model that comes with ecodetect and fits the first raster, and a note why.

    Raises UserError, naming what there is, where none fits, or several do.
    """
    first = expand(images)[0]
    with open_raster(first, bands=bands, gsd_m=gsd_m, nodata=nodata, allow_vrt=allow_vrt) as raster:
        name, why = models.fitting(Scene(raster.bands, raster.grid.gsd, raster.dtype, raster.value_range))
        if name is None:
            there = ", ".join(sorted({*models.known(), *detectors.unlearned()}))
            raise UserError(
                f"Say with -m what to search {raster.name} with. {why} There are: {there} (for example: "
                "-m threshold)."
            )
        text = f"it is searched with '{name}': it has {why}"
        return name, Note("model-chosen", text, about=raster.name, kind="choice")


def plan_files(
    images: Sequence[str | os.PathLike[str]],
    asked: Settings,
    out: str | None = None,
    *,
    is_mapped: bool = False,
    classify: Sequence[str] = (),
) -> tuple[list[str], tuple[Note, ...]]:
    """What `scan_files` would do, a line per raster, and what is to be known beforehand.

    Nothing is searched or written.  is_mapped : with a map of scores.
    classify : classifiers that would look.
    Raises UserError for the first raster or setting that can't be used.
    """
    lines = []
    notes: list[Note] = []
    footprints: dict[Path, list[Footprint]] = {}
    asked = _together(expand(images), asked)
    for image, path in targets(expand(images), out, suffix=DETECTIONS_SUFFIX).items():
        formats.writable(path)
        with _opened(image, asked) as raster:
            job = _prepared(image, raster, asked, classify, is_mapped=is_mapped)
        notes += job.notes
        footprints.setdefault(path, []).append(Footprint(job.source, job.grid, job.work.area))
        plan = job.layout.plan
        lines.append(
            f"{job.source}: {job.work.grid.describe()}; "
            f"tiles of {plan.tile_px} px with {plan.halo_px} px around, {job.layout.workers} at once, "
            f"at most {job.layout.peak_bytes / 1e6:.0f} MB; {asked.model} -> {path}"
        )
    overlapping = (overlap_note(members) for members in footprints.values())
    return lines, merged([*notes, *(note for note in overlapping if note is not None)])


def _scan_group(
    images: list[str], path: Path, asked: Settings, output: Output, progress: Progress | None
) -> tuple[Summary | None, list[tuple[str, UserError]]]:
    """Search rasters whose detections go into one file."""
    started = time.monotonic()
    journal = _journal_path(path)
    map_path = None if output.score_map is None else Path(output.score_map)
    has_map = map_path is not None and _is_map_of(map_path, images[0], asked)
    if map_path is not None and map_path.exists() and not (has_map or output.overwrite):
        raise UserError(f"{map_path} exists; say --overwrite to replace it.")
    if path.exists() and not output.overwrite:
        if output.restart or output.verified:
            raise UserError(f"{path} exists; say --overwrite to replace it.")
        summary, failures = _known(path, images, asked, output)
        if map_path is None or has_map:
            return summary, failures
        return _map_alone(images, path, map_path, asked, progress, summary)
    is_new = not os.path.lexists(path)
    run = _Run(
        images,
        asked,
        journal,
        path,
        restart=output.restart,
        progress=progress,
        verified=output.verified,
        is_mapped=map_path is not None,
        classify=output.classify,
        is_new=is_new,
    )
    with run:
        if run.is_outrun:
            return _scan_group(images, path, asked, output, progress)
        if not run.jobs:
            return None, run.failures
        if map_path is not None:
            run.write_map(map_path, replace=output.overwrite or has_map)
        summary = run.write(path, output.patches, keep_any=is_new)
        if output.picture or output.sheet:
            job, _ = run.jobs[0]
            with _opened(job.image, asked) as raster:
                raster.check_unchanged(job.state)
                _draw(raster, asked, output, path, job.work.detector.classes, job.layout.cache_bytes)
    return replace(summary, seconds=time.monotonic() - started, score_map=map_path), run.failures


def _map_alone(
    images: list[str],
    path: Path,
    map_path: Path,
    asked: Settings,
    progress: Progress | None,
    known: Summary,
) -> tuple[Summary | None, list[tuple[str, UserError]]]:
    """Search a raster whose detections are there already for its map of scores.

    The journal lies beside the map.  known : of the detections.
    """
    started = time.monotonic()
    with _Run(images, asked, _journal_path(map_path), map_path, progress=progress, is_mapped=True) as run:
        if not run.jobs:
            return None, run.failures
        run.write_map(map_path, replace=False, is_all=True)
    return replace(known, seconds=time.monotonic() - started, score_map=map_path), []


def _is_map_of(path: Path, image: str, asked: Settings) -> bool:
    """Whether a file is the map of scores that answers just this question."""
    known = score_maps.key_in(path) if path.exists() else None
    if known is None:
        return False
    with _opened(image, asked) as raster:
        return known == result_key([question(raster, asked).key], None)


def _check_apart(
    rasters: Sequence[str],
    outputs: Sequence[tuple[str, Path]],
    more: Mapping[str, str | os.PathLike[str] | None],
) -> None:
    """Raise UserError where a file to be written would take the place of a raster, or of another one.

    outputs : with the names of their options.  more : option -> a file to be written beside them.
    """
    there = list(map(Path, rasters))
    for flag, path in (*outputs, *((flag, Path(each)) for flag, each in more.items() if each is not None)):
        for other in there:
            if path.absolute() == other.absolute() or (
                other.exists() and path.exists() and other.samefile(path)
            ):
                raise UserError(f"{flag} {path} would overwrite {other}; give it another name.")
        there.append(path)


def _known(
    path: Path, images: list[str], asked: Settings, output: Output
) -> tuple[Summary, list[tuple[str, UserError]]]:
    """What an existing output says, if it answers just this question; pictures asked for are drawn from it.

    Returns also the rasters that can't be opened: they are in no output.
    Raises UserError where the file is anything else, or isn't as it was written any more.
    """
    try:
        stated = formats.read_metadata(path)
    except UserError:
        stated = {}
    keys, looks, footprints, failures, notes = [], [], [], [], []
    classes: tuple[str, ...] = ()
    bundles = read_classifiers(output.classify)
    for image in images:
        try:
            with _opened(image, asked) as raster:
                plain = question(raster, asked)
                looks += classifier_facts(bundles, raster)
        except PackageError:
            raise
        except UserError as error:
            failures.append((image, error))
            continue
        keys.append(plain.key)
        classes = plain.detector.classes
        footprints.append(Footprint(raster.name, raster.grid, plain.area))
        notes += [note.of(raster.name) for note in raster.notes]
    if not keys and failures:
        raise failures[0][1]  # --overwrite wouldn't help
    if stated.get("key") != result_key(keys, output.patches, looks):
        raise UserError(f"{path} exists; say --overwrite to replace it: it {_other_answer(stated)}.")
    held = formats.held_by(path)
    if not held.is_as_written:
        raise UserError(
            f"{path} exists; say --overwrite to replace it: it has been edited since it was written (which"
            f" is then kept as {formats.kept_name(path).name})."
        )
    _tidy(path, [journal_key(key, asked, is_mapped=mapped) for key in keys for mapped in (False, True)])
    if output.picture or output.sheet:
        with _opened(images[0], asked) as raster:
            _draw(raster, asked, output, path, classes, _PICTURE_CACHE_BYTES)
    answers = answers_of(bundles[0].card) if bundles else ()
    assert held.tally is not None
    summary = Summary.known(path, stated, held.tally, classes, answers)
    overlapping = overlap_note(footprints)
    said = [*notes, *([] if overlapping is None else [overlapping])]
    return replace(summary, notes=merged(said)), failures


def _other_answer(stated: Mapping[str, Any]) -> str:
    """What an existing output is instead of the answer.  stated : its metadata."""
    if "key" not in stated:
        return "doesn't say what it answers"
    version, model = stated.get("ecodetect"), stated.get("model")
    if version != __version__:
        return f"is the answer of ecodetect {version} (this is {__version__})"
    sources = [str(each.get("source")) for each in stated.get("rasters", ()) if isinstance(each, dict)]
    more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
    return f"answers another question ({model} on {sources[0] if sources else 'no raster'}{more})"


def _tidy(path: Path, keys: list[str]) -> None:
    """Remove the journal of a scan that was killed between writing its output and tidying up.

    keys : of the rasters in it. Another scan's journal stays.
    """
    place = _journal_path(path)
    if not place.exists():
        return
    try:
        journal = Journal(place)
    except UserError:
        return  # in use, or not ours
    if journal.is_of(keys):
        journal.discard()
    else:
        journal.close()


def _as_written(path: Path, raster: Raster, classes: Sequence[str]) -> Iterator[Detections]:
    """The detections in a file that a scan of `raster` wrote, in pieces.

    classes : of the detector, in its order. Labels that aren't among them come behind, as they appear.
    """
    # Ours are on the pixels as they are stored, whatever viewers make of the photograph.
    grid = replace(raster.grid, orientation=1)
    alone = classes[0] if len(classes) == 1 else "object"  # a label image has no classes
    number = {name: at for at, name in enumerate(classes)}
    are_areas: bool | None = None
    for layer in formats.read_pieces(path, grid=grid, image=raster.name):
        if not len(layer):
            continue
        geometry = layer.in_pixels(grid)
        labels = layer.columns.get("label", np.full(len(layer), alone, dtype=object)).astype(str).tolist()
        for name in sorted(set(labels) - set(number)):
            number[name] = len(number)
        names = tuple(number)
        label = np.array([number[name] for name in labels], np.int64)
        score = np.asarray(layer.columns.get("score", np.ones(len(layer))), np.float64)
        if are_areas is None:  # candidates have points and squares, side by side: they are points
            are_areas = bool((shapely.get_type_id(geometry) != 0).all())
        if are_areas:
            yield Detections(raster.grid, "polygon", geometry, score, label, names)
        else:
            xy = shapely.get_coordinates(shapely.centroid(geometry))
            sizes = _diameters_px(layer, raster.grid)
            yield Detections(raster.grid, "point", xy, score, label, names, sizes)


def _diameters_px(layer: Layer, grid: Grid) -> Floats | None:
    """Sizes of points in a file of ours, NaN where unknown; None where it has no column of them."""
    sizes, gsd = layer.columns.get("diameter_px"), grid.gsd
    if gsd is not None and "diameter_m" in layer.columns:
        sizes = np.asarray(layer.columns["diameter_m"], np.float64) / np.sqrt(gsd[0] * gsd[1])
    return None if sizes is None else np.asarray(sizes, np.float64)


def _draw(
    raster: Raster, asked: Settings, output: Output, path: Path, classes: Sequence[str], cache_bytes: int
) -> None:
    """Draw the pictures that were asked for.

    path : the output. What it says is drawn, not what was found: so the pictures are the same whether it has
    just been written or was there already.
    """
    area = None
    if asked.aoi is not None:
        area = read_area(asked.aoi, raster.grid, layer=asked.aoi_layer, image=raster.name)
    with raster.env(cache_bytes=cache_bytes):
        if output.picture:
            info = f"model: {models.title(asked.model)}"
            found = _as_written(path, raster, classes)
            draw_map(raster, found, output.picture, title=raster.name, area=area, info=info)
        if output.sheet:
            draw_sheet(raster, _as_written(path, raster, classes), output.sheet)


def _together(images: Sequence[str], asked: Settings) -> Settings:
    """The same settings, of rasters that share a unit where they lie in one folder."""
    return replace(asked, companions=Companions(images, partial(_opened, asked=asked)))


def _prepared(
    image: str, raster: Raster, asked: Settings, classify: Sequence[str], *, is_mapped: bool
) -> Job:
    """What `prepare` decides, with what is to be said of the classifiers that will look."""
    bundles = read_classifiers(classify)
    check_fits(bundles, raster)
    job = prepare(image, raster, asked, is_mapped=is_mapped)
    said = said_of_values(bundles, raster, asked.values, asked.companions)
    return replace(job, notes=(*job.notes, *said))


def _opened(image: str, asked: Settings) -> Raster:
    return open_raster(
        image, bands=asked.bands, gsd_m=asked.gsd_m, nodata=asked.nodata, allow_vrt=asked.allow_vrt
    )


class _Run:
    """The search of some rasters with one journal; a context, so that the journal is closed whatever happens.

    jobs : the rasters that were searched, with their numbers in the journal.
    failures : those that couldn't be.
    is_outrun : nothing was searched, for another process has written the output meanwhile.
    """

    def __init__(
        self,
        images: Sequence[str],
        asked: Settings,
        journal: Path,
        out: Path | None,
        *,
        restart: bool = False,
        progress: Progress | None = None,
        verified: bool = False,
        is_mapped: bool = False,
        classify: Sequence[str] = (),
        is_new: bool = False,
    ) -> None:
        """is_new : the output wasn't there when this was decided."""
        self.jobs: list[tuple[Job, int]] = []
        self.failures: list[tuple[str, UserError]] = []
        self._images, self._asked, self._path, self._out = images, asked, journal, out
        self._progress, self._verified, self._is_mapped = progress, verified, is_mapped
        self._classify = classify
        self._resumed = False
        self._shares: list[tuple[float, int]] = []
        self._is_written = False
        self._footprints: list[Footprint] = []
        self._is_new, self.is_outrun = is_new, False
        if restart and journal.exists():
            lock = journal_file.held(journal, any_schema=True)  # what isn't ours stays
            journal_file.remove(journal)
            os.close(lock)

    def __enter__(self) -> _Run:
        if len(self._images) > 1:
            self._check_frames()
        self.journal = Journal(self._path)
        try:
            self.is_outrun = self._is_new and self._out is not None and self._out.exists()
            for image in () if self.is_outrun else self._images:
                self._search(image)
            if len(self._images) == 1 and self.jobs:
                self.journal.forget_all_but([number for _, number in self.jobs])
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._is_written or self.journal.is_blank:
            self.journal.discard()
        else:
            self.journal.close()
        if isinstance(error, KeyboardInterrupt) and self._out is not None:
            kept = f"what is done is kept in {self._path}: " if self._path.exists() else ""
            raise Interrupted(f"Stopped; {kept}run the same command again to go on.") from error

    def _check_frames(self) -> None:
        """Refuse, before any search, rasters that one layer can't hold together."""
        grids = {}
        for image in self._images:
            try:
                with _opened(image, self._asked) as raster:
                    grids[raster.path] = raster.grid
            except UserError:
                continue  # said when its turn comes
        if self._out is not None and grids:
            check_frames(grids, self._out)

    def _search(self, image: str) -> None:
        try:
            with _opened(image, self._asked) as raster:
                if self._out is not None:
                    check_frames({raster.path: raster.grid}, self._out)
                plain = _prepared(image, raster, self._asked, self._classify, is_mapped=self._is_mapped)
                job, number = plain.entered(self.journal, self._asked)
                self._resumed |= search(job, self.journal, number, self._progress)
                if self._verified:
                    self._shares.append(verify(job, self.journal, number))
                self._check_unchanged(raster, number)
                self.jobs.append((job, number))
                self._footprints.append(Footprint(raster.name, raster.grid, job.work.area))
        except PackageError:
            raise
        except UserError as error:
            if not self.journal.is_blank and len(self._images) == 1:
                error = type(error)(
                    f"{str(error).rstrip('.')}; what was done before is kept in {self._path}."
                )
            self.failures.append((image, error))

    def _check_unchanged(self, raster: Raster, number: int) -> None:
        """Raise RasterError, and forget what was found, where the raster was written to meanwhile."""
        try:
            raster.check_unchanged(raster.state)
        except NetworkError:
            raise  # it may be what it was
        except UserError:
            self.journal.forget(number)
            raise

    def write(self, path: Path, patches: Patches | None = None, *, keep_any: bool) -> Summary:
        """Write what survives of all rasters; the journal has then served.

        keep_any : keep a file that lies there by now, under another name.
        """
        classifier = None
        if self._classify:
            classifier = open_classifier(self._classify, device=self._asked.device)
        summary = write_results(
            self.jobs, self.journal, path, self._asked, patches, classifier, keep_any=keep_any
        )
        self._is_written = True
        share = None
        if self._shares:
            n = sum(count for _, count in self._shares)
            share = (sum(part * count for part, count in self._shares) / n if n else 1.0, n)
        overlapping = overlap_note(self._footprints)
        notes = (*self._lost(), *summary.notes, *([] if overlapping is None else [overlapping]))
        return replace(summary, resumed=self._resumed, verified=share, notes=notes)

    def _lost(self) -> list[Note]:
        """What is to be said of parts in the journal that can't be told any more whose they are."""
        if not self.journal.lost:
            return []
        text = f"{self.journal.lost:,} parts of what had been done are damaged and are searched again."
        return [Note("journal-damaged", text, about=self._path.name)]

    def write_map(self, path: Path, *, replace: bool, is_all: bool = False) -> None:
        """Write the map of scores of the one raster.

        replace : what lies there by now.  is_all : nothing else is to be written.
        """
        job, number = self.jobs[0]
        write_scores(job, self.journal, number, path, self._asked, self._progress, replace=replace)
        self._is_written = is_all


def _journal_path(path: Path) -> Path:
    return path.with_name(path.name + ".journal")
