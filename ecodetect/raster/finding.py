"""Which rasters a user means by files, folders and patterns, and where the results go."""

from __future__ import annotations

import glob
import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ecodetect.errors import UserError

# Suffixes that a folder is searched for; a file named outright may have any.
RASTER_SUFFIXES = frozenset(
    [
        ".tif",
        ".tiff",
        ".jp2",
        ".j2k",
        ".jpg",
        ".jpeg",
        ".png",
        ".vrt",
        ".img",
        ".asc",
        ".webp",
        ".bmp",
        ".gif",
        ".grb",
        ".grib",
        ".grb2",
        ".grib2",
        ".nc",
        ".h5",
        ".hdf",
        ".ecw",
        ".sid",
        ".bil",
        ".dem",
        ".ntf",
    ]
)
_SOFTWARE = 305  # tag of a TIFF
OUR_MARKS = (".detections", ".candidates")  # ends of the stems of what we write
# Edited outputs that a scan has kept beside the new ones.
_KEPT = re.compile(rf"({'|'.join(map(re.escape, OUR_MARKS))})\.edited\d*$")


def is_remote(path: str) -> bool:
    """Whether a path is a URL or one of GDAL's virtual file systems."""
    return "://" in path or path.startswith("/vsi")


def expand(images: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Rasters named by files, folders (searched through) and glob patterns: sorted within each, none twice.

    Raises UserError when a folder or a pattern holds no raster.
    """
    found: list[str] = []
    for given in (str(os.fspath(image)) for image in images):
        if is_remote(given):
            found.append(given)
        elif Path(given).is_dir() and not given.lower().endswith((".zarr", ".safe")):
            named = sorted(p for p in Path(given).rglob("*") if _is_raster_name(p) and p.is_file())
            inside = [str(p) for p in named if not _is_ours(p)]
            if not inside:
                raise UserError(
                    f"The folder {given} holds no raster ({', '.join(sorted(RASTER_SUFFIXES)[:6])}, …);"
                    " is it the right one?"
                )
            found += inside
        elif not Path(given).exists() and glob.has_magic(given):
            matches = sorted(p for p in glob.glob(given, recursive=True) if _is_raster_name(Path(p)))  # noqa: PTH207 - absolute patterns too
            if not matches:
                raise UserError(f"No raster matches {given}; is the pattern right?")
            found += matches
        else:
            found.append(given)
    return list(dict.fromkeys(found))


def is_kept(path: Path) -> bool:
    """Whether a file is an edited output that was kept beside the new one: nothing takes it unasked."""
    return _KEPT.search(path.stem) is not None


def _is_raster_name(path: Path) -> bool:
    if is_kept(path) or path.suffix.lower() not in RASTER_SUFFIXES or path.name.startswith("."):
        return False
    return not any(path.stem.endswith(mark) for mark in OUR_MARKS) and not path.name.lower().endswith(
        ".aux.xml"
    )


def _is_ours(path: Path) -> bool:
    """Whether a file is a picture, a label image or a map that ecodetect made: they carry its name."""
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".tif", ".tiff"):
        return False
    with path.open("rb") as file:
        head = file.read(2048)
        return b"ecodetect" in head or b"ecodetect" in _software(file, head)


def _software(file: BinaryIO, head: bytes) -> bytes:
    """The software that a TIFF says it was written with; nothing where it says none.

    In a large one it lies behind the places of all blocks.
    """
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None:
        return b""
    try:
        if struct.unpack_from(f"{order}H", head, 2)[0] == 43:  # BigTIFF
            start, number, entry = struct.unpack_from(f"{order}Q", head, 8)[0], "Q", "HHQQ"
        else:
            start, number, entry = struct.unpack_from(f"{order}I", head, 4)[0], "H", "HHII"
        file.seek(start)
        (count,) = struct.unpack(order + number, file.read(struct.calcsize(order + number)))
        size = struct.calcsize(order + entry)
        for tag, _, length, place in struct.iter_unpack(order + entry, file.read(min(count, 4096) * size)):
            if tag == _SOFTWARE and length > size // 4:  # shorter ones stand in the place of their place
                file.seek(place)
                return file.read(min(length, 256))
    except (struct.error, OSError, OverflowError, ValueError):
        pass  # damaged, which is reported when it is opened
    return b""


def stem_of(image: str) -> str:
    """Name of an image without folder, query and suffix."""
    return PurePosixPath(image.split("?")[0].replace("\\", "/")).stem or "raster"


def targets(images: Sequence[str], out: str | None, *, suffix: str) -> dict[str, Path]:
    """Where the result of each image goes.

    out : None: beside each image, or in the working folder when that can't be written to; a folder
        (existing, or ending in a separator): one file per image in it, with its sub-folder where stems
        clash; else one file for all.
    Raises UserError when two images would write the same file.
    """
    if out is not None and not (out.endswith(("/", os.sep)) or Path(out).is_dir()):
        return dict.fromkeys(images, Path(out))
    placed: dict[str, Path] = {}
    stems = [stem_of(image) for image in images]
    for image, stem in zip(images, stems, strict=True):
        name = stem + suffix
        if out is not None:
            sub = Path()
            if stems.count(stem) > 1 and not is_remote(image):
                sub = Path(os.path.relpath(Path(image).absolute().parent, _root(images)))
            placed[image] = Path(out) / sub / name
        else:
            folder = Path() if is_remote(image) else Path(image).parent
            # os.access, not a trial file: looking must not write.
            placed[image] = (folder if os.access(folder, os.W_OK) else Path()) / name
    seen: dict[Path, str] = {}
    for image, path in placed.items():
        if path in seen:
            raise UserError(
                f"{seen[path]} and {image} would both write {path}; scan them apart, or name an output file.",
                parameter="out",
            )
        seen[path] = image
    return placed


def _root(images: Sequence[str]) -> str:
    folders = [str(Path(image).absolute().parent) for image in images if not is_remote(image)]
    try:
        return os.path.commonpath(folders)
    except ValueError:  # different drives
        return folders[0]
