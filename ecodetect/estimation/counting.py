"""Counts where people need them: individuals by polygon or cell, per class and source, with their density.

These are counts of detections. How far the number of individuals is from them, `plots` and `estimate` tell.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.errors import UserError
from ecodetect.estimation import units_of_ground
from ecodetect.estimation.ground import Searched, tallied
from ecodetect.estimation.named_polygons import read_polygons
from ecodetect.estimation.placed_detections import NAMELESS, Ints, PlacedDetections, read_detections
from ecodetect.estimation.plane import Plane
from ecodetect.estimation.scan_layer import check_area, facts_of, outlined, searched_rasters
from ecodetect.estimation.units_of_ground import GroundUnits
from ecodetect.formats import files as formats
from ecodetect.grid import Floats
from ecodetect.layer import Geometries
from ecodetect.notes import Note
from ecodetect.sizes import Length

_WORLD = 1e12  # side of a cell that holds a whole raster
_OVERLAP = 1e-6  # of the ground of all polygons: rounding


@dataclass(frozen=True, slots=True)
class CountRow:
    """Individuals of one class from one source in one polygon or cell.

    unit : its number in `Counts.names`.
    source : of the detections; "" where the layer names none.
    diameter : mean, in metres or pixels as `Counts` says; None where no size is known.
    """

    unit: int
    source: str
    label: str
    individuals: int
    diameter: float | None


@dataclass(frozen=True, eq=False, slots=True)
class Counts:
    """Individuals by polygon or cell.

    names, outlines : of the polygons or cells, (U,); outlines in `plane`.
    classes : their names, in alphabetical order.
    individuals : by polygon or cell and class, int64 (U, K). Where polygons overlap, each counts its own.
    diameter : their mean, float64 (U, K), in metres, or in pixels where metres are unknown; NaN without any.
    area : ground of each, (U,), in hectares, or in millions of pixels where metres are unknown.
    searched : share of each that was searched, (U,); NaN where nobody knows.
    rows : the same counts by source, those above 0.
    total : individuals in the layer.  inside : those in a polygon or cell.
    cells : column and row of each cell, (U, 2); None for polygons.  side : of a cell, in units of the plane.
    notes : for the user.
    """

    names: tuple[str, ...]
    outlines: Geometries
    classes: tuple[str, ...]
    individuals: NDArray[np.int64]
    diameter: Floats
    area: Floats
    searched: Floats
    rows: tuple[CountRow, ...]
    total: int
    inside: int
    plane: Plane
    cells: Ints | None = None
    side: float | None = None
    notes: tuple[Note, ...] = ()

    @property
    def has_metres(self) -> bool:
        """Whether ground is in hectares and sizes in metres; else in millions of pixels and in pixels."""
        return self.plane.metres is not None

    @property
    def searched_area(self) -> Floats:
        """Ground that was searched, (U,), in units of `area`; all of it where nobody knows."""
        return self.area * np.where(np.isnan(self.searched), 1.0, self.searched)

    @property
    def density(self) -> Floats:
        """Individuals per hectare (or million pixels) of searched ground, (U, K); NaN where there is none."""
        ground = self.searched_area[:, None]
        none = np.full(self.individuals.shape, np.nan)
        return np.asarray(np.divide(self.individuals, ground, out=none, where=ground > 0))


def count(
    layer: str | os.PathLike[str],
    *,
    by: str | os.PathLike[str] | None = None,
    grid: str | Length | None = None,
    images: Sequence[str | os.PathLike[str]] = (),
    area: str | os.PathLike[str] | None = None,
    layer_name: str | None = None,
    by_layer: str | None = None,
    class_column: str | None = None,
    allow_vrt: bool = False,
) -> Counts:
    """Count the individuals of a layer by polygon or by cell.

    Parameters
    ----------
    layer : str or path-like
        A scan's output, or any file that `formats` reads. An individual is where its centre is.
    by : str or path-like, optional
        File of polygons, in any CRS. A place on the border of two belongs to one of them.
    grid : str or Length, optional
        Side of square cells instead (`50m`; `200px` without a CRS). They begin at the origin of the rasters'
        CRS, or of the zone of UTM where its units aren't metres on the ground to 2 %; without a CRS at the
        raster's corner. Half open.
    images : sequence of str or path-like
        The rasters that were searched, where they don't lie beside the layer.
    area : str or path-like, optional
        File of polygons outside which nothing was searched.
    layer_name, by_layer : str, optional
        Which layer, where a file has several.
    class_column : str, optional
        Column with the class; `label`, or found by its name.
    allow_vrt : see `open_raster`.

    Returns
    -------
    Counts
        Without rasters or an area, nobody knows what was searched: shares are NaN and densities per ground of
        the polygon, which a note says.

    Raises
    ------
    UserError
        In one sentence, when something can't be read or doesn't fit together.
    """
    if (by is None) == (grid is None):
        raise UserError(
            "Individuals are counted by polygons or in a grid; give one.", parameter=("by", "grid")
        )
    path = Path(layer)
    rasters, stated = _ground(path, images, area, allow_vrt=allow_vrt)
    grids = {each.name: each.grid for each in rasters}
    found = read_detections(path, stated, grids, layer=layer_name, class_column=class_column)
    plane = found.plane
    outline = outlined(area, plane) if area is not None and not rasters else None
    _check_ground(rasters, stated, plane, path)
    notes = list(found.notes)
    if not rasters and outline is None:
        text = (
            "its rasters aren't beside it, so the share that was searched is unknown, and densities are per"
        )
        text += " ground of each polygon or cell."
        notes.append(
            Note("searched-unknown", text, about=path.name, kind="doubt", parameter=("image", "area"))
        )
    side = None
    if by is not None:
        units = units_of_ground.polygons(read_polygons(by, plane, layer=by_layer), rasters, plane, outline)
        pairs = list(units_of_ground.holders(units.shapes, found.xy))
        place, unit = (np.concatenate(each) for each in zip(*pairs, strict=True)) if pairs else (_NONE, _NONE)
        notes += _said_of_polygons(units, Path(by).name)
    else:
        assert grid is not None
        length = grid if isinstance(grid, Length) else Length.parse(grid, name="The side of a cell")
        side = _side(length, plane, len(rasters))
        units, unit = units_of_ground.cells(found.xy, side, rasters, plane, outline)
        place = np.arange(len(found))
    inside = len(np.unique(place))
    if inside < len(found) and by is not None:
        text = f"{len(found) - inside:,} of {len(found):,} individuals lie in no polygon."
        notes.append(Note("in-no-polygon", text, about=path.name))
    return _counted(found, units, place, unit, side, inside, tuple(notes))


_NONE = np.empty(0, np.int64)


def _ground(
    path: Path,
    images: Sequence[str | os.PathLike[str]],
    area: str | os.PathLike[str] | None,
    *,
    allow_vrt: bool,
) -> tuple[tuple[Searched, ...], Mapping[str, Any]]:
    """The rasters that were searched, none where nobody knows, and what the layer's file says of itself."""
    try:
        stated = formats.read_metadata(path)
    except UserError:
        stated = {}  # of another program, or of none: said where it is read
    named = [each for each in stated.get("rasters") or () if isinstance(each, Mapping) and "source" in each]
    are_beside = bool(named) and all((path.parent / str(each["source"])).is_file() for each in named)
    if not (images or are_beside) and (area is None or not named):
        return (), stated
    return searched_rasters(path, stated, images, area, allow_vrt=allow_vrt), stated


