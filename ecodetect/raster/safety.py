"""Which files and addresses are opened as rasters: nothing but pixels, whole, and from where the user said.

GDAL takes a file by its content: a text that calls itself .tif may name any file of the system, or any
address of the network, as its pixels. So a file is opened by the one driver that its first bytes speak for,
out of a list of those known to be safe, after what the format could name was looked at (`references`,
`hdf5`), and the files beside it (`side_files`); a VRT is read when it is a plain mosaic of files in
its own folder (`vrt_mosaic`). What GDAL would pad with black in silence (a cut PNG or JPEG) is refused.
Pixels are read in `raster`.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ecodetect.errors import RasterError
from ecodetect.guarding import guard
from ecodetect.raster import vrt_mosaic
from ecodetect.raster.hdf5 import SIGNATURE, begins_at
from ecodetect.raster.references import check_references
from ecodetect.raster.remote import RELAYED, Remote
from ecodetect.raster.side_files import check_sides
from ecodetect.raster.vrt_mosaic import is_vrt

# Drivers whose files hold their own pixels, in GDAL's order, and why they can't lead elsewhere. All others
# can, or nobody has looked: VRT and its like; tile indexes and services (GTI, STACTA, WMS, WMTS, WCS,
# MBTiles, …); headers that name any other file (MRF, ERS, PDS, ISIS, DIMAP, TIL, SAFE, PAux, …); HDF4, which
# has elements in other files; ECW, MrSID and Kakadu's JPEG 2000, whose libraries are closed; nor PNM and TGA,
# which GDAL reads with zeros where the file ends early.
_ALONE = "nothing in the format names a file"
_HEADER = "a header of the same name says how; it names no data file"
DRIVERS: dict[str, str] = {
    "GTiff": "one file; metadata that name overviews are refused before",
    "NITF": "one file, and reduced sets of its name, which are looked at; metadata within pixels are refused",
    "HFA": "names of external pixels and overviews are looked at before: plain ones in the folder",
    "AAIGrid": _ALONE,
    "GRASSASCIIGrid": _ALONE,
    "DTED": _ALONE,
    "PNG": _ALONE,
    "JPEG": _ALONE,
    "GIF": _ALONE,
    "BMP": _ALONE,
    "SRTMHGT": _ALONE,
    "netCDF": "classic files name none; netCDF-4 is HDF5",
    "HDF5": "looked at object by object before: no external storage, links or virtual datasets",
    "HDF5Image": "as HDF5",
    "JP2OpenJPEG": "fragments in other files aren't followed; metadata are looked at before",
    "GRIB": _ALONE,
    "RMF": _ALONE,
    "RST": f"{_HEADER}, and a reference system only by a plain name",
    "GSAG": _ALONE,
    "GSBG": _ALONE,
    "GS7BG": _ALONE,
    "PCIDSK": "channels linked to other files are refused before",
    "WEBP": _ALONE,
    "SAGA": _HEADER,
    "XYZ": _ALONE,
    "GPKG": "its tables are looked at before: no views, no virtual tables; tiles hold their pixels",
    "ENVI": _HEADER,
    "EHdr": _HEADER,
    "JPEGXL": _ALONE,
    "HEIF": "references to other files aren't followed by libheif",
    "AVIF": "references to other files aren't followed by libavif",
}
VRT = "VRT"
# Formats that always begin in the same way: their drivers get a file only if it does, and was looked at.
_BY_BEGINNING = (
    "GTiff", "NITF", "HFA", "PNG", "JPEG", "GIF", "netCDF", "HDF5", "HDF5Image", "JP2OpenJPEG", "PCIDSK",
    "GPKG",
)  # fmt: skip
_OTHERS = tuple(driver for driver in DRIVERS if driver not in _BY_BEGINNING)
_HDF5 = ("netCDF", "HDF5", "HDF5Image")
# On the network or in an archive nothing can be looked at before; what a file there names is refused before
# it is followed, or can't lead out of the archive (HFA).
_REMOTE = ("GTiff", "HFA", "PNG", "JPEG", "GIF", "JP2OpenJPEG", *_OTHERS)
# Formats that GDAL itself tells surely by their beginning: a VRT's sources are these, HDF5 and text grids.
_SURE = ("GTiff", "HFA", "PNG", "JPEG", "GIF", "JP2OpenJPEG", "netCDF")

# First bytes -> the driver that will most likely take the file.
_MAGIC = (
    (b"II*\0", "GTiff"),
    (b"MM\0*", "GTiff"),
    (b"II+\0", "GTiff"),
    (b"MM\0+", "GTiff"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"\0\0\0\x0cjP  ", "JP2OpenJPEG"),
    (b"\xff\x4f\xff\x51", "JP2OpenJPEG"),
    (b"EHFA_HEADER_TAG", "HFA"),
    (b"GRIB", "GRIB"),
    (SIGNATURE, "HDF5"),
    (b"CDF", "netCDF"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"RIFF", "WEBP"),
    (b"SQLite format 3\0", "GPKG"),
    (b"PCIDSK", "PCIDSK"),
    (b"NITF", "NITF"),
    (b"NSIF", "NITF"),
)
_FORMATS = {
    "GTiff": "TIFF",
    "JP2OpenJPEG": "JPEG 2000",
    "HFA": "HFA image",
    "HDF5": "HDF5 or netCDF file",
    "netCDF": "netCDF file",
    "GPKG": "GeoPackage",
}
_SCHEMES = {
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
    "abfs": "/vsiadls/",
}
_SERVERS = re.compile(r"/vsi(?!zip|tar|gzip|7z|rar|mem|subfile|sparse|cached|crypt|stdin)\w+[/?]")
# One array of a file with several, in GDAL's spelling: `NETCDF:"file.nc":variable`, `GTIFF_DIR:2:pages.tif`.
_NAMED_ARRAY = re.compile(r'(NETCDF|HDF5|GPKG):(?:"([^"]+)":([^"]+)|([^"]+):([^":]+))', re.IGNORECASE)
_NUMBERED_ARRAY = re.compile(r"((GTIFF_DIR):(?:off:)?\d+|(NITF_IM):\d+):(.+)", re.IGNORECASE)
_OF_ARRAYS = {
    "NETCDF": "netCDF",
    "HDF5": "HDF5Image",
    "GPKG": "GPKG",
    "GTIFF_DIR": "GTiff",
    "NITF_IM": "NITF",
}
_MOST_OPENED = 200_000  # files of a VRT, with those of the VRTs that it names
_HEAD = 4096  # bytes; GDAL's own drivers look at the first 1024


# Virtual file systems that hold what their name says; others read files that another file names.
_VIRTUAL = (
    "curl", "curl_streaming", "s3", "gs", "az", "adls", "oss", "swift", "zip", "tar", "gzip", "7z", "rar",
    "mem",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Address:
    """A raster to open.

    name : as GDAL takes it.
    shown : as the user wrote it, for messages.
    drivers : those that may open it, the likeliest first.
    is_remote : on the network, or inside an archive.
    format : what its first bytes say it is, or None.
    file : that holds it, on this machine; None: it is remote.
    is_tried : its one driver has opened it before, in the guard.
    remote : what stands between GDAL and the web server; None for other places.
    """

    name: str
    shown: str
    drivers: tuple[str, ...]
    is_remote: bool
    format: str | None = None
    file: Path | None = None
    is_tried: bool = False
    remote: Remote | None = None

    @property
    def is_relayed(self) -> bool:
        """Whether GDAL asks our own relay for it; in the guard's child, too."""
        return self.name.startswith(RELAYED)

    @property
    def is_on_server(self) -> bool:
        """Whether GDAL speaks to a server itself, with credentials of its own."""
        return not self.is_relayed and _SERVERS.search(self.name) is not None


