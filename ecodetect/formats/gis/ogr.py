"""Vector files through GDAL: reading any layer it knows, and writing a stream with one of its drivers.

A file is checked before GDAL sees it, since GDAL goes by content and some of its formats name other files or
addresses: it must begin as its suffix says, and XML has no DOCTYPE. GDAL's messages become one sentence.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyogrio
from pyproj import CRS
from pyproj.exceptions import CRSError

from ecodetect.errors import LayerError
from ecodetect.formats import metadata
from ecodetect.formats.content import Content
from ecodetect.formats.gis.arrow_columns import Features, features_of
from ecodetect.formats.gis.arrow_parts import received, received_in_pieces, sent
from ecodetect.formats.gis.arrow_stream import BATCH_ROWS, GEOMETRY, ArrowStream
from ecodetect.formats.gis.qgis_source import BY_NUMBER
from ecodetect.formats.placing import StatedFrame, placed
from ecodetect.formats.protocol import Written, reason
from ecodetect.formats.xml_reading import read_xml
from ecodetect.grid import Grid
from ecodetect.guarding.crs_files import read_crs
from ecodetect.layer import Layer
from ecodetect.notes import Note

LAYER = "detections"
_SYSTEM_TABLE = "a00000001.gdbtable"
_HEAD = 16_384  # bytes; GDAL's drivers look at the first 1024, some at more
_MOST_BYTES = 4 << 30
DATE = (
    "1970-01-01T00:00:00.000Z"  # files say when they were last changed; the same input gives the same bytes
)
_SETTINGS = {
    "OGR_CURRENT_DATE": DATE,
    "OGR_GPKG_MAX_RAM_USAGE_RTREE": str(64 << 20),  # bytes
}


def read(path: Path, *, layer: str | None, grid: Grid | None, image: str | None) -> Layer:
    """Read a layer of one of GDAL's formats that have no module of their own here."""
    _check(path)
    return read_layer(path, layer=layer, grid=grid)


def _check(path: Path) -> None:
    """Raise LayerError for a file that isn't what its suffix says."""
    suffix = path.suffix.lower()
    if suffix == ".gdb":
        if not path.is_dir() or not any(one.name.lower() == _SYSTEM_TABLE for one in path.iterdir()):
            raise LayerError(f"{path} isn't a file geodatabase, which is a folder with {_SYSTEM_TABLE}.")
        return
    if suffix in (".gpx", ".gml"):
        root = read_xml(path).tag.rpartition(":")[2]
        head = beginning(path, 65_536)
        if b"<OGR" in head or (root != "gpx" if suffix == ".gpx" else b"opengis.net/gml" not in head):
            raise LayerError(f"{path} isn't {suffix[1:].upper()}: its root is <{root}>.")
        return
    check_beginning(path, {".tab": b"!table", ".mif": b"Version"}[suffix])
    # GDAL looks for the marks of other formats anywhere in the beginning: XML, or JSON, that names files.
    if re.search(rb"<[a-z!?]|gdal_streamed_alg", beginning(path, _HEAD), re.IGNORECASE):
        raise LayerError(f"{path} isn't what its suffix says: it has XML in it.")
    if suffix == ".tab" and (
        re.search(rb"isseamless|create\s+view|open\s+table", text := path.read_bytes(), re.IGNORECASE)
        or not re.search(rb"\btype\s+(native|dbf)\b", text, re.IGNORECASE)
    ):
        raise LayerError(f"{path} is a view of other tables, which is not followed; save it as a table.")


def read_gml(path: Path) -> bytes:
    """The content of a GML file without the place of its schema, which GDAL would ask a server for."""
    return path.read_bytes().replace(b"schemaLocation", b"schemaIsNotRead")


def beginning(path: Path, count: int) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(count)


def check_beginning(path: Path, wanted: bytes) -> None:
    """Raise LayerError unless a file starts with these bytes, in whatever case."""
    if beginning(path, len(wanted)).lower() != wanted.lower():
        raise LayerError(f"{path} isn't what its suffix says: a {path.suffix} file begins otherwise.")


def read_layer(
    path: Path,
    *,
    layer: str | None,
    grid: Grid | None,
    child: str = "ecodetect.formats.gis.ogr:parts",
    encoding: str | None = None,
    notes: tuple[Note, ...] = (),
) -> Layer:
    """Read one layer of a checked file with GDAL.

    layer : its name; may be left out where only one layer has points or polygons.
    child : what gives its parts.
    encoding : of texts, where the file doesn't say it.
    """
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise LayerError(f"{path} has {size / 1e9:.1f} GB; features are read up to 4 GB, so cut it.")
    facts, table = received(child, str(path), layer, encoding, path=path, size=size)
    features = features_of(table, facts["geometry"])
    del table  # with all geometries once more
    return _placed(facts, features, path, grid, notes)


