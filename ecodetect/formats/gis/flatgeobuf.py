"""FlatGeobuf: one layer with a spatial index, in the raster's CRS; web maps read it in parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ecodetect.formats import metadata
from ecodetect.formats.content import Content, seal_in_place
from ecodetect.formats.gis import ogr
from ecodetect.formats.gis.arrow_stream import ArrowStream
from ecodetect.formats.protocol import Written
from ecodetect.grid import Grid
from ecodetect.layer import Layer, Stream

_MAGIC_BYTES = 8


def write(path: Path, stream: Stream) -> Written:
    """Write a stream; features lie in the order of the spatial index (Hilbert curve)."""
    arrow = ArrowStream(stream, path.name, column_names=ogr.distinct(stream.columns))
    return ogr.write_layer(
        path,
        arrow,
        driver="FlatGeobuf",
        # A layer of declared polygons couldn't take the one multipolygon that a stream may hold.
        geometry_type="Point" if stream.geometry_type == "Point" else "Unknown",
        texts=metadata.to_texts(stream.metadata, arrow.frame, frame_key=metadata.OGR_FRAME_KEY),
        options={"SPATIAL_INDEX": "YES", "TEMPORARY_DIR": str(path.parent)},
    )


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """Read the layer of a FlatGeobuf."""
    ogr.check_beginning(path, b"fgb\x03fgb")
    return ogr.read_layer(path, layer=layer, grid=grid)


def pieces(path: Path, *, grid: Grid | None) -> Iterator[Layer]:
    """The layer in pieces."""
    ogr.check_beginning(path, b"fgb\x03fgb")
    return ogr.read_pieces(path, grid=grid)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of the layer `detections`."""
    ogr.check_beginning(path, b"fgb\x03fgb")
    return ogr.read_metadata(path)


def read_seal(path: Path) -> str | None:
    """The hash that `seal` put in."""
    ogr.check_beginning(path, b"fgb\x03fgb")
    return ogr.read_seal(path)


def content(path: Path) -> Content:
    """The features of the layer `detections`."""
    ogr.check_beginning(path, b"fgb\x03fgb")
    return ogr.content(path)


def seal(path: Path, digest: str) -> None:
    """Put the hash of the features into the metadata, which lie in the file's header."""
    start = _MAGIC_BYTES + 4
    size = int.from_bytes(ogr.beginning(path, start)[_MAGIC_BYTES:], "little")
    seal_in_place(path, digest, start, start + size)
