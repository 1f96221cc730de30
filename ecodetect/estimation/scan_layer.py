"""What a scan found and where it searched: its layer, its rasters beside it, its area, in one plane."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.bundle.footprint import known_there
from ecodetect.errors import LayerError, UserError
from ecodetect.estimation.ground import Searched, share_ground
from ecodetect.estimation.named_polygons import in_plane
from ecodetect.estimation.plane import Plane, plane_at, plane_of
from ecodetect.formats import files as formats
from ecodetect.formats.column_roles import class_column, classes_in
from ecodetect.formats.image_matching import base_name
from ecodetect.formats.parts import united
from ecodetect.grid import Floats
from ecodetect.layer import Layer
from ecodetect.matching import centres
from ecodetect.models import choosing
from ecodetect.raster.finding import expand
from ecodetect.raster.options import RasterOptions
from ecodetect.region import area_on, read_area

Texts = NDArray[np.object_]
_SAME_AREA = 0.02  # of the ground; what rounding to whole pixels makes of small rasters comes on top


@dataclass(frozen=True, eq=False, slots=True)
class ScanFacts:
    """What a scan's file says of itself.

    key : of the question that it answers; of the features, where it says none.
    fingerprints : by raster.
    hectares : searched, by raster; those that are known.
    settings : what decides the answer, as text: a threshold, a score.
    trained : cells where the model was trained, if the rasters meet them.
    """

    file: str
    key: str
    model: str
    fingerprints: Mapping[str, str]
    hectares: Mapping[str, float]
    settings: Mapping[str, str]
    trained: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, eq=False, slots=True)
class ScanLayer:
    """Detections and searched ground in one plane.

    ids, labels, scores, sources, xy : of each detection, (N,) and (N, 2).
    classes : those that are counted.
    rasters : that were searched; empty: only `area` says what was.
    area : polygons in the plane outside which nothing was searched, where there is no raster.
    largest : diameter of the largest detection in units of the plane; None where no size is known.
    """

    facts: ScanFacts
    ids: Texts
    labels: Texts
    scores: Floats
    sources: Texts
    xy: Floats
    classes: tuple[str, ...]
    rasters: tuple[Searched, ...]
    plane: Plane
    area: shapely.Geometry | None = None
    largest: float | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: NDArray[Any]) -> ScanLayer:
        """The same with some of its detections."""
        return replace(
            self,
            ids=self.ids[rows],
            labels=self.labels[rows],
            scores=self.scores[rows],
            sources=self.sources[rows],
            xy=self.xy[rows],
        )

    def is_trained_at(self, lonlat: Floats) -> NDArray[np.bool_]:
        """Which places, (N, 2) in degrees, lie within about 1 km of where the model was trained."""
        return known_there([{"places": self.facts.trained}], lonlat)


def read_scan(
    path: str | os.PathLike[str],
    *,
    images: Sequence[str | os.PathLike[str]] = (),
    area: str | os.PathLike[str] | None = None,
    classes: Sequence[str] = (),
    allow_vrt: bool = False,
) -> ScanLayer:
    """Read a scan's layer, and open the rasters that it names, beside it or among `images`.

    area : file of polygons outside which nothing was searched; stands alone where no raster is found.
    classes : those to count; none: all.
    Raises UserError where the searched ground isn't known, or a raster isn't the one that was scanned.
    """
    file = Path(path)
    stated = formats.read_metadata(file)
    rasters = searched_rasters(file, stated, images, area, allow_vrt=allow_vrt)
    grid = rasters[0].grid if len(rasters) == 1 else None
    layer = formats.read(file, grid=grid, image=rasters[0].name if grid is not None else None)
    facts = facts_of(file, stated, layer)
    polygons: shapely.Geometry | None = None
    if rasters:
        plane = plane_of([each.grid for each in rasters])
        xy = plane.places(layer, about=file.name)
    else:
        plane = plane_at(centres(layer.in_world()), layer.frame_crs)
        xy = plane.places(layer, about=file.name)
        polygons = outlined(area, plane)
    labels = _labels(layer)
    known = _classes(facts, labels, classes)
    scores = np.asarray(layer.columns.get("score", np.full(len(layer), np.nan)), np.float64)
    ids = _texts(layer, "id", "")
    if len(set(ids.tolist())) < len(ids) or "" in ids:
        ids = np.array([str(row + 1) for row in range(len(ids))], object)
    found = ScanLayer(
        facts,
        ids,
        labels,
        scores,
        _texts(layer, "source", ""),
        xy,
        known,
        rasters,
        plane,
        polygons,
        _largest(layer, plane),
    )
    return found[np.isin(labels, list(known))]


def facts_of(file: Path, stated: Mapping[str, Any], layer: Layer | None = None) -> ScanFacts:
    """What a file says of itself.

    stated : its metadata.  layer : its features, for files that say nothing.
    """
    rasters = [each for each in stated.get("rasters") or () if isinstance(each, Mapping) and "source" in each]
    key = str(stated.get("key", ""))
    if not key and layer is not None:
        wkb = shapely.to_wkb(layer.in_world()).tolist()
        key = hashlib.sha256(b"".join(sorted(each for each in wkb if each))).hexdigest()[:32]
    settings: dict[str, str] = {}
    for each in (*(raster.get("settings") for raster in rasters[:1]), stated.get("settings")):
        if isinstance(each, Mapping):
            settings |= {str(name): str(value) for name, value in each.items()}
    trained = {tuple(cell) for raster in rasters for cell in raster.get("trained_here", ())}
    hectares = {str(each["source"]): (each.get("searched") or {}).get("area_ha") for each in rasters}
    return ScanFacts(
        file.name,
        key,
        str(stated.get("model", "")),
        {str(each["source"]): str(each.get("fingerprint", "")) for each in rasters},
        {name: float(value) for name, value in hectares.items() if value is not None},
        settings,
        tuple(sorted(trained)),
    )


def searched_rasters(
    file: Path,
    stated: Mapping[str, Any],
    images: Sequence[str | os.PathLike[str]],
    area: str | os.PathLike[str] | None,
    *,
    allow_vrt: bool,
) -> tuple[Searched, ...]:
    """The rasters that were searched."""
    given: dict[str, list[str]] = {}
    for image in expand(images):
        given.setdefault(base_name(image), []).append(image)
    facts = facts_of(file, stated)
    settings = stated.get("settings") or {}
    named = [each for each in stated.get("rasters") or () if isinstance(each, Mapping) and "source" in each]
    if not named:
        named = [{"source": name, "path": path} for name, paths in given.items() for path in paths]
    if not named and area is None:
        raise UserError(
            f"{file.name} doesn't say which ground was searched; name its rasters, or give its outline.",
            parameter=("image", "area"),
        )
    found = []
    for each in named:
        name = str(each["source"])
        beside = [str(file.parent / name)] if (file.parent / name).is_file() else []
        paths = [str(each["path"])] if "path" in each else given.get(name, beside)
        if not paths and area is not None and not given:
            return ()
        if not paths:
            raise UserError(
                f"{file.name} was made from {name}, which isn't beside it; name the raster, or give the"
                " outline of the searched ground.",
                parameter=("image", "area"),
            )
        bands = each.get("bands") if not each.get("palette") else None
        nodata = settings.get("nodata")
        options = RasterOptions(
            bands=",".join(str(number) for number in bands.values()) if isinstance(bands, Mapping) else None,
            gsd_m=settings.get("gsd_m"),
            nodata=None if nodata is None else float(nodata),
            allow_vrt=allow_vrt,
        )
        found.append(_opened(name, paths, options, facts.fingerprints.get(name, "")))
    return _within_area(found, area)


def _opened(name: str, paths: Sequence[str], options: RasterOptions, fingerprint: str) -> Searched:
    """The raster among those of one name that was scanned."""
    for path in paths:
        with options.opened(path) as raster:
            if not fingerprint or raster.fingerprint == fingerprint:
                return Searched(path, name, options, raster.grid, raster.bands)
    raise UserError(
        f"{paths[0]} isn't the raster that was scanned: its content is another; name that raster.",
        parameter="image",
    )


def _within_area(rasters: Sequence[Searched], area: str | os.PathLike[str] | None) -> tuple[Searched, ...]:
    """Rasters with the part of them that was searched."""
    if area is None:
        return tuple(rasters)
    if len(rasters) == 1:
        (one,) = rasters
        return (replace(one, area=read_area(os.fspath(area), one.grid, image=one.name)),)
    layer = formats.read(area)
    found = [(each, area_on(layer, each.grid)) for each in rasters]
    inside = tuple(replace(each, area=region) for each, region in found if region is not None)
    if not inside:
        raise UserError(f"{area} meets none of the {len(rasters)} rasters.")
    return inside


def outlined(area: str | os.PathLike[str] | None, plane: Plane) -> shapely.Geometry:
    """The polygons of a file in a plane, together."""
    assert area is not None
    layer = formats.read(area)
    shapes = united(in_plane(layer, plane, about=os.fspath(area)))
    whole = shapely.union_all(shapely.make_valid(shapes[shapely.area(shapes) > 0]))
    if whole.is_empty:
        raise LayerError(f"{area} has no polygon; draw the outline of the searched ground.")
    shapely.prepare(whole)
    return whole


def check_area(
    facts: ScanFacts, rasters: Sequence[Searched], plane: Plane, square_metres: Sequence[float]
) -> None:
    """Raise UserError where more ground is there than was searched: the scan had an area of interest.

    square_metres : of each raster. Of rasters that share ground, the scan counts it for one of them.
    """
    stated = [facts.hectares.get(each.name) for each in rasters]
    known = [hectares for hectares in stated if hectares is not None]
    there = sum(square_metres) / 10_000
    if len(known) < len(stated) or any(each.grid.gsd is None for each in rasters):
        return
    rounding = max(2 / each.grid.width + 2 / each.grid.height for each in rasters)
    if there > sum(known) * (1 + _SAME_AREA + rounding) and not share_ground(rasters, plane):
        raise UserError(
            f"Only {sum(known):.4g} of {there:.4g} ha of {_named(rasters)} were searched; give the"
            " outline of what was.",
            parameter="area",
        )


def _named(rasters: Sequence[Searched]) -> str:
    return rasters[0].name if len(rasters) == 1 else f"{len(rasters)} rasters"


def _classes(facts: ScanFacts, labels: Texts, wanted: Sequence[str]) -> tuple[str, ...]:
    """The classes to count, in the order of the model's card where it is known."""
    card = choosing.known().get(facts.model)
    there = sorted(set(labels.tolist()) - {""})
    known = [*(card.classes if card is not None else ()), *there]
    classes = tuple(dict.fromkeys(known))
    unknown = [name for name in wanted if name not in classes]
    if unknown and classes:
        raise UserError(f"{facts.file} has no class '{unknown[0]}'; it has: {', '.join(classes)}.")
    if not classes and not wanted:
        raise UserError(
            f"{facts.file} has no detection and no class; name the class to count.", parameter="class"
        )
    return tuple(wanted) or classes


def _labels(layer: Layer) -> Texts:
    """The classes of detections; one class for all where another program's layer has no column for them."""
    column = "label" if "label" in layer.columns else class_column(layer.columns)
    if column is None:
        return np.array(["object"] * len(layer), object)
    return classes_in(layer.columns, column, are_stated=layer.states_classes)


def _texts(layer: Layer, name: str, missing: str) -> Texts:
    """A column of texts; `missing` where there is none."""
    if name not in layer.columns:
        return np.array([missing] * len(layer), object)
    return np.array([str(value) for value in layer.columns[name].tolist()], object)


def _largest(layer: Layer, plane: Plane) -> float | None:
    """The diameter of the largest detection in units of the plane; None where none is known."""
    for name, unit in (("diameter_m", plane.metres), ("diameter_px", 1 / plane.pixel)):
        values = np.asarray(layer.columns.get(name, np.empty(0)), np.float64)
        if unit is not None and np.isfinite(values).any():
            return float(np.nanmax(values)) / unit
    return None
