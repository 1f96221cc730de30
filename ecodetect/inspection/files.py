"""Facts about a raster, a layer or a model.

The facts are a dict, JSON-able except for its `notes`; `ecodetect info` puts them into words.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ecodetect.cores import core_count
from ecodetect.detectors import table as detectors
from ecodetect.detectors.learned import NetworkKind
from ecodetect.detectors.protocol import scene_of
from ecodetect.errors import GridError, LayerError, UserError
from ecodetect.formats import files as formats
from ecodetect.formats.column_roles import class_column, classes_in
from ecodetect.grid import describe_crs
from ecodetect.layer import Layer
from ecodetect.models import choosing as models
from ecodetect.raster.options import RasterOptions
from ecodetect.raster.reading import Raster
from ecodetect.runtime.onnx_file import OnnxModel
from ecodetect.runtime.opening import usual_runtime

SAMPLES = 64  # cells of 512 x 512 px: a second for a large raster
_CACHE_BYTES = 128 * 2**20
# Suffixes of features that are also those of pictures: there the picture is meant.
_PICTURES = {".tif", ".tiff", ".png", "/"}


def describe(
    path: str | os.PathLike[str],
    *,
    bands: str | None = None,
    gsd_m: float | None = None,
    nodata: float | None = None,
    layer: str | None = None,
    allow_vrt: bool = False,
) -> dict[str, Any]:
    """Facts about a raster, a file of features or a model; `kind` names which, `notes` are objects of `Note`.

    path : a file, or the name of a shipped model.
    bands, gsd_m, nodata, allow_vrt : as in `open_raster`.
    layer : which layer, in a file with several.
    Returns a dict: sizes in pixels, lengths in metres on the ground at the raster's centre, areas in
    hectares, extents in the file's CRS and in WGS 84 degrees; unknown values are None.
    Raises UserError when it is none of these, or can't be read.
    """
    if "|" in os.fspath(path):
        path, layer = formats.source_of(path, layer)
    options = RasterOptions(bands=bands, gsd_m=gsd_m, nodata=nodata, allow_vrt=allow_vrt)
    suffix = Path(path).suffix.lower()
    inside = None if Path(path).exists() else models.shipped(os.fspath(path))
    if inside is not None:
        return describe_model(inside)
    if suffix in models.SUFFIXES:
        return describe_model(path)
    if suffix in set(formats.suffixes(writing=False)) - _PICTURES or Path(path).is_dir():
        try:
            return describe_layer(formats.read(path, layer=layer), path)
        except LayerError:
            if suffix != ".gpkg":  # which may hold rasters too
                raise
            try:
                raster = options.opened(path)
            except UserError:
                raster = None
            if raster is None:
                raise
            with raster:
                return describe_raster(raster)
    with options.opened(path) as raster:
        return describe_raster(raster)


def describe_raster(raster: Raster) -> dict[str, Any]:
    """Facts about a raster. Ranges and the share without data come from samples, whose size is stated.

    Lengths in metres on the ground, at the raster's centre; None where they are unknown.
    """
    grid, header = raster.grid, raster.header
    gsd = grid.gsd
    with raster.env(cache_bytes=_CACHE_BYTES, threads=core_count()):
        sampled = _sampled(raster)
        fingerprint = raster.fingerprint
    ground = None if gsd is None else [grid.width * gsd[0], grid.height * gsd[1]]
    return {
        "kind": "raster",
        "file": raster.name,
        "format": raster.driver,
        "width_px": grid.width,
        "height_px": grid.height,
        "ground_m": ground,
        "area_ha": None if ground is None else ground[0] * ground[1] / 10_000,
        "gsd_m": None if gsd is None else list(gsd),
        "gsd_is_stated": grid.stated_gsd is not None,
        "frame": grid.frame,
        "crs": None if grid.crs is None else describe_crs(grid.crs),
        "transform": list(grid.transform),
        "centre_lonlat": _centre(raster),
        "dtype": raster.dtype,
        "value_range": raster.value_range,
        **sampled,
        "no_data_by": [
            *(["nodata value"] if header.nodata is not None else []),
            *(["alpha band"] if header.alpha is not None else []),
            *(["mask"] if header.has_mask else []),
        ],
        "nodata": None if header.nodata is None else _plain(header.nodata[0]),
        "block_px": [raster.block_shape[1], raster.block_shape[0]],
        "is_tiled": raster.block_shape[1] < grid.width,
        "compression": header.structure.get("COMPRESSION"),
        "is_cog": header.structure.get("LAYOUT") == "COG",
        "overviews": list(raster.overview_factors),
        "detectors": _detectors(raster),
        "fingerprint": fingerprint,
        "notes": list(raster.notes),
    }


def _sampled(raster: Raster) -> dict[str, Any]:
    """Ranges of the bands and the share of pixels without data, from cells on a lattice."""
    grid = raster.grid
    samples = raster.samples(grid, raster.bands, most=SAMPLES)
    low = np.full(len(raster.bands), np.inf)
    high = np.full(len(raster.bands), -np.inf)
    seen = valid = 0
    for cell in samples.cells:
        chip = samples.read(cell)
        seen += cell.area
        values = chip.pixels.reshape(len(raster.bands), -1)
        if chip.valid is not None:
            values = values[:, chip.valid.ravel()]
        valid += values.shape[1]
        if values.size:
            low, high = np.minimum(low, values.min(axis=1)), np.maximum(high, values.max(axis=1))
    # Empty cells of a sparse raster are known without reading, and aren't sampled.
    holding = sum(cell.area for cell in raster.samples(grid, raster.bands, most=grid.window.area).cells)
    share = 1 - (valid / seen if seen else 0) * holding / grid.window.area
    return {
        "bands": [
            {"name": name, "low": _plain(least), "high": _plain(most)}
            for name, least, most in zip(raster.bands, low, high, strict=True)
        ],
        "no_data_share": share,
        "sampled_share": seen / holding if holding else 1.0,
    }


def _centre(raster: Raster) -> list[float] | None:
    grid = raster.grid
    if not grid.has_lonlat:
        return None
    lonlat = grid.to_lonlat([(grid.width / 2, grid.height / 2)])[0]
    return [float(value) for value in lonlat] if np.isfinite(lonlat).all() else None


def _detectors(raster: Raster) -> dict[str, dict[str, Any]]:
    """How each detector would read the raster with its defaults: its bands, or why it can't.

    Shipped models are included, suitable ones first; detectors that need training aren't.  meant : whether it
    makes sense here; `why` not, in words.
    """
    scene = scene_of(raster)
    found: dict[str, dict[str, Any]] = {}
    for name, card in models.known().items():
        why = models.misfit(card, scene, source=raster.name)
        found[name] = (
            {"fits": False, "meant": False, "why": str(why)}
            if why is not None
            else {
                "fits": True,
                "meant": (unmeant := models.unmeant(card, scene)) is None,
                **({} if unmeant is None else {"why": f"The model '{name}' {unmeant}."}),
                "bands": list(card.bands),
                "largest_px": card.largest_px,
                "gsd_m": card.gsd_m,
            }
        )
    for name in sorted(detectors.unlearned()):
        try:
            needs = detectors.build(name, scene).needs
        except UserError as error:
            found[name] = {"fits": False, "meant": False, "why": str(error)}
        else:
            found[name] = {
                "fits": True,
                "meant": True,
                "bands": list(needs.bands),
                "largest_px": needs.largest_px,
                "gsd_m": needs.gsd_m,
            }
    return dict(sorted(found.items(), key=lambda each: (not each[1]["meant"], not each[1]["fits"])))


def describe_model(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The contents of a model's card, size and hash of its file, and what runs its network."""
    found = models.read(Path(path))
    has_network = isinstance(detectors.learned(found.card.detector), NetworkKind)
    return {
        "kind": "model",
        "file": Path(path).name,
        "parameters": found.parameters
        if isinstance(found, OnnxModel)
        else sum(values.size for values in found.weights.values()),
        "megabytes": Path(path).stat().st_size / 1e6,
        "hash": found.hash,
        "runtime": usual_runtime(found) if has_network else None,
        "card": dataclasses.asdict(found.card),
        "notes": [],
    }


