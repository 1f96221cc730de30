"""Opening datasets: by known drivers only, quietly, and what GDAL says as one reason."""

from __future__ import annotations

import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import PurePath
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

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
# What rasterio raises for a file that can't be read.
FAULTS = (RasterioError, CPLE_BaseError, OSError, UnicodeDecodeError)


def options(*, is_remote: bool) -> AbstractContextManager[Any]:
    """GDAL's options while a file is touched."""
    environment: AbstractContextManager[Any] = rasterio.Env(**(_REMOTE if is_remote else {}))
    return environment


def opened(source: Source, **more: Any) -> Any:
    """The dataset, by the first driver that takes it; raises RasterError if none does.

    more : as `rasterio.open` takes them.
    """
    first: Exception | None = None
    with rasterio.Env(), quiet():
        for driver in source.drivers:
            try:
                return rasterio.open(source.name, driver=driver, sharing=False, **more)
            except FAULTS as error:
                first = first or error
                if "HTTP" in str(error) or "CURL" in str(error):
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
    """Keep from stderr what we say in our own words: warnings, and what `unheard` keeps from it."""
    with unheard(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_turn = threading.Lock()
_inside: list[tuple[Any, Any]] = []  # Python's hooks as they were, once for each that is unheard now


@contextmanager
def unheard() -> Iterator[None]:
    """Let Python print nothing of GDAL's messages that rasterio can't decode: nobody can catch those errors.

    For all threads, as long as one is here.
    """
    with _turn:
        hooks = _inside[0] if _inside else (sys.unraisablehook, sys.excepthook)
        _inside.append(hooks)
        sys.unraisablehook, sys.excepthook = (lambda _: None), (lambda *_: None)
    try:
        yield
    finally:
        with _turn:
            _inside.pop()
            if not _inside:
                sys.unraisablehook, sys.excepthook = hooks


def reason_of(error: BaseException, source: Source) -> str:
    """The innermost message of a chain of errors in one line, without the file's name: it is said already."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(getattr(error, "errmsg", "") or error).split()).rstrip(".")
    text = re.sub(r"/vsimem/\S*?: ?", "", text)  # where GDAL's threads unpack
    name = PurePath(source.name).name
    return re.sub(rf"^{re.escape(name)}[,:] ?", "", text.replace(source.name, name))
