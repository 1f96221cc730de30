"""GeoJSON (RFC 7946) and GeoJSON text sequences: one feature per line, longitude and latitude on WGS 84.

Without a CRS the coordinates are those of the raster's transform, or its pixels, and a member
`ecodetect:frame` (`affine`, `pixel`) says so. The member `ecodetect` holds the layer's metadata.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import chain
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.errors import GridError, LayerError
from ecodetect.formats import Written
from ecodetect.formats.antimeridian import cut
from ecodetect.grid import Grid, describe_crs
from ecodetect.layer import Geometries, Layer, Stream

_METRES_PER_DEGREE = 111_320.0


def write(path: Path, stream: Stream) -> Written:
    """Write a stream as a FeatureCollection, or as a sequence of features (.geojsonl, .geojsons).

    Features without a place on the Earth are left out and counted. A sequence has no place for metadata or a
    frame. Raises LayerError where the CRS has no way to longitude and latitude.
    """
    batches = iter(stream)
    first = next(batches, None)
    frame = _frame(stream, first)
    is_sequence = path.suffix.lower() != ".geojson"
    if is_sequence and frame != "crs":
        raise LayerError(f"{path.name} can't say that there is no CRS; write a .geojson or .gpkg.")
    features = dropped = 0
    # An unpaired surrogate (a file name that isn't text) becomes the JSON escape of the same character.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        if not is_sequence:
            file.write(_opening(frame, stream.metadata))
        for batch in chain([] if first is None else [first], batches):
            if _frame(stream, batch) != frame:
                raise LayerError(f"{path.name} can't hold features with and without a CRS; write two files.")
            try:
                geometry = batch.in_lonlat() if frame == "crs" else batch.in_world()
            except GridError as error:
                crs = describe_crs(batch.frame_crs)
                raise LayerError(
                    f"{path.name} can't be GeoJSON: {crs} has no longitude and latitude; write a .gpkg."
                ) from error
            has_place = _has_place(geometry)
            if not has_place.all():
                dropped += int(np.count_nonzero(~has_place))
                batch, geometry = batch[has_place], geometry[has_place]
            if not len(batch):
                continue
            if frame == "crs":
                geometry = _rounded(cut(geometry), batch.grid)
            lines = _features(shapely.orient_polygons(geometry), batch.columns)
            if is_sequence:
                file.write("\n".join(lines) + "\n")
            else:
                file.write((",\n" if features else "\n") + ",\n".join(lines))
            features += len(batch)
        if not is_sequence:
            file.write("\n]}\n")
    notes = (f"{dropped} features have no place on the Earth and were left out.",) if dropped else ()
    return Written(path, features, dropped, notes)


def _frame(stream: Stream, batch: Layer | None) -> str:
    """`crs`, `affine` or `pixel`; a layer without grid and CRS is a plane: `affine`."""
    if stream.frame_crs is not None:
        return "crs"
    grid = stream.grid or (None if batch is None else batch.grid)
    if grid is not None:
        return grid.frame
    return "affine" if batch is not None and batch.crs is None else "crs"


def _opening(frame: str, metadata: Mapping[str, Any]) -> str:
    members = ['{"type":"FeatureCollection"', '"name":"detections"']
    if frame != "crs":
        members.append(f'"ecodetect:frame":"{frame}"')
    if metadata:
        text = json.dumps(_finite(metadata), ensure_ascii=False, allow_nan=False)
        members.append(f'"ecodetect":{text}')
    return ",\n".join([*members, '"features":['])


def _finite(value: Any) -> Any:
    """The same with null for NaN and infinity, which JSON doesn't have."""
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _has_place(geometry: Geometries) -> NDArray[np.bool_]:
    xy, owner = shapely.get_coordinates(geometry, return_index=True)
    lost = np.bincount(owner, weights=~np.isfinite(xy).all(axis=1), minlength=len(geometry)) > 0
    return np.asarray(~lost & (np.bincount(owner, minlength=len(geometry)) > 0))


def _rounded(geometry: Geometries, grid: Grid | None) -> Geometries:
    """Longitudes and latitudes with as many decimals as 1e-6 pixel needs, at least 8."""
    gsd = None if grid is None else grid.gsd
    if gsd is None:
        return geometry
    # Rounding moves a coordinate by half a unit: by 2e-7 pixel at most, a fifth of the precision promised.
    decimals = max(8, math.ceil(-math.log10(4e-7 * min(gsd) / _METRES_PER_DEGREE)))
    if decimals > 13:  # 180 in steps of 1e-14 is finer than float64
        return geometry
    moved: Geometries = shapely.transform(geometry, lambda xy: np.round(xy, decimals))
    return moved


def _features(geometry: Geometries, columns: Mapping[str, NDArray[Any]]) -> list[str]:
    """One line of JSON for each feature."""
    texts = {name: _json(values) for name, values in columns.items()}
    properties = ",".join(encode_basestring(name).replace("%", "%%") + ":%s" for name in texts)
    shapes = shapely.to_geojson(geometry)
    if "id" in texts:
        line = f'{{"type":"Feature","id":%s,"properties":{{{properties}}},"geometry":%s}}'
        return [line % row for row in zip(texts["id"], *texts.values(), shapes, strict=True)]
    line = f'{{"type":"Feature","properties":{{{properties}}},"geometry":%s}}'
    return [line % row for row in zip(*texts.values(), shapes, strict=True)]


def _json(values: NDArray[Any]) -> list[str]:
    """Each value of a column as JSON; null for what isn't finite or isn't there."""
    if values.dtype.kind == "f":
        return [repr(value) if math.isfinite(value) else "null" for value in values.tolist()]
    if values.dtype.kind == "b":
        return ["true" if value else "false" for value in values.tolist()]
    if values.dtype.kind in "iu":
        return [str(value) for value in values.tolist()]
    known: dict[Any, str] = {}
    for value in set(values.tolist()):
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        known[value] = "null" if missing else encode_basestring(str(value))
    return [known[value] for value in values.tolist()]
