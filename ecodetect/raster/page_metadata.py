"""What microscopes and ImageJ write into a TIFF about its pages: channels, planes, times, size of a pixel.

OME-XML, ImageJ's description and labels, names of single pages, and resolution tags. The tags themselves are
read in `tiff_pages`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.parsers import expat

from ecodetect.raster.tiff_pages import (
    DESCRIPTION,
    GDAL_NODATA,
    IMAGEJ_COUNTS,
    IMAGEJ_DATA,
    PAGE_NAME,
    RESOLUTION_UNIT,
    X_RESOLUTION,
    Y_RESOLUTION,
    Pages,
    tag_values,
)

_TAGS = (DESCRIPTION, IMAGEJ_COUNTS, IMAGEJ_DATA, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, GDAL_NODATA)
_MOST_NAMED = 1000  # pages whose own names are looked up
_MOST_NAME = 60  # characters of a name
# Resolution tags alone count only where no scanner and no printer is so fine: 5080 dots per inch and more.
_FINEST_SCAN_M = 5e-6
_METRES = {
    "pm": 1e-12, "nm": 1e-9, "nanometer": 1e-9, "um": 1e-6, "µm": 1e-6, "μm": 1e-6, "micron": 1e-6,
    "microns": 1e-6, "micrometer": 1e-6, "micrometre": 1e-6, "mm": 1e-3, "millimeter": 1e-3, "cm": 1e-2,
    "centimeter": 1e-2, "m": 1.0, "meter": 1.0, "inch": 0.0254, "inches": 0.0254, "in": 0.0254,
}  # fmt: skip
_DEFAULT_DIMENSIONS = {"c": 1, "z": 1, "t": 1}


@dataclass(frozen=True, slots=True)
class Stack:
    """How the pages of a TIFF belong together.

    channels : which of the pages (0-based, of `Pages.alike`) are the bands: those of the first plane at the
        first time.
    names : of each channel, or None.
    planes, times : how many of each there are; 1 if not stated.
    gsd_m : width and height of a pixel in metres, or None.
    says : who says all that, for messages; "" where nobody does.
    hidden : pages that ImageJ has behind the first one without a directory, so that nobody else finds them.
    nodata : the value in GDAL's tag, or None.
    """

    channels: tuple[int, ...]
    names: tuple[str | None, ...]
    planes: int = 1
    times: int = 1
    gsd_m: tuple[float, float] | None = None
    says: str = ""
    hidden: int = 0
    nodata: float | None = None


def read_stack(file: Path, pages: Pages) -> Stack:
    """How pages belong together, by the tags of the first one."""
    assert pages.first is not None
    tags = tag_values(file, pages, pages.first, _TAGS)
    return replace(_stack(file, pages, tags), nodata=_number(tags.get(GDAL_NODATA, b"")))


def _stack(file: Path, pages: Pages, tags: Mapping[int, bytes]) -> Stack:
    count = max(1, len(pages.alike))
    text = tags.get(DESCRIPTION, b"")
    if b"<OME" in text[:4096]:
        found = _ome(text)
        if found is not None:
            return _of_ome(found, count)
    if text.startswith(b"ImageJ="):
        return _of_imagej(text, tags, count, pages)
    names = _page_names(file, pages) if 1 < count <= _MOST_NAMED else (None,) * count
    gsd = _by_resolution(tags, pages.order)
    return Stack(tuple(range(count)), names, gsd_m=gsd, says="resolution tags" if gsd else "")


# -- OME ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Ome:
    """The first image of an OME-XML: attributes of Pixels, names of channels, and (IFD, C, Z, T, count)."""

    pixels: dict[str, str] = field(default_factory=dict)
    channels: list[str | None] = field(default_factory=list)
    places: list[tuple[int, int, int, int, int]] = field(default_factory=list)


def _ome(text: bytes) -> _Ome | None:
    """Read with a parser that builds no tree and knows no entities; None where it isn't well-formed."""
    found = _Ome()
    images = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal images
        name = tag.rpartition(":")[2]
        images += name == "Image"
        if images != 1:
            return
        if name == "Pixels":
            found.pixels = attributes
        elif name == "Channel":
            found.channels.append(attributes.get("Name"))
        elif name == "TiffData":
            numbers = (_whole(attributes.get(key)) for key in ("IFD", "FirstC", "FirstZ", "FirstT"))
            ifd, c, z, t = (number or 0 for number in numbers)
            found.places.append((ifd, c, z, t, _whole(attributes.get("PlaneCount")) or 0))

    def refuse(*_: object) -> None:
        raise ValueError("OME-XML with a DOCTYPE")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text.rstrip(b"\0 \n"), True)
    except (expat.ExpatError, ValueError, LookupError):
        return None
    return found if found.pixels else None


