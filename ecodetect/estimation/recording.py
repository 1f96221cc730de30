"""From a draw to the record that the file of plots keeps, and whether a scan is the one of a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import shapely

from ecodetect.errors import UserError
from ecodetect.estimation.drawing import Draw
from ecodetect.estimation.frame import Frame
from ecodetect.estimation.record import Record, RecordedPlot, RecordedStratum
from ecodetect.estimation.scan_layer import ScanFacts, ScanLayer
from ecodetect.grid import lonlat_of
from ecodetect.sizes import Length


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


def record_of(
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
        plots=tuple(plots_of(scan, frame, draw, range(len(draw.plots)), blind=blind)),
    )
    return replace(made, trained=_trained(scan, frame, draw))


def plots_of(
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


def with_outlines(record: Record, outlines: Sequence[shapely.Geometry]) -> Record:
    """The record with what plots are known by again.  outlines : of all plots, in their order."""
    known = []
    for plot, shape in zip(record.plots, outlines, strict=True):
        x0, y0, x1, y1 = (float(value) for value in shape.bounds)
        known.append(replace(plot, bounds=(x0, y0, x1, y1), area=float(shape.area)))
    return replace(record, plots=tuple(known))


def _hectares(scan: ScanLayer, frame: Frame) -> float | None:
    """The searched ground: what the scan says, which counts ground under two rasters once, or as measured."""
    stated = [scan.facts.hectares.get(each.name) for each in scan.rasters]
    known = [each for each in stated if each is not None]
    if scan.rasters and len(known) == len(stated) and all(each.area is None for each in scan.rasters):
        return sum(known)
    return float(frame.area.sum()) / 10_000 if frame.has_metres else None


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