def describe_layer(layer: Layer, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Facts about features: their number by kind and class, their extent, and the file's metadata."""
    world = layer.in_world()
    types = Counter(str(geometry.geom_type) for geometry in world if geometry is not None)
    column = class_column(layer.columns)
    names = (
        [] if column is None else classes_in(layer.columns, column, are_stated=layer.states_classes).tolist()
    )
    crs = layer.frame_crs
    return {
        "kind": "layer",
        "file": Path(path).name,
        "features": len(layer),
        "without_geometry": len(layer) - sum(types.values()),
        "geometry_types": dict(sorted(types.items())),
        "class_column": column,
        "classes": dict(sorted(Counter(names).items())),
        "crs": None if crs is None else describe_crs(crs),
        "extent": _extent(world),
        "extent_lonlat": _extent_lonlat(layer),
        "columns": {name: str(values.dtype) for name, values in layer.columns.items()},
        "metadata": dict(layer.metadata),
        "notes": list(layer.notes),
    }


def _extent(geometries: Any) -> list[float] | None:
    import shapely

    if not len(geometries):
        return None
    bounds = shapely.total_bounds(geometries)
    return [float(value) for value in bounds] if np.isfinite(bounds).all() else None


def _extent_lonlat(layer: Layer) -> list[float] | None:
    try:
        return _extent(layer.in_lonlat())
    except GridError:
        return None


def _plain(value: Any) -> float | int | None:
    """A number that JSON can hold."""
    number = float(value)
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
