"""Counts as files: a layer shaded by density, a table for R or a spreadsheet, a raster of density."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from ecodetect.errors import UserError, already_there
from ecodetect.estimation.counting import Counts
from ecodetect.formats import files as formats
from ecodetect.formats.tables.spreadsheet import as_cell
from ecodetect.grid import Grid
from ecodetect.layer import Layer, Steps, Stream
from ecodetect.notes import Note
from ecodetect.raster.opening import quiet
from ecodetect.version import __version__
from ecodetect.whole_file import settle, staged

_BATCH = 10_000
_SHADES = 5
_MOST_CLASSES = 100  # with columns of their own in the layer; a table has them all
_NO_LAYERS = (".csv", ".tsv", ".xml", ".txt", ".tif", ".tiff", ".png", ".json")  # of pixels of a raster
_TABLES = (".csv", ".tsv")
_MOST_PIXELS = 100_000_000


def check_outputs(out: Path | None, table: Path | None, raster: Path | None, *, overwrite: bool) -> None:
    """Raise UserError, before anything is read, where an output can't be written."""
    for path, suffixes, what in (
        (out, None, "layer"),
        (table, _TABLES, "table"),
        (raster, (".tif", ".tiff"), "raster"),
    ):
        if path is None:
            continue
        suffix = path.suffix.lower()
        if suffixes is None:
            formats.writable(path)
            if suffix in _NO_LAYERS:
                raise UserError(f"{path} can't hold polygons with counts; write .gpkg or .geojson.")
        elif suffix not in suffixes:
            raise UserError(f"The name of a {what} of counts ends in {suffixes[0]}; got {path}.")
        if not path.parent.is_dir():
            raise UserError(f"{path} can't be written: there is no folder {path.parent}; make it first.")
        if os.path.lexists(path) and (not path.is_file() or not overwrite):
            raise already_there(path)
    there = [path.absolute() for path in (out, table, raster) if path is not None]
    if len(set(there)) < len(there):
        raise UserError("Layer, table and raster need names of their own.")


def write_layer(counts: Counts, path: Path, *, overwrite: bool) -> tuple[Note, ...]:
    """Write polygons or cells with their counts, shaded by density.

    Columns: `polygon` or `cell`, `individuals`, `per_ha`, `diameter_m`, `area_ha`, `searched` (a share); with
    several classes the three of individuals for each of them as well. Without metres `per_mpx`,
    `diameter_px`, `area_mpx`.
    """
    columns: dict[str, NDArray[Any]] = {_title(counts): np.array(counts.names, object)}
    ha, m = ("ha", "m") if counts.has_metres else ("mpx", "px")
    ground = counts.searched_area
    together = counts.individuals.sum(axis=1)
    density = np.divide(together, ground, out=np.full(len(ground), np.nan), where=ground > 0)
    known = np.where(np.isnan(counts.diameter), 0, counts.individuals)
    sized = np.nansum(counts.diameter * known, axis=1)
    n = known.sum(axis=1)
    columns["individuals"] = together
    columns[f"per_{ha}"] = density
    columns[f"diameter_{m}"] = np.divide(sized, n, out=np.full(len(n), np.nan), where=n > 0)
    columns[f"area_{ha}"] = counts.area
    columns["searched"] = counts.searched
    if 1 < len(counts.classes) <= _MOST_CLASSES:
        for number, name in enumerate(counts.classes):
            columns[f"individuals {name}"] = counts.individuals[:, number]
            columns[f"per_{ha} {name}"] = counts.density[:, number]
            columns[f"diameter_{m} {name}"] = counts.diameter[:, number]
    kinds = {name: {"f": "float", "i": "int"}.get(each.dtype.kind, "str") for name, each in columns.items()}
    frame: dict[str, Any] = {"crs": counts.plane.crs}
    if counts.plane.crs is None:
        frame = {"grid": counts.plane.grid or _around(counts)}

    def batches() -> Iterator[Layer]:
        for start in range(0, len(counts.names), _BATCH):
            rows = slice(start, start + _BATCH)
            part = {name: each[rows] for name, each in columns.items()}
            yield Layer(counts.outlines[rows], part, **frame)

    stream = Stream(
        batches(),
        "Polygon",
        kinds,
        **frame,
        metadata={"ecodetect": __version__, "counts": _described(counts)},
        steps=Steps(f"per_{ha}", _limits(density)),
    )
    return formats.write(path, stream, overwrite=overwrite).notes