def locate(
    path: str | os.PathLike[str], *, allow_vrt: bool, check_source: Callable[[Address], None]
) -> Address:
    """Where a raster is and what may open it, after whatever in it or beside it could lead elsewhere.

    path : local file, address (`https://`, `s3://`, `gs://`, `az://`), or GDAL's own spelling (`/vsi…`, or
        one of several arrays: `NETCDF:"file.nc":name`).
    allow_vrt : trust VRTs, whatever they point to.
    check_source : raises RasterError if a source of a VRT can't be opened or read.
    Raises RasterError when there is no such file, it is empty or cut off, could lead elsewhere, or is a VRT
    that can't be trusted.
    """
    text = os.fspath(path)
    remote: tuple[str, ...] = (*_REMOTE, VRT) if allow_vrt else _REMOTE
    scheme, divider, rest = text.partition("://")
    if divider and scheme.lower() == "file":
        text = rest
    elif (address := re.fullmatch(r"(?i)(?:/vsicurl/)?(https?://.*)", text, re.DOTALL)) is not None:
        return _at_address(address[1], text, remote)
    elif divider and scheme.lower() in _SCHEMES:
        return Address(_SCHEMES[scheme.lower()] + rest, text, remote, True)
    file = Path(text)
    if text.startswith("/vsi"):
        _check_virtual(text, text)
        return Address(text, text, remote, True)
    if not text:
        raise RasterError("The name of a raster is empty.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RasterError(f"The name {text!a} is not text in UTF-8; rename the file.") from None
    if not file.exists():
        array = _array(text)
        if array is not None:
            return array
        raise RasterError(_missing(file, text))
    if file.is_dir():
        raise RasterError(f"{text} is a folder, not a raster.")
    if not file.is_file():
        raise RasterError(
            f"{text} is not a file but a pipe or a device, which may have no end; copy it to a file."
        )
    head = _head(file, text)
    if is_vrt(head):
        if not allow_vrt:
            check_sides(file, VRT, text)
            _check_mosaic(file, text, check_source, {})
        return Address(str(file.absolute()), text, (VRT,), False, None, file)
    return _checked(file, head, text)


def _checked(file: Path, head: bytes, shown: str) -> Address:
    """A file on this machine that is no VRT; raises RasterError if it is cut off, or leads elsewhere."""
    if head.lstrip().startswith(b"<"):
        raise RasterError(f"{shown} is XML, not a raster; of XML files only VRT mosaics are read.")
    likeliest = _likeliest(head)
    drivers = _OTHERS if likeliest is None else (likeliest, *(one for one in _OTHERS if one != likeliest))
    if likeliest == "HDF5" or (likeliest not in _BY_BEGINNING and begins_at(file) is not None):
        likeliest, drivers = "HDF5", _HDF5
        guard.call("ecodetect.raster.hdf5:check", str(file.absolute()), shown, about=shown, error=RasterError)
    check_sides(file, likeliest, shown)
    check_references(file, likeliest, shown)
    if likeliest in ("PNG", "JPEG"):
        _check_whole(file, likeliest, shown)
    # A database may hold anything: that GDAL takes none of it says nothing of damage.
    format_ = None if likeliest == "GPKG" else _FORMATS.get(likeliest or "", likeliest)
    return Address(str(file.absolute()), shown, drivers, False, format_, file)


def _likeliest(head: bytes) -> str | None:
    """The driver that a file's first bytes speak for."""
    return next((driver for magic, driver in _MAGIC if head.startswith(magic)), None)


def _array(text: str) -> Address | None:
    """One array of a file with several, after the file itself was looked at; None: the name says no such.

    GDAL gets the file by its whole name, so that it is the one that was looked at.
    """
    if found := _NAMED_ARRAY.fullmatch(text):
        kind, file, array = found[1].upper(), found[2] or found[4], found[3] or found[5]
        name = kind + ':"{}":' + array.replace("{", "{{").replace("}", "}}")
    elif found := _NUMBERED_ARRAY.fullmatch(text):
        kind, file = (found[2] or found[3]).upper(), found[4]
        name = found[1].upper().replace("OFF", "off") + ":{}"
    else:
        return None
    driver = _OF_ARRAYS[kind]
    if file.startswith("/vsi") and driver in _REMOTE:
        _check_virtual(file, text)
        return Address(name.format(file), text, (driver,), True)
    if "://" in file or file.startswith("/vsi"):
        raise RasterError(
            f"{text} can't be opened: single arrays are read from a file on this machine; download or unpack "
            "it first."
        )
    place = Path(file)
    if not place.is_file():
        raise RasterError(f"{file} is not a file." if place.exists() else _missing(place, file))
    source = _checked(place, _head(place, text), text)
    if driver not in source.drivers or '"' in source.name:
        raise RasterError(f"{text} can't be opened: {place.name} has no arrays of that kind.")
    return Address(name.format(source.name), text, (driver,), False, None, place)


def _check_virtual(name: str, shown: str) -> None:
    """Raise RasterError for a virtual file system of GDAL that isn't known to stay with what it names."""
    for system in re.findall(r"/vsi([^/?]*)", name):
        if system not in _VIRTUAL:
            raise RasterError(f"{shown} can't be opened: /vsi{system}/ is not read; name the file itself.")


def _at_address(address: str, text: str, drivers: tuple[str, ...]) -> Address:
    """A raster on a web server, of which the first bytes are fetched."""
    remote = Remote(address, text)
    try:
        if is_vrt(remote.head) and VRT not in drivers:
            raise RasterError(f"{text} can't be opened: a VRT is read only from this machine; download it.")
        likeliest = _likeliest(remote.head)
        format_ = _FORMATS.get(likeliest or "", likeliest)
        if likeliest and likeliest not in drivers:
            raise RasterError(
                f"{text} can't be opened: its format ({format_}) is read only from this machine; download it."
            )
        if likeliest:
            drivers = (likeliest, *(driver for driver in drivers if driver != likeliest))
        return Address(remote.name, text, drivers, True, format_, remote=remote)
    except BaseException:
        remote.close()
        raise


def _missing(file: Path, text: str) -> str:
    if file.is_symlink():
        return f"{text} is a link to {file.readlink()}, which isn't there."
    try:
        names = [entry.name for entry in file.parent.iterdir()]
    except OSError:
        return f"There is no file {text}, nor its folder."
    near = get_close_matches(file.name, names, n=2, cutoff=0.75)
    hint = f"; did you mean {' or '.join(str(file.with_name(name)) for name in near)}?" if near else "."
    return f"There is no file {text}{hint}"


def _head(file: Path, shown: str) -> bytes:
    try:
        if not file.is_file():  # to open a pipe is to wait for who writes into it
            raise RasterError(f"{shown} is not a file but a pipe, a socket or a device.")
        head = b""
        if file.stat().st_size:  # files of the system that say 0 may never end
            with file.open("rb") as stream:
                head = stream.read(_HEAD)
    except RasterError:
        raise
    except OSError as error:
        raise RasterError(f"{shown} can't be read: {error.strerror or error}.") from error
    if not head:
        raise RasterError(f"{shown} is empty (0 bytes).")
    return head


def _check_mosaic(
    file: Path,
    shown: str,
    check_source: Callable[[Address], None],
    seen: dict[Path, int],
    above: tuple[Path, ...] = (),
) -> int:
    """Raise RasterError unless a VRT is a plain mosaic of files that could be opened themselves.

    seen : what was looked at, whatever the ways of writing its name, and how many files GDAL opens for it.
    above : the VRTs that led here.
    Returns how many files GDAL opens for this one: again for each way in which a name is written.
    """
    above = (*above, file.resolve())
    opened = 0
    for name, place in vrt_mosaic.sources(file, shown):
        said = f"{shown}: {name}"
        inside = place.resolve()
        if inside in above or len(above) > vrt_mosaic.MOST_NESTED:
            raise RasterError(f"{shown} is a VRT that contains itself.")
        entry = place.parent.resolve() / place.name  # links have side files of their own
        if entry in seen:
            opened = _counted(opened + seen[entry], shown)
            continue
        head = _head(place, f"Source {name} of {shown}")
        if is_vrt(head):
            check_sides(place, VRT, said)
            if inside not in seen:
                seen[inside] = _check_mosaic(place, said, check_source, seen, above)
            seen[entry] = seen[inside]
            opened = _counted(opened + seen[entry], shown)
            continue
        seen[entry] = 1
        opened = _counted(opened + 1, shown)
        if head.lstrip().startswith(b"<"):
            raise RasterError(f"{shown} takes pixels from {name}, which is not a raster but XML.")
        source = _checked(place, head, said)
        is_grid = re.match(rb"\s*n(cols|rows)\s", head, re.IGNORECASE) and b"<" not in head
        is_sure = source.drivers[0] in _SURE or (source.drivers[0] == _OTHERS[0] and is_grid)
        if not is_sure or (source.drivers != _HDF5 and begins_at(place) is not None):
            raise vrt_mosaic.untrusted(
                f"{shown} takes pixels from {name}, whose format can't be told by its beginning; write that "
                "as a GeoTIFF"
            )
        check_source(source)
    return opened


def _counted(opened: int, shown: str) -> int:
    """The number of files; raises RasterError where nobody would wait for so many."""
    if opened > _MOST_OPENED:
        raise RasterError(
            f"{shown} names files again and again, {opened:,} in all; make it of the files themselves"
            " (gdalbuildvrt)."
        )
    return opened


def check_files(dataset: Any, file: Path, source: Address) -> None:
    """Raise RasterError when an open raster uses files outside its folder (large HFA files name theirs).

    Those of a VRT were looked at before.
    """
    if VRT in source.drivers:
        return
    try:
        used = dataset.files
    except UnicodeDecodeError as error:
        raise RasterError(f"{source.shown} names other files in bytes that aren't UTF-8 text.") from error
    itself = os.path.normpath(file.absolute())
    for name in used:
        place = Path(os.path.normpath(Path(name).absolute()))
        if str(place) == itself:
            continue
        homes = file.parent.resolve(), file.resolve().parent
        is_beside = place.is_relative_to(Path(itself).parent)
        if not is_beside or not any(place.resolve().is_relative_to(home) for home in homes):
            raise RasterError(f"{source.shown} takes pixels from outside its folder ('{_short(name)}').")


def _short(name: str) -> str:
    return name if len(name) <= 80 else name[:77] + "…"


# -- files cut off -----------------------------------------------------------------------------------------


def _check_whole(file: Path, kind: str, shown: str) -> None:
    """Raise RasterError for a PNG or JPEG that ends early; GDAL reads the missing part as black or grey."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if not (_png_ends(data) if kind == "PNG" else _jpeg_ends(data)):
            raise RasterError(f"{shown} is truncated: the end of the {kind} is missing.")


def _png_ends(data: mmap.mmap) -> bool:
    """Whether the chunks of a PNG lead to its IEND."""
    place = 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"IEND":
            return True
        place += 12 + length
    return False


# Within a scan FF 00 is a value, FF D0 to FF D7 restart it, and FF FF is padding.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_BARE = (0x01, *range(0xD0, 0xD9))  # markers without a length


def _jpeg_ends(data: mmap.mmap) -> bool:
    """Whether the segments of a JPEG lead to its end marker; thumbnails within have ends of their own."""
    place = 2
    while True:
        found = _MARKER.search(data, place)
        if found is None:
            return False
        marker = data[found.start() + 1]
        place = found.end()
        if marker == 0xD9:
            return True
        if marker not in _BARE:
            place += max(2, int.from_bytes(data[place : place + 2], "big"))
