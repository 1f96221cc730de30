"""Files of features: which module knows which suffix, and outputs that are whole or not there at all.

A format is a module in `gis/`, `labels/` or `tables/` and a line in `FORMATS`, imported when used. It has

    read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer
        and `names_from: Path | None` where its line in the table says so
    write(path: Path, stream: Stream) -> Written
    read_metadata(path: Path) -> dict[str, Any]      where `write` puts it into the file
    content(path: Path) -> Content                   where it has metadata: the features it holds as one hash
    seal(path: Path, digest: str) -> None            puts that hash beside the metadata of a file just written
    read_seal(path: Path) -> str | None              that hash
    recognises(path: Path, head: bytes) -> bool      only where several modules read the same suffix
    pieces(path: Path, *, grid: Grid | None) -> Iterator[Layer]      where it can be read piece by piece

`write` is given a path in a folder of its own beside the target and may put more files and folders next to
it; they are moved into place together, the file itself last. `recognises` is asked in the order of the table.
What a format without `read_metadata` can't hold lies in a side file; see `content`.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import shapely
from numpy.typing import NDArray

from ecodetect.errors import LayerError, UserError, already_there
from ecodetect.formats import content
from ecodetect.formats.collecting import OF_IMAGE
from ecodetect.formats.gis.qgis_source import source_of as source_of
from ecodetect.formats.gis.qgis_style import is_ours, style, write_beside
from ecodetect.formats.protocol import Written as Written
from ecodetect.formats.protocol import reason
from ecodetect.formats.shown_upright import read_turned
from ecodetect.grid import Grid
from ecodetect.guarding import databases, guard
from ecodetect.layer import Layer, Stream
from ecodetect.notes import Note
from ecodetect.raster.side_files import pipe_beside
from ecodetect.whole_file import announce, made_in, settle, staged, sync

_HEAD_BYTES = 65_536  # what `recognises` sees of a file


@dataclass(frozen=True, slots=True)
class Held:
    """What a file holds that `write` wrote.

    tally : individuals in it, by raster and class; None where it says nothing of itself.
    is_edited : whether its features aren't those that were written.
    """

    tally: content.Tally | None = None
    is_edited: bool = False

    @property
    def is_as_written(self) -> bool:
        return self.tally is not None and not self.is_edited


@dataclass(frozen=True, slots=True)
class Format:
    """One line of the table: module, its name for people, suffixes it reads and writes ("/": a folder).

    has_qml : a GIS opens it as a layer, and finds its style in a file beside it.
    is_guarded : a library reads it that can't be interrupted.
    takes_names : a file can speak of images and classes by numbers that another file explains.
    """

    module: str
    title: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    has_qml: bool = False
    takes_names: bool = False
    is_guarded: bool = False


_GEOJSON = (".geojson", ".geojsonl", ".geojsons")
_PARQUET = (".parquet", ".geoparquet")
_LABEL_IMAGES = (".tif", ".tiff", ".png")

FORMATS = (
    Format("gis.geojson", "GeoJSON", reads=(*_GEOJSON, ".json"), writes=_GEOJSON, has_qml=True),
    Format("gis.geopackage", "GeoPackage", reads=(".gpkg",), writes=(".gpkg",), is_guarded=True),
    Format("gis.geoparquet", "GeoParquet", reads=_PARQUET, writes=_PARQUET, has_qml=True, is_guarded=True),
    Format("gis.flatgeobuf", "FlatGeobuf", reads=(".fgb",), writes=(".fgb",), has_qml=True, is_guarded=True),
    Format("gis.shapefile", "Shapefile", reads=(".shp",), writes=(".shp",), has_qml=True),
    Format("gis.kml", "KML", reads=(".kml", ".kmz"), writes=(".kml",)),
    Format(
        "gis.ogr", "GPX, GML, MapInfo or file geodatabase", reads=(".gpx", ".gml", ".tab", ".mif", ".gdb")
    ),
    Format("labels.via", "VGG Image Annotator (VIA)", reads=(".json", ".csv")),
    Format("labels.labelme", "LabelMe", reads=(".json",)),
    Format("labels.megadetector", "MegaDetector", reads=(".json",)),
    Format("labels.dotdotgoose", "DotDotGoose", reads=(".pnt",)),
    Format("labels.coco", "COCO", reads=(".json",), writes=(".json",), takes_names=True),
    Format("labels.label_studio", "Label Studio", reads=(".json",)),
    Format("labels.cvat", "CVAT", reads=(".xml",)),
    Format("labels.voc", "Pascal VOC", reads=(".xml", "/"), writes=(".xml",)),
    Format("labels.yolo", "YOLO", reads=(".txt", ".yaml", ".yml", "/"), writes=(".txt",)),
    Format("labels.object_masks", "folder of masks", reads=("/",)),
    Format("tables.table", "CSV", reads=(".csv", ".tsv", ".txt"), writes=(".csv", ".tsv")),
    Format("labels.label_image", "label image", reads=_LABEL_IMAGES, writes=_LABEL_IMAGES),
)


_REFUSED = {
    ".npy": "can hold a pickle of Python (Cellpose's _seg.npy does), which could run code when opened, and"
    " isn't read; save the masks as PNG or TIFF (in Cellpose: its File menu, or --save_png).",
    ".zip": "is packed; unpack it and give the folder or the file in it.",
    ".xlsx": "is a spreadsheet; save it as .csv.",
    ".xls": "is a spreadsheet; save it as .csv.",
    ".ods": "is a spreadsheet; save it as .csv.",
}

# Texts that we read ourselves: nothing beside them is opened.
_ALONE = (".csv", ".tsv", ".txt", ".json", ".geojson", ".xml")


def needs_lonlat(path: str | os.PathLike[str]) -> bool:
    """Whether the format of `path` can't hold a CRS that has no way to longitude and latitude."""
    return Path(path).suffix.lower() in (*_GEOJSON, ".kml")


