"""Reads a file of plots: the draw, the plots with their states, the individuals with their verdicts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.errors import LayerError, UserError
from ecodetect.estimation.named_polygons import in_plane
from ecodetect.estimation.plots_file import DRAW, INDIVIDUALS, PLOTS, STATES, VERDICTS
from ecodetect.estimation.record import Record, from_json
from ecodetect.formats import files as formats
from ecodetect.formats.column_roles import class_column, classes_in
from ecodetect.formats.gis import geopackage_layers
from ecodetect.grid import Floats
from ecodetect.layer import Geometries, Layer

Texts = NDArray[np.object_]
_TOLERANCE = 1e-6  # of a side, by which a plot may move when a program saves it


@dataclass(frozen=True, eq=False, slots=True)
class Individuals:
    """Individuals that somebody marked, or detections that somebody judged.

    xy : in the plane, (M, 2).
    ids : of their detections; "" for what was added.
    labels, verdicts, sources : texts, (M,).
    """

    xy: Floats
    ids: Texts
    labels: Texts
    verdicts: Texts
    sources: Texts

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False, slots=True)
class PlotsFile:
    """A file of plots as it is now.

    outlines, states, checkers : of each plot in the order of the draw, (n,).
    counts : by class, where plots have columns `count_CLASS`; NaN where nothing is filled in.
    """

    path: Path
    record: Record
    outlines: Geometries
    states: Texts
    checkers: Texts
    counts: Mapping[str, Floats]
    individuals: Individuals


def read_record(path: str | os.PathLike[str]) -> Record:
    """The draw in a file of plots; raises UserError where it has none."""
    file = Path(path)
    if not file.is_file():
        raise LayerError(f"{file} doesn't exist.")
    is_package = file.suffix.lower() == ".gpkg"
    text = geopackage_layers.read_table(file, DRAW) if is_package else None
    if text is None:
        raise UserError(
            f"{file} has no table {DRAW}, so it isn't a file of plots, or lost its draw; draw the same plots"
            " again into another file, and give the scan, that file, and this one as what was checked."
        )
    return from_json(text, str(file))


def read_plots(path: str | os.PathLike[str]) -> PlotsFile:
    """Read a file of plots, perhaps edited in a GIS.

    Raises UserError where layers or fields are missing, and where a plot isn't where it was drawn.
    """
    file = Path(path)
    record = read_record(file)
    there = geopackage_layers.layer_names(file)
    for name in (PLOTS, INDIVIDUALS):
        if name not in there:
            raise UserError(f"{file} has no layer '{name}'; it has: {', '.join(there)}.")
    plots = formats.read(file, layer=PLOTS, grid=record.plane.grid)
    rows = _in_order(plots, record, file)
    plots = plots[rows]
    outlines = in_plane(plots, record.plane, about=str(file))
    _check_places(outlines, record, file)
    _need(plots, ("state",), PLOTS, file)
    states = _texts(plots, "state")
    strange = next((state for state in states.tolist() if state not in ("", *STATES)), None)
    if strange is not None:
        raise UserError(f"{file}: a plot's state is '{strange}', none of {', '.join(STATES)}.")
    counts = {name: _count(plots, name, record) for name in record.classes}
    return PlotsFile(
        file,
        record,
        outlines,
        states,
        _texts(plots, "checker"),
        {name: values for name, values in counts.items() if values is not None},
        read_individuals(formats.read(file, layer=INDIVIDUALS, grid=record.plane.grid), record, file),
    )


def read_individuals(layer: Layer, record: Record, file: Path, *, is_own: bool = True) -> Individuals:
    """The individuals of a layer.  is_own : it is that of a file of plots, not of another program."""
    if is_own:
        _need(layer, ("label", "verdict"), INDIVIDUALS, file)
    xy = record.plane.places(layer, about=str(file)) if len(layer) else np.empty((0, 2))
    verdicts = _texts(layer, "verdict")
    strange = next((each for each in verdicts.tolist() if is_own and each not in ("", *VERDICTS)), None)
    if strange is not None:
        raise UserError(f"{file}: a verdict is '{strange}', none of {', '.join(VERDICTS)}.")
    ids = _texts(layer, "id") if is_own else np.array([""] * len(layer), object)
    column = "label" if is_own or len(record.classes) == 1 else class_column(layer.columns)
    labels = _texts(layer, "label")
    if column not in (None, "label"):
        labels = classes_in(layer.columns, column, are_stated=layer.states_classes)
    return Individuals(xy, ids, labels, verdicts, _texts(layer, "source"))


def read_marks(path: str | os.PathLike[str], record: Record) -> Individuals:
    """The individuals that another program wrote, or another person marked in a copy of a file of plots."""
    file = Path(path)
    is_package = file.suffix.lower() == ".gpkg" and file.is_file()
    is_copy = is_package and INDIVIDUALS in geopackage_layers.layer_names(file)
    layer = formats.read(file, layer=INDIVIDUALS if is_copy else None, grid=record.plane.grid)
    return read_individuals(layer, record, file, is_own=False)


def _in_order(plots: Layer, record: Record, file: Path) -> NDArray[np.int64]:
    """Rows of the layer in the order of the draw."""
    _need(plots, ("plot", "state"), PLOTS, file)
    numbers = np.asarray(plots.columns["plot"], np.float64)
    drawn = [each.number for each in record.plots]
    for number in drawn:
        if int((numbers == number).sum()) != 1:
            how = "missing" if number not in numbers else "there twice"
            raise UserError(f"{file}: plot {number} is {how}; the draw has plots 1 to {len(drawn)}.")
    if len(numbers) > len(drawn):
        strange = next(value for value in numbers.tolist() if value not in drawn)
        raise UserError(f"{file}: plot {strange:g} isn't one that was drawn; remove it.")
    order = np.argsort(numbers, kind="stable")
    return order


def _check_places(outlines: Geometries, record: Record, file: Path) -> None:
    """Raise UserError where a plot was moved or reshaped."""
    for shape, plot in zip(outlines, record.plots, strict=True):
        size = max(plot.bounds[2] - plot.bounds[0], plot.bounds[3] - plot.bounds[1])
        step = np.abs(
            np.array(shape.bounds if shape is not None and not shape.is_empty else (np.inf,) * 4)
            - plot.bounds
        )
        if step.max() > _TOLERANCE * size or abs(shapely.area(shape) - plot.area) > _TOLERANCE * size**2:
            raise UserError(f"{file}: plot {plot.number} isn't where it was drawn; draw anew, or undo that.")


def _count(plots: Layer, name: str, record: Record) -> Floats | None:
    """Counts of a class that were typed into the plots; None where there is no such column."""
    names = [f"count_{name}", *(["count"] if len(record.classes) == 1 else [])]
    column = next((plots.columns[each] for each in names if each in plots.columns), None)
    if column is None or column.dtype.kind not in "if":
        return None
    values = np.asarray(column, np.float64)
    return None if np.isnan(values).all() else values


def _need(layer: Layer, names: tuple[str, ...], title: str, file: Path) -> None:
    for name in names:
        if name not in layer.columns:
            raise UserError(f"{file}: the layer '{title}' has no field '{name}' any more.")


def _texts(layer: Layer, name: str) -> Texts:
    if name not in layer.columns:
        return np.array([""] * len(layer), object)
    return np.array([str(value).strip() for value in layer.columns[name].tolist()], object)
