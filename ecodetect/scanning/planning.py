"""What a scan would do, without scanning: the model that fits a raster, and the plan for each raster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ecodetect.detectors import table as detectors
from ecodetect.detectors.protocol import scene_of
from ecodetect.errors import UserError
from ecodetect.formats import files as formats
from ecodetect.models import choosing as models
from ecodetect.notes import Note, merged
from ecodetect.raster.finding import expand, targets
from ecodetect.raster.options import RasterOptions
from ecodetect.scanning.files import DETECTIONS_SUFFIX
from ecodetect.scanning.overlaps import Footprint, overlap_note
from ecodetect.scanning.run import prepared
from ecodetect.scanning.settings import Output, Settings


def fitting_model(images: Sequence[str | os.PathLike[str]], options: RasterOptions) -> tuple[str, Note]:
    """The only shipped model that fits the first raster, and a note with the reason.

    Raises UserError, naming the models, where none fits, or several do.
    """
    first = expand(images)[0]
    with options.opened(first) as raster:
        name, why = models.fitting(scene_of(raster))
        if name is None:
            there = ", ".join(sorted({*models.known(), *detectors.unlearned()}))
            raise UserError(
                f"{why} Name the model to search {raster.name} with, one of {there}.", parameter="model"
            )
        text = f"it is searched with '{name}': it has {why}"
        return name, Note("model-chosen", text, about=raster.name, kind="choice")


def plan_files(
    images: Sequence[str | os.PathLike[str]],
    asked: Settings,
    out: str | None = None,
    output: Output | None = None,
) -> tuple[list[str], tuple[Note, ...]]:
    """What `scan_files` would do, one line per raster, and its notes.

    Nothing is searched or written.
    Raises UserError for the first raster or setting that can't be used.
    """
    lines = []
    notes: list[Note] = []
    footprints: dict[Path, list[Footprint]] = {}
    rasters = expand(images)
    output, asked = output or Output(), asked.together(rasters)
    for image, path in targets(rasters, out, suffix=DETECTIONS_SUFFIX).items():
        formats.writable(path)
        with asked.opened(image) as raster:
            plan = prepared(raster, asked, output)
        notes += plan.notes
        footprints.setdefault(path, []).append(plan.footprint)
        cuts, layout = plan.cuts, plan.layout
        lines.append(
            f"{plan.source}: {plan.grid.describe()}; "
            f"tiles of {cuts.tile_px} px with {cuts.halo_px} px around, {layout.workers} at once, "
            f"at most {layout.peak_bytes / 1e6:.0f} MB; {asked.model} -> {path}"
        )
    overlapping = (overlap_note(members) for members in footprints.values())
    return lines, merged([*notes, *(note for note in overlapping if note is not None)])
