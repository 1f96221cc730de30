"""GeoParquet 1.0: columns with WKB geometry in the raster's CRS, compressed with zstd, for large layers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyproj import CRS
from pyproj.exceptions import CRSError

from ecodetect.errors import LayerError
from ecodetect.formats import metadata
from ecodetect.formats.content import Content, seal_in_place
from ecodetect.formats.gis.arrow_columns import Features, features_of
from ecodetect.formats.gis.arrow_parts import received, received_in_pieces, sent
from ecodetect.formats.gis.arrow_stream import BATCH_ROWS, GEOMETRY, ArrowStream
from ecodetect.formats.gis.ogr import distinct
from ecodetect.formats.placing import StatedFrame, placed
from ecodetect.formats.protocol import Written, reason
from ecodetect.grid import WGS84, Grid
from ecodetect.guarding.crs_files import read_crs
from ecodetect.layer import Layer, Stream

_GROUP_BATCHES = 4  # 65,536 rows in a row group, which is what a reader takes at a time
_MOST_BYTES = 4 << 30  # unpacked
_CHILD = "ecodetect.formats.gis.geoparquet:parts"
_TAIL_BYTES = 8  # the footer's size and four letters


def write(path: Path, stream: Stream) -> Written:
    """Write a stream; the metadata lies under the key `ecodetect`."""
    names = distinct(stream.columns)
    arrow = ArrowStream(stream, path.name, column_names=names)
    batches = iter(arrow)
    with pq.ParquetWriter(path, arrow.schema, compression="zstd") as writer:
        while group := list(islice(batches, _GROUP_BATCHES)):
            writer.write_table(pa.Table.from_batches(group).combine_chunks())
        texts = metadata.to_texts(stream.metadata, arrow.frame)
        writer.add_key_value_metadata({"geo": json.dumps(_geo(arrow)), **texts})
    return Written(path, arrow.features)


def _geo(arrow: ArrowStream) -> dict[str, Any]:
    """The file's own description, as the standard lays it down."""
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted(arrow.types),
        # Null says that there is none; without the key it would be longitude and latitude.
        "crs": None if arrow.crs is None else arrow.crs.to_json_dict(),
    }
    if np.isfinite(arrow.bounds).all():
        column["bbox"] = arrow.bounds.tolist()
    return {"version": "1.0.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """Read the primary geometry column and the others."""
    texts, table = received(_CHILD, str(path), path=path, size=path.stat().st_size)
    name, crs = _described(path, texts)
    features = features_of(table, name)
    del table  # with all geometries once more
    return _placed(texts, features, crs, path, grid)


def pieces(path: Path, *, grid: Grid | None) -> Iterator[Layer]:
    """What `write` wrote, in pieces."""
    for texts, table in received_in_pieces(_CHILD, str(path), path=path, size=path.stat().st_size):
        name, crs = _described(path, texts)
        yield _placed(texts, features_of(table, name), crs, path, grid)


def _placed(
    texts: dict[str, str], features: Features, crs: CRS | None, path: Path, grid: Grid | None
) -> Layer:
    return placed(
        *features,
        StatedFrame(crs, texts.get(metadata.FRAME_KEY)),
        name=path.name,
        grid=grid,
        metadata=metadata.from_json(texts.get(metadata.KEY, "")),
    )


def parts(where: str) -> Iterator[bytes]:
    """A file in the parts of `arrow_parts`, with its texts as facts. For `guard`'s child."""
    path = Path(where)
    try:
        with pq.ParquetFile(path) as file:
            texts = _texts(file)
            name, _ = _described(path, texts)
            groups = range(file.metadata.num_row_groups)
            size = sum(file.metadata.row_group(group).total_byte_size for group in groups)
            if size > _MOST_BYTES:
                raise LayerError(f"{path} unpacks to {size / 1e9:.1f} GB; features are read up to 4 GB.")
            if name not in file.schema_arrow.names:
                raise LayerError(f"{path} has no column '{name}', which it says holds the geometry.")
            yield from sent(texts, file.schema_arrow, file.iter_batches(BATCH_ROWS))
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise LayerError(f"{path} can't be read as Parquet: {reason(error)}.") from error


def _texts(file: Any) -> dict[str, str]:
    """The metadata of a file, by key."""
    stated = (file.metadata.metadata or {}).items()
    return {key.decode(): value.decode(errors="replace") for key, value in stated}


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of the layer."""
    return metadata.from_json(_stated(path, metadata.KEY))


def read_seal(path: Path) -> str | None:
    """The hash that `seal` put in."""
    return _stated(path, metadata.SEAL_KEY) or None


def _stated(path: Path, key: str) -> str:
    try:
        texts = pq.read_metadata(path).metadata or {}
    except pa.ArrowException as error:
        raise LayerError(f"{path} can't be read as Parquet: {reason(error)}.") from error
    return str(texts.get(key.encode(), b"").decode(errors="replace"))


def content(path: Path) -> Content:
    """The features, gone through in batches."""
    found = Content()
    try:
        with pq.ParquetFile(path) as file:
            name, _ = _described(path, _texts(file))
            for batch in file.iter_batches(BATCH_ROWS):
                found.add_arrow(batch, name)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise LayerError(f"{path} can't be read as Parquet: {reason(error)}.") from error
    return found


def seal(path: Path, digest: str) -> None:
    """Put the hash of the features into the metadata, which lie in the file's footer."""
    stop = path.stat().st_size - _TAIL_BYTES
    with path.open("rb") as file:
        file.seek(stop)
        size = int.from_bytes(file.read(4), "little")
    seal_in_place(path, digest, stop - size, stop)


def _described(path: Path, texts: dict[str, str]) -> tuple[str, CRS | None]:
    """Name of the geometry column and its CRS."""
    try:
        described = json.loads(texts["geo"])
        name = described["primary_column"]
        column = described["columns"][name]
        encoding, stated = column["encoding"], column.get("crs", WGS84)
        crs = None if stated is None else read_crs(stated, str(path), error=LayerError)
    except (KeyError, TypeError, ValueError, CRSError) as error:
        raise LayerError(f"{path} is Parquet without geometry: it lacks GeoParquet's description.") from error
    if encoding != "WKB":
        raise LayerError(f"{path} holds geometry as '{encoding}'; only WKB is read, so convert it with GDAL.")
    return str(name), crs
