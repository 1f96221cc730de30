"""Draws plots on the ground of a scan and writes them to be checked; draws more of them later."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.errors import UserError
from ecodetect.estimation import plots_file
from ecodetect.estimation.drawing import Draw, drawn
from ecodetect.estimation.expecting import Expected, expected
from ecodetect.estimation.frame import Frame, frame_of, side_of
from ecodetect.estimation.named_polygons import read_polygons
from ecodetect.estimation.plots_reading import read_record
from ecodetect.estimation.record import Record, RecordedPlot, RecordedStratum
from ecodetect.estimation.scan_layer import ScanFacts, ScanLayer, read_scan
from ecodetect.formats.gis.geopackage_layers import EditedLayer
from ecodetect.grid import lonlat_of
from ecodetect.layer import Geometries
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
    record = _record(found, frame, draw, number, seed, blind, within, *beside)
    if not dry_run:
        layers = _layers(found, record, frame.outlines(draw.plots), 0)
        record = _with_outlines(record, layers[0].layer.geometry)
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
    record = read_record(file)
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
        polygons=polygons, names=names, more=before + more - len_first(record),
    )  # fmt: skip
    cells = [frame.name(cell) for cell in draw.plots.tolist()]
    if cells[:before] != [each.cell for each in record.plots]:
        raise UserError(f"{file}: its plots can't be drawn again from {scan_file.name}; draw anew.")
    if len(cells) == before:
        raise UserError(f"{file} has all {before} cells already.")
    plots_now = [
        *record.plots,
        *_recorded(found, frame, draw, range(before, len(cells)), blind=record.blind),
    ]
    new = replace(record, plots=tuple(plots_now), rounds=(*record.rounds, len(plots_now)))
    outlines = frame.outlines(draw.plots)
    layers = _layers(found, new, outlines, before)
    new = _with_outlines(new, layers[0].layer.geometry, before)
    plots_file.extend(file, layers, new)
    return _told(file, found, frame, new, len(cells) - before, {})


def len_first(record: Record) -> int:
    """Plots of the first draw, of which there may be more than were asked for."""
    return record.rounds[0]


def check_same(record: Record, facts: ScanFacts, *, about: str) -> None:
    """Raise UserError where a scan isn't the one that plots were drawn for."""
    if record.scan["key"] == facts.key and dict(record.fingerprints) == dict(facts.fingerprints):
        return
    names = sorted({*record.settings, *facts.settings})
    other = [name for name in names if record.settings.get(name) != facts.settings.get(name)]
    was, now = (
        ", ".join(f"{name} {each.get(name, 'as usual')}" for name in other)
        for each in (record.settings, facts.settings)
    )
    how = f" ({was}, now {now})" if other else ""
    raise UserError(f"{about} was drawn for another scan{how}: use that scan, or draw anew.")


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


def _record(
    scan: ScanLayer,
    frame: Frame,
    draw: Draw,
    n: int,
    seed: int,
    blind: int | None,
    within: Length | None,
    strata_by: str | None,
    area: str | None,
) -> Record:
    """The draw as the file keeps it, without outlines.  strata_by, area : as seen from its folder."""
    plane, grid = scan.plane, scan.plane.grid
    limit = None if within is None else plane.units(within, name="The distance")
    inside = {name: frame.counts(scan.labels == name) for name in scan.classes}
    every = frame.counts(np.ones(len(scan), np.bool_))
    strata = []
    for index, name in enumerate(draw.names):
        here = draw.stratum == index
        found = {each: int(values[here].sum()) for each, values in inside.items()}
        occupied = {each: int((values[here] > 0).sum()) for each, values in inside.items()}
        occupied[""] = int((every[here] > 0).sum())
        least, most = int(every[here].min()), int(every[here].max())
        strata.append(RecordedStratum(name, int(here.sum()), least, most, found, occupied))
    hectares = _hectares(scan, frame)
    made = Record(
        scan={"file": scan.facts.file, "key": scan.facts.key, "model": scan.facts.model},
        settings=scan.facts.settings,
        fingerprints=scan.facts.fingerprints,
        classes=scan.classes,
        crs=None if plane.crs is None else plane.crs.to_wkt(),
        grid=None if grid is None else (grid.width, grid.height, *grid.transform),
        metres=plane.metres,
        pixel=plane.pixel,
        side=frame.side,
        seed=seed,
        first=n,
        rounds=(len(draw.plots),),
        hectares=None if hectares is None else float(f"{hectares:.8g}"),
        within=limit,
        margin=scan.largest or (0.0 if limit is None else limit),
        blind=blind,
        strata_by=strata_by,
        area_file=area,
        apart_km=_apart_km(scan),
        trained=0,
        strata=tuple(strata),
        plots=tuple(_recorded(scan, frame, draw, range(len(draw.plots)), blind=blind)),
    )
    return replace(made, trained=_trained(scan, frame, draw))


