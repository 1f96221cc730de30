"""The contact sheet: cut-outs of objects, the surest first."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from ecodetect.detections import Detections
from ecodetect.grid import Floats, Grid, Window
from ecodetect.pictures.background import enlarge, on_paper, square
from ecodetect.pictures.choice import Group, chosen
from ecodetect.pictures.colours import FAINT, PAPER, TEXT, Colour, Pixels
from ecodetect.pictures.files import save, writable
from ecodetect.pictures.frame import MARGIN
from ecodetect.pictures.lettering import distance_in_words, fitted, font_of
from ecodetect.pictures.look import Look
from ecodetect.pictures.marks import Marks, sizes_of

if TYPE_CHECKING:
    from ecodetect.raster import Raster

CUTOUT_PX, _COLUMNS = 144, 12  # 144 is a multiple of most small enlargements


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
    detections : batches on the raster's ground, all of the same kind and classes, gone through once.
    path : where to; replaced whole or not at all.
    most : number of cut-outs. Of more objects two fifths are the surest, one fifth those around the median
        (of a random sample of 4,000), two fifths the least sure; where all have one score, a random sample.

    Notes
    -----
    All cut-outs have the same scale, except of objects too large for it: these say by how much they are
    reduced. The number below a cut-out is the object's place in the stream, from 1. Ties go by that place.

    Raises UserError for an unknown suffix or a folder that can't be written to.
    """
    writable(path)
    groups, total = chosen(detections, most)
    look = Look.of(raster, None)
    base = square(raster.grid)
    scale = _common_scale([sizes_of(group.objects.moved_to(base)) for group in groups])
    cutouts = _cutouts(raster, look, base, groups, scale)
    columns = max(6, min(_COLUMNS, max((len(group.number) for group in groups), default=1)))
    several = any(len(group.objects.classes) > 1 for group in groups)
    across, down = CUTOUT_PX + 10, CUTOUT_PX + (46 if several else 30)
    width = columns * across - 10 + 2 * MARGIN
    height = 2 * MARGIN + 44 + sum(46 + math.ceil(len(group.number) / columns) * down for group in groups)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)

    def write(x: float, y: float, words: str, px: int, fill: Colour = TEXT, anchor: str = "la") -> None:
        font = font_of(px)
        room = CUTOUT_PX if anchor == "ra" else width - MARGIN - x
        pen.text((x, y), fitted(words, font, room), font=font, fill=fill, anchor=anchor)

    write(MARGIN, MARGIN - 8, raster.name, 22)
    number_of = "1 object" if total == 1 else f"{total:,} objects"
    facts = [number_of, _width_of_cutouts(base, scale), look.described] if total else ["no objects found"]
    write(MARGIN, MARGIN + 22, "; ".join(fact for fact in facts if fact), 14, FAINT)
    y = MARGIN + 44
    for group in groups:
        write(MARGIN, y + 16, group.heading, 16)
        y += 46
        for index, number in enumerate(group.number):
            cutout, reduced = cutouts[int(number)]
            left, top = MARGIN + index % columns * across, y + index // columns * down
            sheet.paste(Image.fromarray(cutout), (left, top))
            write(left + 1, top + CUTOUT_PX + 5, f"{group.objects.score[index]:.2f}", 14)
            words = f"{number:,}" if reduced == 1 else f"1/{reduced:g} size  {number:,}"
            write(left + CUTOUT_PX - 1, top + CUTOUT_PX + 6, words, 13, FAINT, "ra")
            if several:
                name = fitted(group.objects.classes[group.objects.label[index]], font_of(13), CUTOUT_PX)
                write(left + 1, top + CUTOUT_PX + 22, name, 13)
        y += math.ceil(len(group.number) / columns) * down
    save(sheet, path)


def _cutouts(
    raster: Raster, look: Look, base: Grid, groups: Sequence[Group], scale: float
) -> dict[int, tuple[Pixels, float]]:
    """Place in the stream -> its cut-out, and by how much more than the others it is reduced."""
    todo = [(group, index) for group in groups for index in range(len(group.number))]
    # From top to bottom: pictures that can't be entered in the middle (PNG) are then decoded once.
    todo.sort(key=lambda each: float(each[0].objects[each[1] : each[1] + 1].centres()[0, 1]))
    cutouts = {}
    for group, index in todo:
        one = group.objects[index : index + 1].moved_to(base)
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
        marks.draw(one.moved_to(grid.crop(window).reduced(1 / enlarged)))
        cutouts[int(group.number[index])] = (marks.over(on_paper(enlarge(image, enlarged))), own / scale)
    return cutouts


def _common_scale(sizes: Sequence[Floats]) -> float:
    """Raster pixels per picture pixel at which most objects fill about half of their cut-out."""
    every = np.concatenate(sizes) if sizes else np.empty(0)
    every = np.where(every > 0, every, 24.0)  # points: some surroundings
    needed = max(2.0 * float(np.median(every)), 1.3 * float(np.percentile(every, 90))) if len(every) else 1.0
    wholes = (1 / 12, 1 / 9, 1 / 8, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 1.0)
    fitting = [scale for scale in wholes if CUTOUT_PX * scale >= needed]
    return fitting[0] if fitting else math.ceil(2 * needed / CUTOUT_PX) / 2


def _width_of_cutouts(base: Grid, scale: float) -> str:
    width = CUTOUT_PX * scale
    gsd = base.gsd
    return f"cut-outs {width:.0f} px wide" + (
        "" if gsd is None else f" ({distance_in_words(float(f'{width * gsd[0]:.3g}'))})"
    )
