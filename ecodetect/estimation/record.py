"""The draw as the file of plots keeps it: the scan, the strata, the plots and what was found in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS

from ecodetect import strict_json
from ecodetect.errors import UserError
from ecodetect.estimation.plane import Plane
from ecodetect.grid import Floats, Grid
from ecodetect.version import __version__

VERSION = 1


@dataclass(frozen=True, slots=True)
class RecordedStratum:
    """A stratum of cells.

    least, most : detections that a cell of it has; they tell the stratum of a cell.
    detections : on all of them, by class.
    occupied : cells with a detection, by class; "": of any.
    """

    name: str
    cells: int
    least: int
    most: int
    detections: Mapping[str, int]
    occupied: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RecordedPlot:
    """A plot as it was drawn.

    cell : what identifies its cell.  stratum : name of its stratum.
    is_blind : it is checked by who sees no detection.
    bounds, area : of its outline in the plane, to know it again.
    detections : id, class, x and y of each detection in it.
    """

    number: int
    cell: str
    stratum: str
    is_blind: bool
    bounds: tuple[float, float, float, float]
    area: float
    detections: tuple[tuple[str, str, float, float], ...]

    def count(self, name: str) -> int:
        """Detections of a class."""
        return sum(label == name for _, label, _, _ in self.detections)


@dataclass(frozen=True, slots=True)
class Record:
    """A draw.

    scan : file name, key, model and settings of the scan; fingerprints by raster.
    crs : of the plane as WKT; None: pixels, of a raster with `grid` (width, height and transform).
    metres, pixel : of a unit and units of a pixel, as in `Plane`.
    side : of a cell in units of the plane; None: each raster is a cell.
    rounds : plots after the first draw and after each extension.
    hectares : searched ground; None where it is unknown.
    within : in units of the plane, how far a marked individual may lie from its detection; None: not matched.
    margin : of the detections shown around plots.
    blind : how many plots, from the first, show no detection; None: all.
    strata_by : file of the polygons with strata of their own.
    apart_km : the distance of the farthest rasters.
    trained : plots within about 1 km of where the model was trained.
    """

    scan: Mapping[str, str]
    settings: Mapping[str, str]
    fingerprints: Mapping[str, str]
    classes: tuple[str, ...]
    crs: str | None
    grid: tuple[float, ...] | None
    metres: float | None
    pixel: float
    side: float | None
    seed: int
    first: int
    rounds: tuple[int, ...]
    hectares: float | None
    within: float | None
    margin: float
    blind: int | None
    strata_by: str | None
    area_file: str | None
    apart_km: float
    trained: int
    strata: tuple[RecordedStratum, ...]
    plots: tuple[RecordedPlot, ...]
    version: int = VERSION
    ecodetect: str = __version__

    @property
    def plane(self) -> Plane:
        """The plane that cells lie in."""
        grid = None
        if self.grid is not None:
            wide, high, a, b, c, d, e, f = self.grid
            grid = Grid(int(wide), int(high), (a, b, c, d, e, f))
        return Plane(None if self.crs is None else CRS.from_wkt(self.crs), self.metres, self.pixel, grid)

    @property
    def cells(self) -> Floats:
        """Cells of each stratum, (H,)."""
        return np.array([each.cells for each in self.strata], np.float64)

    @property
    def stratum_of(self) -> NDArray[np.int64]:
        """The number of the stratum of each plot, (n,)."""
        number = {each.name: index for index, each in enumerate(self.strata)}
        return np.array([number[each.stratum] for each in self.plots], np.int64)

    def detected(self, classes: tuple[str, ...]) -> Floats:
        """Detections of some classes in each stratum, (H,)."""
        return np.array([sum(each.detections[name] for name in classes) for each in self.strata], np.float64)

    def occupied(self, classes: tuple[str, ...]) -> Floats:
        """Cells with a detection of one class, or of any, in each stratum, (H,)."""
        name = classes[0] if len(classes) == 1 else ""
        return np.array([each.occupied[name] for each in self.strata], np.float64)

    def found(self, classes: tuple[str, ...]) -> Floats:
        """Detections of some classes in each plot, (n,)."""
        return np.array([sum(map(each.count, classes)) for each in self.plots], np.float64)

    def to_json(self) -> str:
        """One line of JSON, with its names in order."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False, sort_keys=True)


def from_json(text: str, about: str) -> Record:
    """What `to_json` wrote; raises UserError for anything else, and for what a newer version wrote."""
    damaged = UserError(f"{about} is damaged: its table of the draw isn't as it was written; draw anew.")
    try:
        found = strict_json.read(text)
        if found.get("version", 0) > VERSION:
            raise UserError(f"{about} was drawn by a newer ecodetect ({found.get('ecodetect')}); update.")
        made = Record(
            **{
                **found,
                "classes": tuple(map(str, found["classes"])),
                "grid": None if found["grid"] is None else tuple(map(float, found["grid"])),
                "rounds": tuple(map(int, found["rounds"])),
                "strata": tuple(_as(RecordedStratum, each) for each in found["strata"]),
                "plots": tuple(_as(RecordedPlot, each) for each in found["plots"]),
            }
        )
        _check(made)
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise damaged from error
    return made


def _as(kind: Any, found: Any) -> Any:
    """A part of the record; lists become tuples."""
    values = {each.name: found[each.name] for each in fields(kind)}
    return kind(
        **{
            name: tuple(tuple(one) if isinstance(one, list) else one for one in value)
            if isinstance(value, list)
            else value
            for name, value in values.items()
        }
    )


def _check(made: Record) -> None:
    """Raise an error of Python's for values that arithmetic would trip over."""
    numbers = [made.seed, made.first, made.blind or 0, made.trained, *made.rounds]
    numbers += [value for each in made.strata for value in (each.cells, each.least, each.most)]
    numbers += [
        value for each in made.strata for value in (*each.detections.values(), *each.occupied.values())
    ]
    if any(not isinstance(value, int) or value < 0 for value in numbers):
        raise ValueError("a count")
    sizes = [made.pixel, made.margin, made.apart_km, *(made.grid or ())]
    sizes += [value for value in (made.metres, made.side, made.hectares, made.within) if value is not None]
    sizes += [value for each in made.plots for value in (*each.bounds, each.area)]
    sizes += [value for each in made.plots for _, _, x, y in each.detections for value in (x, y)]
    if any(not isinstance(value, int | float) for value in sizes):
        raise ValueError("a size")
    names = {each.name for each in made.strata}
    if any(each.stratum not in names for each in made.plots) or not made.classes:
        raise ValueError("a stratum")
    counts: list[int] = np.bincount(made.stratum_of, minlength=len(made.strata)).tolist()
    if any(number > each.cells for number, each in zip(counts, made.strata, strict=True)):
        raise ValueError("more plots than cells")
    for each in made.strata:
        made.detected(made.classes), each.occupied[""], [each.occupied[name] for name in made.classes]
