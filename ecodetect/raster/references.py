"""Places inside a raster where its format can name other files, looked at before a library opens it.

Each format has its own: TIFF and JPEG 2000 carry GDAL's metadata, which can name overviews; ERDAS files name
where large pixels and overviews lie; a PCIDSK file can link each of its channels, a GeoPackage is a database,
and an Idrisi raster names its reference system. What such a name may be is decided here, once for all.
"""

from __future__ import annotations

import contextlib
import html
import mmap
import re
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ecodetect.errors import RasterError
from ecodetect.guarding import crs_files, databases
from ecodetect.raster.tiff_pages import metadata_texts

# Keys of GDAL's metadata whose values it opens: of a raster's overviews, and of its geolocation. Searched for
# as words in the whole text, so that no trick of XML (spellings, doubled attributes, CDATA) can hide them.
_KEYS = re.compile(r"overview_file|[xy]_dataset", re.IGNORECASE)
_WRAPPED = re.compile(rb"&#(?:[0-9]{8,}|x[0-9a-f]{7,})", re.IGNORECASE)
_MOST_TEXT = 2**28  # bytes of metadata


def check_references(file: Path, driver: str | None, shown: str) -> None:
    """Raise RasterError where a file of this format names another one that isn't its twin in its folder.

    driver : which will open it, by its first bytes; None: a format that can't name files.
    """
    check = _CHECKS.get(driver or "")
    if check is not None:
        try:
            check(file, shown)
        except (struct.error, OSError, ValueError, OverflowError) as error:
            if isinstance(error, RasterError):
                raise
            raise RasterError(f"{shown} is damaged: its header can't be read ({error}).") from error


def check_metadata(text: bytes, shown: str) -> None:
    """Raise RasterError where metadata in GDAL's XML names files, or may hide that it does."""
    if b"\0" in text.rstrip(b"\0"):
        raise RasterError(f"{shown} has metadata that is not XML in UTF-8; remove it.")
    if re.search(rb"<!\s*(doctype|entity)", text, re.IGNORECASE):
        raise RasterError(f"{shown} has a DOCTYPE in its metadata, which could name other files; remove it.")
    words = html.unescape(text.decode("latin-1"))
    if (named := crs_files.file_in_metadata(words)) is not None:
        raise RasterError(f"{shown} has a CRS that names another file ('{named[:80]}'); remove it.")
    # An entity of more than Unicode's numbers is one within them to GDAL.
    if _WRAPPED.search(text):
        raise RasterError(f"{shown} has metadata with characters that don't exist; remove it.")
    found = _KEYS.search(words)
    if found:
        raise RasterError(
            f"{shown} names another file in its metadata ({found[0].upper()}), which is not followed; write "
            "it again without that (gdal_translate -nomd)."
        )


# -- TIFF and JPEG 2000 ------------------------------------------------------------------------------------


def _check_tiff(file: Path, shown: str) -> None:
    for text in metadata_texts(file):
        check_metadata(text.rstrip(b"\0").partition(b"\0")[0], shown)


def _check_jpeg2000(file: Path, shown: str) -> None:
    """GDAL's metadata is XML in a box; all boxes but the pixels are looked at."""
    with file.open("rb") as stream:
        if stream.read(4) == b"\xff\x4f\xff\x51":
            return  # a bare codestream
        size = file.stat().st_size
        place = 0
        while place + 8 <= size:
            stream.seek(place)
            length, kind = struct.unpack(">I4s", stream.read(8))
            head = 8
            if length == 1:
                (length,) = struct.unpack(">Q", stream.read(8))
                head = 16
            length = length or size - place
            if length < head:
                return  # no box: GDAL stops here too
            if kind != b"jp2c":
                if length > _MOST_TEXT:
                    raise RasterError(f"{shown} has {length / 2**20:.0f} MB of metadata.")
                _check_box(stream.read(length - head), shown)
            place += length


def _check_box(content: bytes, shown: str) -> None:
    if re.search(rb"gdalmultidomainmetadata", content, re.IGNORECASE):
        check_metadata(content.replace(b"\0", b" "), shown)


# -- ERDAS -------------------------------------------------------------------------------------------------

# Nodes that name files, by their names and the names of their types.
_NAMING = (
    b"externalrasterdms",
    b"rrdnameslist",
    b"dependentfile",
    b"eimg_rrdnameslist",
    b"eimg_dependentfile",
)
_MOST_NODES = 100_000


def _check_hfa(file: Path, shown: str) -> None:
    with file.open("rb") as stream:
        for name, kind, data in _nodes(stream):
            if name not in _NAMING and kind not in _NAMING:
                continue
            is_pixels = b"externalrasterdms" in (name, kind)
            named = re.findall(rb"[\x20-\x7e\x80-\xff]{3,}", data)
            path = next((text for text in named if re.search(rb"[/\\:]", text.partition(b"(")[0])), None)
            if path is not None:
                raise RasterError(
                    f"{shown} takes pixels from outside its folder ('{_text(path)}'), which is not followed."
                )
            if is_pixels and not any(text.lower().endswith(b".ige") for text in named):
                raise RasterError(f"{shown} takes pixels from another file that is not a .ige.")


