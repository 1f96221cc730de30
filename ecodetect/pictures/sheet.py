"""The contact sheet: cut-outs of objects, the surest first."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from ecodetect.detections import Detections
from ecodetect.grid import Floats, Grid, Window
from ecodetect.pictures.background import enlarge, on_paper, square
from ecodetect.pictures.choice import Group, chosen
from ecodetect.pictures.colours import FAINT, PALETTE, PAPER, TEXT, Colour, Pixels
from ecodetect.pictures.files import save, writable
from ecodetect.pictures.frame import MARGIN, draw_key
from ecodetect.pictures.lettering import distance_in_words, fitted, font_of
from ecodetect.pictures.look import Stretch
from ecodetect.pictures.marks import Marks, sizes_of

if TYPE_CHECKING:
    from ecodetect.raster.reading import Raster

CUTOUT_PX, _COLUMNS = 144, 12  # 144 is a multiple of most small enlargements
_LEAST_PX = 24.0  # of the raster in a cut-out: what is smaller says nothing of the surroundings
UNSIZED_PX = 48.0  # points of unknown size are shown with the surroundings of individuals as wide as this


@dataclass(frozen=True, eq=False, slots=True)
class Cut:
    """One cut-out and what stands below it.

    image : name of its raster.  grid : of that raster.
    one : the object in the middle.  around : what else is drawn where it lies in the cut-out.
    left, right, below : words; `below` has a line of its own.
    """

    image: str
    grid: Grid
    one: Detections
    left: str
    right: str
    below: str = ""
    around: Detections | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Panel:
    """Cut-outs under one heading."""

    heading: str
    cuts: Sequence[Cut]


def draw_sheet(
    raster: Raster,
    detections: Iterable[Detections],
    path: str | os.PathLike[str],
    *,
    most: int = 60,
) -> None:
    """Draw cut-outs of the surest, of middling and of the least sure objects into a PNG or JPEG.

    Parameters
    ----------
    raster : read at full resolution around each object shown.
    detections : batches on the raster's ground, all of the same kind, gone through once. Later ones may
        have more classes behind the others.
    path : where to; replaced whole or not at all.
    most : number of cut-outs. If there are more objects, two fifths are the surest, one fifth those around
        the median (of a random sample of 4,000), two fifths the least sure; where all have one score, a
        random sample.

    Notes
    -----
    All cut-outs have the same scale, except of objects too large for it: these say by how much they are
    reduced. The number below a cut-out is the object's place in the stream, from 1. Ties go by that place.

    Raises UserError for an unknown suffix or a folder that can't be written to.
    """
    writable(path)
    groups, total = chosen(detections, most)
    panels = [Panel(group.heading, _cuts(raster, group)) for group in groups]
    counted = "1 object" if total == 1 else f"{total:,} objects"
    draw_panels(
        panels, path, title=raster.name, facts=[counted if total else "no objects found"],
        opened=lambda name: nullcontext(raster),
    )  # fmt: skip


def _cuts(raster: Raster, group: Group) -> list[Cut]:
    several = len(group.objects.classes) > 1
    cuts = []
    for index, number in enumerate(group.number.tolist()):
        one = group.objects[index : index + 1]
        name = str(one.labels[0]) if several else ""
        cuts.append(Cut(raster.name, raster.grid, one, f"{one.score[0]:.2f}", f"{number:,}", name))
    return cuts


def draw_panels(
    panels: Sequence[Panel],
    path: str | os.PathLike[str],
    *,
    title: str,
    facts: Sequence[str],
    opened: Callable[[str], AbstractContextManager[Raster]],
    keys: Sequence[tuple[int, str]] = (),
    ground: float = 1.0,
) -> None:
    """Draw cut-outs of one or many rasters into a PNG or JPEG; see `draw_sheet`.

    facts : words below the title.
    opened : the raster of a name; each is opened once.
    keys : number of a class and what its colour means.
    ground : how many times as wide as usual cut-outs are.
    """
    writable(path)
    cuts = [cut for panel in panels for cut in panel.cuts]
    scale = _common_scale([ground * sizes_of(cut.one.moved_to(square(cut.grid))) for cut in cuts])
    drawn, described = _cutouts(cuts, opened, scale)
    columns = max(6, min(_COLUMNS, max((len(panel.cuts) for panel in panels), default=1)))
    across, down = CUTOUT_PX + 10, CUTOUT_PX + (46 if any(cut.below for cut in cuts) else 30)
    width = columns * across - 10 + 2 * MARGIN
    top = MARGIN + 44 + (26 if keys else 0)
    height = MARGIN + top + sum(46 + math.ceil(len(panel.cuts) / columns) * down for panel in panels)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)

    def write(x: float, y: float, words: str, px: int, fill: Colour = TEXT, anchor: str = "la") -> None:
        font = font_of(px)
        room = CUTOUT_PX if anchor == "ra" else width - MARGIN - x
        pen.text((x, y), fitted(words, font, room), font=font, fill=fill, anchor=anchor)

    write(MARGIN, MARGIN - 8, title, 22)
    looks = described[:1] if len(set(described)) == 1 else []
    shown = [*facts, *([_width_of_cutouts(square(cuts[0].grid), scale)] if cuts else []), *looks]
    write(MARGIN, MARGIN + 22, "; ".join(fact for fact in shown if fact), 14, FAINT)
    x = float(MARGIN)
    for number, words in keys:
        draw_key(sheet, x, MARGIN + 46, 15, PALETTE[number % len(PALETTE)])
        write(x + 26, MARGIN + 47, words, 14)
        x += 26 + font_of(14).getlength(words) + 22
    y = top
    for panel in panels:
        write(MARGIN, y + 16, panel.heading, 16)
        y += 46
        for index, cut in enumerate(panel.cuts):
            cutout, reduced = drawn[id(cut)]
            left, above = MARGIN + index % columns * across, y + index // columns * down
            sheet.paste(Image.fromarray(cutout), (left, above))
            write(left + 1, above + CUTOUT_PX + 5, cut.left, 14)
            room = CUTOUT_PX - 8 - font_of(14).getlength(cut.left)
            words = cut.right if reduced == 1 else f"1/{reduced:g} size  {cut.right}"
            words = fitted(words, font_of(13), room)
            write(left + CUTOUT_PX - 1, above + CUTOUT_PX + 6, words, 13, FAINT, "ra")
            if cut.below:
                write(left + 1, above + CUTOUT_PX + 22, fitted(cut.below, font_of(13), CUTOUT_PX), 13)
        y += math.ceil(len(panel.cuts) / columns) * down
    save(sheet, path)


def _cutouts(
    cuts: Sequence[Cut], opened: Callable[[str], AbstractContextManager[Raster]], scale: float
) -> tuple[dict[int, tuple[Pixels, float]], list[str]]:
    """The drawn cut-outs by their `id`, each with its reduction; and how the rasters' values are shown."""
    drawn: dict[int, tuple[Pixels, float]] = {}
    described: list[str] = []
    for image in dict.fromkeys(cut.image for cut in cuts):
        with opened(image) as raster:
            look = Stretch.of(raster, None)
            described += [look.described] if look.described else []
            mine = [cut for cut in cuts if cut.image == image]
            # From top to bottom: pictures that can't be entered in the middle (PNG) are then decoded once.
            for cut in sorted(mine, key=lambda cut: float(cut.one.centres()[0, 1])):
                drawn[id(cut)] = _cutout(raster, look, cut, scale)
    return drawn, described