def _hectares(scan: ScanLayer, frame: Frame) -> float | None:
    """The searched ground: what the scan says, which counts ground under two rasters once, or as measured."""
    stated = [scan.facts.hectares.get(each.name) for each in scan.rasters]
    known = [each for each in stated if each is not None]
    if scan.rasters and len(known) == len(stated) and all(each.area is None for each in scan.rasters):
        return sum(known)
    return float(frame.area.sum()) / 10_000 if frame.has_metres else None


def _recorded(
    scan: ScanLayer, frame: Frame, draw: Draw, numbers: range, *, blind: int | None
) -> list[RecordedPlot]:
    """Some of the plots, by their index."""
    cells = draw.plots[numbers.start : numbers.stop]
    wanted = np.flatnonzero(np.isin(frame.cell_of, cells))
    by_cell: dict[int, list[tuple[str, str, float, float]]] = {}
    for row in wanted.tolist():
        x, y = scan.xy[row].tolist()
        by_cell.setdefault(int(frame.cell_of[row]), []).append(
            (str(scan.ids[row]), str(scan.labels[row]), float(x), float(y))
        )
    return [
        RecordedPlot(
            number + 1,
            frame.name(cell),
            draw.names[int(draw.stratum[cell])],
            blind is None or number < blind,
            (0.0, 0.0, 0.0, 0.0),
            0.0,
            tuple(sorted(by_cell.get(cell, []))),
        )
        for number, cell in zip(numbers, cells.tolist(), strict=True)
    ]


def _with_outlines(record: Record, outlines: Geometries, start: int = 0) -> Record:
    """The record with what plots are known by again.  outlines : of the plots from `start` on."""
    known = list(record.plots)
    for index, shape in enumerate(outlines, start):
        bounds = tuple(float(value) for value in shape.bounds)
        assert len(bounds) == 4
        known[index] = replace(known[index], bounds=bounds, area=float(shape.area))
    return replace(record, plots=tuple(known))


def _layers(
    scan: ScanLayer, record: Record, outlines: Sequence[shapely.Geometry], start: int
) -> list[EditedLayer]:
    """The layers of the plots from `start` on.

    outlines : of all plots. Detections that an earlier plot shows aren't shown again.
    """
    plane = record.plane
    shapes = np.array(list(outlines), object)
    before = _shown(scan, record, shapes[:start])
    shown = {row: plot for row, plot in _shown(scan, record, shapes).items() if row not in before}
    rows = sorted(shown)
    individuals = plots_file.individuals_layer(
        plane,
        scan.xy[rows],
        scan.ids[rows].tolist(),
        scan.labels[rows].tolist(),
        scan.scores[rows].tolist(),
        [shown[row] for row in rows],
        record.classes,
    )
    return [plots_file.plots_layer(plane, shapes[start:], record.plots[start:]), individuals]


def _shown(scan: ScanLayer, record: Record, shapes: Geometries) -> dict[int, int | None]:
    """Rows of the detections that plots show, in them and around, with the number of the plot; None: around.

    shapes : of the first plots. What lies in a blind plot isn't shown.
    """
    shown: dict[int, int | None] = {}
    row_of = {name: row for row, name in enumerate(scan.ids.tolist())}
    tree = shapely.STRtree(shapely.points(scan.xy))
    for plot, shape in zip(record.plots, shapes, strict=False):
        if plot.is_blind:
            continue
        if record.margin:
            for row in tree.query(shape, "dwithin", record.margin).tolist():
                shown.setdefault(row, None)
        shown |= {row_of[each[0]]: plot.number for each in plot.detections}
    blind = {row_of[each[0]] for plot in record.plots if plot.is_blind for each in plot.detections}
    return {row: plot for row, plot in shown.items() if row not in blind}


def _apart_km(scan: ScanLayer) -> float:
    """How far apart the farthest rasters lie; 0 where that is unknown."""
    if scan.plane.crs is None or scan.plane.metres is None or len(scan.rasters) < 2:
        return 0.0
    corners = []
    for each in scan.rasters:
        lonlat = each.grid.to_lonlat([(each.grid.width / 2, each.grid.height / 2)])
        corners.append(lonlat[0])
    lon, lat = np.array(corners).T
    wide = np.ptp(lon) * 111.32 * np.cos(np.radians(lat.mean()))
    return float(f"{np.hypot(wide, np.ptp(lat) * 111.32):.3g}")


def _trained(scan: ScanLayer, frame: Frame, draw: Draw) -> int:
    """Plots within about 1 km of where the model was trained."""
    if not scan.facts.trained or scan.plane.crs is None:
        return 0
    return int(scan.is_trained_at(lonlat_of(frame.centres()[draw.plots], scan.plane.crs)).sum())


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
