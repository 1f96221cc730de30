"""Several pages of a TIFF as the bands of one dataset, and the notes on pages that aren't read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.windows import Window as RasterioWindow

from ecodetect.notes import Note
from ecodetect.raster.opening import opened
from ecodetect.raster.page_metadata import Stack, read_stack
from ecodetect.raster.safety import Address
from ecodetect.raster.tiff_pages import MOST_PAGES, Pages, read_pages

# Pages of a file that says nothing of them are channels up to this number, else planes or times of one.
_MOST_CHANNELS = 32
_MOST_OPEN = 32  # pages held open at once
# From this number of pages, GDAL's own scan of them is avoided: it takes 17 s for 100,000.
_FEW_PAGES = 64


@dataclass(frozen=True, slots=True)
class PagePlan:
    """Which pages of a TIFF are its bands.

    places : of the directories of the pages that can be read as bands, in the order of bands.
    names : of each, or None.
    usual : so many of them are the bands where the user doesn't choose.
    is_alone : the file is read as GDAL has it: its first page with all its samples.
    gsd_m : width and height of a pixel in metres by the file's metadata, or None.
    says : what says so, for messages.
    notes : about what is read; they don't name the raster.
    pages : how many the file has, with overviews and masks.
    nodata : the value in GDAL's tag of the first page, or None.
    """

    places: tuple[int, ...]
    names: tuple[str | None, ...]
    usual: int
    is_alone: bool
    gsd_m: tuple[float, float] | None
    says: str
    notes: tuple[Note, ...]
    pages: int
    nodata: float | None


def plan_of(source: Address) -> PagePlan | None:
    """The plan for a file; None if it is no TIFF on this machine.

    Raises RasterError where its pages lead round in a circle.
    """
    if source.format != "TIFF" or source.is_remote:
        return None
    file = Path(source.name)
    pages = read_pages(file)
    if pages is None or pages.first is None:
        return None
    stack = read_stack(file, pages)
    count = len(pages.alike)
    is_alone = count < 2
    is_told = bool(stack.says) or any(stack.names)
    places = tuple(pages.alike[index] for index in stack.channels) if not is_alone else (pages.first,)
    usual = len(places) if is_told or count <= _MOST_CHANNELS else 1
    return PagePlan(
        places,
        stack.names if not is_alone else stack.names[:1],
        usual,
        is_alone,
        stack.gsd_m,
        stack.says,
        tuple(_notes(pages, stack, len(places), usual)),
        pages.count,
        stack.nodata,
    )


def _notes(pages: Pages, stack: Stack, bands: int, usual: int) -> list[Note]:
    """What is read of a file with several pages, and how to read the others."""
    notes = []
    alike = len(pages.alike)
    if usual > 1:
        named = [text or f"page{number}" for number, text in enumerate(stack.names, start=1)]
        listed = ", ".join(named) if len(named) <= 12 else f"{', '.join(named[:3])} to {named[-1]}"
        notes.append(Note("pages-as-bands", f"{bands} of its pages are read as its bands {listed}."))
    if usual < bands:
        text = (
            f"it holds {alike} pages of one size and doesn't say what they are; the first is read: to read"
            " another, name it as the band, for example 2."
        )
        notes.append(Note("first-of-several", text, kind="choice", parameter="bands"))
    elif bands < alike:
        sizes = ((stack.planes, "planes"), (stack.times, "times"))
        kinds = " and ".join(f"{number} {kind}" for number, kind in sizes if number > 1)
        unread = next(n for index, n in enumerate(pages.numbers) if index not in stack.channels)
        text = (
            f"it holds {alike} pages{f', of {kinds}' if kinds else ''}; those of the first plane at the "
            f"first time are read, and another one as GTIFF_DIR:{unread}:FILE."
        )
        notes.append(Note("first-of-several", text, kind="choice"))
    if pages.others:
        what = "the first is read" if alike < 2 else "those of its size and kind are read"
        text = f"it holds {pages.count} pages; {what}; read others as GTIFF_DIR:{pages.others[0]}:FILE."
        notes.append(Note("first-of-several", text, kind="choice"))
    if stack.hidden:
        text = (
            f"it is a stack of {stack.hidden + 1} pictures that only ImageJ finds; the first is read: save "
            "it as an OME-TIFF."
        )
        notes.append(Note("first-of-several", text, kind="doubt"))
    if not pages.is_whole:
        text = f"it holds more than {MOST_PAGES:,} pages; those beyond can't be read."
        notes.append(Note("first-of-several", text, kind="doubt"))
    return notes


class PagedDataset:
    """What `raster` asks of a dataset of rasterio, with a page for each band.

    Pages are opened when they are read, and no more than `_MOST_OPEN` are held open.
    """

    subdatasets: tuple[str, ...] = ()

    def __init__(self, source: Address, plan: PagePlan) -> None:
        self._source, self._plan = source, plan
        self._open: OrderedDict[int, Any] = OrderedDict()
        self._base = opened(source) if plan.pages <= _FEW_PAGES else self._opened(plan.places[0])
        self.count = len(plan.places)

    def __getattr__(self, name: str) -> Any:
        """Place, size, type and layout: as the first page has them."""
        return getattr(self._base, name)

    @property
    def dtypes(self) -> tuple[str, ...]:
        return (str(self._base.dtypes[0]),) * self.count

    @property
    def descriptions(self) -> tuple[str | None, ...]:
        return self._plan.names

    @property
    def nodatavals(self) -> tuple[float | None, ...]:
        return tuple(self._base.nodatavals[:1]) * self.count

    @property
    def scales(self) -> tuple[float, ...]:
        return tuple(self._base.scales[:1]) * self.count

    @property
    def offsets(self) -> tuple[float, ...]:
        return tuple(self._base.offsets[:1]) * self.count

    @property
    def colorinterp(self) -> tuple[Any, ...]:
        return tuple(self._base.colorinterp[:1]) * self.count

    @property
    def mask_flag_enums(self) -> tuple[list[MaskFlags], ...]:
        return tuple(self._base.mask_flag_enums[:1]) * self.count

    def overviews(self, _: int) -> list[int]:
        """None: each page would have its own."""
        return []

    def get_tag_item(self, name: str, domain: str, *, bidx: int) -> Any:
        return self._page(bidx - 1).get_tag_item(name, domain, bidx=1)

    def read(self, indexes: Sequence[int] | int, *, window: RasterioWindow) -> NDArray[Any]:
        """(B, H, W) of several bands, (H, W) of one; counted from 1."""
        if isinstance(indexes, int):
            return np.asarray(self._page(indexes - 1).read(1, window=window))
        return np.stack([self._page(index - 1).read(1, window=window) for index in indexes])

    def close(self) -> None:
        for dataset in (*self._open.values(), self._base):
            dataset.close()
        self._open.clear()

    def _page(self, index: int) -> Any:
        if index in self._open:
            self._open.move_to_end(index)
            return self._open[index]
        if len(self._open) >= _MOST_OPEN:
            self._open.popitem(last=False)[1].close()
        self._open[index] = self._opened(self._plan.places[index])
        return self._open[index]

    def _opened(self, place: int) -> Any:
        name = f"GTIFF_DIR:off:{place}:{self._source.name}"
        return opened(replace(self._source, name=name, drivers=("GTiff",)))
