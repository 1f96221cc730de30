"""Files beside a raster that GDAL takes up unasked: overviews, masks, metadata, places.

They are found as GDAL finds them, in the listing of the folder and in whatever case (`a.tif.OVR`), and must
be plain files in that folder; what GDAL opens as a raster of its own must be of the kind that its suffix
says, and whatever it names is looked at as in the raster itself.
"""

from __future__ import annotations

import os
import re
import stat
import time
import unicodedata
from bisect import bisect_left
from pathlib import Path

from ecodetect.errors import RasterError
from ecodetect.raster.hdf5 import begins_at
from ecodetect.raster.references import check_idrisi, check_metadata, check_references
from ecodetect.raster.vrt_mosaic import is_vrt

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HFA = b"EHFA_HEADER_TAG"
NITF = (b"NITF", b"NSIF")
_MARKS = {"GTiff": TIFF, "HFA": (HFA,), "NITF": NITF}
# What GDAL opens with whatever driver takes it; reduced sets only beside a NITF.
_OPENED = (".ovr", ".msk")
_REDUCED_SETS = tuple(f".r{level}" for level in range(10))
# What it opens only where it is an ERDAS file.
_ERDAS = (".aux", ".rrd", ".ige")
_METADATA = ".aux.xml"
_IDRISI = ".rdc"
_MOST_TEXT = 2**28  # bytes of a file with metadata
_HEAD = 4096
_SETTLED_S = 2.0  # a folder changed longer ago than the clock's grain keeps its listing

# Texts of satellites that GDAL takes up under names of their own (`…_MTL.txt`, `DIM_….XML`, `summary.txt`).
_OF_SATELLITES = re.compile(r"(?:(?:mtl|metadata|rpc|summary)|(?:dim|rpc|hdr)[_-].*)\.(?:txt|xml|dim)$")

_Names = list[tuple[str, str]]  # as compared and as they are, sorted
# The last folder that was listed: its path, when it had changed, its names, and which are of satellites.
_listed: tuple[str, int, _Names, list[str]] = ("", 0, [], [])


def check_sides(file: Path, driver: str | None, shown: str) -> None:
    """Raise RasterError where a file beside the raster leads elsewhere, or isn't what its suffix says.

    driver : that the raster itself will most likely be opened with.
    """
    opened = (*_OPENED, *_REDUCED_SETS) if driver == "NITF" else _OPENED
    for name in _names(file.parent)[1]:
        if _may_stall(file.parent / name):
            raise RasterError(f"{shown} has {name} beside it, which is not a file; remove it.")
    for side in sides(file):
        lower = side.name.lower()
        is_raster = lower.endswith((*opened, *_ERDAS))
        if not is_raster and not lower.endswith((_METADATA, _IDRISI)) and not _may_stall(side):
            continue
        if not side.is_file():
            raise RasterError(f"{shown} has {side.name} beside it, which is not a file; remove it.")
        if side.is_symlink() and side.resolve().parent not in (file.parent.resolve(), file.resolve().parent):
            raise RasterError(
                f"{shown} has a side file {side.name} that is a link to another folder; put the file itself "
                "there."
            )
        try:
            _check_content(side, shown, is_raster=is_raster, is_opened=lower.endswith(opened))
        except OSError as error:
            if isinstance(error, RasterError):
                raise
            raise RasterError(
                f"{shown} has a side file {side.name} that can't be read: {error.strerror or error}."
            ) from error


def _check_content(side: Path, shown: str, *, is_raster: bool, is_opened: bool) -> None:
    named = f"The side file {side.name} of {shown}"
    with side.open("rb") as stream:
        head = stream.read(_HEAD)
        if not is_raster:
            content = head + stream.read(_MOST_TEXT)
            if len(content) > _MOST_TEXT:
                raise RasterError(f"{named} has more than {_MOST_TEXT / 2**20:.0f} MB of text.")
            if side.name.lower().endswith(_METADATA):
                check_metadata(content, named)
            else:
                check_idrisi(content, named)
            return
    driver = next((name for name, marks in _MARKS.items() if head.startswith(marks)), None)
    # Whichever driver GDAL tries next if the likeliest can't open it: HDF5 could lead elsewhere.
    is_two = begins_at(side) is not None
    if is_opened and head and (driver is None or is_vrt(head) or is_two):
        raise RasterError(f"{shown} has a side file {side.name} that is neither TIFF nor HFA; remove it.")
    check_references(side, driver, named)


def pipe_beside(file: Path) -> str | None:
    """The name of what lies beside a file, as its sides do, and is a pipe or its like; None: nothing is."""
    return next((side.name for side in sides(file) if _may_stall(side)), None)


def _may_stall(side: Path) -> bool:
    """Whether reading a side file could wait for ever: it is a pipe, or its like."""
    try:
        mode = side.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def sides(file: Path) -> list[Path]:
    """What lies beside a file under its name, or its name without suffix, and a further suffix."""
    found = {}
    for stem in (file.name, file.stem):
        start = _compared(f"{stem}.")
        names = _names(file.parent)[0]
        for index in range(bisect_left(names, (start, "")), len(names)):
            compared, name = names[index]
            if not compared.startswith(start):
                break
            if name != file.name:
                found[name] = file.parent / name
    return list(found.values())


def _names(folder: Path) -> tuple[_Names, list[str]]:
    """The names in a folder, and which are of satellites; kept while it is as it was."""
    global _listed
    place = str(folder)
    try:
        changed = folder.stat().st_mtime_ns
        if _listed[:2] == (place, changed):
            return _listed[2:]
        names = sorted((_compared(name), name) for name in os.listdir(folder))  # noqa: PTH208 - names only
    except OSError:
        return [], []  # a folder that can't be listed: nor can GDAL
    of_satellites = [name for compared, name in names if _OF_SATELLITES.search(compared)]
    if time.time() - changed / 1e9 > _SETTLED_S:
        _listed = place, changed, names, of_satellites
    return names, of_satellites


def _compared(name: str) -> str:
    """A name as file systems compare it that don't tell cases, or ways to write an accent, apart."""
    return name.casefold() if name.isascii() else unicodedata.normalize("NFC", name.casefold())
