"""The scan: from rasters to files of detections, resumable, in bounded memory.

`scan` is the call for Python users; `scan_files` is what the command line runs: many rasters, one file each
or one for all. What happens to one raster is in `searching`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ecodetect import __version__, detectors, formats, pictures
from ecodetect.candidates import Patches
from ecodetect.detections import Detections
from ecodetect.errors import Interrupted, UserError
from ecodetect.grid import describe_crs
from ecodetect.inputs import expand, targets
from ecodetect.journal import Journal, remove
from ecodetect.layer import Layer, Stream
from ecodetect.pictures import draw_map, draw_sheet
from ecodetect.raster import Raster, open_raster
from ecodetect.searching import (
    Job,
    Progress,
    Settings,
    identities,
    prepare,
    question,
    search,
    searched,
    survivors,
    verify,
)

COLUMNS = {
    "id": "str",
    "label": "str",
    "score": "float",
    "area_m2": "float",
    "diameter_m": "float",
    "source": "str",
}
DETECTIONS_SUFFIX, CANDIDATES_SUFFIX = ".detections.geojson", ".candidates.geojson"
GEOMETRY = {"point": "Point", "box": "Polygon", "polygon": "Polygon"}


@dataclass(frozen=True, slots=True)
class Output:
    """What is wanted of a scan beside the detections.

    overwrite : replace an existing file.  restart : forget what an interrupted scan has done.
    picture, sheet : files for a map of the detections and for a contact sheet of cut-outs; one raster only.
    verified : search a few percent of the ground again on shifted tiles.
    patches : write each detection with a square around it, as candidates.
    """

    overwrite: bool = False
    restart: bool = False
    picture: str | None = None
    sheet: str | None = None
    verified: bool = False
    patches: Patches | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a scan gave, for one output file.

    counts : detections per class, in the order of classes.
    area_ha : ground searched (valid pixels inside the area of interest); None where pixels have no known
        size.
    megapixels : pixels searched, in millions.
    too_large : objects wider than the detector's largest, left out.
    dropped : detections that the format can't hold (no place on the Earth), left out.
    verified : share of detections found again on a shifted lattice, and of how many; None if not asked.
    """

    path: Path
    sources: tuple[str, ...]
    model: str
    counts: Mapping[str, int]
    area_ha: float | None
    megapixels: float
    too_large: int = 0
    dropped: int = 0
    seconds: float = 0.0
    resumed: bool = False
    already_done: bool = False
    verified: tuple[float, int] | None = None
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def scan(
    image: str | os.PathLike[str],
    *,
    model: str,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    restart: bool = False,
    **settings: Any,
) -> Detections:
    """Search one raster and return what was found, in pixels of the raster's grid.

    image : path or URL of a raster.
    model : name of a detector.
    out : file to write too; its suffix is the format. None: nothing is written.
    settings : see `Settings`.
    All detections are held in memory; for rasters with many millions use `scan_files`.

    Raises UserError (a raster or setting that can't be used), Interrupted (Ctrl-C; the next call goes on).
    """
    asked = Settings(model=model, **settings)
    with tempfile.TemporaryDirectory(prefix="ecodetect-") as folder:
        journal = Path(folder) / "journal" if out is None else _journal_path(Path(out))
        if out is not None:
            formats.writable(out)
            _refuse_existing(Path(out), overwrite)
        with _Run(
            [os.fspath(image)], asked, journal, None if out is None else Path(out), restart=restart
        ) as run:
            if run.failures:
                raise run.failures[0][1]
            (job, number), book = run.jobs[0], run.journal
            empty = Detections.empty(job.grid, job.work.detector.kind, job.work.detector.classes)
            found = list(survivors(job, book, number))
            if out is not None:
                run.write(Path(out))
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
    out : see `inputs.targets`.
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
    for drawing in filter(None, (output.picture, output.sheet)):
        pictures.writable(drawing)
    detectors.describe(asked.model)  # an unknown model is said once, not for each raster
    for path in groups:
        if out is None or path != Path(out):
            path.parent.mkdir(parents=True, exist_ok=True)  # a folder that the user asked for
        formats.writable(path)
    summaries: list[Summary] = []
    failures: list[tuple[str, UserError]] = []
    for path, members in groups.items():
        try:
            summary, failed = _scan_group(members, path, asked, output, progress)
        except UserError as error:
            if len(groups) == 1:
                raise
            summary, failed = None, [(members[0], error)]
        failures += failed
        if summary is not None:
            summaries.append(summary)
    return summaries, failures


