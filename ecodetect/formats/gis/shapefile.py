"""Shapefile: for tools that take nothing else; column names of 10 bytes, texts of 254, no place for metadata.

Longer column names are cut and numbered where they clash (`diameter_metres` → `diameter_m`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ecodetect.errors import LayerError
from ecodetect.formats.gis import ogr
from ecodetect.formats.gis.arrow_stream import ArrowStream
from ecodetect.formats.protocol import Written
from ecodetect.grid import Grid
from ecodetect.layer import Layer, Stream
from ecodetect.notes import Note

SIDE_SUFFIXES = (".shx", ".dbf", ".prj", ".cpg", ".qix", ".sbn", ".sbx", ".qpj", ".shp.xml")
CONTENT_SUFFIXES = (".dbf",)  # with the features, beside the .shp
_HEADER_BYTES = 100


def write(path: Path, stream: Stream) -> Written:
    """Write a stream as .shp, .shx, .dbf, .cpg (UTF-8) and, where there is a CRS, .prj."""
    if stream.geometry_type == "Unknown":
        raise LayerError(f"{path.name} can't hold points and polygons together; write a .gpkg.")
    names = ogr.distinct(stream.columns, longest=10)
    written = ogr.write_layer(
        path,
        ArrowStream(stream, path.name, column_names=names),
        driver="ESRI Shapefile",
        geometry_type=stream.geometry_type,
        texts={},
        options={"ENCODING": "UTF-8", "DBF_DATE_LAST_UPDATE": ogr.DATE[:10]},
    )
    text = "it has no place for metadata (model, settings, area); a .gpkg keeps it."
    notes = [Note("metadata-lost", text, about=path.name)]
    cut = [f"{old} → {new}" for old, new in zip(stream.columns, names, strict=True) if old != new]
    if cut:
        text = f"it has shorter column names: {', '.join(cut)}."
        notes.append(Note("columns-shortened", text, about=path.name))
    return replace(written, notes=tuple(notes))


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """Read a shapefile with the files beside it."""
    header = ogr.beginning(path, _HEADER_BYTES)
    if len(header) < _HEADER_BYTES or header[:4] != b"\0\0\x27\x0a":
        raise LayerError(f"{path} isn't a shapefile.")
    stated = int.from_bytes(header[24:28], "big") * 2  # 16-bit words
    if stated > path.stat().st_size:
        raise LayerError(f"{path} is cut: it has {path.stat().st_size} of the {stated} bytes that it says.")
    if _beside(path, ".shx") is None:
        raise LayerError(
            f"{path} comes without its .shx; put the files of a shapefile together in one folder."
        )
    notes: tuple[Note, ...] = ()
    if _beside(path, ".dbf") is None:
        text = "it comes without its .dbf, so its features have no attributes."
        notes = (Note("attributes-missing", text, about=path.name, kind="doubt"),)
    return ogr.read_layer(path, layer=layer, grid=grid, encoding=_encoding(path), notes=notes)


def pieces(path: Path, *, grid: Grid | None) -> Iterator[Layer]:
    """What `write` wrote, in pieces."""
    return ogr.read_pieces(path, grid=grid, encoding=_encoding(path))


def _beside(path: Path, suffix: str) -> Path | None:
    """The file with this suffix beside the .shp; None where there is none."""
    for name in (path.with_suffix(suffix), path.with_suffix(suffix.upper())):
        if name.is_file():
            return name
    return None


def _encoding(path: Path) -> str | None:
    """The encoding if the file doesn't state it: UTF-8 if possible, else Latin-1; None: as stated."""
    table = _beside(path, ".dbf")
    if table is None or _beside(path, ".cpg") is not None:
        return None
    with table.open("rb") as file:
        data = file.read(1 << 20)
    language = data[29:30]
    texts = data[32:]
    if language not in (b"", b"\0") or texts.isascii():
        return None
    try:
        texts.decode()
    except UnicodeDecodeError as error:
        if error.end < len(texts):  # not just the last character cut by the bound
            return "ISO-8859-1"
    return "UTF-8"
