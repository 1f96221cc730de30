"""The header of an open raster file: place, bands, types, nodata.

Everything that is read once, when a raster is opened; `raster` reads the pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError

from ecodetect.errors import RasterError
from ecodetect.grid import IDENTITY, Grid
from ecodetect.guarding.crs_files import check_crs
from ecodetect.notes import Note
from ecodetect.raster.band_metadata import described_bands, sensor_of, tags
from ecodetect.raster.bands import RGB, Naming, choose, name_bands
from ecodetect.raster.georeference import place
from ecodetect.raster.pages import PagePlan

_NEARLY = 0.02  # sizes of pixels that differ by less are the same
BLOCK_LIMIT = 256 * 2**20  # bytes of one unpacked block: a file of 0.8 MB can hold one of 768 MB

# Bytes that a pixel takes at least in formats of text: a digit and a blank; XYZ may leave most pixels out.
_TEXT_BYTES = {"AAIGrid": 2, "GRASSASCIIGrid": 2, "GSAG": 2, "XYZ": 0.5}


@dataclass(frozen=True, eq=False, slots=True)
class Header:
    """What is known of a raster before its pixels are read.

    bands : names chosen -> index (0-based) into the file's bands, or into the palette's colours.
    alpha : index (0-based) of the band that is a mask, or None.
    nodata : the nodata value of each file band, in the dtype of the file; None: no band has one.
    has_mask : whether the file has a mask of its own, inside or beside it.
    palette : uint8 (256 or 65536, C): brightness or red, green, blue, and opacity last; None: no palette.
    dtype : numpy name of the pixels read.
    value_range : lowest and highest value that the dtype, or its number of bits, can hold; None for floats.
    scale : what the file says that its values are to be multiplied with and added to: (1, 0) where nothing.
    structure : GDAL's words for layout and compression.
    notes : for the user; they don't name the raster.
    """

    grid: Grid
    bands: dict[str, int]
    alpha: int | None
    nodata: NDArray[Any] | None
    has_mask: bool
    palette: NDArray[np.uint8] | None
    dtype: str
    value_range: tuple[float, float] | None
    scale: tuple[float, float]
    structure: dict[str, str]
    notes: tuple[Note, ...]


def read_header(
    dataset: Any,
    shown: str,
    *,
    bands: str | None,
    gsd_m: float | None,
    nodata: float | None,
    is_mask: Callable[[int], bool | None],
    pages: PagePlan | None,
) -> Header:
    """The header of an open dataset.

    shown : the file, for messages.
    bands : which bands the user wants, or None: all but the mask.
    gsd_m : metres per pixel for a raster that doesn't say. RasterError where it says another number.
    nodata : the user's nodata value, instead of the file's; NaN: only NaN is nodata.
    is_mask : whether a band (0-based) holds 0 and one other value; None: nothing but 0 was seen.
    pages : of a TIFF on this machine.
    """
    structure = {**tags(dataset, ns="IMAGE_STRUCTURE"), **tags(dataset, 1, ns="IMAGE_STRUCTURE")}
    grid, notes = _grid(dataset, shown, gsd_m, pages)
    stored, dtype, said = _types(dataset)
    notes += said
    if "MINISWHITE" in structure and dataset.colorinterp[0].name != "palette":
        text = "low values are bright in it (MinIsWhite); they are read as stored."
        notes.append(Note("low-is-bright", text, kind="doubt"))
    bits = _bits(structure, dtype)
    naming = _naming(dataset, shown, dtype, is_mask, pages)
    alpha = naming.alpha
    palette = _palette_meant(dataset, naming, bands)
    if palette is not None:
        dtype, palette, bits, naming = _coloured(palette, bits)
    notes += naming.notes
    if any(scale != 1 for scale in dataset.scales) or any(offset != 0 for offset in dataset.offsets):
        text = "its values are used as stored: its scale and offset say at most which unit they have."
        notes.append(Note("scale-unused", text))
    stated, said = _nodata(dataset, stored, nodata, shown, None if pages is None else pages.nodata)
    notes += said
    flags = dataset.mask_flag_enums[0]
    return Header(
        grid=grid,
        bands=_chosen(naming, bands, shown, pages),
        alpha=alpha,
        nodata=stated,
        has_mask=MaskFlags.per_dataset in flags and not {MaskFlags.alpha, MaskFlags.nodata} & set(flags),
        palette=palette,
        dtype=dtype,
        value_range=_value_range(dtype, bits),
        scale=(float(dataset.scales[0]), float(dataset.offsets[0])),
        structure=structure,
        notes=(*notes, *_remarks(dataset, pages)),
    )


def _grid(dataset: Any, shown: str, gsd_m: float | None, pages: PagePlan | None) -> tuple[Grid, list[Note]]:
    """Where the pixels lie, by the file and by what the user states."""
    grid, notes = _placed(dataset, shown)
    grid = replace(grid, orientation=_orientation(dataset))
    if pages is not None and grid.gsd is None and grid.transform == IDENTITY:
        grid, said = _sized(grid, pages, gsd_m)
        notes += said
    if gsd_m is not None:
        grid, said = _stated(grid, gsd_m, shown)
        notes += said
    return grid, notes


def _types(dataset: Any) -> tuple[str, str, list[Note]]:
    """The type of the stored values, and that in which pixels are read."""
    notes = []
    stored = dtype = common_dtype(dataset) or _numpy_name(dataset.dtypes[0])
    if len(set(dataset.dtypes)) > 1:
        notes.append(Note("types-differ", f"its bands have different types; all are read as {stored}."))
    if np.dtype(stored).kind == "c":
        dtype = "float64" if stored == "complex128" else "float32"
        text = "its values are complex numbers; their magnitude is used."
        notes.append(Note("complex-values", text, kind="choice"))
    return stored, dtype, notes


def _are_channels(pages: PagePlan | None) -> bool:
    return pages is not None and not pages.is_alone


def _naming(
    dataset: Any, shown: str, dtype: str, is_mask: Callable[[int], bool | None], pages: PagePlan | None
) -> Naming:
    """The names of the bands as stored."""
    are_channels = _are_channels(pages)
    texts, waves = (dataset.descriptions, ()) if are_channels else described_bands(dataset)
    return name_bands(
        texts,
        _interpretations(dataset),
        dtype,
        is_mask,
        wavelengths_nm=waves,
        sensor=lambda: sensor_of(dataset, Path(shown).name),
        are_channels=are_channels,
    )


def _palette_meant(dataset: Any, naming: Naming, bands: str | None) -> NDArray[np.uint8] | None:
    """The colour table, where the numbers of the pixels mean nothing without it and nobody asks for them."""
    as_numbers = bands is not None and bands.replace(",", "").replace(" ", "").isdecimal()
    is_one = len(naming.names) - (naming.alpha is not None) == 1
    if _interpretations(dataset)[0] == "palette" and is_one and not as_numbers:
        return _palette(dataset)
    return None


def _coloured(
    palette: NDArray[np.uint8], bits: int | None
) -> tuple[str, NDArray[np.uint8], int | None, Naming]:
    """Type, colour table, bits and bands of pixels that a colour table gives, grey or red, green and blue."""
    is_grey = palette.shape[1] == 2
    if is_grey and bits == 1:
        palette = np.column_stack([palette[:, 0] > 127, palette[:, 1]]).astype(np.uint8)
    else:
        bits = None
    names = ("grey",) if is_grey else RGB
    text = "its colour table is read as red, green and blue; for the numbers in it, read band 1."
    notes = () if is_grey else (Note("colour-table", text, kind="choice", parameter="bands"),)
    return "uint8", palette, bits, Naming(names, (None,) * len(names), notes=notes)


def _chosen(naming: Naming, bands: str | None, shown: str, pages: PagePlan | None) -> dict[str, int]:
    """The bands that are read, by name; raises RasterError where there is none but a mask."""
    if bands is not None:
        return dict(choose(naming, bands, shown))
    chosen = [(name, index) for index, name in enumerate(naming.names) if name != "alpha"]
    if not chosen:
        raise RasterError(f"{shown} holds nothing but a mask.")
    return dict(chosen[: pages.usual] if pages is not None and _are_channels(pages) else chosen)


def check_dataset(dataset: Any, shown: str) -> None:
    """Raise RasterError for a dataset without bands, with too large blocks, or that leads elsewhere."""
    # First: GDAL follows the name when it is asked for overviews or a mask.
    elsewhere = tags(dataset, ns="OVERVIEWS").get("OVERVIEW_FILE", "")
    if elsewhere:
        raise RasterError(
            f"{shown} names a file with its overviews ('{elsewhere[:80]}'), which is not followed."
        )
    if dataset.count == 0:
        names = dataset.subdatasets
        if not names:
            raise RasterError(f"{shown} holds no raster.")
        more = f" and {len(names) - 12} more" if len(names) > 12 else ""
        listed = ", ".join(names[:12]) + more
        raise RasterError(f"{shown} holds {len(names)} rasters; name one of them: {listed}.")
    rows, columns = dataset.block_shapes[0]
    together = 1 if tags(dataset, ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "BAND" else dataset.count
    bytes_ = rows * columns * together * item_bytes(dataset.dtypes[0])
    if bytes_ > BLOCK_LIMIT:
        raise RasterError(
            f"{shown} unpacks {bytes_ / 2**20:.0f} MB at once (blocks of {columns} x {rows} px); the most "
            f"that is read is {BLOCK_LIMIT / 2**20:.0f} MB, so write it again in tiles (gdal_translate -co "
            "TILED=YES)."
        )


def check_raw_size(dataset: Any, file: Path, shown: str) -> None:
    """Raise RasterError when a file that is nothing but numbers is too short for its size in pixels."""
    if "NBITS" in tags(dataset, 1, ns="IMAGE_STRUCTURE"):
        return
    needed = dataset.width * dataset.height * sum(map(item_bytes, dataset.dtypes))
    held = file.stat().st_size
    with file.open("rb") as stream:
        is_packed = stream.read(2) == b"\x1f\x8b"  # ENVI files may be gzipped
    if held < needed and not is_packed:
        raise RasterError(
            f"{shown} is truncated: it has {held} of the {needed} bytes that its pixels take; copy it again."
        )


def check_text_size(dataset: Any, file: Path, shown: str) -> None:
    """Raise RasterError when a file of numbers in text is too short for its size in pixels.

    GDAL looks for each missing row from the first one on.
    """
    needed = int(dataset.width * dataset.height * _TEXT_BYTES.get(dataset.driver, 0))
    if (held := file.stat().st_size) < needed - 1:
        raise RasterError(
            f"{shown} is truncated: its {dataset.width} x {dataset.height} pixels take {needed} bytes"
            f" of text, and it has {held}; copy it again."
        )


def item_bytes(dtype: str) -> int:
    """Bytes of a value, by rasterio's name of its type."""
    return int(np.dtype(_numpy_name(dtype)).itemsize)


