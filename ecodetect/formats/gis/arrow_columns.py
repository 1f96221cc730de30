"""An Arrow table from a file as the geometries and columns of a Layer."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds
import shapely
from numpy.typing import NDArray

from ecodetect.formats.gis.curves import from_wkb, is_curved
from ecodetect.layer import Geometries

# How a collection begins in WKB, in either order of bytes, with or without heights. GEOS reads those within
# others by calling itself, until the stack ends.
_COLLECTION = re.compile(
    rb"\x01[\x07\xef\xd7\xbf][\x00\x03\x07\x0b]\x00[\x00\x20\x40\x60\x80\xa0\xc0\xe0]"
    rb"|\x00[\x00\x20\x40\x60\x80\xa0\xc0\xe0]\x00[\x00\x03\x07\x0b][\x07\xef\xd7\xbf]"
)
_MOST_COLLECTIONS = 64
_HEAD_BYTES = 1 << 16  # deep ones begin with the beginnings of all


Features = tuple[Geometries, dict[str, NDArray[Any]]]


def features_of(table: Any, geometry: str) -> Features:
    """Geometries and other columns of a pyarrow Table.  geometry : name of the column of WKB.

    Geometries are None where there is none or none that can be read, and their curves are made straight.
    Columns are str, float64, int64 or bool; what has no such form (binary data) stays out. Missing numbers
    are NaN, so that whole numbers with gaps are float64; missing texts are empty.
    """
    return geometries_of(table[geometry]), _columns_of(table, without=geometry)


def geometries_of(wkb: Any) -> Geometries:
    """shapely geometries of a column of WKB (a ChunkedArray), as `features_of` has them."""
    # Chunk by chunk: all of it as Python's bytes would be one copy more.
    return np.concatenate([np.empty(0, object), *map(_shapes, wkb.chunks)])


def _shapes(wkb: Any) -> Geometries:
    values = np.empty(len(wkb), dtype=object)
    values[:] = wkb.to_pylist()
    for row, value in enumerate(values):
        if value is not None and len(_COLLECTION.findall(value, 0, _HEAD_BYTES)) > _MOST_COLLECTIONS:
            values[row] = None
    curved = [row for row, value in enumerate(values) if value is not None and is_curved(value)]
    straight = [_straight(value) for value in values[curved]]
    values[curved] = None
    found = np.asarray(shapely.from_wkb(values, on_invalid="ignore"), dtype=object).reshape(-1)
    found[curved] = straight
    return found


def _straight(wkb: bytes) -> Any:
    try:
        return from_wkb(wkb)
    except ValueError:
        return None


def _columns_of(table: Any, without: str) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name != without and name not in found:
            values = _values(column)
            if values is not None:
                found[name] = values
    return found


def _values(column: Any) -> NDArray[Any] | None:
    kind = column.type
    if kinds.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind):
        return None
    values = column.to_pylist()
    if kinds.is_boolean(kind) and not column.null_count:
        return np.array(values, np.bool_)
    if kinds.is_integer(kind) and not column.null_count and kind != pa.uint64():
        return np.array(values, np.int64)
    if kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind):
        return np.array([math.nan if value is None else float(value) for value in values], np.float64)
    return np.array([_text(value) for value in values], dtype=object)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, dict, bool)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