def is_folder_of(module: str, folder: Path) -> bool:
    """Whether a folder is one that this module reads."""
    entry = next(entry for entry in FORMATS if entry.module == module)
    return bool(_module(entry).recognises(folder, b""))


def needs_crs(path: str | os.PathLike[str]) -> bool:
    """Whether the format of `path` holds nothing without a CRS."""
    return Path(path).suffix.lower() == ".kml"


def suffixes(*, writing: bool) -> tuple[str, ...]:
    """The suffixes that can be written, or read; "/" stands for a folder."""
    found = [suffix for entry in FORMATS for suffix in (entry.writes if writing else entry.reads)]
    return tuple(dict.fromkeys(found))


def read(
    path: str | os.PathLike[str],
    *,
    layer: str | None = None,
    grid: Grid | None = None,
    image: str | None = None,
    names_from: str | os.PathLike[str] | None = None,
) -> Layer:
    """Read a file (or folder) of features.

    path : may name the layer as QGIS does: `trees.gpkg|layername=crowns`.
    layer : name of the layer, where the file has several.
    grid : grid of the raster that the features belong to; resolves coordinates that don't say where they are.
    image : name of that raster, where the file speaks of several images.
    names_from : the file that says which images and classes the numbers in a list of COCO results are.
    Raises LayerError in one sentence for whatever can't be read.
    """
    source, layer = source_of(path, layer)
    if not source.exists():
        raise LayerError(f"{source} doesn't exist.")
    if not (source.is_file() or source.is_dir()):
        raise LayerError(
            f"{source} is not a file but a pipe or a device, which may have no end; copy it to a file."
        )
    suffix = source.suffix.lower()
    if suffix in _REFUSED:
        raise LayerError(f"{source} {_REFUSED[suffix]}")
    candidates = [entry for entry in FORMATS if suffix in entry.reads]
    if not candidates and source.is_dir():
        candidates = [entry for entry in FORMATS if "/" in entry.reads]
    if not candidates:
        known = ", ".join(suffixes(writing=False))
        raise LayerError(f"{source} has a suffix that isn't known; features are read from {known}.")
    with _one_sentence(source):
        entry = _chosen(source, candidates)
        more = {"names_from": Path(names_from)} if entry.takes_names and names_from is not None else {}
        module = _module(entry)

        def read_on(grid: Grid | None) -> Layer:
            with databases.at_rest(source, error=LayerError) as file:
                found: Layer = module.read(file, layer=layer, grid=grid, image=image, **more)
            return found

        is_turned = grid is not None and grid.orientation != 1
        found = read_turned(read_on, grid, source) if grid is not None and is_turned else read_on(grid)
    facts = {name: value for name, value in found.metadata.items() if name != OF_IMAGE}
    return replace(found, columns=_as_texts(found.columns), metadata=facts)