def _check_ground(rasters: Sequence[Searched], stated: Mapping[str, Any], plane: Plane, path: Path) -> None:
    """Raise UserError where more ground is there than was searched: the scan had an area of interest."""
    facts = facts_of(path, stated)
    if rasters and facts.hectares:
        areas = [float(tallied(each, plane, _WORLD).area.sum()) for each in rasters]
        check_area(facts, rasters, plane, areas)


def _side(length: Length, plane: Plane, rasters: int) -> float:
    if not length.value > 0:
        raise UserError(f"The side of a cell must be above 0; got {length}.", parameter="grid")
    if plane.crs is not None and length.unit != "m":
        raise UserError(f"Cells on a map have a side in metres, such as 50m; got {length}.", parameter="grid")
    if plane.crs is None and rasters > 1:
        raise UserError(f"{rasters} rasters without a CRS have no grid in common; count each by itself.")
    return plane.units(length, name="The side of a cell")


def _said_of_polygons(units: GroundUnits, name: str) -> list[Note]:
    """A note where polygons overlap."""
    ground = float(shapely.area(units.shapes).sum())
    twice = ground - float(shapely.area(shapely.union_all(units.shapes)))
    if twice <= _OVERLAP * ground:
        return []
    text = f"they overlap on {twice / ground:.1%} of their ground; each counts its own, so they don't add up."
    return [Note("polygons-overlap", text, about=name)]


def _counted(
    found: PlacedDetections,
    units: GroundUnits,
    place: Ints,
    unit: Ints,
    side: float | None,
    inside: int,
    notes: tuple[Note, ...],
) -> Counts:
    """The counts of pairs of a detection and what holds it."""
    classes, sources = found.classes or (NAMELESS,), found.sources or ("",)
    kinds, origins = len(classes), len(sources)
    key = (unit * origins + found.source[place]) * kinds + found.label[place]
    keys, row = np.unique(key, return_inverse=True)
    row = row.reshape(-1)
    number = np.bincount(row, minlength=len(keys))
    size = found.size[place]
    known = np.isfinite(size)
    sized = np.bincount(row[known], minlength=len(keys))
    sums = np.bincount(row[known], size[known], minlength=len(keys))
    unit_of, rest = np.divmod(keys, origins * kinds)
    source_of, label_of = np.divmod(rest, kinds)
    shape = (len(units), kinds)
    individuals = np.zeros(shape, np.int64)
    together, all_sized = np.zeros(shape), np.zeros(shape)
    np.add.at(individuals, (unit_of, label_of), number)
    np.add.at(together, (unit_of, label_of), sums)
    np.add.at(all_sized, (unit_of, label_of), sized)
    rows = tuple(
        CountRow(u, sources[s], classes[k], n, total / of if of else None)
        for u, s, k, n, total, of in zip(
            *(each.tolist() for each in (unit_of, source_of, label_of, number, sums, sized)), strict=True
        )
    )
    metres = found.plane.metres
    area = shapely.area(units.shapes) * (1e-6 if metres is None else metres**2 / 10_000)
    return Counts(
        units.names,
        units.shapes,
        classes,
        individuals,
        np.divide(together, all_sized, out=np.full(shape, np.nan), where=all_sized > 0),
        area,
        units.searched,
        rows,
        len(found),
        inside,
        found.plane,
        units.cells,
        side,
        notes,
    )
