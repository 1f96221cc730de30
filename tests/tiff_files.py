"""TIFFs of several pages, written tag by tag as microscopes and ImageJ write them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Tag = bytes | str | int | tuple[int, int]


def write_pages(
    path: Path,
    pages: Sequence[NDArray[Any]],
    first: Mapping[int, Tag] | None = None,
    each: Sequence[Mapping[int, Tag]] = (),
    order: Literal["<", ">"] = "<",
    *,
    is_big: bool = False,
) -> Path:
    """Grey or colour pages, (H, W) or (H, W, C), not compressed.

    first : tags of the first page.  each : of every page. Texts and bytes are texts, pairs are ratios.
    """
    number, entry, offset = ("Q", "HHQ", "Q") if is_big else ("H", "HHI", "I")
    with path.open("wb") as file:
        file.write({"<": b"II", ">": b"MM"}[order])
        file.write(struct.pack(order + "HHHQ", 43, 8, 0, 0) if is_big else struct.pack(order + "HI", 42, 0))
        link = 8 if is_big else 4
        for index, page in enumerate(pages):
            height, width, *samples = page.shape
            data = page.astype(page.dtype.newbyteorder(order)).tobytes()
            start = file.tell()
            file.write(data + b"\0" * (len(data) % 2))
            kind = {"u": 1, "i": 2, "f": 3}[page.dtype.kind]
            tags: dict[int, Tag] = {
                256: width, 257: height, 258: 8 * page.dtype.itemsize, 259: 1, 262: 2 if samples else 1,
                273: start, 277: samples[0] if samples else 1, 278: height, 279: len(data), 339: kind,
            }  # fmt: skip
            if samples:
                tags[258] = np.full(samples[0], 8 * page.dtype.itemsize, order + "u2").tobytes()
            tags |= (first or {}) if index == 0 else {}
            tags |= each[index] if each else {}
            entries = []
            for tag, value in sorted(tags.items()):
                if isinstance(value, int):
                    raw, count, kind = struct.pack(order + "I", value), 1, 4
                elif isinstance(value, tuple):
                    raw, count, kind = struct.pack(order + "II", *value), 1, 5
                else:
                    raw = value.encode() + b"\0" if isinstance(value, str) else value
                    kind = {258: 3, 50838: 4}.get(tag, 2)
                    count = len(raw) // {2: 1, 3: 2, 4: 4}[kind]
                size = struct.calcsize(offset)
                if len(raw) > size:
                    place = file.tell()
                    file.write(raw + b"\0" * (len(raw) % 2))
                    raw = struct.pack(order + offset, place)
                entries.append(struct.pack(order + entry, tag, kind, count) + raw.ljust(size, b"\0"))
            directory = file.tell()
            file.write(struct.pack(order + number, len(entries)) + b"".join(entries))
            following = file.tell()
            file.write(struct.pack(order + offset, 0))
            end = file.tell()
            file.seek(link)
            file.write(struct.pack(order + offset, directory))
            file.seek(end)
            link = following
    return path


def ome(
    names: Sequence[str | None], planes: int = 1, times: int = 1, order: str = "XYCZT", size: str = "0.5"
) -> str:
    """OME-XML of one image with named channels; pixels of `size` µm."""
    channels = "".join(f"<Channel{f' Name={name!r}' if name else ''}/>" for name in names)
    sizes = f'SizeC="{len(names)}" SizeZ="{planes}" SizeT="{times}"'
    return (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image>'
        f'<Pixels DimensionOrder="{order}" {sizes} PhysicalSizeX="{size}" PhysicalSizeY="{size}" '
        f'PhysicalSizeYUnit="µm">{channels}<TiffData/></Pixels></Image>'
        '<Image><Pixels SizeC="9"/></Image></OME>'
    )
