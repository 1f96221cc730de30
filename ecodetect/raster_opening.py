"""Opening datasets: by known drivers only, quietly, and what GDAL says as one reason.

Formats whose headers are read here before GDAL does (TIFF, PNG, JPEG) are opened in the process; all others
are first tried in a child with limits of memory and time (`guard`), since a library may hang or crash.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError, CPLE_OutOfMemoryError
from rasterio.errors import RasterioError

from ecodetect import databases, guard
from ecodetect.errors import RasterError
from ecodetect.raster_safety import Source

# GDAL looks for side files by listing the folder, which on the network costs requests or fails; so masks and
# overviews beside a remote file are not found.
_REMOTE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "VSI_CACHE": "TRUE",
    "GDAL_NUM_THREADS": "ALL_CPUS",
}
# Drivers that may open a file in this process, with the words of `Source.format`.
_IN_PROCESS = {"GTiff": "TIFF", "PNG": "PNG", "JPEG": "JPEG"}
_MOST_READ = 10**9  # bytes; no format that is larger is read through when it is opened
# What rasterio raises for a file that can't be read.
FAULTS = (RasterioError, CPLE_BaseError, OSError, UnicodeDecodeError)


def options(*, is_remote: bool) -> AbstractContextManager[Any]:
    """GDAL's options while a file is touched."""
    environment: AbstractContextManager[Any] = rasterio.Env(**(_REMOTE if is_remote else {}))
    return environment


def tried(source: Source) -> Source:
    """The source with the driver that takes it, which has shown so in the guard where it has to.

    Raises RasterError if none takes it, or it can't be opened within the guard's limits.
    """
    if source.is_tried or guard.is_inside():
        return source
    if not source.is_remote:
        source = _at_rest(source)
    if source.format in _IN_PROCESS.values():
        ours = tuple(driver for driver, name in _IN_PROCESS.items() if name == source.format)
        return replace(source, drivers=ours, is_tried=True)
    if source.is_remote and (driver := _taken_by_ours(source)):
        return replace(source, drivers=(driver,), is_tried=True)
    asked = source.name, source.shown, source.drivers, source.is_remote, source.format
    driver = guard.call(
        "ecodetect.raster:try_out", *asked, about=source.shown, error=RasterError, bytes_read=_size(source)
    )
    return replace(source, drivers=(driver,), is_tried=True)


def _at_rest(source: Source) -> Source:
    """The source, or a copy of it: of a GeoPackage that SQLite couldn't read without writing beside it."""
    is_part = source.name.upper().startswith("GPKG:")  # GPKG:file:table
    file = Path(source.name[5:].rpartition(":")[0] if is_part else source.name)
    if not databases.is_at_work(file):
        return source
    copy = str(databases.lasting_copy(file, error=RasterError))
    return replace(source, name=source.name.replace(str(file), copy))


def _size(source: Source) -> int:
    """Bytes that opening may have to read: texts and messages are gone through once."""
    file = Path(source.name)
    return min(file.stat().st_size, _MOST_READ) if file.is_file() else 0


def _taken_by_ours(source: Source) -> str | None:
    """Which driver that may open it in this process takes a remote file; None: none does."""
    with options(is_remote=True), quiet():
        for driver in _IN_PROCESS:
            try:
                with rasterio.open(source.name, driver=driver, sharing=False):
                    return driver
            except FAULTS as error:
                if _is_of_network(error):
                    return driver  # so that it is said
    return None


def _is_of_network(error: Exception) -> bool:
    return "HTTP" in str(error) or "CURL" in str(error)


def opened(source: Source, **more: Any) -> Any:
    """The dataset, by the first driver that takes it; raises RasterError if none does.

    more : as `rasterio.open` takes them.
    """
    source = tried(source)
    first: Exception | None = None
    with rasterio.Env(), quiet():
        for driver in source.drivers:
            try:
                return rasterio.open(source.name, driver=driver, sharing=False, **more)
            except FAULTS as error:
                first = first or error
                if _is_of_network(error):
                    break
    reason = reason_of(first, source) if first is not None else "no driver"
    if source.is_remote:
        raise RasterError(
            f"{source.shown} can't be opened ({reason}); check the address and the connection."
        ) from first
    if source.format is not None:
        said = "" if "not recognized" in reason else f" ({reason})"
        raise RasterError(
            f"{source.shown} is a damaged or truncated {source.format}{said}; copy it anew."
        ) from first
    raise RasterError(f"{source.shown} is not a raster: its content is of no format that is read.") from first


@contextmanager
def quiet() -> Iterator[None]:
    """Keep from stderr what we say in our own words: warnings, and messages that rasterio can't decode."""
    hooks = sys.unraisablehook, sys.excepthook
    sys.unraisablehook, sys.excepthook = (lambda _: None), (lambda *_: None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.unraisablehook, sys.excepthook = hooks


def reason_of(error: BaseException, source: Source) -> str:
    """The innermost message of a chain of errors in one line, without the file's name: it is said already."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(getattr(error, "errmsg", "") or error).split()).rstrip(".")
    text = re.sub(r"/vsimem/\S*?: ?", "", text)  # where GDAL's threads unpack
    name = PurePath(source.name).name
    return re.sub(rf"^{re.escape(name)}[,:] ?", "", text.replace(source.name, name))


def lacks_memory(error: BaseException | None) -> bool:
    """Whether GDAL has failed for want of memory."""
    while error is not None:
        if isinstance(error, CPLE_OutOfMemoryError):
            return True
        error = error.__cause__
    return False
