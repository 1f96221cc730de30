"""Which files and addresses are opened as rasters: nothing but pixels, whole, and from where the user said.

GDAL takes a file by its content: a text that calls itself .tif may name any file of the system, or any
address of the network, as its pixels. So drivers are an allow-list of those that hold their own pixels; a VRT
is read when it is a plain mosaic of files in its own folder; and what GDAL would pad with black in silence (a
cut PNG or JPEG) is refused. Pixels are read in `raster`.
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
from xml.etree import ElementTree

from ecodetect.errors import RasterError
from ecodetect.raster_remote import RELAYED, Remote

# Formats whose pixels are in the file itself (or in a twin of the same name, as ENVI's), in GDAL's order.
# Not here: VRT and DERIVED, tile indexes and services (GTI, STACTA, STACIT, WMS, WMTS, WCS, MBTiles, …), and
# headers that name any other file (MRF, ERS, PDS, ISIS, DIMAP, TIL, SAFE, …); nor PNM and TGA, which GDAL
# reads with zeros where the file ends early.
DRIVERS: tuple[str, ...] = (
    "GTiff", "NITF", "HFA", "AAIGrid", "GRASSASCIIGrid", "DTED", "PNG", "JPEG", "GIF", "BMP", "SRTMHGT",
    "netCDF", "JP2KAK", "JP2ECW", "JP2MrSID", "JP2OpenJPEG", "ECW", "MrSID", "GRIB", "RMF", "RST", "GSAG",
    "GSBG", "GS7BG", "PCIDSK", "WEBP", "HDF4", "HDF4Image", "HDF5", "HDF5Image", "SAGA", "XYZ", "GPKG",
    "ENVI", "EHdr", "JPEGXL", "HEIF", "AVIF",
)  # fmt: skip
VRT = "VRT"

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
    (b"\x89HDF\r\n\x1a\n", "netCDF"),
    (b"CDF", "netCDF"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"RIFF", "WEBP"),
)
_FORMATS = {
    "GTiff": "TIFF",
    "JP2OpenJPEG": "JPEG 2000",
    "HFA": "HFA image",
    "netCDF": "HDF5 or netCDF file",
}
_SCHEMES = {
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
    "abfs": "/vsiadls/",
}
_SERVERS = re.compile(r"/vsi(?!zip|tar|gzip|7z|rar|mem|subfile|sparse|cached|crypt|stdin)\w+[/?]")
# One array of a file with several, in GDAL's spelling: `NETCDF:"file.nc":variable`, `GTIFF_DIR:2:pages.tif`.
_SUBDATASET = re.compile(r"(?i)(NETCDF|HDF5|HDF4_SDS|HDF4_EOS|GTIFF_DIR|GPKG|NITF_IM|PCIDSK):.+")
_HEAD = 4096  # bytes; GDAL's own drivers look at the first 1024
_SIDE_FILES = (".ovr", ".msk", ".msk.ovr", ".aux", ".rrd")


@dataclass(frozen=True, slots=True)
class Source:
    """A raster to open.

    name : as GDAL takes it.
    shown : as the user wrote it, for messages.
    drivers : those that may open it, the likeliest first.
    is_remote : on the network, or inside an archive.
    format : what its first bytes say it is, or None.
    is_tried : its one driver has opened it before, in the guard.
    remote : what stands between GDAL and the web server; None for other places.
    """

    name: str
    shown: str
    drivers: tuple[str, ...]
    is_remote: bool
    format: str | None = None
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
    path: str | os.PathLike[str], *, allow_vrt: bool, check_source: Callable[[str, str], None]
) -> Source:
    """Where a raster is and what may open it.

    path : local file, address (`https://`, `s3://`, `gs://`, `az://`), or GDAL's own spelling (`/vsi…`, or
        one of several arrays: `NETCDF:"file.nc":name`).
    allow_vrt : trust VRTs, whatever they point to.
    check_source : given a source file of a VRT and its name for messages, raises RasterError if `DRIVERS`
        can't open it or it can't be read.
    Raises RasterError when there is no such file, it is empty or cut off, or is a VRT that can't be trusted.
    """
    text = os.fspath(path)
    drivers: tuple[str, ...] = (*DRIVERS, VRT) if allow_vrt else DRIVERS
    scheme, divider, rest = text.partition("://")
    if divider and scheme.lower() == "file":
        text = rest
    elif (address := re.fullmatch(r"(?i)(?:/vsicurl/)?(https?://.*)", text, re.DOTALL)) is not None:
        return _at_address(address[1], text, drivers)
    elif divider and scheme.lower() in _SCHEMES:
        return Source(_SCHEMES[scheme.lower()] + rest, text, drivers, True)
    file = Path(text)
    if text.startswith("/vsi"):
        return Source(text, text, drivers, True)
    if not text:
        raise RasterError("The name of a raster is empty.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RasterError(f"The name {text!a} is not text in UTF-8; rename the file.") from None
    if not file.exists():
        if _SUBDATASET.fullmatch(text) and "://" not in text:  # netCDF's own network access
            return Source(text, text, drivers, False)
        raise RasterError(_missing(file, text))
    if file.is_dir():
        raise RasterError(f"{text} is a folder, not a raster.")
    head = _head(file, text)
    likeliest = next((driver for magic, driver in _MAGIC if head.startswith(magic)), None)
    if likeliest in ("PNG", "JPEG"):
        _check_whole(file, likeliest, text)
    # A PCIDSK file states its size in blocks; GDAL reads what is missing as whatever is in memory.
    stated = head[16:32].strip()
    if head.startswith(b"PCIDSK") and stated.isdigit() and file.stat().st_size < int(stated) * 512:
        raise RasterError(f"{text} is truncated: the end of the PCIDSK file is missing; copy it anew.")
    if not allow_vrt:
        _check_side_files(file, text)
        if _is_vrt(head):
            check_vrt(file, text, check_source)
            drivers = (VRT,)
        elif head.lstrip().startswith(b"<"):
            raise RasterError(f"{text} is not a raster but XML; only VRT mosaics are read of that kind.")
    elif _is_vrt(head):
        drivers = (VRT,)
    if likeliest:
        drivers = (likeliest, *(driver for driver in drivers if driver != likeliest))
    return Source(str(file.absolute()), text, drivers, False, _FORMATS.get(likeliest or "", likeliest))


def _at_address(address: str, text: str, drivers: tuple[str, ...]) -> Source:
    """A raster on a web server, of which the first bytes are fetched."""
    remote = Remote(address, text)
    try:
        if _is_vrt(remote.head) and VRT not in drivers:
            raise RasterError(f"{text} can't be opened: a VRT is read only from this machine; download it.")
        likeliest = next((driver for magic, driver in _MAGIC if remote.head.startswith(magic)), None)
        if likeliest:
            drivers = (likeliest, *(driver for driver in drivers if driver != likeliest))
        return Source(
            remote.name, text, drivers, True, _FORMATS.get(likeliest or "", likeliest), remote=remote
        )
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
        with file.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        raise RasterError(f"{shown} can't be read: {error.strerror or error}.") from error
    if not head:
        raise RasterError(f"{shown} is empty (0 bytes).")
    return head


# -- VRT ---------------------------------------------------------------------------------------------------


def _is_vrt(head: bytes) -> bool:
    """Whether GDAL would take the file as a VRT: by its content, whatever its name."""
    return b"<vrtdataset" in head.lower()


def check_vrt(
    file: Path, shown: str, check_source: Callable[[str, str], None], _above: tuple[Path, ...] = ()
) -> None:
    """Raise RasterError unless the VRT is a plain mosaic of raster files in its own folder (or below it).

    _above : the VRTs that led here.
    """
    remedy = "; if you trust it, say --allow-vrt"
    root = read_xml(file, shown)
    if _local(root.tag) != "vrtdataset":
        raise RasterError(f"{shown} is not a raster.")
    folder = file.resolve().parent
    sources = []
    for element in root.iter():
        tag = _local(element.tag)
        attributes = {_local(key): value.strip() for key, value in element.attrib.items()}
        kind = attributes.get("subclass", "")
        if kind.casefold() not in ("", "vrtsourcedrasterband"):
            raise RasterError(f"{shown} is more than a mosaic of files ({kind}){remedy}.")
        domain = attributes.get("domain", "")
        if tag == "metadata" and domain.casefold() in ("overviews", "geolocation"):
            raise RasterError(f"{shown} points to other files in its metadata ({domain}){remedy}.")
        if tag in ("sourcefilename", "sourcedataset"):
            relative = attributes.get("relativetovrt", "0")
            if len(element) or relative not in ("0", "1"):
                raise RasterError(f"{shown} names a source in a way that is not plain{remedy}.")
            sources.append(((element.text or "").strip(), relative == "1"))
    for name, is_relative in dict.fromkeys(sources):
        # A relative name that isn't relative to the VRT is one to the working folder.
        place = folder / name if is_relative else Path(name).absolute()
        inside = place.resolve()
        if not name or re.match(r"/vsi|[\w+.-]{2,}:|<", name) or not inside.is_relative_to(folder):
            raise RasterError(f"{shown} takes pixels from outside its folder ('{_short(name)}'){remedy}.")
        if not inside.is_file():
            raise RasterError(f"{shown} can't be read: its source {name} is missing.")
        head = _head(inside, f"Source {name} of {shown}")
        if _is_vrt(head):
            if inside in _above or len(_above) > 8:
                raise RasterError(f"{shown} is a VRT made of itself.")
            check_vrt(inside, f"{shown}: {name}", check_source, (*_above, file.resolve()))
        elif head.lstrip().startswith(b"<"):
            raise RasterError(f"{shown} takes pixels from {name}, which is not a raster but XML.")
        else:
            _check_side_files(inside, f"{shown}: {name}")
            check_source(str(inside), f"{name} of {shown}")


def _local(name: str) -> str:
    """An XML name as GDAL compares it: without a namespace, in any case."""
    return name.rpartition("}")[2].casefold()


def read_xml(file: Path, shown: str) -> ElementTree.Element:
    """The root element of a VRT, if GDAL's own simple parser reads the same as a full one.

    A DOCTYPE may hide entities; comments, CDATA and other encodings may be read in another way there.
    """
    content = file.read_bytes()
    if re.search(rb"<!\s*(doctype|entity)", content.replace(b"\0", b""), re.IGNORECASE):
        raise RasterError(f"{shown} has a DOCTYPE, which is not allowed in XML read here; remove it.")
    encoding = re.search(rb"<\?xml[^>]*encoding\s*=\s*[\"']([\w-]+)", content[:200])
    if encoding and encoding[1].lower() not in (b"utf-8", b"us-ascii", b"ascii", b"iso-8859-1"):
        raise RasterError(f"{shown} must be XML in UTF-8; it is in {encoding[1].decode('ascii')}.")
    if re.search(rb"<!--|<!\[CDATA\[", content, re.IGNORECASE):
        raise RasterError(
            f"{shown} has comments or CDATA in its XML, which hide what it points to; remove them."
        )
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise RasterError(f"{shown} is not well-formed XML: {error}.") from error


def _short(name: str) -> str:
    return name if len(name) <= 80 else name[:77] + "…"


def check_files(dataset: Any, file: Path, source: Source) -> None:
    """Raise RasterError when an open raster uses files outside its folder (large HFA files name theirs).

    Those of a VRT were looked at before.
    """
    if VRT in source.drivers:
        return
    try:
        used = dataset.files
    except UnicodeDecodeError as error:
        raise RasterError(f"{source.shown} names other files in bytes that are no text (UTF-8).") from error
    folder = os.path.normpath(file.parent)
    for name in used:
        if not Path(os.path.normpath(Path(name).absolute())).is_relative_to(folder):
            raise RasterError(f"{source.shown} takes pixels from outside its folder ('{_short(name)}').")


def _check_side_files(file: Path, shown: str) -> None:
    """GDAL opens masks and overviews beside a raster with any driver: they must be plain files too."""
    for suffix in _SIDE_FILES:
        for side in (Path(f"{file}{suffix}"), file.with_suffix(suffix)):
            if side == file or not side.is_file():
                continue
            with side.open("rb") as stream:
                head = stream.read(_HEAD)
            if head and not head.startswith((b"II", b"MM", b"EHFA_HEADER_TAG")):
                raise RasterError(
                    f"{shown} has a side file {side.name} that is neither TIFF nor HFA; remove it."
                )


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