def _cutout(raster: Raster, look: Stretch, cut: Cut, scale: float) -> tuple[Pixels, float]:
    """The picture of a cut-out, and by how much more than the others it is reduced."""
    base = square(raster.grid)
    one = cut.one.moved_to(base)
    own = scale
    while float(sizes_of(one)[0]) * 1.1 > CUTOUT_PX * own:
        own *= 2
    grid = base.reduced(max(own, 1.0))
    enlarged = round(max(1 / own, 1))
    side = CUTOUT_PX // enlarged
    x, y = np.rint(one.moved_to(grid).centres()[0] - side / 2).astype(int)
    window = Window(int(x), int(y), side, side)
    image = np.zeros((side, side, 4), np.uint8)
    look.paint(raster.read(window, look.bands, grid), image)
    marks = Marks(CUTOUT_PX, CUTOUT_PX, line_px=1)
    picture = grid.crop(window).reduced(1 / enlarged)
    if cut.around is not None:
        around = cut.around.moved_to(picture)
        bounds = around.bounds()
        near = (bounds[:, 2:] > 0).all(axis=1) & (bounds[:, :2] < CUTOUT_PX).all(axis=1)
        marks.draw(around[np.flatnonzero(near)])
        marks.line_px = 2
    marks.draw(one.moved_to(picture))
    return marks.over(on_paper(enlarge(image, enlarged))), own / scale


def _common_scale(sizes: Sequence[Floats]) -> float:
    """Raster pixels per picture pixel at which most objects fill about half of their cut-out."""
    every = np.concatenate(sizes) if sizes else np.empty(0)
    every = np.where(every > 0, every, UNSIZED_PX)
    needed = _LEAST_PX
    if len(every):
        needed = max(needed, 2.0 * float(np.median(every)), 1.3 * float(np.percentile(every, 90)))
    wholes = (1 / 12, 1 / 9, 1 / 8, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 1.0)
    fitting = [scale for scale in wholes if CUTOUT_PX * scale >= needed]
    return fitting[0] if fitting else math.ceil(2 * needed / CUTOUT_PX) / 2


def _width_of_cutouts(base: Grid, scale: float) -> str:
    width = CUTOUT_PX * scale
    gsd = base.gsd
    return f"cut-outs {width:.0f} px wide" + (
        "" if gsd is None else f" ({distance_in_words(float(f'{width * gsd[0]:.3g}'))})"
    )
