"""A Stream as Arrow record batches with WKB geometry, for the formats that take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from ecodetect.errors import LayerError
from ecodetect.formats.placing import frame_of, upended
from ecodetect.grid import describe_crs
from ecodetect.layer import Layer, Stream

GEOMETRY = "geometry"
BATCH_ROWS = 16_384
_TYPE_NAMES = {0: "Point", 1: "LineString", 3: "Polygon", 4: "MultiPoint", 6: "MultiPolygon"}
_TYPES = {"str": pa.string(), "float": pa.float64(), "int": pa.int64(), "bool": pa.bool_()}


class ArrowStream:
    """Record batches of a stream, all of one size, so that the file doesn't depend on how the stream was cut.

    Columns keep their names and order, the last one is the geometry in world coordinates as WKB, or in pixels
    with y upwards (`metadata.PIXEL_UP`). Numbers that aren't finite become null.

    schema : Arrow schema.
    crs : CRS of the geometry; None where there is none.
    frame : what the coordinates are, as in `Grid.frame`.
    features, shapes, bytes : features passed on so far, those of them with a geometry, and their size.
    types : names of the geometry types passed on so far.
    bounds : xmin, ymin, xmax, ymax of the features so far; infinite before the first.
    failure : what the source of the stream raised; Arrow's C interface passes on only its text.
    """

    def __init__(self, stream: Stream, name: str, *, column_names: Sequence[str] | None = None) -> None:
        """name : of the file, for messages.  column_names : in the file, in the stream's order."""
        self._batches = iter(stream)
        # The first batch says where the features are when the stream leaves that to its batches.
        self._first = next(self._batches, None)
        self._name = name
        self._columns = dict(stream.columns)
        self.crs: CRS | None = stream.frame_crs
        if self.crs is None and self._first is not None:
            self.crs = self._first.frame_crs
        self.frame = frame_of(stream, self._first)
        fields = [
            (written, _TYPES[kind])
            for written, kind in zip(column_names or self._columns, self._columns.values(), strict=True)
        ]
        self.schema = pa.schema([*fields, (GEOMETRY, pa.binary())])
        self.features = self.shapes = self.bytes = 0
        self.types: set[str] = set()
        self.bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[Any]:
        try:
            waiting = self.schema.empty_table()
            for batch in chain([] if self._first is None else [self._first], self._batches):
                self._first = None
                waiting = pa.concat_tables([waiting, pa.Table.from_batches([self._record_batch(batch)])])
                while len(waiting) >= BATCH_ROWS:
                    yield from waiting[:BATCH_ROWS].combine_chunks().to_batches()
                    waiting = waiting[BATCH_ROWS:]
            yield from waiting.combine_chunks().to_batches()
        except GeneratorExit:
            raise
        except BaseException as failure:
            self.failure = failure
            raise

    def reader(self) -> Any:
        """A pyarrow RecordBatchReader over the batches."""
        return pa.RecordBatchReader.from_batches(self.schema, iter(self))

    def _record_batch(self, batch: Layer) -> Any:
        if batch.frame_crs != self.crs:
            raise LayerError(
                f"{self._name} can't hold two coordinate systems: {describe_crs(self.crs)} and"
                f" {describe_crs(batch.frame_crs)}; write one file each."
            )
        geometry = batch.in_world()
        if self.frame == "pixel":
            geometry = upended(geometry)
        self.features += len(batch)
        self.shapes += int(np.count_nonzero(~(shapely.is_missing(geometry) | shapely.is_empty(geometry))))
        if len(batch):
            kinds = np.unique(shapely.get_type_id(geometry))
            self.types.update(_TYPE_NAMES[kind] for kind in kinds.tolist() if kind in _TYPE_NAMES)
            bounds = shapely.bounds(geometry).reshape(-1, 4)
            low, high = np.fmin.reduce(bounds), np.fmax.reduce(bounds)
            self.bounds[:2] = np.fmin(self.bounds[:2], low[:2])
            self.bounds[2:] = np.fmax(self.bounds[2:], high[2:])
        arrays = [_arrow(batch.columns[name], kind) for name, kind in self._columns.items()]
        wkb = pa.array(shapely.to_wkb(geometry, flavor="iso").tolist(), pa.binary())
        made = pa.record_batch([*arrays, wkb], schema=self.schema)
        self.bytes += made.nbytes
        return made


def _arrow(values: NDArray[Any], kind: str) -> Any:
    if kind == "float":
        numbers = values.astype(np.float64)
        return pa.array(numbers, pa.float64(), mask=~np.isfinite(numbers))
    if kind == "str":
        return pa.array([None if value is None else str(value) for value in values.tolist()], pa.string())
    return pa.array(values, _TYPES[kind])