def read_pieces(
    path: Path,
    *,
    grid: Grid | None,
    child: str = "ecodetect.formats.gis.ogr:parts",
    encoding: str | None = None,
) -> Iterator[Layer]:
    """The only layer of a file that `write_layer` wrote, in pieces.  The others as in `read_layer`."""
    size = path.stat().st_size
    for facts, table in received_in_pieces(child, str(path), None, encoding, path=path, size=size):
        yield _placed(facts, features_of(table, facts["geometry"]), path, grid, ())


def _placed(
    facts: Mapping[str, Any], features: Features, path: Path, grid: Grid | None, notes: tuple[Note, ...]
) -> Layer:
    stated = facts["layer_metadata"]
    return placed(
        *features,
        StatedFrame(_crs(facts["crs"], str(path)), stated.get(metadata.OGR_FRAME_KEY)),
        name=path.name,
        grid=grid,
        notes=notes,
        metadata=metadata.from_json(stated.get(metadata.KEY)),
    )


def parts(
    path: str,
    layer: str | None,
    encoding: str | None,
    listed: Sequence[tuple[str, str | None]] | None = None,
    views: tuple[str, ...] = (),
) -> Iterator[bytes]:
    """A layer in the parts of `arrow_parts`. For `guard`'s child: nothing interrupts GDAL.

    listed : the layers and their types, None for one without geometries; GDAL's list if not given.
    views : layers that are made up when they are read: taken only by their name.
    """
    file = Path(path)
    is_gml = file.suffix.lower() == ".gml"
    # Beside a GML, GDAL would leave a file with its schema: it gets the bytes and not the place.
    source = read_gml(file) if is_gml else file
    options = {"DOWNLOAD_SCHEMA": "NO"} if is_gml else {}
    with _spoken_once(file):
        if listed is None:
            listed = [(str(name), kind) for name, kind in pyogrio.list_layers(source)]
        name = _layer_name(file, source, listed, layer, views)
        info = pyogrio.read_info(source, layer=name, encoding=encoding)
        with pyogrio.raw.open_arrow(
            source, layer=name, encoding=encoding, batch_size=BATCH_ROWS, use_pyarrow=True, **options
        ) as (meta, reader):
            geometry = meta["geometry_name"] or "wkb_geometry"
            if reader.schema.names.count(geometry) != 1:
                raise LayerError(
                    f"{file} is damaged: its layer '{name}' doesn't say which are its geometries."
                )
            facts = {
                "crs": meta["crs"],
                "geometry": geometry,
                "layer_metadata": info.get("layer_metadata") or {},
            }
            yield from sent(facts, reader.schema, reader)


def _layer_name(
    path: Path,
    source: Path | bytes,
    listed: Sequence[tuple[str, str | None]],
    wanted: str | None,
    views: tuple[str, ...],
) -> str:
    """The layer to read; raises LayerError with the choice where it isn't clear."""
    found = {name: kind for name, kind in listed if kind is not None}
    if wanted in found:
        return wanted
    if wanted is not None and wanted.startswith(BY_NUMBER):
        names = [name for name, _ in listed]
        number = int(wanted.removeprefix(BY_NUMBER))
        if number < len(names) and names[number] in found:
            return names[number]
        wanted = f"number {number}"
    made_up = [name for name in found if name in views]
    found = {name: kind for name, kind in found.items() if name not in views}
    if not found:
        if made_up:
            raise LayerError(
                f"{path} has no layer with geometries but views ({', '.join(made_up[:12])}); name one, as in"
                f' "{path.name}|layername={made_up[0]}".'
            )
        raise LayerError(f"{path} has no layer with geometries.")
    if wanted is None and len(found) == 1:
        return next(iter(found))
    counts = {
        name: pyogrio.read_info(source, layer=name, force_feature_count=True)["features"] for name in found
    }
    choice = ", ".join(f"{name} ({count} features)" for name, count in counts.items())
    if wanted is not None:
        raise LayerError(f"{path} has no layer with geometries called '{wanted}'; it has {choice}.")
    # Routes and tracks of a GPS file aren't individuals, and it always has empty layers.
    filled = [name for name, count in counts.items() if count and "LineString" not in found[name]]
    if len(filled) == 1:
        return filled[0]
    example = (filled or list(found))[0]
    raise LayerError(
        f'{path} has several layers: {choice}; name one, as in "{path.name}|layername={example}".'
    )


def _crs(stated: str | None, shown: str) -> CRS | None:
    """A CRS from GDAL's words; None for what stands for an unknown one."""
    if not stated:
        return None
    try:
        crs = read_crs(stated, shown, error=LayerError)
    except CRSError:
        return None
    return None if crs.name.lower().startswith(("undefined", "unknown cartesian")) else crs


