"""The detections of a scan by polygon and stratum, for estimates of polygons."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecodetect.errors import UserError
from ecodetect.estimation.named_polygons import NamedPolygons, read_polygons
from ecodetect.estimation.plots_reading import PlotsFile
from ecodetect.estimation.record import Record
from ecodetect.formats import files as formats
from ecodetect.grid import Floats

Ints = NDArray[np.int64]
Texts = NDArray[np.object_]


@dataclass(frozen=True, eq=False, slots=True)
class Divided:
    """The detections of a scan by polygon.

    polygons : by which the ground is divided.
    polygon, stratum, label : of each detection, (M,); a polygon of -1: in none.
    """

    polygons: NamedPolygons
    polygon: Ints
    stratum: Ints
    label: Texts

    def detected(self, classes: tuple[str, ...], polygon: int, strata: int) -> Floats:
        """Detections of some classes in a polygon, by stratum, (H,)."""
        rows = np.isin(self.label, list(classes)) & (self.polygon == polygon)
        return np.bincount(self.stratum[rows], minlength=strata).astype(np.float64)


def divided(file: PlotsFile, scan: Path, polygons: NamedPolygons) -> Divided:
    """Divide the detections of a scan.

    Raises UserError where they aren't those that the plots were drawn for.
    """
    record, plane = file.record, file.record.plane
    layer = formats.read(scan, grid=plane.grid)
    xy = plane.places(layer, about=str(scan))
    label = np.array([str(each) for each in layer.columns.get("label", np.full(len(layer), ""))], object)
    counts = np.isin(label, list(record.classes))
    if record.area_file is not None:
        counts &= read_polygons(file.path.parent / record.area_file, plane).holding(xy) >= 0
    xy, label = xy[counts], label[counts]
    if record.side is None:
        sources = np.array([str(each) for each in layer.columns["source"][counts]], object)
        _, first, cell = np.unique(sources, return_index=True, return_inverse=True)
        middles = xy[first]
    else:
        cells, cell = np.unique(np.floor(xy / record.side), axis=0, return_inverse=True)
        middles = (cells + 0.5) * record.side
    stratum = _strata(record, file.path.parent, middles, np.bincount(cell.reshape(-1)))[cell.reshape(-1)]
    there = np.bincount(stratum[stratum >= 0], minlength=len(record.strata))
    if there.tolist() != record.detected(record.classes).astype(np.int64).tolist():
        raise UserError(
            f"{scan} has other detections than {file.path} was drawn for; use that layer as it was, or draw"
            " anew."
        )
    return Divided(polygons, polygons.holding(xy), stratum, label)


def _strata(record: Record, folder: Path, middles: Floats, number: Ints) -> Ints:
    """The stratum of cells by their number of detections, which is in one stratum alone; -1: in none."""
    group = np.array([""] * len(middles), object)
    if record.strata_by is not None:
        named = read_polygons(folder / record.strata_by, record.plane)
        group = np.array([*named.names, "outside"], object)[named.holding(middles)]
    stratum = np.full(len(middles), -1, np.int64)
    for index, each in enumerate(record.strata):
        is_here = group == each.name.rpartition("/")[0]
        stratum[is_here & (number >= each.least) & (number <= each.most)] = index
    return stratum
