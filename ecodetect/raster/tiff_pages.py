"""The pages of a TIFF as its directories say: how many, how large, and what the tags of one hold.

GDAL walks them with work that grows faster than their number, and opens one; here they are walked once, in
bounded memory, without pixels. What the texts mean is in `page_metadata`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ecodetect.errors import RasterError

MOST_PAGES = 200_000  # walked in two seconds
_MOST_TAGS = 4096  # of a page
MOST_TEXT = 16 * 2**20  # bytes of a tag's value: OME-XML of 10,000 pages takes 2 MB
_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_NUMBERS = {
    1: "B",
    3: "H",
    4: "I",
    6: "b",
    8: "h",
    9: "i",
    11: "f",
    12: "d",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}

SUBFILE, OLD_SUBFILE, WIDTH, HEIGHT, BITS, PHOTOMETRIC, DESCRIPTION = 254, 255, 256, 257, 258, 262, 270
SAMPLES, X_RESOLUTION, Y_RESOLUTION, PAGE_NAME, RESOLUTION_UNIT, SAMPLE_FORMAT = 277, 282, 283, 285, 296, 339
IMAGEJ_COUNTS, IMAGEJ_DATA, GDAL_METADATA, GDAL_NODATA = 50838, 50839, 42112, 42113
_GEO_TEXTS = 34737  # of GeoTIFF, among them the WKT of a CRS
_SUB_DIRECTORIES = 330
_LEADING = (GDAL_METADATA, _GEO_TEXTS, _SUB_DIRECTORIES)  # may name files, or lead to what does
_KIND = (SUBFILE, OLD_SUBFILE, WIDTH, HEIGHT, BITS, PHOTOMETRIC, SAMPLES, SAMPLE_FORMAT)
_REDUCED, _MASK = 1, 4  # bits of SUBFILE


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages of a TIFF's main chain of directories.

    order : "<" or ">".
    count : of directories, with overviews and masks.
    first : place of the first page's directory; None: the file has none that can be read.
    alike : places of the directories of the pages that have the size, the type and the one sample of the
        first; overviews and masks aren't among them. Empty where the first has several samples.
    numbers : the same by their number in the chain, from 1, as GDAL counts them.
    others : numbers of pages that are none of these: of another size or type, or of several samples.
    is_whole : False where there are more than `MOST_PAGES`.
    """

    order: str
    is_big: bool
    count: int
    first: int | None
    alike: tuple[int, ...]
    numbers: tuple[int, ...]
    others: tuple[int, ...]
    is_whole: bool = True


def read_pages(file: Path) -> Pages | None:
    """The pages of a file; None if it is no TIFF.

    Raises RasterError where a directory leads back to one that came before.
    """
    with file.open("rb") as stream:
        head = stream.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 16 or struct.unpack(order + "H", head[2:4])[0] not in (42, 43):
            return None
        is_big = struct.unpack(order + "H", head[2:4])[0] == 43
        place = start = struct.unpack_from(order + ("Q" if is_big else "I"), head, 8 if is_big else 4)[0]
        alike: list[int] = []
        numbers: list[int] = []
        others: list[int] = []
        seen: set[int] = set()
        first: tuple[int, ...] | None = None
        kinds: dict[tuple[tuple[int, int, bytes] | None, ...], tuple[int, ...]] = {}
        while place and len(seen) < MOST_PAGES:
            if place in seen:
                raise RasterError(f"{file.name} is damaged: its list of pages is a circle.")
            seen.add(place)
            read = _directory(stream, place, order, is_big)
            if read is None:
                break  # beyond the end of the file: GDAL says it where it matters
            entries, following = read
            told = tuple(map(entries.get, _KIND))  # mostly as before: pages are walked twice as fast
            if told not in kinds:
                kinds[told] = _kind(stream, entries, order)
            kind = kinds[told]
            first = first or kind
            if kind[0] & (_REDUCED | _MASK):
                pass
            elif kind == first and first[3] == 1:
                alike.append(place)
                numbers.append(len(seen))
            elif len(seen) > 1:
                others.append(len(seen))
            place = following
    return Pages(
        order,
        is_big,
        len(seen),
        start if first is not None else None,
        tuple(alike),
        tuple(numbers),
        tuple(others),
        is_whole=not place or len(seen) < MOST_PAGES,
    )


def tag_values(file: Path, pages: Pages, place: int, wanted: tuple[int, ...]) -> Mapping[int, bytes]:
    """The raw values of some tags of the page at a place; too large ones are left out."""
    found: dict[int, bytes] = {}
    with file.open("rb") as stream:
        read = _directory(stream, place, pages.order, pages.is_big)
        for tag, (kind, count, inline) in (read[0] if read else {}).items():
            size = _SIZES.get(kind, 0) * count
            if tag not in wanted or not 0 < size <= MOST_TEXT:
                continue
            if size <= len(inline):
                found[tag] = inline[:size]
            else:
                stream.seek(struct.unpack(pages.order + ("Q" if pages.is_big else "I"), inline)[0])
                found[tag] = stream.read(size)
    return found