_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def _as_texts(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Columns whose texts every format can hold.

    Zero bytes and halves of characters, which end or break a text in most, become replacement characters.
    """
    found: dict[str, NDArray[Any]] = {}
    for name, values in columns.items():
        if values.dtype == object and any(
            isinstance(value, str) and _NO_TEXT.search(value) for value in values
        ):
            values = values.copy()
            for row, value in enumerate(values):
                if isinstance(value, str):
                    values[row] = _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", value)
        found[_NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", name)] = values
    return found


def read_pieces(path: str | os.PathLike[str], *, grid: Grid | None, image: str | None) -> Iterator[Layer]:
    """The features of a file that `write` wrote, in its order and in pieces of some 50,000.

    grid, image : of the only raster; None where there are several, or nobody knows it.
    Pieces have geometries, labels and numbers; more columns where they come at no cost. Formats of labels
    without a reader of pieces give all features as one. Raises LayerError where the file can't be read.
    """
    source = Path(path)
    module = _module(_writer(source))
    if not hasattr(module, "pieces"):
        yield read(source, grid=grid, image=image)
        return
    with _one_sentence(source), databases.at_rest(source, error=LayerError) as file:
        for piece in module.pieces(file, grid=grid):
            yield replace(piece, columns=_as_texts(piece.columns))


def read_metadata(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The metadata that `write` put into a file, or into its side file, without its features.

    Empty where there are none, and where a side file is of another content. Raises LayerError where the file
    can't be read.
    """
    source, _ = source_of(path)
    entry = _writer(source)
    module = _module(entry)
    if not _has_place(module, source):
        side = content.read_side(source)
        is_of_it = side is not None and side.digest == content.digest_of_bytes(source, _beside(module))
        return side.metadata if side is not None and is_of_it else {}
    found: dict[str, Any] = _asked(entry, "read_metadata", source)
    return found


def held_by(path: str | os.PathLike[str]) -> Held:
    """What a file holds, and whether it has been edited; reads its features one by one.

    Raises LayerError where the file can't be read.
    """
    source = Path(path)
    entry = _writer(source)
    module = _module(entry)
    if not _has_place(module, source):
        side = content.read_side(source)
        if side is None:
            return Held()
        return Held(side.tally, side.digest != content.digest_of_bytes(source, _beside(module)))
    stated = _asked(entry, "read_seal", source)
    if stated is None:
        return Held()
    digest, tally = _asked(entry, "content", source)
    return Held(content.Tally.from_json(tally), digest != stated)


def _asked(entry: Format, what: str, source: Path) -> Any:
    """What a function of a format's module says of a file; in the guard where a library reads it."""
    with _one_sentence(source):
        if not entry.is_guarded:
            return answer(entry.module, what, str(source))
        with databases.at_rest(source, error=LayerError) as file:
            return guard.call(
                "ecodetect.formats.files:answer",
                entry.module,
                what,
                str(file),
                about=str(source),
                error=LayerError,
                bytes_read=file.stat().st_size,
            )


def answer(module: str, what: str, path: str) -> Any:
    """What `read_metadata`, `read_seal` or `content` of a module says; of content, its digest and tally."""
    found = getattr(importlib.import_module(f"ecodetect.formats.{module}"), what)(Path(path))
    return [found.digest, found.tally.to_json()] if isinstance(found, content.Content) else found


def _has_place(module: Any, path: Path) -> bool:
    """Whether a file has a place for metadata."""
    return hasattr(module, "seal") and path.suffix.lower() not in getattr(module, "WITHOUT_METADATA", ())


def _beside(module: Any) -> tuple[str, ...]:
    """Suffixes of the side files in which a format keeps features."""
    found: tuple[str, ...] = getattr(module, "CONTENT_SUFFIXES", ())
    return found


@contextlib.contextmanager
def _one_sentence(source: Path) -> Iterator[None]:
    """Failures of the system while reading, as LayerErrors."""
    try:
        # An empty label file of YOLO is an image without objects.
        if source.is_file() and source.stat().st_size == 0 and source.suffix.lower() != ".txt":
            raise LayerError(f"{source} is empty (0 bytes).")
        if source.suffix.lower() not in _ALONE and source.is_file() and (pipe := pipe_beside(source)):
            raise LayerError(f"{source} has {pipe} beside it, which is not a file; remove it.")
        yield
    except UserError:
        raise
    except OSError as error:
        raise LayerError(f"{source} can't be read: {reason(error)}.") from error
    except (MemoryError, RecursionError) as error:
        raise LayerError(f"{source} is too large or too deeply nested to be read.") from error
    except (UnicodeError, SystemError, shapely.errors.GEOSException) as error:
        # Errors of pyarrow and GEOS for bytes that aren't text, a length or a ring.
        raise LayerError(f"{source} is damaged: it holds a text or a shape that can't be read.") from error


def _chosen(source: Path, candidates: list[Format]) -> Format:
    if len(candidates) == 1:
        return candidates[0]
    head = b""
    if source.is_file():
        with source.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    for entry in candidates:
        if _module(entry).recognises(source, head):
            return entry
    titles = ", ".join(entry.title for entry in candidates)
    raise LayerError(f"{source} is not any of what a {source.suffix or 'folder'} can be: {titles}.")


def _module(entry: Format) -> Any:
    return importlib.import_module(f"ecodetect.formats.{entry.module}")


def _writer(target: Path) -> Format:
    for entry in FORMATS:
        if target.suffix.lower() in entry.writes:
            return entry
    known = ", ".join(suffixes(writing=True))
    raise LayerError(f"{target} has a suffix that can't be written; use one of {known}.")


def writable(path: str | os.PathLike[str]) -> None:
    """Raise LayerError, before work starts, where `write` can't succeed."""
    target = Path(path)
    module = _module(_writer(target))
    _check_plain(target)
    with _staging(target):
        _check_beside(target, module)


def _check_plain(target: Path) -> None:
    """Raise LayerError where something lies that is not a file."""
    if target.is_dir():
        raise LayerError(f"{target} is a folder; give the name of a file.")
    if os.path.lexists(target) and not target.is_file():
        raise LayerError(f"{target} is not a file that could be replaced; choose another name.")


def _check_beside(target: Path, module: Any, made: Iterable[Path] = ()) -> None:
    """Raise LayerError where files would be replaced or removed that belong to no output.

    made : files that are to be put beside it.
    """
    side = content.side_of(target)
    if os.path.lexists(side) and content.read_side(target) is None:
        raise LayerError(
            f"{side} isn't ecodetect's, whose own would lie there; move it or choose another name."
        )
    if os.path.lexists(target):
        return  # what lies beside it belongs to it
    suffixes = getattr(module, "SIDE_SUFFIXES", ())
    for place in (*(target.with_name(target.stem + suffix) for suffix in suffixes), *made):
        if place not in (side, target.with_suffix(".qml")) and os.path.lexists(place):
            raise LayerError(
                f"{place} is there without {target.name} and would be lost; move it or choose another name."
            )


def write(
    path: str | os.PathLike[str],
    stream: Stream,
    *,
    overwrite: bool = False,
    keep_unknown: bool = False,
    keep_any: bool = False,
) -> Written:
    """Write a stream of features whole or not at all; the suffix names the format.

    overwrite : replace an existing file. It stays as it is until the new one is complete, and it is kept
        under another name, which `notes` says, if it has been edited since it was written.
    keep_unknown : keep it also where it doesn't say what was written.
    keep_any : keep it whatever it is.
    Raises LayerError in one sentence: unknown suffix, file exists, a frame it can't hold, disk full.
    """
    target = Path(path)
    entry = _writer(target)
    _check_plain(target)
    if os.path.lexists(target) and not overwrite:
        raise already_there(target, error=LayerError)
    module = _module(entry)
    with _staging(target) as stage:
        _check_beside(target, module)
        written = _written(stage / target.name, stream, module)
        if entry.has_qml and stream.geometry_type != "Unknown":
            _place_style(stage / target.name, target, stream)
        stale = getattr(module, "SIDE_SUFFIXES", ())
        kept = None
        if overwrite and os.path.lexists(target):
            _check_plain(target)
            kept = _keep(target, stale, keep_unknown=keep_unknown, keep_any=keep_any)
        _check_beside(target, module, [target.parent / each.relative_to(stage) for each in made_in(stage)])
        _move(stage, target, stale=stale, overwrite=overwrite)
    notes = written.notes
    if kept is not None:
        why = "appeared while this was made" if keep_any else "isn't as ecodetect wrote it"
        text = f"what lay there {why}, so it is kept as {kept.name} beside the new one."
        notes = (*notes, Note("edits-kept", text, about=target.name))
    return replace(written, path=target, notes=notes)


def _written(path: Path, stream: Stream, module: Any) -> Written:
    """Write a stream with the hash of its features, or with a side file that has it."""
    written: Written
    if _has_place(module, path):
        written = module.write(path, stream)
        if stream.metadata:
            # A hash of the file, not of the stream: what a database makes of a value on the way doesn't
            # matter then.
            module.seal(path, module.content(path).digest)
        return written
    tally = content.Tally()
    written = module.write(path, replace(stream, batches=tally.through(stream)))
    if "key" in stream.metadata:
        content.write_side(path, stream.metadata, _beside(module), tally)
    return written


def _keep(target: Path, beside: tuple[str, ...], *, keep_unknown: bool, keep_any: bool) -> Path | None:
    """Give an edited file, and what belongs to it, another name, which is returned; None: it isn't edited.

    beside : suffixes of its side files.
    """
    try:
        held = held_by(target)
        is_kept = held.is_edited or (keep_unknown and not held.is_as_written)
    except LayerError:
        is_kept = True  # so much changed that it can't be read
    if not (is_kept or keep_any or _is_open_elsewhere(target)):
        return None
    kept = kept_name(target)
    for suffix in beside:
        with contextlib.suppress(FileNotFoundError):
            target.with_name(target.stem + suffix).rename(kept.with_name(kept.stem + suffix))
    with contextlib.suppress(FileNotFoundError):
        content.side_of(target).rename(content.side_of(kept))
    target.rename(kept)
    return kept


def _is_open_elsewhere(target: Path) -> bool:
    """Whether a database beside it holds changes that aren't in it yet: it is open in QGIS, say."""
    wal = Path(f"{target}-wal")
    return wal.is_file() and wal.stat().st_size > 0


def kept_name(target: Path) -> Path:
    """The name under which an edited file is kept: `x.edited.gpkg`, or `x.edited2.gpkg`, … if it is taken."""
    for number in count(1):
        kept = target.with_name(f"{target.stem}.edited{number if number > 1 else ''}{target.suffix}")
        if not os.path.lexists(kept):
            return kept
    raise AssertionError("numbers don't end")


@contextlib.contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder beside `target` for the unfinished output; it is gone afterwards, whatever happens.

    Its name depends only on the target's, so that a run after a kill clears away what the killed one left.
    """
    folder = target.parent
    if not folder.is_dir():
        raise LayerError(f"{target} can't be written: the folder {folder} doesn't exist; make it first.")
    try:
        with staged(target) as stage:
            yield stage
    except UserError:
        raise
    except OSError as error:
        if _is_full(error, folder):
            raise LayerError(
                f"The disk is full while writing {target}; free space and run the same command again."
            ) from error
        raise LayerError(f"{target} can't be written: {reason(error)}.") from error


def _place_style(staged: Path, target: Path, stream: Stream) -> None:
    """Put a style for QGIS beside `target`, unless the user has saved one there."""
    place = target.with_suffix(".qml")
    if os.path.lexists(place) and not (place.is_file() and is_ours(place)):
        return
    write_beside(staged, style(stream.geometry_type, tuple(stream.columns), stream.classes, stream.steps))
    staged.with_suffix(".qml").replace(place)  # of its own: without the layer it harms nobody


def _is_full(error: OSError, folder: Path) -> bool:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return True
    # GDAL and SQLite report a full disk in many words and without the number.
    return error.errno is None and shutil.disk_usage(folder).free < 1 << 20


def _move(stage: Path, target: Path, *, stale: tuple[str, ...], overwrite: bool) -> None:
    """Move what lies in `stage` beside `target`, the target itself last.

    stale : suffixes of side files; those of an older output that have no successor are removed.
    overwrite : replace the target.
    """
    made = made_in(stage)
    for file in made:
        sync(file)
    others = {
        file: target.parent / file.relative_to(stage)
        for file in made
        if file.relative_to(stage) != Path(target.name)
    }
    if others or stale:
        # The old main file goes first: killed in between, nothing looks like a whole output that isn't one.
        announce(stage, list(others.values()))
        if overwrite:
            target.unlink(missing_ok=True)
            for suffix in stale:
                target.with_name(target.stem + suffix).unlink(missing_ok=True)
    if overwrite and not content.side_of(stage / target.name).exists():
        content.side_of(target).unlink(missing_ok=True)  # of what was there before
    for file, place in others.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        file.replace(place)
    if len(others) < len(made):
        settle(stage / target.name, target, replace=overwrite)
    if os.name == "posix":
        sync(target.parent)
