"""Which detections and which annotations are about the same image.

Files come in many forms: one layer for one image, one table for many, a folder with a file per image. Here
they become pairs, one per image, in pixels of one grid: the raster's if there is one, else a grid over the
coordinates of both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError

from ecodetect.annotations.agreement import agreed, repeated_said, score_said, without_repeated
from ecodetect.annotations.annotation_file import AnnotationFile
from ecodetect.annotations.files import AnnotationFiles, opened
from ecodetect.annotations.found import WITHOUT_RASTER, Found, nothing_on, touching
from ecodetect.annotations.ignoring import opened_shapes
from ecodetect.annotations.laying import Annotations, on_raster
from ecodetect.errors import LayerError, UserError
from ecodetect.evaluation.common_plane import common_plane, laid_on
from ecodetect.evaluation.plots import Plots
from ecodetect.formats.image_matching import base_name, listed
from ecodetect.formats.parts import united
from ecodetect.grid import Grid, describe_crs
from ecodetect.guarding.crs_files import read_crs
from ecodetect.layer import Geometries, Layer
from ecodetect.notes import Note, merged
from ecodetect.raster.finding import expand, stem_of
from ecodetect.raster.options import RasterOptions
from ecodetect.sizes import Length


@dataclass(frozen=True, eq=False, slots=True)
class Pair:
    """One image with its detections and annotations.

    name : of the image.
    image : path of the raster, or None.
    has_pixels : whether `grid` counts pixels of an image, so that lengths in px are meaningful.
    detections, truths : in pixels of `grid`.
    ignored : shapes in pixels of `grid` that count neither as true nor as false positives.
    plots : where annotations are complete; None: everywhere.
    edge : strip along the raster's edge, one of `ignored`, in which no truth counts; None: there is none.
    options : how the raster is opened.
    """

    name: str
    image: str | None
    grid: Grid
    has_pixels: bool
    detections: Annotations
    truths: Annotations
    ignored: Geometries
    plots: Plots | None
    edge: shapely.Geometry | None = None
    options: RasterOptions = field(default_factory=RasterOptions)

    @property
    def doubtful(self) -> Geometries:
        """The shapes to ignore that a user names: `ignored` without the edge, which is its last."""
        return self.ignored if self.edge is None else self.ignored[:-1]


@dataclass(frozen=True, eq=False, slots=True)
class Pairs:
    """All pairs of two files or folders.

    unjudged : names of images with detections that the annotations don't mention.
    unsearched : names of annotated images that the detections' file doesn't list as searched.
    lowest_score : the score threshold that the detections' file states; None if it doesn't.
    model : name of the model that the detections' file names.
    trained_here : cells where it was trained, as in `footprint`, if the rasters meet them.
    notes : for the user.
    """

    pairs: tuple[Pair, ...]
    unjudged: tuple[str, ...]
    unsearched: tuple[str, ...]
    lowest_score: Any
    model: str
    trained_here: tuple[Any, ...]
    notes: tuple[Note, ...]

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairingOptions(RasterOptions):
    """How two files are laid upon each other, beside how rasters are opened.

    class_column : column of the annotations with their class.  layer : layer of the annotations.
    radius : of individuals marked by a point, where the file doesn't state it per row.
    edge : width of a strip along each raster's edge in which nothing is judged.
    ignore : files of shapes that count neither as true nor as false positives.  area : file of polygons where
    annotations are complete.  area_layer : its layer.
    empty_images : images that the annotations don't name are empty, not unknown.
    keep_spelling : classes are distinguished by exact spelling; otherwise case, blanks and the encoding of
        accents don't matter.
    """

    class_column: str | None = None
    layer: str | None = None
    radius: Length | None = None
    edge: Length | None = None
    ignore: tuple[str, ...] = ()
    area: str | None = None
    area_layer: str | None = None
    empty_images: bool = False
    keep_spelling: bool = False


def paired(
    detections: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    asked: PairingOptions,
) -> Pairs:
    """Pair detections and annotations of the same images.

    images : rasters, folders or patterns; may be empty if the files state where they lie.
    Raises UserError, in one sentence, where pairs can't be determined.
    """
    found = opened(detections, are_detections=True, names_from=annotations)
    there = opened(annotations, layer=asked.layer)
    rasters = expand(images)
    if len(rasters) == 1:
        name = rasters[0]
        is_unmarked = asked.empty_images and bool(there.names) and not there.meant(name)
        return _laid(found, there, [_Match(stem_of(name), name, name, name, is_unmarked)], asked)
    is_one = not rasters and isinstance(found, AnnotationFile) and isinstance(there, AnnotationFile)
    if is_one and len(found.names) < 2 and len(there.names) < 2:
        name = (*found.names, *there.names, stem_of(found.path.name))[0]
        return _laid(found, there, [_Match(name, None, None, None)], asked)
    if not there.names or not (found.names or found.is_empty):
        if found.has_crs and there.has_crs:
            return _laid(found, there, [_Match(found.path.name, None, None, None)], asked)
        silent = there if not there.names else found
        raise UserError(
            f"{silent.path} doesn't say which image each feature belongs to; it needs a column 'source' with"
            " the images' names, or name one image.",
            parameter="image",
        )
    matches, unjudged, unsearched = _by_name(found, there, rasters, asked)
    pairs = _laid(found, there, matches, asked, unjudged, unsearched)
    bare = [match.name for match in matches if not found.meant(match.found or match.name)]
    if bare and not found.lists_images:
        ones = "an annotated one" if len(bare) == 1 else f"{len(bare)} annotated ones"
        text = (
            f"it can't say whether images without a detection were searched: {ones} ({listed(bare)})"
            f" {'counts' if len(bare) == 1 else 'count'} as searched."
        )
        note = Note("search-unsure", text, about=found.path.name, kind="doubt")
        pairs = replace(pairs, notes=(*pairs.notes, note))
    return pairs


@dataclass(frozen=True, slots=True)
class _Match:
    """The names of one image: for people, its raster's path, in the detections, in the annotations.

    None: the file isn't searched by name.  is_unmarked : the annotations don't mention it.
    """

    name: str
    image: str | None
    found: str | None
    there: str | None
    is_unmarked: bool = False


def _by_name(
    found: AnnotationFiles, there: AnnotationFiles, rasters: Sequence[str], asked: PairingOptions
) -> tuple[list[_Match], tuple[str, ...], tuple[str, ...]]:
    """The images to judge, the names of images only in the detections, and of images never searched."""
    matches: list[_Match] = []
    seen: set[str] = set()
    is_shared = False
    unjudged, unsearched = [], []
    for name in rasters or (*there.names, *found.names):
        if name in seen:
            continue
        of_found, of_there = found.meant(name), there.meant(name)
        if of_there and not of_found and found.lists_images:
            unsearched.append(name)
        elif of_there or (of_found and asked.empty_images):
            image = name if rasters else None
            matches.append(_Match(stem_of(name), image, name, name, is_unmarked=not of_there))
        elif of_found:
            unjudged.append(name)
        is_shared |= bool(of_found and of_there)
        seen |= of_found | of_there | {name}
    if not is_shared and not found.is_empty:
        raise UserError(
            f"{found.path.name} and {there.path.name} have no image in common: {listed(found.names)} there,"
            f" {listed(there.names)} here; are they about the same images?"
        )
    return matches, tuple(unjudged), tuple(unsearched)


def _laid(
    found: AnnotationFiles,
    there: AnnotationFiles,
    matches: Sequence[_Match],
    asked: PairingOptions,
    unjudged: tuple[str, ...] = (),
    unsearched: tuple[str, ...] = (),
) -> Pairs:
    """The pairs, each in pixels of its grid."""
    ignored = [opened_shapes(path, parameter="ignore") for path in asked.ignore]
    area = None if asked.area is None else opened_shapes(asked.area, asked.area_layer, parameter="area")
    laying = _Laying(found, there, asked, ignored, area, several=len(matches) > 1)
    pairs: list[Pair] = []
    files: list[tuple[str, str]] = []
    said: list[Note] = []
    for match in matches:
        pair, names, notes = laying.pair(match)
        if area is None or pair.plots:
            pairs.append(pair)
            files.append(names)
        said += [*notes, *pair.detections.notes, *pair.truths.notes]
    rasters = [match.image for match in matches if match.image is not None]
    said += [note for side in (found, there) for note in side.notes(rasters)]
    pairs, more = _agreed(pairs, files, asked)
    said += more
    if not pairs:
        raise UserError(f"The area {asked.area} meets none of the images; does it belong to them?")
    trained = [cell for each in found.rasters for cell in each.get("trained_here") or ()]
    return Pairs(
        tuple(pairs), unjudged, unsearched, _stated(found, "score"), str(found.metadata.get("model", "")),
        tuple(trained), merged(said),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Laying:
    """The files that are laid upon each other.

    found, there : detections and annotations.  ignored, area : of shapes.  several : there are many images.
    """

    found: AnnotationFiles
    there: AnnotationFiles
    asked: PairingOptions
    ignored: Sequence[AnnotationFile]
    area: AnnotationFile | None
    several: bool

    def pair(self, match: _Match) -> tuple[Pair, tuple[str, str], list[Note]]:
        """One image in pixels of its grid; the names of both files, and what their readers note."""
        asked, area, several = self.asked, self.area, self.several
        grid = None
        if match.image is not None:
            with asked.opened(match.image) as raster:
                grid = raster.grid
        (own, own_file), (true, true_file) = (
            _of(self.found, match.found, grid, is_one=not several, is_empty=several),
            _of(self.there, match.there, grid, is_one=not several, is_empty=match.is_unmarked),
        )
        # Readers give this note for every file without a raster.
        notes = [note for note in (*own.notes, *true.notes) if note.code not in WITHOUT_RASTER]
        grid, has_pixels, own, true = self._scaled(match, grid, own, true)
        column = asked.class_column if len(true) else None
        doubtful = [_features(each, match, grid, several)[0] for each in self.ignored]
        edge = None if asked.edge is None else _edge(asked.edge, match, grid)
        if edge is not None:
            doubtful.append(np.array([edge], dtype=object))
        # Each world's shapes go before the next are made: three layers at once, not four.
        detections = on_raster(replace(own, notes=()), grid, name=own_file)
        del own
        truths = on_raster(
            replace(true, notes=()), grid, name=true_file, class_column=column, radius=asked.radius
        )
        del true
        pair = Pair(
            match.name,
            match.image,
            grid,
            has_pixels,
            detections,
            truths,
            np.concatenate([np.empty(0, object), *doubtful]),
            None if area is None else Plots.of(*_features(area, match, grid, several), area.path),
            edge,
            # A size stated to the scan holds for its raster too.
            replace(asked, gsd_m=None if grid.stated_gsd is None else grid.stated_gsd[0]),
        )
        return pair, (own_file, true_file), notes

    def _scaled(
        self, match: _Match, grid: Grid | None, own: Layer, true: Layer
    ) -> tuple[Grid, bool, Layer, Layer]:
        """The grid, where there is no raster's a common plane; whether it has pixels; both layers on it."""
        found, gsd_m, has_pixels = self.found, self.asked.gsd_m, True
        if grid is None:
            plane = common_plane(own, true, found.path, self.there.path, _raster_crs(found))
            grid, has_pixels, own, true = plane
        if gsd_m is not None and match.image is None and grid.crs is not None:
            raise UserError(
                f"{found.path.name} lies in {describe_crs(grid.crs)}, which has metres of its own; leave out"
                " the pixel size.",
                parameter="gsd",
            )
        if gsd_m is None and isinstance(stated := _stated(found, "gsd_m"), int | float) and stated > 0:
            gsd_m = float(stated)  # as stated to the scan
        if gsd_m is not None and grid.crs is None and grid.gsd is None:
            grid = grid.with_gsd(gsd_m)
            own, true = (side if side.grid is None else laid_on(side, grid) for side in (own, true))
        return grid, has_pixels, own, true


