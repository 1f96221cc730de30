"""Whether a VRT is a plain mosaic of raster files in its own folder: what it is made of is an allow-list.

A VRT is a text that may name any file of the system, or any address, as its pixels, and may hold code. Only
elements are read here that are known to do neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from ecodetect.errors import RasterError
from ecodetect.guarding.crs_files import check_crs

MOST_NESTED = 8  # VRTs within VRTs

_PLAIN = frozenset(
    [
        "vrtdataset", "srs", "geotransform", "gcplist", "gcp", "metadata", "mdi", "vrtrasterband",
        "maskband", "overviewlist", "description", "unittype", "offset", "scale", "colorinterp",
        "colortable", "entry", "categorynames", "category", "nodatavalue", "hidenodatavalue",
        "histograms", "histitem", "histmin", "histmax", "bucketcount", "includeoutofrange",
        "approximate", "histcounts", "gdalrasterattributetable", "fielddefn", "name", "type", "usage",
        "row", "f", "simplesource", "complexsource", "averagedsource", "nodatafrommasksource",
        "sourcefilename", "sourceband", "sourceproperties", "srcrect", "dstrect", "nodata",
        "usemaskband", "scaleoffset", "scaleratio", "lut", "colortablecomponent", "exponent", "srcmin",
        "srcmax", "dstmin", "dstmax", "clamp", "masknodata", "maskvaluethreshold", "remappedvalue",
    ]
)  # fmt: skip
# Domains of metadata in which GDAL looks for other files.
_LEADING = ("overviews", "geolocation")


def is_vrt(head: bytes) -> bool:
    """Whether GDAL would take a file with these first bytes as a VRT: by its content, whatever its name."""
    return b"<vrtdataset" in head.lower()


def untrusted(text: str) -> RasterError:
    """The error for a VRT that could read what its sender doesn't own; the user may trust it all the same."""
    return RasterError(f"{text}; if you trust it, allow it.", parameter="allow_vrt")


def sources(file: Path, shown: str) -> Iterator[tuple[str, Path]]:
    """The files that a VRT takes its pixels from: as it names them, and where they are, links unfollowed.

    Raises RasterError unless it is a plain mosaic of files in its own folder (or below it) that are there.
    """
    root = read_xml(file, shown)
    if _local(root.tag) != "vrtdataset":
        raise RasterError(f"{shown} is not a raster.")
    folder = file.resolve().parent
    named = []
    for element in root.iter():
        tag = _local(element.tag)
        attributes = {_local(key): value.strip() for key, value in element.attrib.items()}
        if len(attributes) < len(element.attrib):
            raise untrusted(f"{shown} has an attribute twice in <{_short(tag)}>")
        kind = attributes.get("subclass", "")
        if kind.casefold() not in ("", "vrtsourcedrasterband"):
            raise untrusted(f"{shown} is more than a mosaic of files ({_short(kind)})")
        if tag not in _PLAIN:
            raise untrusted(f"{shown} is more than a mosaic of files (<{_short(tag)}>)")
        domain = attributes.get("domain", "")
        if tag == "metadata" and domain.casefold() in _LEADING:
            raise untrusted(f"{shown} points to other files in its metadata ({domain})")
        if tag in ("srs", "gcplist"):
            check_crs(f"{element.text or ''} {attributes.get('projection', '')}", shown, error=RasterError)
        if tag == "sourcefilename":
            relative = attributes.get("relativetovrt", "0")
            if len(element) or relative not in ("0", "1"):
                raise untrusted(f"{shown} names a source in a way that is not plain")
            named.append(((element.text or "").strip(), relative == "1"))
    for name, is_relative in dict.fromkeys(named):
        # A relative name that isn't relative to the VRT is one to the working folder.
        place = folder / name if is_relative else Path(name).absolute()
        if not name or re.match(r"/vsi|[\w+.-]{2,}:|<", name):
            raise untrusted(f"{shown} takes pixels from outside its folder ('{_short(name)}')")
        if not place.resolve().is_relative_to(folder):
            raise untrusted(f"{shown} takes pixels from outside its folder ('{_short(name)}')")
        if not place.is_file():
            raise RasterError(f"{shown} can't be read: its source {_short(name)} is missing.")
        yield name, place


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


def _local(name: str) -> str:
    """An XML name as GDAL compares it: without a namespace, in any case."""
    return name.rpartition("}")[2].casefold()


def _short(name: str) -> str:
    return name if len(name) <= 80 else name[:77] + "…"