def common_dtype(dataset: Any) -> str | None:
    """The numpy type that holds the values of all bands; None if they have the same."""
    names = {_numpy_name(name) for name in dataset.dtypes}
    return None if len(names) == 1 else str(np.result_type(*names))


def _numpy_name(dtype: str) -> str:
    return "complex64" if dtype == "complex_int16" else str(dtype)


def _placed(dataset: Any, shown: str) -> tuple[Grid, list[Note]]:
    control: list[tuple[float, float, float, float]] = []
    control_wkt = None
    try:
        points, control_crs = dataset.gcps
        control = [(point.col, point.row, point.x, point.y) for point in points]
        control_wkt = _wkt(control_crs)
    except (CPLE_BaseError, RasterioError, ValueError):
        pass  # control points in a CRS that PROJ can't build
    try:
        has_rpc = dataset.rpcs is not None
    except (CPLE_BaseError, RasterioError, ValueError, KeyError):
        has_rpc = False
    try:
        wkt = _wkt(dataset.crs)
        _ = dataset.colorinterp  # what GDAL finds wrong with a CRS is thrown at the next who asks anything
    except (CPLE_BaseError, RasterioError, ValueError):
        wkt = None
    for each in (wkt, control_wkt):
        check_crs(each, shown, error=RasterError)
    transform = tuple(float(number) for number in dataset.transform[:6])
    assert len(transform) == 6
    return place(dataset.width, dataset.height, transform, wkt, control, control_wkt, has_rpc=has_rpc)