def _agreed(
    pairs: Sequence[Pair], files: Sequence[tuple[str, str]], asked: PairingOptions
) -> tuple[list[Pair], tuple[Note, ...]]:
    """Pairs with classes from one column, in one spelling, and without duplicate truths."""
    names, true_names = [own for own, _ in files], [true for _, true in files]
    keep = asked.keep_spelling
    found, said = agreed([pair.detections for pair in pairs], names, keep_spelling=keep, can_choose=False)
    truths, more = agreed(
        [pair.truths for pair in pairs], true_names, column=asked.class_column, keep_spelling=keep
    )
    twice = (*score_said(found, names), *repeated_said(found, names))
    truths, once = without_repeated(truths, true_names)
    made = [
        replace(pair, detections=own, truths=true)
        for pair, own, true in zip(pairs, found, truths, strict=True)
    ]
    return made, (*said, *more, *twice, *once)


def _edge(width: Length, match: _Match, grid: Grid) -> shapely.Geometry:
    """The strip along a raster's edge."""
    if match.image is None:
        raise UserError(
            f"{match.name}: the edge of a raster is only known with the raster; name it too.",
            parameter="image",
        )
    side = width.pixels(grid.gsd, name="The width of the edge to ignore")
    whole = shapely.box(0, 0, grid.width, grid.height)
    return whole.difference(whole.buffer(-side, join_style="mitre"))


