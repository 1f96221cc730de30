"""Which rasters and annotations training is given, and what is known of the ground of each.

They are found as people keep them: raster and vector file in pairs, or a folder in which a file of
annotations lies beside each image, or one file speaks of all. Each becomes an `AnnotatedRaster`.

Where annotation is complete, empty ground is background; elsewhere it is unknown. It is complete

- inside the polygons that the user gives, else
- everywhere, in images of at most 2048 x 2048 px that come as a folder and have annotations of their own:
  such sets are annotated image by image; and in an image whose file of annotations is empty; else
- within the hull of the annotations' centres, widened by half an object. (By a whole one it took in, on the
  first real survey, unannotated individuals beyond the last marked ones.)
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np
import shapely

from ecodetect import matching
from ecodetect.annotations.annotated_raster import AnnotatedRaster, CompleteBy, object_px, spacing
from ecodetect.annotations.counting import counted
from ecodetect.annotations.files import AnnotationFiles
from ecodetect.annotations.found import Found, nothing_on
from ecodetect.annotations.ground_files import GroundFiles
from ecodetect.annotations.laying import Annotations, on_raster
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.annotations.outlining import outlined
from ecodetect.annotations.training_folders import pairs_of
from ecodetect.bundle.value_survey import shared
from ecodetect.errors import UserError
from ecodetect.formats.image_matching import base_name, listed
from ecodetect.notes import Note, merged
from ecodetect.region import Region

WHOLE_PX = 2**22  # an image up to this size, one of many, counts as completely annotated


@dataclass(frozen=True, eq=False, slots=True)
class Gathered:
    """All sources, and notes for the user.

    unmarked : names of images without annotations, which were left out.
    """

    sources: tuple[AnnotatedRaster, ...]
    notes: tuple[Note, ...]
    unmarked: tuple[str, ...] = ()


def gather(paths: Sequence[str | os.PathLike[str]], asked: AnnotationOptions | None = None) -> Gathered:
    """The sources that a user means.

    Parameters
    ----------
    paths : one folder of training data, or of such folders called train and val; or image, annotations,
        image, annotations, … where an image may be a folder or pattern, and its annotations a folder or one
        file about all.
    asked : how to read them.

    Raises
    ------
    UserError
        In one sentence: nothing found, annotations off the raster (both places named), no such column.
    """
    asked = asked or AnnotationOptions()
    notes: list[Note] = []
    pairs = pairs_of([os.fspath(path) for path in paths], asked, notes)
    names = _short_names([image for images, _ in pairs for image in images])
    is_set = len(names) > 1
    ground = GroundFiles.named_by(asked)
    sources: list[AnnotatedRaster] = []
    unmarked: list[str] = []
    for images, marks in pairs:
        for image in images:
            alone = len(images) == 1
            found = _source(image, names[image], marks, asked, ground, notes, is_one=alone, is_set=is_set)
            if found is None:
                unmarked.append(names[image])
            else:
                sources.append(found)
        notes += marks.notes(images)
    if not sources:
        raise UserError(f"{pairs[0][1].path} has no annotations of {listed(unmarked)}.")
    if unmarked:
        notes.append(_unmarked(unmarked, len(names)))
    ground.check()
    sources = _with_hulls(counted(sources, asked, notes))
    return Gathered(with_units(sources, asked), merged(notes), tuple(unmarked))


def _unmarked(names: Sequence[str], total: int) -> Note:
    text = (
        f"Left out, without annotations: {len(names)} of {total} images ({listed(names)});"
        " an empty file says that there is nothing in an image."
    )
    return Note("images-unmarked", text, kind="doubt")


def with_units(
    sources: Sequence[AnnotatedRaster], asked: AnnotationOptions, *, is_one_folder: bool = False
) -> tuple[AnnotatedRaster, ...]:
    """Sources with the units of their values; those of one folder, type and bands share one.

    is_one_folder : they count as one, as pictures in folders by class do.
    """
    facts = [(source.image, source.dtype, source.bands) for source in sources]
    units = shared(facts, lambda number: sources[number].open(), asked.values, is_one_folder=is_one_folder)
    return tuple(replace(source, unit=unit) for source, unit in zip(sources, units, strict=True))


def _source(
    image: str,
    name: str,
    marks: AnnotationFiles,
    asked: AnnotationOptions,
    ground: GroundFiles,
    notes: list[Note],
    *,
    is_one: bool,
    is_set: bool,
) -> AnnotatedRaster | None:
    """One raster with its marks; None where they say nothing of it.

    is_one : the marks are about this raster alone.  is_set : there are other rasters.
    """
    with asked.opened(image) as raster:
        grid, bands, dtype = raster.grid, raster.bands, raster.dtype
        notes += [note for note in raster.notes if note.code != "no-transform"]  # training needs no place
    found = marks.of(image, grid, is_one=is_one)
    if found is None and not asked.empty_images:
        return None
    layer, file = found or Found(nothing_on(grid), marks.path.name)
    column = asked.class_column if len(layer) else None
    radius = None if asked.radius == "contour" else asked.radius
    marked = on_raster(layer, grid, name=file, class_column=column, radius=radius)
    notes += marked.notes
    if asked.radius == "contour":
        marked = _outlined(image, name, marked, asked, notes)
    whole = shapely.box(0, 0, grid.width, grid.height)
    complete: Region | None = None
    by: CompleteBy = "hull"
    if asked.complete is not None:
        complete, by = ground.complete(image, grid, is_set=is_set), "polygons"
        if asked.complete == "image":
            complete, by = Region(whole, grid), "image"
    elif not len(layer) or (not is_one and grid.window.area <= WHOLE_PX):
        complete, by = Region(whole, grid), "image"
    ignored = ground.ignored(image, grid, is_set=is_set)
    edge = 0.0 if asked.edge is None else asked.edge.pixels(grid.gsd, name="The width of the edge to ignore")
    return AnnotatedRaster(image, name, grid, bands, dtype, asked, marked, complete, by, ignored, edge, file)


def _outlined(
    image: str, name: str, marked: Annotations, asked: AnnotationOptions, notes: list[Note]
) -> Annotations:
    """Annotations whose points without a size are boxes where there is a clear outline around them."""
    bare = (shapely.area(marked.geometry) == 0) & ~np.isfinite(marked.radius_px)
    if not bare.any():
        return marked
    every = matching.centres(marked.geometry)
    near = spacing(every) if len(every) > 1 else np.full(len(every), np.inf)
    with asked.opened(image) as raster:
        shapes, found = outlined(raster, marked.geometry[bare], near[bare])
    text = f"a clear outline around {int(found.sum())} of {len(found)} points, taken as their box."
    notes.append(Note("outlines-taken", text, about=name, kind="choice"))
    geometry = marked.geometry.copy()
    geometry[bare] = shapes
    return replace(marked, geometry=geometry)


def _with_hulls(sources: Sequence[AnnotatedRaster]) -> list[AnnotatedRaster]:
    """Sources with the area where annotation counts as complete, if the user doesn't state it."""
    made = []
    for source in sources:
        if source.complete_by != "hull":
            by = source.complete_by if source.complete is not None else "nothing"
            made.append(replace(source, complete_by=by))
            continue
        grown = shapely.MultiPoint(source.xy).convex_hull.buffer(object_px([source]) / 2)
        inside = grown.intersection(shapely.box(0, 0, source.grid.width, source.grid.height))
        complete = Region(inside, source.grid) if inside.area > 0 else None
        made.append(replace(source, complete=complete))
    return made


def _short_names(images: Sequence[str]) -> dict[str, str]:
    """Base names, with folders where two are equal."""
    bases = Counter(base_name(image) for image in images)
    names = {}
    for image in images:
        base = base_name(image)
        names[image] = base if bases[base] == 1 else "/".join(PurePath(image).parts[-3:])
    return names