def _of_ome(found: _Ome, count: int) -> Stack:
    pixels = found.pixels
    order = pixels.get("DimensionOrder", "XYCZT").lower().replace("x", "").replace("y", "")
    sizes = {name: max(1, _whole(pixels.get(f"Size{name.upper()}")) or 1) for name in "czt"}
    if sorted(order) != ["c", "t", "z"]:
        order = "czt"
    if count > 1 and len(found.channels) not in (0, sizes["c"]):
        sizes["c"] = len(found.channels)  # samples of a channel count in SizeC
    at = _places(order, sizes)
    for ifd, c, z, t, planes in found.places:
        if planes <= 1 and (z, t) == (0, 0):
            at[c] = ifd
    kept = [c for c in range(min(sizes["c"], count)) if 0 <= at.get(c, -1) < count]
    names = [_named(found.channels[c]) if c < len(found.channels) else None for c in kept]
    size = [
        _metres(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "XY"
    ]
    return Stack(
        tuple(at[c] for c in kept) or (0,),
        tuple(names) or (None,),
        sizes["z"],
        sizes["t"],
        _pair(*size),
        "OME-XML",
    )


def _places(order: str, sizes: Mapping[str, int]) -> dict[int, int]:
    """Number of the page of each channel's first plane at the first time."""
    step = 1
    for name in order:
        if name == "c":
            break
        step *= sizes[name]
    return {c: c * step for c in range(min(sizes["c"], 100_000))}


# -- ImageJ ------------------------------------------------------------------------------------------------


def _of_imagej(text: bytes, tags: Mapping[int, bytes], count: int, pages: Pages) -> Stack:
    said = dict(
        line.split("=", 1)
        for line in text.rstrip(b"\0").decode("utf-8", "replace").splitlines()
        if "=" in line
    )
    sizes = {
        name: max(1, _whole(said.get(key)) or 1)
        for name, key in (("c", "channels"), ("z", "slices"), ("t", "frames"))
    }
    images = _whole(said.get("images")) or 1
    is_told = any(key in said for key in ("channels", "slices", "frames"))
    channels = tuple(range(min(sizes["c"], count))) if is_told else tuple(range(count))
    labels = _labels(tags, pages.order)
    names = tuple(
        _named(re.sub(r"^(?:[czt]:\d+/\d+\s*)+-?\s*", "", labels[c])) if c < len(labels) else None
        for c in channels
    )
    unit = said.get("unit", "").strip().encode("latin-1", "replace").decode("unicode_escape", "replace")
    gsd = None
    if unit in _METRES:
        per_unit = [_ratio(tags.get(tag), pages.order) for tag in (X_RESOLUTION, Y_RESOLUTION)]
        gsd = _pair(*(_METRES[unit] / number if number else None for number in per_unit))
    hidden = images - 1 if count == 1 and images > 1 else 0
    return Stack(channels, names, sizes["z"], sizes["t"], gsd, "ImageJ", hidden)


def _labels(tags: Mapping[int, bytes], order: str) -> list[str]:
    """ImageJ's labels of its pages: a header of kinds and numbers, then one text in UTF-16 for each."""
    counts_raw, data = tags.get(IMAGEJ_COUNTS, b""), tags.get(IMAGEJ_DATA, b"")
    counts = struct.unpack(f"{order}{len(counts_raw) // 4}I", counts_raw[: len(counts_raw) // 4 * 4])
    if not counts or data[:4] not in (b"IJIJ", b"JIJI"):
        return []
    kinds = data[4 : counts[0]]
    place, number = counts[0], 1
    labels: list[str] = []
    for name, items in struct.iter_unpack(order + "4sI", kinds[: len(kinds) // 8 * 8]):
        for _ in range(min(items, len(counts) - number)):
            if name in (b"labl", b"lbal"):
                part = data[place : place + counts[number]]
                labels.append(part.decode("utf-16-le" if order == "<" else "utf-16-be", "replace"))
            place += counts[number]
            number += 1
    return labels


# -- single pages ------------------------------------------------------------------------------------------


def _page_names(file: Path, pages: Pages) -> tuple[str | None, ...]:
    """Names that pages have for themselves: PageName, QPTIFF's XML, or a short description."""
    names: list[str | None] = []
    for place in pages.alike:
        tags = tag_values(file, pages, place, (PAGE_NAME, DESCRIPTION))
        own = tags.get(PAGE_NAME, b"").rstrip(b"\0").decode("utf-8", "replace")
        text = tags.get(DESCRIPTION, b"")[:65536].rstrip(b"\0").decode("utf-8", "replace")
        inside = re.search(r"<Biomarker>([^<]+)<", text) or re.search(r"<Name>([^<]+)<", text)
        names.append(_named(own) or _named(inside[1] if inside else text))
    return tuple(names) if len(set(names)) == len(names) else (None,) * len(names)


def _by_resolution(tags: Mapping[int, bytes], order: str) -> tuple[float, float] | None:
    """The size of a pixel by the resolution tags, where they can only be a microscope's."""
    unit = tags.get(RESOLUTION_UNIT, b"")
    metres = {2: 0.0254, 3: 0.01}.get(struct.unpack(order + "H", unit[:2])[0] if len(unit) >= 2 else 0)
    if metres is None:
        return None
    per_unit = [_ratio(tags.get(tag), order) for tag in (X_RESOLUTION, Y_RESOLUTION)]
    found = _pair(*(metres / number if number else None for number in per_unit))
    return found if found is not None and max(found) < _FINEST_SCAN_M else None


# -- numbers and words -------------------------------------------------------------------------------------


def _named(text: str | None) -> str | None:
    """A text that can be a band's name in a list of them, or None."""
    plain = " ".join((text or "").split())
    is_name = 0 < len(plain) <= _MOST_NAME and not set(plain) & set(",=<>{}") and not plain.isdecimal()
    return plain if is_name and plain.isprintable() else None


def _whole(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"\s*\d{1,9}\s*", text) else None


def _metres(text: str | None, unit: str) -> float | None:
    try:
        return float(text or "") * _METRES[unit]
    except (ValueError, KeyError):
        return None


def _number(raw: bytes) -> float | None:
    try:
        return float(raw.rstrip(b"\0 "))
    except ValueError:
        return None


def _ratio(raw: bytes | None, order: str) -> float | None:
    above, below = struct.unpack(order + "II", raw[:8]) if raw and len(raw) >= 8 else (0, 0)
    return above / below if above and below else None


def _pair(x: float | None, y: float | None) -> tuple[float, float] | None:
    """Both sides of a pixel in metres where they can be true: above 0.1 nm and below 1 m."""
    if x is None or y is None or not (1e-10 < x < 1 and 1e-10 < y < 1):
        return None
    return x, y