def plan_files(
    images: Sequence[str | os.PathLike[str]], asked: Settings, out: str | None = None
) -> list[str]:
    """What `scan_files` would do, a line per raster; nothing is searched or written.

    Raises UserError for the first raster or setting that can't be used.
    """
    lines = []
    for image, path in targets(expand(images), out, suffix=DETECTIONS_SUFFIX).items():
        formats.writable(path)
        with _opened(image, asked) as raster:
            job = prepare(image, raster, asked)
        plan = job.layout.plan
        lines.append(
            f"{job.source}: {job.work.grid.describe()}; {len(plan)} units of {plan.unit_px} px, "
            f"tiles of {plan.tile_px} px with {plan.halo_px} px around, {job.layout.workers} workers, "
            f"at most {job.layout.peak_bytes / 1e6:.0f} MB; {asked.model} -> {path}"
        )
    return lines


def _scan_group(
    images: list[str], path: Path, asked: Settings, output: Output, progress: Progress | None
) -> tuple[Summary | None, list[tuple[str, UserError]]]:
    """Search rasters whose detections go into one file."""
    started = time.monotonic()
    journal = _journal_path(path)
    # Where there is a journal, the scan that it belongs to has been allowed to write this file.
    if path.exists() and (output.restart or not journal.exists()):
        if not output.restart and _is_done(path, images, asked):
            sources = tuple(Path(image).name for image in images)
            return Summary(path, sources, asked.model, {}, None, 0.0, already_done=True), []
        _refuse_existing(path, output.overwrite)
    run_of = partial(_Run, restart=output.restart, progress=progress, verified=output.verified)
    with run_of(images, asked, journal, path) as run:
        if not run.jobs:
            return None, run.failures
        summary = run.write(path, output.patches)
        if output.picture or output.sheet:
            _draw(run, asked, output)
    return replace(summary, seconds=time.monotonic() - started), run.failures


def _is_done(path: Path, images: list[str], asked: Settings) -> bool:
    """Whether an existing output is the answer to just this question."""
    try:
        known = formats.read_metadata(path).get("key")
        if known is None:
            return False
        keys = []
        for image in images:
            with _opened(image, asked) as raster:
                keys.append(question(raster, asked).key)
    except UserError:
        return False
    return bool(known == _result_key(keys))


def _opened(image: str, asked: Settings) -> Raster:
    return open_raster(image, bands=asked.bands, gsd_m=asked.gsd_m, allow_vrt=asked.allow_vrt)