def _nodes(stream: BinaryIO) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name and type, in lower case, and data of each node of the tree in an ERDAS file."""

    def at(place: int, form: str) -> tuple[int | bytes, ...]:
        stream.seek(place)
        return struct.unpack(form, stream.read(struct.calcsize(form)))

    (header,) = at(16, "<I")
    assert isinstance(header, int)
    *_, root = at(header, "<iII")
    waiting: list[int | bytes] = [root]
    seen: set[int] = set()
    while waiting:
        place = waiting.pop()
        if not isinstance(place, int) or not place or place in seen:
            continue
        if len(seen) > _MOST_NODES:
            raise ValueError(f"more than {_MOST_NODES:,} nodes")
        seen.add(place)
        try:
            following, _, _, child, data, size, name, kind = at(place, "<6I64s32s")
        except struct.error:
            continue  # beyond the end: GDAL can't read it either
        waiting += [following, child]
        assert isinstance(data, int)
        assert isinstance(size, int)
        assert isinstance(name, bytes)
        assert isinstance(kind, bytes)
        stream.seek(data)
        yield (
            name.partition(b"\0")[0].lower(),
            kind.partition(b"\0")[0].lower(),
            stream.read(min(size, _MOST_TEXT)),
        )


# -- PCIDSK, Idrisi, NITF ----------------------------------------------------------------------------------


def _check_pcidsk(file: Path, shown: str) -> None:
    """Each channel has a header, in which a name is that of the file with its pixels."""
    with file.open("rb") as stream:
        head = stream.read(512)
        # It states its size in blocks; GDAL reads what is missing as whatever is in memory.
        stated = head[16:32].strip()
        if stated.isdigit() and file.stat().st_size < int(stated) * 512:
            raise RasterError(f"{shown} is truncated: the end of the PCIDSK file is missing; copy it again.")
        first, count = int(head[336:352]), int(head[376:384])
        for channel in range(count):
            stream.seek((first - 1) * 512 + channel * 1024)
            name = stream.read(1024)[64:128].strip(b" \0")
            if name and not re.fullmatch(rb"/SIS=\s*\d+", name):
                raise RasterError(
                    f"{shown} takes the pixels of channel {channel + 1} from another file ('{_text(name)}'), "
                    "which is not followed; write it again as a GeoTIFF."
                )


def check_idrisi(header: bytes, shown: str) -> None:
    """Raise RasterError where the .rdc of an Idrisi raster names its reference system by a path."""
    for line in header.splitlines():
        key, _, value = line.partition(b":")
        if key.strip().lower().startswith(b"ref. system") and re.search(rb"[/\\:]|\.\.", value):
            raise RasterError(f"{shown} names its reference system by a path ('{_text(value.strip())}').")


def _check_nitf(file: Path, shown: str) -> None:
    """A JPEG 2000 within may carry GDAL's metadata."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(b"GDALMultiDomainMetadata") >= 0:
            raise RasterError(
                f"{shown} has metadata of GDAL within its pixels, which could name other files."
            )


# -- GeoPackage --------------------------------------------------------------------------------------------


def _check_geopackage(file: Path, shown: str) -> None:
    """What GDAL asks of a raster in a database must be plain tables, and its metadata must name no file."""
    if databases.is_at_work(file):
        file = databases.lasting_copy(file, error=RasterError)
    try:
        # `immutable`: looking must not write.
        with contextlib.closing(
            sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        ) as base:
            _check_tables(base, shown)
    except sqlite3.Error as error:
        raise RasterError(
            f"{shown} is a damaged or truncated GeoPackage ({error}); copy it again."
        ) from error


def _check_tables(base: sqlite3.Connection, shown: str) -> None:
    kinds = {
        str(name).casefold(): (str(kind), databases.without_comments(str(text or "")))
        for name, kind, text in base.execute("SELECT name, type, sql FROM sqlite_master")
    }
    if "gpkg_contents" not in kinds:
        return  # not a GeoPackage: GDAL says so
    for name, (kind, text) in kinds.items():
        if re.match(r"\s*create\s+virtual\s+table", text, re.IGNORECASE) and not re.search(
            r"using\s+\W?rtree\W", text, re.IGNORECASE
        ):
            raise RasterError(f"{shown} has a virtual table ({name}), which can hold anything; remove it.")
        if name.startswith("gpkg_") and kind == "view":
            raise RasterError(f"{shown} has a view in the place of the table {name}.")
    if kinds["gpkg_contents"][0] != "table":
        raise RasterError(f"{shown} has no table gpkg_contents.")
    rasters = base.execute(
        "SELECT table_name FROM gpkg_contents WHERE data_type IN ('tiles', '2d-gridded-coverage')"
    )
    for name in ["gpkg_contents", *(str(row[0]) for row in rasters)]:
        kind = kinds.get(name.casefold(), ("table", ""))[0]
        hidden = {row[0] for row in base.execute("SELECT hidden FROM pragma_table_xinfo(?)", (name,))}
        if kind != "table" or hidden - {0}:
            raise RasterError(f"{shown} has no plain table for its raster {name}.")
    if "gpkg_metadata" in kinds:
        for (text,) in base.execute("SELECT metadata FROM gpkg_metadata"):
            if text is not None:
                check_metadata(text if isinstance(text, bytes) else str(text).encode(), shown)


def _text(name: bytes) -> str:
    text = "".join(sign if sign.isprintable() else "?" for sign in name.decode("utf-8", "replace"))
    return text if len(text) <= 80 else text[:77] + "…"


_CHECKS: dict[str, Callable[[Path, str], None]] = {
    "GTiff": _check_tiff,
    "JP2OpenJPEG": _check_jpeg2000,
    "HFA": _check_hfa,
    "PCIDSK": _check_pcidsk,
    "NITF": _check_nitf,
    "GPKG": _check_geopackage,
}
