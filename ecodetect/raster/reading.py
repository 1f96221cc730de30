"""Opening rasters and reading windows of them: the only importer of rasterio's reading.

A `Raster` knows its grid, its bands by name and which of its pixels are data; `read` gives a Chip of any
window, at its own or another GSD. `safety` decides what may be opened, `opening` opens it, `header` holds
what the file says about itself, with band names in `bands` and the place in `georeference`. `blocks` finds
blocks that were never written, and `resampling` changes the pixel size.

Pixels are the stored numbers: a file's scale and offset aren't applied. Only palettes become red, green and
blue, and complex numbers become their magnitude.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from ecodetect.chip import Chip
from ecodetect.errors import GridError, NetworkError, RasterError
from ecodetect.grid import Grid, Window
from ecodetect.notes import Note
from ecodetect.raster.band_metadata import descriptions
from ecodetect.raster.bands import listed
from ecodetect.raster.blocks import Blocks
from ecodetect.raster.header import (
    Header,
    check_dataset,
    check_raw_size,
    check_text_size,
    common_dtype,
    item_bytes,
    read_header,
)
from ecodetect.raster.opening import FAULTS, lacks_memory, opened, options, quiet, reason_of, tried, unheard
from ecodetect.raster.pages import PagedDataset, plan_of
from ecodetect.raster.pixels import Mask, Pixels, bands_to_decode, both, interpreted, padded
from ecodetect.raster.remote import waited
from ecodetect.raster.resampling import axis, resample
from ecodetect.raster.rim import NEAR, REACH_PX, SOLID_PX, Fill, grown, touches, undeclared
from ecodetect.raster.rim import has_seam as has_seam_of
from ecodetect.raster.safety import Address, check_files, locate
from ecodetect.raster.sampling import CELL_PX, RasterSamples, lattice
from ecodetect.raster.state import state_of
from ecodetect.wording import percent

_SMALL_BYTES = 2**23  # decoded; up to this size a raster is read whole to identify it
STRIP_VALUES = 2**25  # values read at once when resampling: 32 MB of 8-bit pixels
_MASK_SHARE = 0.9  # in a mask band, this share of the values above 0 is the highest value
_MOST_INDEXED = 256  # bands whose blocks are looked up one by one
# Formats without any structure: GDAL reads 0 where such a file ends early.
_RAW = ("EHdr", "ENVI", "RST", "SAGA")


@dataclass(frozen=True, slots=True)
class _Rim:
    """What lies along the edge of a raster.

    fill : an undeclared value that stands for no data.
    has_seam : whether values close to nodata count as no data next to it.
    is_at_edge : whether the nodata value lies at the edge.
    """

    fill: Fill | None = None
    has_seam: bool = False
    is_at_edge: bool = False


def open_raster(
    path: str | os.PathLike[str],
    *,
    bands: str | None = None,
    gsd_m: float | None = None,
    nodata: float | None = None,
    allow_vrt: bool = False,
) -> Raster:
    """Open a raster for reading.

    Parameters
    ----------
    path : str or path-like
        Local file, `https://`, `s3://`, `gs://`, `az://`, `/vsi…`, or one array of a file with several in
        GDAL's spelling (`NETCDF:"file.nc":name`).
    bands : str, optional
        Bands, as the user gives them: names or numbers from 1 (`red,green,nir`, `3,2,1`, `red=3,green=2`).
        All but the mask if not given.
    gsd_m : float, optional
        Metres per pixel, for a raster that doesn't state it. A raster that does keeps its own value, which
            must agree within 2 %.
    nodata : float, optional
        Value that stands for no data in all bands, instead of the one that the raster declares; NaN: only
            NaN does.
    allow_vrt : bool
        Trust a VRT that points outside its folder.

    Raises
    ------
    RasterError
        When it can't be opened, or its pixels aren't as stated, in one sentence.
    """

    def check_source(source: Address) -> None:
        with opened(source) as dataset:
            check_dataset(dataset, source.shown)
            check_files(dataset, Path(source.name), source)

    source = locate(path, allow_vrt=allow_vrt, check_source=check_source)
    try:
        return Raster(source, bands=bands, gsd_m=gsd_m, nodata=nodata)
    except BaseException:
        if source.remote is not None:
            source.remote.close()
        raise


def try_out(name: str, shown: str, drivers: list[str], is_remote: bool, format_: str | None) -> str:
    """Open a raster and read what every command reads; returns the driver that takes it.

    For `guard`'s child, which makes sure that all of this ends. Errors are reported when it is done again.
    """
    file = None if is_remote or not Path(name).is_file() else Path(name)
    source = Address(name, shown, tuple(drivers), is_remote, format_, file)
    with options(source), quiet(), opened(source) as dataset:
        driver = str(dataset.driver)
    try:
        with Raster(replace(source, drivers=(driver,)), bands=None, gsd_m=None) as raster:
            _ = raster.fingerprint, raster.notes
    except RasterError as error:
        if lacks_memory(error):
            raise MemoryError from error
    return driver


class Raster:
    """A raster open for reading; a context manager. Use it from one thread at a time.

    Attributes
    ----------
    path, name : the path as the user wrote it, and its last part.
    grid : native Grid.
    bands : names of the bands, in the chosen order.
    dtype : numpy name of the pixels read.
    value_range : lowest and highest value that the dtype (or its number of bits) can hold; None for floats.
    scale : the factor and offset that the file states for its values; they aren't applied.
    block_shape : rows and columns that are decoded together.
    state : of its files when it was opened; see `state_now`.
    """

    def __init__(
        self, source: Address, *, bands: str | None, gsd_m: float | None, nodata: float | None = None
    ) -> None:
        self.path = source.shown
        self.name = PurePath(source.shown.rstrip("/")).name or source.shown
        self._source = tried(source)
        self._overviews: dict[int, Any] = {}
        self._levels: dict[Grid, int | None] = {}
        self._fingerprint: str | None = None
        self._rim: _Rim | None = None
        self._stored: str | None = None  # one type for bands of different types; None: the file's
        self._pages = plan_of(self._source)
        self._before = state_of([source.name])  # a change from here on is noticed
        with self._options(), quiet():
            self._dataset = self._opened()
            try:
                check_dataset(self._dataset, self.path)
                self._blocks = Blocks(self._dataset, is_known=self._dataset.count <= _MOST_INDEXED)
                self._check_files()
                self._stored = common_dtype(self._dataset)
                self._header = read_header(
                    self._dataset,
                    self.path,
                    bands=bands,
                    gsd_m=gsd_m,
                    nodata=nodata,
                    is_mask=self._is_mask,
                    pages=self._pages,
                )
            except BaseException as error:
                self._dataset.close()
                if isinstance(error, FAULTS) and not isinstance(error, RasterError):
                    raise RasterError(f"{self.path} is damaged ({reason_of(error, source)}).") from error
                raise
        self._files = [str(name) for name in getattr(self._dataset, "files", [])] or [source.name]
        self.state = self.state_now()
        is_alone = source.remote is None and self._files == [source.name]
        if (self.state if is_alone else state_of([source.name])) != self._before:
            self.state = ""
        self.grid = self._header.grid
        self.bands = tuple(self._header.bands)
        self.dtype = self._header.dtype
        self.value_range = self._header.value_range
        self.scale = self._header.scale
        self.block_shape: tuple[int, int] = tuple(self._dataset.block_shapes[0])

    def state_now(self) -> str:
        """The state of its files at this moment; if it differs from `state`, they were written to.

        A file on a web server keeps the state that it was opened in: bytes of another version are never used.
        """
        return state_of(self._files) if self._source.remote is None else self._source.remote.state

    def check_unchanged(self, state: str) -> None:
        """Raise RasterError where its files aren't in this state (any more), or can't be checked.

        It is a NetworkError where a server doesn't answer.
        """
        if self.state_now() != state:
            raise RasterError(
                f"{self.path} was changed while it was read; run the same command again when it is complete."
            )
        if self._source.remote is not None:
            self._source.remote.check_unchanged()
        known = self._fingerprint
        if self._source.is_on_server and known is not None and self._digest_anew() != known:
            raise RasterError(
                f"{self.path} has changed on its server while it was read; run the same command again to"
                " start over with what is there now."
            )

    def reading(self, bands: Sequence[str]) -> dict[str, Any]:
        """How `read` makes its pixels of the file's bands, JSON-able: part of a scan's key and metadata.

        bands : name -> number in the file, from 1; for a palette, the number of its colour.  nodata : of
            each band of the file, the value that stands for no data, as text; None where there is none.
        """
        header = self._header
        nodata = None if header.nodata is None else [repr(value) for value in header.nodata.tolist()]
        return {
            "bands": {name: header.bands[name] + 1 for name in dict.fromkeys(bands) if name in header.bands},
            **({} if nodata is None else {"nodata": nodata}),
            **({} if header.palette is None else {"palette": True}),
        }

    @property
    def header(self) -> Header:
        """What the file says about itself."""
        return self._header

    @property
    def notes(self) -> tuple[Note, ...]:
        """Notes for the user. The first call reads some pixels at the edge."""
        return tuple(note.of(self.name) for note in (*self._header.notes, *self._rim_notes()))

    @property
    def bytes_per_pixel(self) -> int:
        """Bytes per decoded pixel, with all bands of the file that are decoded together."""
        if isinstance(self._dataset, PagedDataset):
            return len(self.bands) * item_bytes(self._dataset.dtypes[0])
        return sum(item_bytes(dtype) for dtype in self._dataset.dtypes)

    @property
    def driver(self) -> str:
        """GDAL's name of the format."""
        return str(self._dataset.driver)

    @property
    def overview_factors(self) -> tuple[int, ...]:
        """Reduction factors of the overviews in the file or beside it."""
        return tuple(self._dataset.overviews(1))

    # -- opening and closing -------------------------------------------------------------------------------

    def __enter__(self) -> Raster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; it can't be read afterwards."""
        for dataset in (*self._overviews.values(), self._dataset):
            dataset.close()
        self._overviews = {}
        if self._source.remote is not None:
            self._source.remote.close()

    def _digest_anew(self) -> str | None:
        """The fingerprint of what the path holds now; None where that can't be the same raster."""
        shape, count = self._dataset.shape, self._dataset.count
        for dataset in (*self._overviews.values(), self._dataset):
            dataset.close()  # or GDAL keeps what it has fetched
        self._overviews = {}
        with self._options(), quiet():
            self._dataset = self._opened()
            if (self._dataset.shape, self._dataset.count) != (shape, count):
                return None
            self._blocks = Blocks(self._dataset, is_known=count <= _MOST_INDEXED)
            return self._digest()

    def give_up(self) -> None:
        """Stop waiting for a server; call it from another thread than the one that reads."""
        if self._source.remote is not None:
            self._source.remote.give_up()

    def __repr__(self) -> str:
        return f"<Raster {self.name}: {self.grid.describe()}, {listed(self.bands)}>"

    @contextmanager
    def env(self, *, cache_bytes: int, threads: int = 1) -> Iterator[None]:
        """A context in which this thread decodes with `threads` threads and caches `cache_bytes` of blocks.

        GDAL fixes the number of threads when it opens a file, so the file is opened again. A remote file
        isn't: it has its threads from the start, and reopening would lose the blocks fetched for a survey.
        Blocks are decoded once as long as the cache holds a row of windows; threads help reads that span
        several blocks. The whole process shares one cache.
        """
        with rasterio.Env(GDAL_CACHEMAX=cache_bytes, GDAL_NUM_THREADS=str(threads)), self._options():
            if self._source.is_remote:
                yield
                return
            held, held_overviews = self._dataset, self._overviews
            try:
                self._dataset, self._overviews = self._opened(), {}
                try:
                    yield
                finally:
                    self.close()
            finally:
                self._dataset, self._overviews = held, held_overviews

    def _opened(self) -> Any:
        """The dataset again: the file's own, or one with its pages as bands."""
        if self._pages is None or self._pages.is_alone:
            return opened(self._source)
        return PagedDataset(self._source, self._pages)

    def _options(self) -> AbstractContextManager[Any]:
        """GDAL's options while the file is touched; its messages go to Python's log."""
        return options(self._source)

    def _check_files(self) -> None:
        """Raise RasterError when the file refers to others, or is visibly truncated."""
        if (file := self._source.file) is not None:
            check_files(self._dataset, file, self._source)
            self._blocks.check_within(file.stat().st_size, self.path)
            if self.driver in _RAW:
                check_raw_size(self._dataset, file, self.path)
            check_text_size(self._dataset, file, self.path)
        try:
            for window in self._blocks.absent_places():
                self._decoded(self._dataset, window, [1])
        except RasterError as error:
            raise RasterError(
                f"{self.path} is truncated: its index of blocks can't be read; copy it again."
            ) from error

    # -- reading -------------------------------------------------------------------------------------------

    def read(self, window: Window, bands: Sequence[str], grid: Grid | None = None) -> Chip:
        """The pixels of a window.

        Parameters
        ----------
        window : Window
            In pixels of `grid`; it may reach beyond the raster, where pixels aren't valid.
        bands : sequence of str
            Some of the names in `bands`.
        grid : Grid, optional
            The native grid, or the result of its `resampled`: area mean when downsampling, bilinear when
            upsampling, invalid pixels without weight; a pixel is valid if at least half of its area is. A
            window equals that part of the whole resampled raster exactly.

        Raises
        ------
        RasterError
            When the raster has no such band, or its data is damaged; the message names the pixels.
        """
        names = tuple(bands)
        for name in names:
            if name not in self._header.bands:
                raise RasterError(f"{self.path} has no band '{name}'; it has {listed(self.bands)}.")
        if grid is None:
            grid = self.grid
        inside = window.clipped(grid.window)
        pixels: Pixels
        valid: Mask | None
        if not inside.area:
            pixels = np.zeros((len(names), window.height, window.width), self.dtype)
            valid = np.zeros((window.height, window.width), bool)
            return Chip(pixels, valid, names, window, grid.crop(window))
        if grid == self.grid:
            pixels, valid = self._data(self._dataset, inside, names)
        else:
            pixels, valid = self._resampled(inside, names, grid)
        if inside != window:
            pixels, valid = padded(pixels, valid, inside, window)
        return Chip(pixels, valid, names, window, grid.crop(window))

    def _data(self, dataset: Any, window: Window, names: tuple[str, ...]) -> tuple[Pixels, Mask | None]:
        """Pixels and mask of a window inside `dataset`, which is the raster or one of its overviews.

        Where compression has left a seam along pixels without data, the seam doesn't count as data either.
        """
        if not self._has_seam:
            return self._as_stored(dataset, window, names)
        reach = max(1, math.ceil(REACH_PX * dataset.width / self.grid.width))
        margin = reach + 2 * SOLID_PX
        x, y = max(0, window.x - margin), max(0, window.y - margin)
        right, bottom = min(dataset.width, window.right + margin), min(dataset.height, window.bottom + margin)
        pixels, valid = self._as_stored(dataset, Window(x, y, right - x, bottom - y), names)
        rows = slice(window.y - y, window.bottom - y)
        columns = slice(window.x - x, window.right - x)
        if valid is not None and self._header.nodata is not None:
            nodata = self._header.nodata[[self._header.bands[name] for name in names]]
            valid = grown(pixels, nodata, valid, reach)[rows, columns]
            valid = None if valid.all() else valid
        return pixels[:, rows, columns], valid

    def _as_stored(self, dataset: Any, window: Window, names: tuple[str, ...]) -> tuple[Pixels, Mask | None]:
        """The same, exactly as the file's values and masks have it."""
        header = self._header
        data = self._decoded(dataset, window, [file + 1 for file in bands_to_decode(header, names)])
        pixels, valid = interpreted(data, header, names)
        if header.has_mask:
            valid = both(valid, self._decoded(dataset, window, None) != 0)
        if dataset is self._dataset:
            valid = both(valid, self._blocks.written(window))
        return pixels, valid

    @unheard()
    def _decoded(self, dataset: Any, window: Window, indexes: list[int] | None) -> Pixels:
        """One read by GDAL: file bands from 1, (B, H, W); the file's mask, (H, W), if `indexes` is None."""
        part = RasterioWindow(window.x, window.y, window.width, window.height)
        remote = self._source.remote

        def read() -> Pixels:
            with self._options() if self._source.is_remote else nullcontext():
                if indexes is None:
                    return np.asarray(dataset.read_masks(1, window=part))
                if self._stored is not None:  # bands of different types can't be read together
                    return np.stack(
                        [dataset.read(index, window=part).astype(self._stored) for index in indexes]
                    )
                return np.asarray(dataset.read(indexes, window=part))

        try:
            return waited(remote, read)
        except NetworkError:
            raise
        except FAULTS as error:
            if remote is not None and (fault := remote.fault()) is not None:
                raise fault from error
            raise RasterError(
                f"{self.path} is damaged or truncated: its pixels x {window.x} to {window.right - 1}, "
                f"y {window.y} to {window.bottom - 1} can't be read ({reason_of(error, self._source)})."
            ) from error

    # -- another GSD ---------------------------------------------------------------------------------------

    def _resampled(self, window: Window, names: tuple[str, ...], grid: Grid) -> tuple[Pixels, Mask | None]:
        """Pixels of a window inside `grid`, read in strips so that memory stays bounded at any factor."""
        dataset, factor_x, factor_y = self._level(grid)
        columns = axis(window.x, window.width, factor_x, dataset.width)
        pixels = np.zeros((len(names), window.height, window.width), self.dtype)
        valid = np.zeros((window.height, window.width), bool)
        across = (columns.stop - columns.start) * len(names)
        source_rows = max(self.block_shape[0], STRIP_VALUES // max(1, across))
        step = max(1, int(source_rows / factor_y))
        for first in range(0, window.height, step):
            count = min(step, window.height - first)
            rows = axis(window.y + first, count, factor_y, dataset.height)
            part = Window(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
            if not part.area:
                continue
            read, mask = self._data(dataset, part, names)
            made, made_valid = resample(read, mask, rows.from_source(part.y), columns.from_source(part.x))
            pixels[:, first : first + count] = made
            valid[first : first + count] = True if made_valid is None else made_valid
        return pixels, None if valid.all() else valid

    def _level(self, grid: Grid) -> tuple[Any, float, float]:
        """What to read for `grid`, the raster or an overview, and its pixels per pixel of `grid` in x, y."""
        (a, b, c, d, e, f), (ga, gb, _, gd, ge, _) = self.grid.transform, grid.transform
        factor_x = ga / a if abs(a) >= abs(d) else gd / d
        factor_y = ge / e if abs(e) >= abs(b) else gb / b
        expected = (a * factor_x, b * factor_y, c, d * factor_x, e * factor_y, f)
        if grid.crs != self.grid.crs or not np.allclose(expected, grid.transform, rtol=1e-9, atol=0):
            raise GridError(
                f"Grids differ: {self.grid.describe()} and {grid.describe()}; resample the raster's own."
            )
        if grid not in self._levels:
            self._levels[grid] = self._overview_for(min(factor_x, factor_y))
        level = self._levels[grid]
        if level is None:
            return self._dataset, factor_x, factor_y
        overview = self._overview(level)
        shrunk_x, shrunk_y = overview.width / self.grid.width, overview.height / self.grid.height
        return overview, factor_x * shrunk_x, factor_y * shrunk_y

    def _overview_for(self, factor: float) -> int | None:
        """The coarsest overview that has at least two pixels per target pixel and holds means of the raster.

        Overviews may hold picked pixels (nearest) or be older than the raster, and a palette has no means.
        """
        factors = self.overview_factors
        if self._header.palette is None and not self._blocks.has_gaps:
            for level in sorted(range(len(factors)), key=lambda level: -factors[level]):
                # 5 %: the factor is measured on the ground, where 8 may be 7.99
                if 2 <= factors[level] <= factor / 2 * 1.05 and self._holds_means(level):
                    return level
        return None

    def _overview(self, level: int) -> Any:
        if level not in self._overviews:
            with self._options():
                self._overviews[level] = opened(self._source, overview_level=level)
        return self._overviews[level]

    def _holds_means(self, level: int) -> bool:
        """Whether an overview agrees with the means of the raster's pixels at five places.

        Picked pixels (nearest) differ from the mean by the spread of the pixels under it; measured: JPEG
        overviews by 0.2 to 0.4 of it from a factor of 4 on, cubic ones by 0.15, bilinear by 0.3.
        """
        overview = self._overview(level)
        names = self.bands[:1]
        side = 16  # px of the overview
        differences, spreads = [], []
        for x, y in ((0.5, 0.5), (0.2, 0.2), (0.8, 0.2), (0.2, 0.8), (0.8, 0.8)):
            corner = Window(int(x * (overview.width - side)), int(y * (overview.height - side)), side, side)
            part = corner.clipped(Window(0, 0, overview.width, overview.height))
            if not part.area:
                continue
            columns = axis(part.x, part.width, self.grid.width / overview.width, self.grid.width)
            rows = axis(part.y, part.height, self.grid.height / overview.height, self.grid.height)
            full = Window(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
            pixels, valid = self._data(self._dataset, full, names)
            values = pixels.astype(np.float64)
            rows, columns = rows.from_source(full.y), columns.from_source(full.x)
            mean, mean_valid = resample(values, valid, rows, columns)
            mean_square, _ = resample(values**2, valid, rows, columns)
            seen, seen_valid = self._data(overview, part, names)
            agreed = both(mean_valid, seen_valid)
            where = np.ones(mean.shape[1:], bool) if agreed is None else agreed
            differences.append((seen[0].astype(np.float64) - mean[0])[where])
            spreads.append(np.maximum(0, mean_square - mean**2)[0][where])
        difference = np.concatenate(differences) if differences else np.empty(0)
        if not difference.size:
            return False
        rounding = 1.0 if np.dtype(self.dtype).kind in "iu" else 0.0
        return _rms(difference) <= 0.4 * float(np.sqrt(np.concatenate(spreads).mean())) + rounding

    # -- what fills its edge -------------------------------------------------------------------------------

    @property
    def fill(self) -> Fill | None:
        """A value that fills the raster from its edge inwards and isn't declared as no data."""
        return self._looked_at().fill

    @property
    def _has_seam(self) -> bool:
        """Whether compression has left values close to nodata beside it; tested for 8-bit rasters only."""
        header = self._header
        if header.nodata is None or header.palette is not None or self.dtype != "uint8":
            return False
        return self._looked_at().has_seam

    @property
    def undeclared_fill(self) -> float | None:
        """The value that fills the raster from its edge inwards and isn't declared as no data; or None."""
        fill = self._looked_at().fill
        return None if fill is None else fill.value

    def _looked_at(self) -> _Rim:
        """What lies along the edge; read once."""
        if self._rim is not None:
            return self._rim
        header, names = self._header, self.bands[:8]
        if header.palette is not None or header.value_range == (0.0, 1.0):
            self._rim = _Rim()
            return self._rim

        def read(window: Window) -> tuple[Pixels, Mask | None]:
            if self._blocks.is_empty(window):
                nothing = np.zeros((window.height, window.width), bool)
                return np.zeros((len(names), *nothing.shape), self.dtype), nothing
            return self._as_stored(self._dataset, window, names)

        wide, high = self.grid.width, self.grid.height
        nodata = None if header.nodata is None else header.nodata[header.bands[names[0]]]
        has_seam = is_at_edge = False
        with self._options(), quiet():
            if nodata is not None and self.dtype == "uint8" and (header.nodata == nodata).all():
                is_at_edge = touches(read, wide, high, float(nodata))
                has_seam = self._is_lossy or (
                    is_at_edge and has_seam_of(read, wide, high, self.block_shape, float(nodata))
                )
            highest = header.value_range[1] if header.value_range else math.inf
            fill = undeclared(read, wide, high, self.block_shape, self.dtype, highest)
        self._rim = _Rim(fill, has_seam, is_at_edge)
        return self._rim

    @property
    def _is_lossy(self) -> bool:
        structure = self._header.structure
        packed = structure.get("COMPRESSION", ""), structure.get("COMPRESSION_REVERSIBILITY", "")
        return "JPEG" in packed[0] or packed[1] == "LOSSY" or self.driver == "JPEG"

    def _rim_notes(self) -> list[Note]:
        if self._rim is None and self._dataset.closed:
            return []
        rim = self._looked_at()
        fill = rim.fill
        notes = []
        if fill is not None:
            about = "" if fill.is_counted else "about "
            value, nodata = f"{fill.value:.10g}", self._header.nodata
            other = "" if nodata is None else f", as {nodata[0]:.10g} is"
            text = (
                f"{value} fills {about}{percent(fill.share)} of it from the edge inwards and isn't "
                f"declared as no data{other}: it counts as ground; if nothing is there, state {value} for no"
                " data."
            )
            notes.append(Note("nodata-undeclared", text, kind="doubt", parameter="nodata"))
        if rim.has_seam and rim.is_at_edge:
            text = (
                f"pixels within {NEAR} of its nodata value and {REACH_PX} px of it count as no data too: "
                "compression has left them."
            )
            notes.append(Note("nodata-seam", text))
        return notes

    # -- what is there -------------------------------------------------------------------------------------

    @property
    def may_lack_data(self) -> bool:
        """Whether any pixel may be no data, by what the file says, without decoding it."""
        header = self._header
        says_where = header.alpha is not None or header.nodata is not None or header.has_mask
        is_special = header.palette is not None or np.dtype(self.dtype).kind == "f"
        return says_where or is_special or self._blocks.has_gaps

    def is_empty(self, window: Window) -> bool:
        """Whether nothing was ever written in a window (native pixels), without decoding it.

        Known for GeoTIFFs, whose blocks may be absent; False for other formats. Beyond the raster is empty.
        """
        inside = window.clipped(self.grid.window)
        return not inside.area or self._blocks.is_empty(inside)

    def extent(self, window: Window) -> Window:
        """The smallest window around everything that a window (native pixels) may hold, without decoding it.

        0 px wide if `is_empty`.
        """
        inside = window.clipped(self.grid.window)
        return self._blocks.extent(inside) if inside.area else inside

    def samples(
        self, grid: Grid, bands: Sequence[str], area: Window | None = None, most: int | None = None
    ) -> RasterSamples:
        """Blocks of at most 512 x 512 px of `grid` on a fixed lattice, which stand for the whole.

        area : the part of `grid` that counts, in its pixels; all of it if not given.
        most : the largest number of blocks; they cover the area if that many can. None: 64, or a sixteenth of
        the area, up to 256.
        The lattice depends on sizes only, not on how the file is cut into blocks.
        """
        part = grid.window if area is None else area.clipped(grid.window)
        is_empty = self._is_empty_at(grid) if self._blocks.has_gaps else None
        if most is None:
            most = min(256, max(64, part.area // (16 * CELL_PX**2)))
        return RasterSamples(lattice(part, most, is_empty), lambda cell: self.read(cell, bands, grid))

    def _is_empty_at(self, grid: Grid) -> Callable[[Window], bool]:
        """`is_empty` for windows of `grid`."""
        fx, fy = self.grid.width / grid.width, self.grid.height / grid.height

        def is_empty(window: Window) -> bool:
            x, y = int(window.x * fx), int(window.y * fy)
            right, bottom = math.ceil(window.right * fx), math.ceil(window.bottom * fy)
            return self.is_empty(Window(x, y, right - x, bottom - y))

        return is_empty

    @property
    def fingerprint(self) -> str:
        """Identifies the raster regardless of its path: hex digest of size, place, bands and pixels.

        It covers all pixels of a small raster and some of a larger one; for a large compressed GeoTIFF also
        the size of each block, which most changes of pixels change.
        """
        if self._fingerprint is None:
            with self._options():
                self._fingerprint = self._digest()
        return self._fingerprint

    def _digest(self) -> str:
        dataset, header = self._dataset, self._header
        crs = self.grid.crs
        facts = [
            [dataset.width, dataset.height, list(dataset.dtypes), descriptions(dataset)],
            [repr(number) for number in self.grid.transform],
            None if crs is None else crs.to_wkt(),
            # Also when the user states it: nodata is part of the question.
            None if header.nodata is None else [repr(value) for value in header.nodata.tolist()],
        ]
        digest = hashlib.sha256(json.dumps(facts).encode())
        if dataset.width * dataset.height * self.bytes_per_pixel <= _SMALL_BYTES:
            self._digest_all(digest)
            return digest.hexdigest()
        sizes = self._blocks.sizes if "COMPRESSION" in header.structure else None
        if sizes is not None:
            digest.update(sizes.astype("<i8").tobytes())
        # Each place costs a block, which may come through the network; one is enough where block sizes are
        # known.
        places = [(3, 3)] if sizes is not None else [(1, 1), (5, 1), (3, 3), (1, 5), (5, 5)]
        indexes = list(range(1, min(dataset.count, 8) + 1))
        for x, y in places:
            corner = Window(dataset.width * x // 6, dataset.height * y // 6, 64, 64)
            data = self._decoded(dataset, corner.clipped(self.grid.window), indexes)
            digest.update(data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes())
        return digest.hexdigest()

    def _digest_all(self, digest: Any) -> None:
        """Add all pixels and the mask, a few rows of blocks at a time."""
        dataset = self._dataset
        rows = self.block_shape[0] * max(1, 256 // self.block_shape[0])
        for top in range(0, dataset.height, rows):
            window = Window(0, top, dataset.width, rows).clipped(self.grid.window)
            for indexes in (list(range(1, dataset.count + 1)), *([None] if self._header.has_mask else [])):
                data = self._decoded(dataset, window, indexes)
                digest.update(data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes())

    def _is_mask(self, index: int) -> bool | None:
        """Whether a band (0-based) holds 0 and one other value, soft edges aside; None: only 0 was seen.

        Tests the first three of 3 x 3 places that hold anything, the middle first.
        """
        width, height = self._dataset.width, self._dataset.height
        seen: list[Pixels] = []
        for x, y in ((3, 3), (1, 1), (5, 5), (5, 1), (1, 5), (3, 1), (1, 3), (5, 3), (3, 5)):
            around = Window(width * x // 6 - 64, height * y // 6 - 64, 128, 128)
            window = around.clipped(Window(0, 0, width, height))
            if self._blocks.is_empty(window):
                continue
            values = self._decoded(self._dataset, window, [index + 1])
            if values.any():
                seen.append(values[values > 0])
            if len(seen) == 3:
                break
        if not seen:
            return None
        found = np.concatenate(seen)
        return float((found == found.max()).mean()) >= _MASK_SHARE


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt((values**2).mean()))