class _Run:
    """The search of some rasters with one journal; a context, so that the journal is closed whatever happens.

    jobs : the rasters that were searched, with their numbers in the journal.
    failures : those that couldn't be.
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
    ) -> None:
        self.jobs: list[tuple[Job, int]] = []
        self.failures: list[tuple[str, UserError]] = []
        self._images, self._asked, self._path, self._out = images, asked, journal, out
        self._progress, self._verified = progress, verified
        self._resumed = False
        self._shares: list[tuple[float, int]] = []
        self._is_written = False
        if restart:
            remove(journal)

    def __enter__(self) -> _Run:
        self.journal = Journal(self._path)
        try:
            for image in self._images:
                self._search(image)
            if len(self._images) == 1 and self.jobs:
                self.journal.forget_all_but([number for _, number in self.jobs])
        except BaseException as error:
            self.__exit__(type(error), error, None)
            if isinstance(error, KeyboardInterrupt) and self._path.exists():
                raise Interrupted(
                    f"Stopped; what is done is kept in {self._path}: run the same command again to go on."
                ) from error
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._is_written or self.journal.is_blank:
            self.journal.discard()
        else:
            self.journal.close()

    def _search(self, image: str) -> None:
        try:
            with _opened(image, self._asked) as raster:
                _refuse_without_lonlat(raster, self._out)
                job = prepare(image, raster, self._asked)
                number = self.journal.raster(job.journal_key)
                self._resumed |= search(job, self.journal, number, self._progress)
                if self._verified:
                    self._shares.append(verify(job, self.journal, number))
                self.jobs.append((job, number))
        except UserError as error:
            if not self.journal.is_blank and len(self._images) == 1:
                error = type(error)(
                    f"{str(error).rstrip('.')}; what was done before is kept in {self._path}."
                )
            self.failures.append((image, error))

    def write(self, path: Path, patches: Patches | None = None) -> Summary:
        """Write what survives of all rasters."""
        jobs, journal = self.jobs, self.journal
        first = jobs[0][0]
        detector = first.work.detector
        frames = {describe_crs(job.grid.crs) for job, _ in jobs}
        if len(jobs) > 1 and len(frames) > 1 and path.suffix.lower() not in (".csv", ".tsv", ".geojson"):
            raise UserError(
                f"{path} can't hold rasters of different CRSs ({', '.join(sorted(frames))}); "
                "write .geojson, or one file each with -o FOLDER/."
            )
        facts = [searched(job, journal, number) for job, number in jobs]
        hectares = [area for _, area, _ in facts]
        area_ha = (
            None if any(area is None for area in hectares) else float(f"{sum(a or 0 for a in hectares):.8g}")
        )
        metadata: dict[str, Any] = {
            "ecodetect": __version__,
            "model": detector.name,
            "settings": dict(self._asked.described()),
            "key": _result_key([job.key for job, _ in jobs]),
            "rasters": [
                {
                    "source": job.source,
                    "fingerprint": job.fingerprint,
                    "settings": dict(job.work.detector.settings),
                }
                for job, _ in jobs
            ],
            "area_ha": area_ha,
        }
        counts: Counter[str] = Counter(dict.fromkeys(detector.classes, 0))

        def batches() -> Generator[Layer, None, None]:
            for job, number in jobs:
                name = identities(job.fingerprint)
                for found in survivors(job, journal, number):
                    counts.update(found.labels.tolist())
                    layer = found.to_layer(source=job.source, ids=name(found.centres()))
                    yield layer if patches is None else patches.add_to(layer, found)

        one = len(jobs) == 1
        geometry, columns = GEOMETRY[detector.kind], dict(COLUMNS)
        if patches is not None:
            geometry, columns = "Polygon" if geometry == "Polygon" else "Unknown", {**columns, "shape": "str"}
        with closing(batches()) as layers:
            stream = Stream(
                layers,
                geometry,
                columns,
                grid=first.grid if one else None,
                crs=first.grid.crs,
                classes=detector.classes,
                metadata=metadata,
            )
            written = formats.write(path, stream, overwrite=True)
        self._is_written = True
        share = None
        if self._shares:
            n = sum(count for _, count in self._shares)
            share = (sum(s * count for s, count in self._shares) / n if n else 1.0, n)
        notes = tuple(dict.fromkeys(note for job, _ in jobs for note in job.notes)) + written.notes
        return Summary(
            path, tuple(job.source for job, _ in jobs), detector.name, dict(counts), area_ha,
            sum(pixels for pixels, _, _ in facts) / 1e6, sum(large for _, _, large in facts), written.dropped,
            resumed=self._resumed, verified=share, notes=notes,
        )  # fmt: skip


def _draw(run: _Run, asked: Settings, output: Output) -> None:
    (job, number), journal = run.jobs[0], run.journal
    area = None if job.work.area is None else job.work.area.moved_to(job.grid)
    with _opened(job.image, asked) as raster, raster.env(cache_bytes=job.layout.cache_bytes):
        if output.picture:
            found = survivors(job, journal, number)
            draw_map(raster, found, output.picture, title=job.source, area=area, info=f"model: {asked.model}")
        if output.sheet:
            draw_sheet(raster, survivors(job, journal, number), output.sheet)


def _result_key(keys: Sequence[str]) -> str:
    """Hash of all that determines the content of an output, in the order of its rasters."""
    return hashlib.sha256("".join(keys).encode()).hexdigest()[:32]


def _journal_path(path: Path) -> Path:
    return path.with_name(path.name + ".journal")


def _refuse_without_lonlat(raster: Raster, path: Path | None) -> None:
    grid = raster.grid
    if path is not None and formats.needs_lonlat(path) and grid.crs is not None and not grid.has_lonlat:
        raise UserError(
            f"{raster.path} can't become GeoJSON: its CRS, {describe_crs(grid.crs)}, has no longitude and "
            f"latitude on the Earth; write {path.stem}.gpkg with -o."
        )


def _refuse_existing(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists and is not the result of this scan; say --overwrite to replace it.")
