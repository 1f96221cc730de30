"""Opening datasets: by known drivers only, quietly, and what GDAL says as one reason.

Formats whose headers are read here before GDAL does (TIFF, PNG, JPEG) are opened in the process; all others
are first tried in a child with limits of memory and time (`guard`), since a library may hang or crash.
"""

from __future__ import annotations

import math
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ContextDecorator, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError, CPLE_OutOfMemoryError
from rasterio.errors import CRSError, RasterioError

from ecodetect.errors import NetworkError, RasterError
from ecodetect.guarding import databases, guard
from ecodetect.raster import remote as raster_remote
from ecodetect.raster.remote import waited
from ecodetect.raster.safety import Address

# GDAL's own threads print what they have to say; this, read once, is the only word that they listen to.
os.environ.setdefault("CPL_LOG", os.devnull)

# GDAL looks for side files by listing the folder, which on the network costs requests or fails; so masks and
# overviews beside a remote file are not found.
_REMOTE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "VSI_CACHE": "TRUE",
    "GDAL_NUM_THREADS": "ALL_CPUS",
}
# What asks our own relay, which is the only one that waits and tries again.
_RELAYED = {
    **_REMOTE,
    "GDAL_HTTP_MAX_RETRY": "0",
    "GDAL_HTTP_TIMEOUT": "0",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_LOW_SPEED_TIME": "0",
    "GDAL_HTTP_PROXY": "",  # none, whatever the environment says: it is on this machine
    "GDAL_HTTP_HEADERS": "",
    "GDAL_HTTP_NETRC": "NO",
}
# Without this, GDAL writes metadata beside a GeoPackage that it can't open.
_OF_DRIVER = {"GPKG": {"GDAL_PAM_ENABLED": "NO"}}
_READS = 3  # attempts at what GDAL reads of a server, each with its own tries
# Drivers that may open a file in this process, with the words of `Address.format`.
_IN_PROCESS = {"GTiff": "TIFF", "PNG": "PNG", "JPEG": "JPEG"}
_MOST_READ = 10**9  # bytes; no format that is larger is read through when it is opened
# What rasterio raises for a file that can't be read.
FAULTS = (RasterioError, CPLE_BaseError, CRSError, OSError, UnicodeDecodeError)


def options(source: Address) -> AbstractContextManager[Any]:
    """GDAL's options while a file is touched."""
    given = _RELAYED if source.is_relayed else _cloud() if source.is_remote else {}
    environment: AbstractContextManager[Any] = rasterio.Env(**given)
    return environment


def _cloud() -> dict[str, str]:
    """What GDAL is told of servers that it asks itself: those of cloud storage."""
    limits = raster_remote.patient()
    return {
        **_REMOTE,
        "GDAL_HTTP_MAX_RETRY": str(limits.tries - 1),
        "GDAL_HTTP_RETRY_DELAY": str(limits.pause_s),
        "GDAL_HTTP_RETRY_CODES": "408,425,429,500,502,503,504",
        "GDAL_HTTP_CONNECTTIMEOUT": str(math.ceil(limits.connect_s)),
        "GDAL_HTTP_LOW_SPEED_TIME": str(math.ceil(limits.patience_s)),
        "GDAL_HTTP_LOW_SPEED_LIMIT": str(math.ceil(limits.least_bytes / limits.patience_s)),
        # A file that is opened again is fetched again.
        "CPL_VSIL_CURL_NON_CACHED": "/vsis3/:/vsigs/:/vsiaz/:/vsiadls/",
    }


def tried(source: Address) -> Address:
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
    if source.is_remote and not source.is_relayed and (driver := _taken_by_ours(source)):
        return replace(source, drivers=(driver,), is_tried=True)
    asked = source.name, source.shown, source.drivers, source.is_remote, source.format
    try:
        driver = guard.call(
            "ecodetect.raster.reading:try_out",
            *asked,
            about=source.shown,
            error=RasterError,
            bytes_read=_size(source),
        )
    except RasterError as error:
        if source.remote is not None and (fault := source.remote.fault()) is not None:
            raise fault from error
        raise
    return replace(source, drivers=(driver,), is_tried=True)


def _at_rest(source: Address) -> Address:
    """The source, or a copy of it: of a GeoPackage that SQLite couldn't read without writing beside it."""
    file = source.file
    if file is None or not databases.is_at_work(file):
        return source
    copy = databases.lasting_copy(file, error=RasterError)
    is_part = source.name.upper().startswith("GPKG:")  # GPKG:file:table
    name = f"GPKG:{copy}:{source.name.rpartition(':')[2]}" if is_part else str(copy)
    return replace(source, name=name, file=copy)


def _size(source: Address) -> int:
    """Bytes that opening may have to read: texts and messages are gone through once."""
    file = Path(source.name)
    return min(file.stat().st_size, _MOST_READ) if file.is_file() else 0


def _taken_by_ours(source: Address) -> str | None:
    """Which driver that may open it in this process takes a remote file; None: none does."""
    with options(source), quiet():
        for driver in _IN_PROCESS:
            try:
                with rasterio.open(source.name, driver=driver, sharing=False):
                    return driver
            except FAULTS as error:
                if _is_of_network(error):
                    return driver  # so that it is reported
    return None