def metadata_texts(file: Path) -> Iterator[bytes]:
    """GDAL's metadata and GeoTIFF's texts of all directories, also of those that no page has in its chain.

    A tag that stands there twice is given twice. Raises RasterError for a text of more than `MOST_TEXT`.
    """
    with file.open("rb") as stream:
        head = stream.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 16:
            return
        is_big = struct.unpack(order + "H", head[2:4])[0] == 43
        pointer = order + ("Q" if is_big else "I")
        marks = [struct.pack(order + "H", tag) for tag in _LEADING]
        waiting = [int(struct.unpack_from(pointer, head, 8 if is_big else 4)[0])]
        seen: set[int] = set()
        while waiting and len(seen) < MOST_PAGES:
            place = waiting.pop()
            read = None if place in seen or not place else _raw_directory(stream, place, order, is_big)
            seen.add(place)
            if read is None:
                continue
            form, data, following = read
            waiting.append(following)
            if not any(mark in data for mark in marks):
                continue
            for tag, kind, count, inline in struct.iter_unpack(form, data):
                size = _SIZES.get(kind, 1) * count
                if tag not in _LEADING or not size:
                    continue
                if size > MOST_TEXT:
                    raise RasterError(f"{file.name} has metadata of {size / 2**20:.0f} MB in a tag.")
                value = inline[:size]
                if size > len(inline):
                    stream.seek(struct.unpack(pointer, inline)[0])
                    value = stream.read(size)
                if tag != _SUB_DIRECTORIES:
                    yield value
                elif kind in _NUMBERS:
                    numbers = struct.iter_unpack(order + _NUMBERS[kind], value)
                    waiting += [int(number) for (number,) in numbers]


_Entries = Mapping[int, tuple[int, int, bytes]]  # tag -> type, number of values, value or its place


def _directory(stream: BinaryIO, place: int, order: str, is_big: bool) -> tuple[_Entries, int] | None:
    """The entries of a directory, and the place of the next one (0: none); None where the file ends."""
    read = _raw_directory(stream, place, order, is_big)
    if read is None:
        return None
    form, data, following = read
    return {
        tag: (kind, values, value) for tag, kind, values, value in struct.iter_unpack(form, data)
    }, following


def _raw_directory(stream: BinaryIO, place: int, order: str, is_big: bool) -> tuple[str, bytes, int] | None:
    """How an entry is packed, all entries, and the place of the next directory; None where the file ends."""
    number, entry, inline = ("Q", "HHQ8s", 8) if is_big else ("H", "HHI4s", 4)
    form = order + entry
    try:
        stream.seek(place)
        (count,) = struct.unpack(order + number, stream.read(struct.calcsize(order + number)))
        if count > 0xFFFF:
            return None
        size = count * struct.calcsize(form)
        data = stream.read(size + inline)
        if len(data) < size:
            return None
        # The last one may end with the file: it is read all the same.
        (following,) = struct.unpack(order + ("Q" if is_big else "I"), data[size:].ljust(inline, b"\0"))
    except (struct.error, OSError, OverflowError, ValueError):
        return None
    return form, data[:size], int(following)


def _kind(stream: BinaryIO, entries: _Entries, order: str) -> tuple[int, ...]:
    """Overview or mask (0: neither), width, height, samples, bits and number format of a page."""

    def number(tag: int, usual: int) -> int:
        kind, count, value = entries.get(tag, (0, 0, b""))
        if kind not in _NUMBERS or not 1 <= count <= 8:
            return usual
        size = struct.calcsize(_NUMBERS[kind])
        if size * count > len(value):  # one for each sample: the first
            stream.seek(struct.unpack(order + ("Q" if len(value) == 8 else "I"), value)[0])
            value = stream.read(size)
        return int(struct.unpack(order + _NUMBERS[kind], value[:size])[0])

    try:
        flags = number(SUBFILE, 0) & (_REDUCED | _MASK)
        if number(OLD_SUBFILE, 1) == 2:
            flags |= _REDUCED
        if number(PHOTOMETRIC, 1) == 4:
            flags |= _MASK
        return (
            flags, number(WIDTH, 0), number(HEIGHT, 0), number(SAMPLES, 1), number(BITS, 1),
            number(SAMPLE_FORMAT, 1),
        )  # fmt: skip
    except (struct.error, OSError, OverflowError, ValueError):
        return (0, 0, 0, 0, 0, 0)
