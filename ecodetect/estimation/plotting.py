"""Draws plots on the ground of a scan and writes them to be checked; draws more of them later."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecodetect.errors import UserError
from ecodetect.estimation import plots_file
from ecodetect.estimation.drawing import drawn
from ecodetect.estimation.expecting import Expected, expected
from ecodetect.estimation.frame import Frame, frame_of, side_of
from ecodetect.estimation.named_polygons import read_polygons
from ecodetect.estimation.plots_reading import read_plots
from ecodetect.estimation.record import Record
from ecodetect.estimation.recording import check_same, plots_of, record_of, with_outlines
from ecodetect.estimation.scan_layer import ScanLayer, read_scan
from ecodetect.estimation.showing import layers_of
from ecodetect.notes import Note
from ecodetect.sizes import Length
from ecodetect.wording import counted

FEWEST = 10  # plots, below which there is no interval
USUAL = 40
_CELLS_A_PLOT = 3
_FORECASTS = (10, 20, 40, 80)
_FAR_KM = 10.0  # from here on, sites differ in ways that one draw doesn't see


@dataclass(frozen=True)
class DrawnStratum:
    """A stratum: its cells, its detections, and the plots drawn in it."""

    name: str
    cells: int
    detections: int
    plots: int


@dataclass(frozen=True)
class DrawnPlots:
    """Plots drawn on a scan's ground.

    path : the file to check; None where nothing was written.
    plots : how many, and `added` of them now.
    size : of a cell, for people.
    hectares : searched ground; None where it is unknown.
    detections : on it, by class.
    expected : plots -> half-width to expect, as a share of the individuals, by the model's card.
    """

    path: Path | None
    plots: int
    added: int
    cells: int
    size: str
    hectares: float | None
    detections: Mapping[str, int]
    strata: tuple[DrawnStratum, ...]
    expected: Mapping[int, float]
    notes: tuple[Note, ...]


def plots(
    scan: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    n: int | None = None,
    half_width: float | None = None,
    size: str | None = None,
    strata_by: str | os.PathLike[str] | None = None,
    classes: Sequence[str] = (),
    blind: int | None = 0,
    image: Sequence[str | os.PathLike[str]] = (),
    area: str | os.PathLike[str] | None = None,
    seed: int = 0,
    within: Length | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    allow_vrt: bool = False,
) -> DrawnPlots:
    """Draw plots on the ground of a scan, to be checked by a person, and write them as a GeoPackage.

    Parameters
    ----------
    scan : str or path-like
        The layer that a scan wrote, or another layer of detections with `image` or `area`.
    out : str or path-like, optional
        The file to check; default: beside the scan, `NAME.plots.gpkg`.
    n : int, optional
        Plots to draw, at least 10; default 40.
    half_width : float, optional
        Instead of `n`: half the width of the interval that is wanted, as a share of the individuals. Needs
        a model whose card states precision and recall.
    size : str, optional
        Side of a cell (`50m`, `200px`), or `image`: each raster is a cell.
    strata_by : str or path-like, optional
        Polygons that get strata of their own, and so an interval each.
    classes : sequence of str
        Classes to count; all if empty.
    blind : int, optional
        The first plots in which the checker sees no detection; None: in none.
    image : sequence of str or path-like
        The rasters that were scanned, where they aren't beside the layer.
    area : str or path-like, optional
        Polygons outside which nothing was searched.
    seed : int
        Of the draw.
    within : Length, optional
        How far a marked individual may lie from its detection, where they are matched by place.
    dry_run : bool
        Write nothing.

    Raises
    ------
    UserError
        In one sentence, where plots can't be drawn.
    """
    path = Path(out) if out is not None else Path(scan).with_name(f"{_stem(Path(scan))}.plots.gpkg")
    if not dry_run:
        plots_file.check_free(path, overwrite=overwrite)
    if n is not None and n < FEWEST:
        raise UserError(f"At least {FEWEST} plots make an interval; got {n}.")
    found = read_scan(scan, images=image, area=area, classes=classes, allow_vrt=allow_vrt)
    frame = frame_of(found, side_of(found, size, n or USUAL))
    counts = frame.counts(np.ones(len(found), np.bool_))
    known = expected(found.facts.model, frame, counts)
    number = _number(n, half_width, known, frame)
    _check_cells(frame, number)
    polygons, names = _polygons(frame, strata_by)
    draw = drawn(
        counts, frame.column, frame.row, number, seed=seed, sites=frame.sites, polygons=polygons, names=names
    )
    beside = [None if each is None else os.path.relpath(each, path.parent) for each in (strata_by, area)]
    record = record_of(found, frame, draw, number, seed, blind, within, *beside)
    if not dry_run:
        outlines = frame.outlines(draw.plots)
        record = with_outlines(record, outlines)
        layers = layers_of(found, record, outlines, 0)
        plots_file.write(path, layers, record, overwrite=overwrite)
    widths = (
        {}
        if known is None
        else {each: known.half_width(each) for each in _FORECASTS if 3 * each <= len(frame)}
    )
    return _told(None if dry_run else path, found, frame, record, len(draw.plots), widths)


def more_plots(
    path: str | os.PathLike[str],
    more: int,
    *,
    image: Sequence[str | os.PathLike[str]] = (),
    allow_vrt: bool = False,
) -> DrawnPlots:
    """Draw more plots of the same draw into the same file; what is checked in it is not touched.

    The scan, and its rasters or its area, must lie where they lay. Raises UserError where they have changed.
    """
    file = Path(path)
    record = read_plots(file).record
    if more < 1:
        raise UserError(f"The number of plots to add must be at least 1; got {more}.", parameter="more")
    plots_file.check_closed(file)
    scan_file = file.with_name(record.scan["file"])
    if not scan_file.exists():
        raise UserError(f"{file} was drawn for {scan_file.name}, which isn't beside it; put it there.")
    area = None if record.area_file is None else file.parent / record.area_file
    found = read_scan(scan_file, images=image, area=area, classes=record.classes, allow_vrt=allow_vrt)
    check_same(record, found.facts, about=str(file))
    frame = frame_of(found, record.side)
    counts = frame.counts(np.ones(len(found), np.bool_))
    before = len(record.plots)
    polygons, names = _polygons(frame, None if record.strata_by is None else file.parent / record.strata_by)
    draw = drawn(
        counts, frame.column, frame.row, record.first, seed=record.seed, sites=frame.sites,
        polygons=polygons, names=names, more=before + more - record.rounds[0],
    )  # fmt: skip
    cells = [frame.name(cell) for cell in draw.plots.tolist()]
    if cells[:before] != [each.cell for each in record.plots]:
        raise UserError(f"{file}: its plots can't be drawn again from {scan_file.name}; draw anew.")
    if len(cells) == before:
        raise UserError(f"{file} has all {before} cells already.")
    plots_now = [
        *record.plots,
        *plots_of(found, frame, draw, range(before, len(cells)), blind=record.blind),
    ]
    new = replace(record, plots=tuple(plots_now), rounds=(*record.rounds, len(plots_now)))
    outlines = frame.outlines(draw.plots)
    new = with_outlines(new, outlines)
    layers = layers_of(found, new, outlines, before)
    plots_file.extend(file, layers, new)
    return _told(file, found, frame, new, len(cells) - before, {})


def _stem(path: Path) -> str:
    return path.stem.removesuffix(".detections")


def _number(n: int | None, half_width: float | None, known: Expected | None, frame: Frame) -> int:
    """How many plots to draw."""
    if half_width is None:
        return n or USUAL
    if n is not None:
        raise UserError("The number of plots and the half-width exclude one another; give one.")
    if not 0 < half_width < 10:
        raise UserError(f"The half-width must be a share of the individuals; got {half_width:g}.")
    if known is None:
        raise UserError(
            "How many plots a half-width takes is known only for models whose card states precision and"
            " recall; give the number of plots."
        )
    found = known.plots_for(half_width, FEWEST)
    if found is None:
        most = len(frame) // _CELLS_A_PLOT
        raise UserError(
            f"A half-width of {half_width:.3g} of the individuals takes more than {most} plots of these"
            f" {len(frame):,} cells; take smaller cells, or a wider interval.",
            parameter="size",
        )
    return found


def _check_cells(frame: Frame, n: int) -> None:
    """Raise UserError where there are too few cells for a sample."""
    cells = len(frame)
    if n < cells < _CELLS_A_PLOT * n:
        remedy = "draw fewer plots"
        if frame.side is not None:
            smaller = frame.side * (cells / (_CELLS_A_PLOT * n)) ** 0.5 * 0.9
            digits = 10.0 ** np.floor(np.log10(smaller))
            remedy = f"{frame.plane.said(float(np.floor(smaller / digits) * digits))} would do"
        raise UserError(
            f"The searched ground has {cells} cells of {said_size(frame)}, fewer than {_CELLS_A_PLOT} for"
            f" each of {n} plots: {remedy}.",
            parameter="size",
        )


def said_size(frame: Frame) -> str:
    """The size of cells for people."""
    return "one image" if frame.side is None else frame.plane.said(frame.side)


def _polygons(
    frame: Frame, path: str | os.PathLike[str] | None
) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """The polygon of each cell by its middle, and their names; ground outside all is one more."""
    if path is None:
        return None, ()
    found = read_polygons(path, frame.plane)
    number = found.holding(frame.centres())
    number[number < 0] = len(found)
    there = np.unique(number)
    names = (*found.names, "outside")
    sizes = {names[each]: int((number == each).sum()) for each in there.tolist()}
    few = next((name for name, cells in sizes.items() if cells < 6), None)
    if few is not None:
        raise UserError(
            f"The polygon '{few}' of {path} has {counted(sizes[few], 'cell')}, too few for strata of its own;"
            " take smaller cells.",
            parameter="size",
        )
    return np.searchsorted(there, number), tuple(names[each] for each in there.tolist())


def _told(
    path: Path | None,
    scan: ScanLayer,
    frame: Frame,
    record: Record,
    added: int,
    widths: Mapping[int, float],
) -> DrawnPlots:
    """What was drawn, with notes."""
    number = np.bincount(record.stratum_of, minlength=len(record.strata)).tolist()
    strata = tuple(
        DrawnStratum(each.name, each.cells, sum(each.detections.values()), count)
        for each, count in zip(record.strata, number, strict=True)
    )
    return DrawnPlots(
        path,
        len(record.plots),
        added,
        len(frame),
        said_size(frame),
        record.hectares,
        {name: sum(each.detections[name] for each in record.strata) for name in record.classes},
        strata,
        widths,
        tuple(_notes(scan, frame, record)),
    )


def _notes(scan: ScanLayer, frame: Frame, record: Record) -> list[Note]:
    notes = []
    lost = int((frame.cell_of < 0).sum())
    if lost:
        text = f"{counted(lost, 'detection')} off the searched ground don't count."
        notes.append(
            Note("detections-off-ground", text, about=scan.facts.file, kind="doubt", parameter="area")
        )
    if record.apart_km > _FAR_KM and record.strata_by is None:
        text = (
            f"The rasters lie up to {record.apart_km:.3g} km apart, and detectors differ between sites: give"
            " each site its strata."
        )
        notes.append(Note("sites-apart", text, kind="doubt", parameter="strata_by"))
    if record.trained:
        text = (
            f"{counted(record.trained, 'plot')} of {len(record.plots)} lie within about 1 km of where the"
            " model was trained: the number stays valid, but precision and recall don't hold elsewhere."
        )
        notes.append(Note("trained-here", text, kind="doubt"))
    return notes
