"""What a file of plots shows: their outlines, and the detections in them and around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely

from ecodetect.estimation import plots_file
from ecodetect.estimation.record import Record
from ecodetect.estimation.scan_layer import ScanLayer
from ecodetect.formats.gis.geopackage_layers import EditedLayer
from ecodetect.layer import Geometries


def layers_of(
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
