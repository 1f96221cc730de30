"""The scan: from rasters to files of detections, resumable, in bounded memory.

`scan` searches one raster for Python users; `scan_files` is what the command line runs: many rasters, one
file each or one for all. Both are a `Run` for each file.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ecodetect.classification.answering import read_classifiers
from ecodetect.detections import Detections
from ecodetect.errors import InUseError, PackageError, UserError, already_there
from ecodetect.formats import files as formats
from ecodetect.models import choosing as models
from ecodetect.notes import merged
from ecodetect.pictures import files as picture_files
from ecodetect.raster.finding import expand, targets
from ecodetect.scanning import score_maps
from ecodetect.scanning.already_done import is_map_of, known
from ecodetect.scanning.journal_file import journal_path
from ecodetect.scanning.results import Summary
from ecodetect.scanning.run import Run
from ecodetect.scanning.searching import Progress, survivors
from ecodetect.scanning.settings import Output, Settings

_ONLY_LABELS = (".xml", ".txt", ".tif", ".tiff", ".png")  # formats with one class per object, or none
DETECTIONS_SUFFIX, CANDIDATES_SUFFIX = ".detections.geojson", ".candidates.geojson"
_OF_OUTPUT = frozenset(field.name for field in fields(Output))


def scan(
    image: str | os.PathLike[str], *, model: str, out: str | os.PathLike[str] | None = None, **asked: Any
) -> Detections:
    """Scan one raster and return its detections, in pixels of the raster's own grid.

    image : path or URL of a raster.
    model : file of a model, name of a shipped model, or name of a detector.
    out : file to write as well; its suffix is the format. None: no detections are written.
    asked : the fields of `Settings` (how the raster is searched) and of `Output` (what else is written).

    Returns Detections of N objects, which may be none: geometry float64 (N, 2) or (N, 4), or polygons (N,); x
    right, y down, (0, 0) the outer corner of the first pixel. All are held in memory; for rasters with many
    millions of objects use `scan_files`.

    Raises UserError (a raster or setting that can't be used, a file that exists already), Interrupted
    (Ctrl-C; the next call resumes).
    """
    output = Output(**{name: value for name, value in asked.items() if name in _OF_OUTPUT})
    settings = Settings(
        model=model, **{name: value for name, value in asked.items() if name not in _OF_OUTPUT}
    )
    raster = os.fspath(image)
    with tempfile.TemporaryDirectory(prefix="ecodetect-") as folder:
        path = Path(folder, "found.gpkg") if out is None else Path(out)
        if out is None and (output.classify or output.patches):
            raise UserError("Species and patches are written to a file; name it with out=.")
        settings = _checked([raster], [] if out is None else [path], settings, output)
        _check_places([path], output)
        for there in (path, output.map_path):
            if there is not None and there.exists() and not output.overwrite:
                raise already_there(there)
        with Run([raster], settings, output, None if out is None else path, journal_path(path)) as run:
            if run.failures:
                raise run.failures[0][1]
            (plan,) = run.plans
            found = list(survivors(plan, run.journal))
            if out is not None or output.picture or output.sheet:
                run.finish(path, replaces_map=output.overwrite)
            else:
                run.write_map(replaces=output.overwrite)
    if found:
        return Detections.concatenate(found)
    return Detections.empty(plan.native, plan.detector.kind, plan.detector.classes)


def scan_files(
    images: Sequence[str | os.PathLike[str]],
    asked: Settings,
    out: str | None = None,
    output: Output | None = None,
    progress: Progress | None = None,
) -> tuple[list[Summary], list[tuple[str, UserError]]]:
    """Scan rasters and write their detections.

    images : files, folders, glob patterns, URLs.
    out : a file for all of them (its suffix is the format), or a folder for a file each (one that exists, or
        a name that ends in "/"); None: a GeoJSON beside each image, or in the working folder where that
        folder can't be written to.
    Returns a `Summary` per written file, and the rasters that couldn't be searched with their errors: one bad
    raster doesn't stop the others.
    Raises UserError for anything that concerns all of them, Interrupted for Ctrl-C (the next call resumes).
    """
    output = output or Output()
    rasters = expand(images)
    groups: dict[Path, list[str]] = {}
    suffix = CANDIDATES_SUFFIX if output.patches else DETECTIONS_SUFFIX
    for image, path in targets(rasters, out, suffix=suffix).items():
        groups.setdefault(path, []).append(image)
    asked = _checked(rasters, list(groups) if out else [], asked, output)
    for path in groups:
        if out is None or path != Path(out):
            path.parent.mkdir(parents=True, exist_ok=True)  # a folder that the user named
    _check_places(list(groups), output)
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
        scan_group(path)  # the other process may have stopped or finished
    return [done[path] for path in groups if path in done], failures


def _checked(rasters: Sequence[str], named: Sequence[Path], asked: Settings, output: Output) -> Settings:
    """The settings for rasters that are scanned together, checked against each other and the output.

    named : the files for detections that the user has named.
    Raises UserError for settings that work for none of the rasters.
    """
    if (output.picture or output.sheet) and len(rasters) > 1:
        raise UserError(
            f"A picture or sheet draws one raster, but there are {len(rasters)}; scan them one by one.",
            parameter="picture" if output.picture else "sheet",
        )
    if output.score_map and len(rasters) > 1:
        raise UserError(
            f"A map of scores is of one raster, but there are {len(rasters)}; scan them one by one.",
            parameter="score_map",
        )
    for drawing in filter(None, (output.picture, output.sheet)):
        picture_files.replaceable(drawing, overwrite=output.overwrite)
    more = {"score_map": output.score_map, "picture": output.picture, "sheet": output.sheet}
    others = ((name, Path(path)) for name, path in more.items() if path)
    _check_apart(rasters, [*(("out", path) for path in named), *others])
    for name in asked.models:
        models.opened(name)  # an unusable model is reported once, not for each raster
    read_classifiers(output.classify)
    if output.classify and asked.max_memory is not None:
        raise UserError(
            "Memory can't be limited where a scan classifies too; scan first, then classify the layer.",
            parameter=("max_memory", "classify"),
        )
    return asked.together(rasters)


def _check_places(paths: Sequence[Path], output: Output) -> None:
    """Raise UserError where an output can't be written, or its format can't hold the results."""
    for path in paths:
        formats.writable(path)
        if output.classify and path.suffix.lower() in _ONLY_LABELS:
            raise UserError(f"{path} has no place for a species beside the class; write a .gpkg or .geojson.")
    if output.score_map:
        score_maps.writable(output.score_map)


def _check_apart(rasters: Sequence[str], outputs: Sequence[tuple[str, Path]]) -> None:
    """Raise UserError where an output would overwrite a raster or another output.

    outputs : with the parameters that name them.
    """
    there = list(map(Path, rasters))
    for parameter, path in outputs:
        for other in there:
            if path.absolute() == other.absolute() or (
                other.exists() and path.exists() and other.samefile(path)
            ):
                raise UserError(f"{path} would overwrite {other}; give it another name.", parameter=parameter)
        there.append(path)


def _scan_group(
    images: list[str], path: Path, asked: Settings, output: Output, progress: Progress | None
) -> tuple[Summary | None, list[tuple[str, UserError]]]:
    """Scan rasters whose detections go into one file."""
    map_path = output.map_path
    has_map = map_path is not None and is_map_of(map_path, images[0], asked)
    if map_path is not None and map_path.exists() and not (has_map or output.overwrite):
        raise already_there(map_path)
    if path.exists() and not output.overwrite:
        if output.restart or output.verified:
            raise already_there(path)
        summary, failures = known(path, images, asked, output)
        if map_path is None or has_map:
            return summary, failures
        return _map_alone(images, map_path, asked, progress, summary)
    with Run(images, asked, output, path, journal_path(path), progress) as run:
        if run.is_outrun:
            return _scan_group(images, path, asked, output, progress)
        if not run.plans:
            return None, run.failures
        return run.finish(path, replaces_map=output.overwrite or has_map), run.failures


def _map_alone(
    images: list[str], map_path: Path, asked: Settings, progress: Progress | None, known: Summary
) -> tuple[Summary | None, list[tuple[str, UserError]]]:
    """Scan a raster for its map of scores, when its detections exist already.

    The journal lies beside the map.  known : of the detections.
    """
    output = Output(score_map=str(map_path))
    with Run(images, asked, output, map_path, journal_path(map_path), progress) as run:
        if not run.plans:
            return None, run.failures
        run.write_map(replaces=False, is_all=True)
        return replace(known, seconds=run.seconds, score_map=map_path), []