def opened(source: Address, **more: Any) -> Any:
    """The dataset, by the first driver that takes it; raises RasterError if none does.

    more : as `rasterio.open` takes them.
    """
    source = tried(source)
    found = waited(source.remote, lambda: _attempt(source, more))
    if not isinstance(found, Exception):
        return _OnServer(found, source, more) if source.is_on_server else found
    if source.remote is not None and (fault := source.remote.fault()) is not None:
        raise fault from found
    first, reason = found, reason_of(found, source)
    if source.is_remote and not source.is_relayed:
        kind = NetworkError if source.is_on_server and _is_of_network(found) else RasterError
        raise kind(
            f"{source.shown} can't be opened ({reason}); check the address and the connection."
        ) from first
    if source.format is not None:
        said = "" if "not recognized" in reason else f" ({reason})"
        raise RasterError(
            f"{source.shown} is a damaged or truncated {source.format}{said}; copy it again."
        ) from first
    raise RasterError(f"{source.shown} is not a raster: its content is of no format that is read.") from first


def _attempt(source: Address, more: dict[str, Any]) -> Any:
    """The dataset, or what went wrong with the first driver."""
    first: Exception = RasterioError("no driver")
    with options(source), quiet():
        for number, driver in enumerate(source.drivers):
            try:
                with rasterio.Env(**_OF_DRIVER[driver]) if driver in _OF_DRIVER else nullcontext():
                    return rasterio.open(source.name, driver=driver, sharing=False, **more)
            except FAULTS as error:
                first = first if number else error
                if source.is_remote and _is_of_network(error):
                    break
    return first


def _is_of_network(error: BaseException | None) -> bool:
    """Whether GDAL tells of a server that it asks itself."""
    while error is not None:
        if re.search(r"HTTP|CURL|timed out|resolve host", str(error)):
            return True
        error = error.__cause__
    return False


class _OnServer:
    """A dataset on a server that GDAL asks itself: opened again, and so fetched again, where reading
    fails."""

    def __init__(self, dataset: Any, source: Address, more: dict[str, Any]) -> None:
        self._dataset, self._source, self._more = dataset, source, more

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def read(self, *given: Any, **more: Any) -> Any:
        return self._again(lambda: self._dataset.read(*given, **more))

    def read_masks(self, *given: Any, **more: Any) -> Any:
        return self._again(lambda: self._dataset.read_masks(*given, **more))

    def _again(self, read: Callable[[], Any]) -> Any:
        """What `read` gives, at the second or third attempt if need be.

        Raises NetworkError where the server is the reason; what GDAL raises, where it does so twice.
        """
        fault: Exception | None = None
        for tried in range(_READS):
            try:
                if tried:
                    time.sleep(raster_remote.limits.pause_s * 2 ** (tried - 1))
                    self._dataset.close()
                    self._dataset = _given(_attempt(self._source, self._more))
                return read()
            except FAULTS as error:
                if fault is not None and not _is_of_network(error):
                    raise
                fault = error
        assert fault is not None
        raise NetworkError(
            f"{self._source.shown} can't be read: its server doesn't give it"
            f" ({reason_of(fault, self._source)}); run the same command again."
        ) from fault


def _given(found: Any) -> Any:
    """A dataset; raises what there is instead."""
    if isinstance(found, Exception):
        raise found
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Keep from stderr what we say in our own words: warnings, and what `unheard` keeps from it."""
    with unheard(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_turn = threading.Lock()
_inside: list[tuple[Any, Any]] = []  # Python's hooks as they were, once for each that is unheard now


class unheard(ContextDecorator):
    """Lets Python print nothing of GDAL's messages that rasterio can't decode: nobody can catch those errors.

    For all threads, as long as one is here.
    """

    def __enter__(self) -> None:
        with _turn:
            _inside.append(_inside[0] if _inside else (sys.unraisablehook, sys.excepthook))
            sys.unraisablehook, sys.excepthook = _unsaid, _unsaid

    def __exit__(self, *_: object) -> None:
        with _turn:
            hooks = _inside.pop()
            if not _inside:
                sys.unraisablehook, sys.excepthook = hooks


def _unsaid(*_: object) -> None:
    pass


def reason_of(error: BaseException, source: Address) -> str:
    """The innermost message of a chain of errors in one line, without the file's name."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(getattr(error, "errmsg", "") or error).split()).rstrip(".")
    text = re.sub(r"/vsimem/\S*?: ?", "", text)  # where GDAL's threads unpack
    if source.remote is not None:
        text = re.sub(r"http://127\.0\.0\.1:\d+/\S*", source.shown, text)  # our own relay
    name = PurePath(source.name).name
    return re.sub(rf"^{re.escape(name)}[,:] ?", "", text.replace(source.name, name))


def lacks_memory(error: BaseException | None) -> bool:
    """Whether GDAL has failed because memory ran out."""
    while error is not None:
        if isinstance(error, CPLE_OutOfMemoryError):
            return True
        error = error.__cause__
    return False