def _of(
    side: AnnotationFiles, image: str | None, grid: Grid | None, *, is_one: bool, is_empty: bool
) -> Found:
    """The features of an image; empty if the files don't mention it and needn't (`is_empty`)."""
    found = None
    if not is_empty or image is None or side.meant(image):
        found = side.of(image, grid, is_one=is_one)
    if found is None and not is_empty:
        there = f"it is about {listed(side.names)}" if side.names else "it names no image"
        raise LayerError(
            f"{side.path.name} says nothing about {base_name(image or '')}: {there}; is it the right one?"
        )
    return found or Found(nothing_on(grid), side.path.name)


def _raster_crs(found: AnnotationFiles) -> CRS | None:
    """The CRS of the detections' rasters, if they state one that is the same for all."""
    names = {each.get("crs") for each in found.rasters}
    name = names.pop() if len(names) == 1 else None
    try:
        return read_crs(name, "", error=LayerError) if isinstance(name, str) else None
    except (CRSError, LayerError):
        return None


def _stated(found: AnnotationFiles, name: str) -> Any:
    """A setting of the scan that made the detections."""
    settings = found.metadata.get("settings")
    return settings.get(name) if isinstance(settings, dict) else None


def _features(
    side: AnnotationFile, match: _Match, grid: Grid, is_one_of_many: bool
) -> tuple[Geometries, Layer]:
    """The features of a file that lie on the grid, in its pixels, and the same features as read."""
    is_alike = match.image is None and not side.names  # without rasters it is about all images
    found = side.of(match.there or match.found, grid, is_one=is_alike or not is_one_of_many)
    layer = nothing_on(grid) if found is None else found.layer
    if layer.grid is None and layer.crs is None and grid.crs is None:
        layer = laid_on(layer, grid)
    shapes = united(layer.in_pixels(grid))
    meets = touching(shapes, grid)
    if match.image is None and meets.any():  # no raster's edge: the grid only spans what was found or marked
        meets = np.isfinite(shapely.bounds(shapes)).all(axis=1)
    return shapes[meets], layer[meets]