def write_table(counts: Counts, path: Path, *, overwrite: bool) -> None:
    """Write a row for each polygon or cell, class and source.

    Columns: `polygon` or `cell`, `label`, `source` (where there are several), `individuals`, `per_ha`,
    `diameter_m`, `area_ha`, `searched`. Each polygon or cell has a row for each class, also without any;
    densities are per ground searched by all sources, so that rows add up.
    """
    ha, m = ("ha", "m") if counts.has_metres else ("mpx", "px")
    sources = sorted({row.source for row in counts.rows}) or [""]
    several = len(sources) > 1
    found = {(row.unit, row.label, row.source): row for row in counts.rows}
    ground = counts.searched_area
    with staged(path) as folder:
        stage = folder / path.name
        with stage.open("w", encoding="utf-8", newline="") as file:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
            head = [_title(counts), "label", *(["source"] if several else [])]
            writer.writerow([*head, "individuals", f"per_{ha}", f"diameter_{m}", f"area_{ha}", "searched"])
            for unit, name in enumerate(counts.names):
                place = [_cell(counts.area[unit]), _cell(counts.searched[unit])]
                for label in counts.classes:
                    for source in sources:
                        row = found.get((unit, label, source))
                        n = 0 if row is None else row.individuals
                        density = n / ground[unit] if ground[unit] > 0 else None
                        size = None if row is None else row.diameter
                        named = [as_cell(name), as_cell(label), *([as_cell(source)] if several else [])]
                        writer.writerow([*named, n, _cell(density), _cell(size), *place])
        settle(stage, path, replace=overwrite)


def write_raster(counts: Counts, path: Path, *, overwrite: bool) -> None:
    """Write the density of cells as a GeoTIFF, a band per class; cells without searched ground are NaN.

    Raises UserError for polygons, and for a raster too large to be one.
    """
    if counts.cells is None or counts.side is None:
        raise UserError("A raster of density has square cells; count in a grid.", parameter="grid")
    if not len(counts.cells):
        raise UserError("There is no cell, so there is no raster of density.")
    (left, top), (right, bottom) = counts.cells.min(axis=0), counts.cells.max(axis=0) + 1
    width, height = int(right - left), int(bottom - top)
    if width * height > _MOST_PIXELS:
        raise UserError(
            f"A raster of {width:,} x {height:,} cells is too large; take larger cells.", parameter="grid"
        )
    column, row = (counts.cells - (left, top)).T
    side = counts.side
    place = (side, 0.0, left * side, 0.0, side, top * side)
    if counts.plane.crs is not None:  # north is up
        row = height - 1 - row
        place = (side, 0.0, left * side, 0.0, -side, bottom * side)
    profile = {
        "driver": "GTiff", "width": width, "height": height, "count": len(counts.classes), "dtype": "float32",
        "nodata": float("nan"), "compress": "deflate", "tiled": True, "transform": rasterio.Affine(*place),
        "crs": None if counts.plane.crs is None else rasterio.CRS.from_wkt(counts.plane.crs.to_wkt()),
    }  # fmt: skip
    unit = "per hectare" if counts.has_metres else "per million pixels"
    with staged(path) as folder, rasterio.Env(GDAL_NUM_THREADS="1"), quiet():
        stage = folder / path.name
        with rasterio.open(stage, "w", **profile) as file:
            file.update_tags(
                TIFFTAG_SOFTWARE="ecodetect", ecodetect=json.dumps({"counts": _described(counts)})
            )
            for band, name in enumerate(counts.classes, 1):
                values = np.full((height, width), np.nan, np.float32)
                values[row, column] = counts.density[:, band - 1]
                file.write(values, band)
                file.set_band_description(band, name)
                file.set_band_unit(band, unit)
        settle(stage, path, replace=overwrite)


def _title(counts: Counts) -> str:
    """What the column with the names is called."""
    return "polygon" if counts.cells is None else "cell"


def _described(counts: Counts) -> dict[str, Any]:
    """What the files say of themselves."""
    grid = {} if counts.side is None else {"grid": counts.plane.said(counts.side)}
    return {"individuals": counts.total, "inside": counts.inside, "classes": list(counts.classes), **grid}


def _limits(density: NDArray[np.float64]) -> tuple[float, ...]:
    """The limits of shades: from 0 to the highest density, equal steps."""
    highest = float(np.nanmax(density, initial=0.0)) if np.isfinite(density).any() else 0.0
    return tuple((highest or 1.0) * step / _SHADES for step in range(_SHADES + 1))


def _around(counts: Counts) -> Grid:
    """A grid of pixels that holds all polygons or cells, where nobody knows the raster."""
    bounds = np.array([shape.bounds for shape in counts.outlines]).reshape(-1, 4)
    right, bottom = np.ceil(bounds[:, 2:].max(axis=0, initial=1.0)).astype(int).tolist()
    return Grid(right, bottom)


def _cell(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.8g}"