@contextlib.contextmanager
def _spoken_once(path: Path) -> Iterator[None]:
    """GDAL's errors as one LayerError, its warnings kept to itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except LayerError:
            raise
        except NameError as error:  # pyogrio's own, where a CRS is text in no UTF-8
            raise LayerError(f"{path} can't be read: what it says of its CRS isn't text in UTF-8.") from error
        except (RuntimeError, ValueError, UnicodeError) as error:
            raise LayerError(f"{path} can't be read: {reason(error)}.") from error


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of the layer that `write_layer` wrote; empty in other files."""
    return metadata.from_json(_stated(path).get(metadata.KEY))


def read_seal(path: Path) -> str | None:
    """The hash of the features that `write_layer` wrote; None in other files."""
    return _stated(path).get(metadata.SEAL_KEY)


def _stated(path: Path) -> dict[str, str]:
    """Keys and texts of the layer `detections`."""
    with _spoken_once(path):
        names = [str(name) for name in pyogrio.list_layers(path)[:, 0]]
        stated = pyogrio.read_info(path, layer=LAYER)["layer_metadata"] if LAYER in names else None
    return dict(stated or {})


def content(path: Path) -> Content:
    """The features of the layer `detections`, gone through in batches."""
    found = Content()
    with (
        _spoken_once(path),
        pyogrio.raw.open_arrow(path, layer=LAYER, batch_size=BATCH_ROWS, use_pyarrow=True) as (meta, reader),
    ):
        for batch in reader:
            found.add_arrow(batch, meta["geometry_name"] or "wkb_geometry")
    return found


def write_layer(
    path: Path,
    stream: ArrowStream,
    *,
    driver: str,
    geometry_type: str,
    texts: Mapping[str, str],
    options: Mapping[str, str],
    layer: str = LAYER,
    append: bool = False,
) -> Written:
    """Write a stream as a layer with a driver of GDAL; a file that is there keeps its other layers.

    geometry_type : "Point", "Polygon" or "Unknown".
    texts : the layer's metadata.
    options : creation options of the driver.
    append : add to the features of the layer.
    Raises OSError with GDAL's message where it fails, or what the source of the stream raised.
    """
    before = {name: pyogrio.get_gdal_config_option(name) for name in _SETTINGS}
    one = None if layer == LAYER else layer  # a shapefile's own layer has the file's name
    there = _count(path, one) if append else 0
    pyogrio.set_gdal_config_options(_SETTINGS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pyogrio.write_arrow(
                stream.reader(),
                path,
                layer=layer,
                driver=driver,
                geometry_name=GEOMETRY,
                geometry_type=geometry_type,
                crs=None if stream.crs is None else stream.crs.to_wkt(),
                layer_metadata=dict(texts) or None,
                append=append,
                **options,
            )
            arrived = _count(path, one) - there
    except (RuntimeError, ValueError) as error:
        if stream.failure is not None:
            raise stream.failure from None
        raise failure(error, path, stream.bytes) from error
    finally:
        pyogrio.set_gdal_config_options(before)
    if stream.failure is not None:
        raise stream.failure
    if arrived != stream.features:
        lost = OSError(f"I/O error: only {arrived} of {stream.features} features arrived in the file")
        raise failure(lost, path, stream.bytes)
    return Written(path, stream.features)


def fields(path: Path, layer: str) -> tuple[str, ...]:
    """The names of a layer's columns, without its geometry."""
    return tuple(str(name) for name in pyogrio.read_info(path, layer=layer)["fields"])


def _count(path: Path, layer: str | None) -> int:
    return int(pyogrio.read_info(path, layer=layer, force_feature_count=True)["features"])


def failure(error: Exception, path: Path, passed: int) -> OSError:
    """What went wrong while writing, with the system's number for a full disk, which GDAL doesn't tell.

    passed : bytes given to GDAL so far. It has removed its temporary files before this is asked, so that a
    disk that was full has room again: but less than the file and its copy with an index need.
    """
    is_about_room = re.search(r"full|space|I/O|VSIF|seek|rtree|transaction", str(error))
    if is_about_room and shutil.disk_usage(path.parent).free < 3 * passed:
        return OSError(errno.ENOSPC, reason(error))
    return OSError(reason(error))


def distinct(names: Iterable[str], *, longest: int | None = None, taken: tuple[str, ...] = ()) -> list[str]:
    """Column names that a database tells apart: cut to `longest` bytes of UTF-8, numbered where they clash.

    Databases don't tell upper from lower case. The order stays.

    taken : names that aren't free, beside that of the geometry.
    """
    used = {name.lower() for name in (*taken, GEOMETRY)}
    out = []
    for name in names:
        number, new = 1, _cut(name, longest)
        while new.lower() in used:
            number += 1
            ending = f"_{number}"
            new = _cut(name, None if longest is None else longest - len(ending)) + ending
        used.add(new.lower())
        out.append(new)
    return out


def _cut(name: str, longest: int | None) -> str:
    return name if longest is None else name.encode()[:longest].decode(errors="ignore")