def _wkt(crs: Any) -> str | None:
    """WKT 2, which keeps what WKT 1 loses: compound and engineering systems, dynamic datums."""
    if not crs:
        return None
    try:
        return str(crs.to_wkt(version="WKT2_2019"))
    except (CPLE_BaseError, RasterioError):
        return str(crs.to_wkt())


def _sized(grid: Grid, pages: PagePlan, gsd_m: float | None) -> tuple[Grid, list[Note]]:
    """The grid with pixels as large as a microscope says, unless the user states another size."""
    if pages.gsd_m is None:
        return grid, []
    x, y = pages.gsd_m
    size = f"{x * 1e6:.4g} µm" if abs(x - y) < _NEARLY * x else f"{x * 1e6:.4g} x {y * 1e6:.4g} µm"
    if gsd_m is None:
        text = f"a pixel is {size} wide by its {pages.says}; if that is wrong, state its size."
        return grid.with_gsd(x, y), [Note("pixel-size-read", text, parameter="gsd")]
    if max(abs(gsd_m - x), abs(gsd_m - y)) <= _NEARLY * gsd_m:
        return grid, []
    text = f"by its {pages.says} a pixel is {size} wide; the stated {gsd_m * 1e6:.4g} µm are used."
    return grid, [Note("pixel-size-overruled", text, kind="choice")]


def _stated(grid: Grid, gsd_m: float, shown: str) -> tuple[Grid, list[Note]]:
    if grid.gsd is None:
        return grid.with_gsd(gsd_m), []
    own = " x ".join(f"{size:.4g}" for size in grid.gsd)
    if any(abs(gsd_m / size - 1) > _NEARLY for size in grid.gsd):
        raise RasterError(
            f"{shown} says that a pixel is {own} m, not {gsd_m:g} m; fix its georeference, or leave out the"
            " pixel size, which is for rasters that don't say theirs.",
            parameter="gsd",
        )
    return grid, [Note("gsd-unused", f"it says that a pixel is {own} m, which is used.")]


def _interpretations(dataset: Any) -> list[str]:
    try:
        return [item.name for item in dataset.colorinterp]
    except ValueError:  # a newer GDAL knows more of them than rasterio
        return ["undefined"] * dataset.count


def _bits(structure: dict[str, str], dtype: str) -> int | None:
    """Number of bits where it is less than the dtype has, such as 12 for many cameras."""
    text = structure.get("NBITS", "")
    return int(text) if text.isdecimal() and np.dtype(dtype).kind == "u" else None


def _value_range(dtype: str, bits: int | None) -> tuple[float, float] | None:
    if np.dtype(dtype).kind == "f":
        return None
    if bits is not None:
        return (0.0, float(2**bits - 1))
    info = np.iinfo(dtype)
    return (float(info.min), float(info.max))


def _orientation(dataset: Any) -> int:
    """How viewers turn a photograph, as EXIF numbers it; 1: not at all."""
    stated = tags(dataset).get("EXIF_Orientation", "1").strip()
    return int(stated) if stated in ("2", "3", "4", "5", "6", "7", "8") else 1


def _palette(dataset: Any) -> NDArray[np.uint8] | None:
    """Colours by value: brightness where all of them are grey, else red, green, blue; opacity last."""
    try:
        colours = dataset.colormap(1)
    except ValueError:
        return None
    size = 65536 if dataset.dtypes[0] == "uint16" else 256
    table = np.zeros((size, 4), np.uint8)
    table[:, 3] = 255  # values without a colour are black, as GDAL has it
    for value, colour in colours.items():
        if 0 <= value < size:
            table[value] = colour
    is_grey = (table[:, 0] == table[:, 1]).all() and (table[:, 1] == table[:, 2]).all()
    return table[:, [0, 3]] if is_grey else table


def _nodata(
    dataset: Any, stored: str, asked: float | None, shown: str, tagged: float | None
) -> tuple[NDArray[Any] | None, list[Note]]:
    """The nodata value of each band in the dtype `stored`; None unless every band has one that it can hold.

    A pixel is no data where all chosen bands have their value, so a band without one makes all of them valid.
    NaN needs no mention: what is not finite is never data.
    asked : the user's value for all bands.  Raises RasterError where the type can't hold it.
    tagged : what a TIFF's tag says; rasterio keeps silent about a value that the type can't hold.
    """
    dtype = np.dtype(stored)
    if asked is not None:
        if not np.isfinite(asked):
            return None, []
        if not _holds(dtype, asked):
            raise RasterError(
                f"{asked:.10g} can't stand for no data in {shown}: its pixels are {stored}.",
                parameter="nodata",
            )
        return np.full(dataset.count, dtype.type(asked)), []
    values = list(dataset.nodatavals)
    together = tags(dataset).get("NODATA_VALUES", "").split()
    if len(together) == dataset.count:
        values = [float(value) for value in together]
    if values[:1] == [None] and tagged is not None:
        values = [tagged] * len(values)
    known = [value for value in values if value is not None and np.isfinite(value)]
    if wrong := [value for value in known if not _holds(dtype, value)]:
        text = (
            f"its pixels ({stored}) can't have its nodata value {wrong[0]:.10g}, so it isn't used; if another"
            " value stands for no data, state it."
        )
        return None, [Note("nodata-unusable", text, kind="choice", parameter="nodata")]
    if len(known) < len(values):
        return None, []
    return np.array([dtype.type(value) for value in values]), []


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    """Whether a type has a value."""
    if dtype.kind not in "iu":
        return True
    return float(value).is_integer() and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


def _remarks(dataset: Any, pages: PagePlan | None) -> list[Note]:
    notes: list[Note] = []
    if pages is not None:
        notes += pages.notes
    elif dataset.subdatasets:
        what = "pages" if dataset.driver == "GTiff" else "rasters"
        text = f"it holds {len(dataset.subdatasets)} {what}; the first is read."
        notes.append(Note("first-of-several", text, kind="choice"))
    if (orientation := _orientation(dataset)) != 1:
        text = (
            f"viewers turn this picture (EXIF orientation {orientation}); coordinates are those of the "
            "pixels as stored."
        )
        notes.append(Note("turned-by-viewers", text))
    return notes
