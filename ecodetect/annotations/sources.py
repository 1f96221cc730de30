"""Which rasters and annotations training is given, and what is known of the ground of each.

A `Source` is one raster with its annotations. They are found as people keep them: raster and vector file in
pairs, or a folder in which a file of annotations lies beside each image, or one file speaks of all.

Where annotation is complete, empty ground is background; elsewhere it is unknown. It is complete

- inside the polygons that the user gives, else
- everywhere, in images of at most 2048 x 2048 px that come as a folder and have annotations of their own:
  such sets are annotated image by image; and in an image whose file of annotations is empty; else
- within the hull of the annotations' centres, widened by half an object. (By a whole one it took in, on the
  first real survey, individuals beyond the last marked ones, which nobody had looked at.)
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect import matching
from ecodetect.annotations import layouts
from ecodetect.annotations.agreement import agreed, are_individuals, means_one_of, without_repeated
from ecodetect.annotations.files import (
    PICTURES,
    AnnotationFile,
    AnnotationFiles,
    Found,
    check_labels,
    features_in,
    files_in,
    is_file,
    is_label_image,
    names_images,
    nothing_on,
    opened,
    opened_shapes,
    touching,
)
from ecodetect.annotations.laying import Annotations, on_raster
from ecodetect.annotations.outlining import outlined
from ecodetect.bundle.value_survey import shared
from ecodetect.bundle.values import Choice, Unit
from ecodetect.errors import UserError
from ecodetect.formats import files as formats
from ecodetect.formats.image_matching import base_name, listed
from ecodetect.formats.parts import united
from ecodetect.grid import Floats, Grid
from ecodetect.layer import Geometries
from ecodetect.notes import Note, merged
from ecodetect.raster.finding import expand, stem_of
from ecodetect.raster.reading import Raster, open_raster
from ecodetect.region import Area
from ecodetect.sizes import Length
from ecodetect.wording import counted

WHOLE_PX = 2**22  # an image of at most so many pixels, one of many, counts as annotated all over
# Names of folders and files with annotations in a folder of training data, those that say most first.
ANNOTATION_FOLDERS = ("annotations", "labels", "points", "boxes", "polygons", "masks", "truth", "instances")
TRAINING_WORDS, VALIDATION_WORDS = ("train", "training"), ("val", "valid", "validation")

CompleteBy = Literal["polygons", "image", "hull", "nothing"]


@dataclass(frozen=True, eq=False, slots=True)
class Source:
    """One raster with what people marked on it.

    image : path of the raster.
    name : of the image, for messages: with as many folders as tell it from the others.
    grid : native Grid; all shapes here are in its pixels.
    bands : names of the raster's bands.
    dtype : numpy name of its pixels.
    opened_with : how it is opened, as `open_raster` takes it.
    annotations : of this raster; those with `ignore` are neither individuals nor background.
    complete : where all individuals are annotated; None: nowhere.
    complete_by : what says so.
    ignored : shapes in which nothing is learned.
    edge_px : width of the strip along the raster's edge in which nothing is learned; as far inside again as
        half a large individual only what is annotated is.
    file : name of the file that the annotations are from, for messages.
    unit : of its values; None: nobody has looked.
    """

    image: str
    name: str
    grid: Grid
    bands: tuple[str, ...]
    dtype: str
    opened_with: Mapping[str, Any]
    annotations: Annotations
    complete: Area | None
    complete_by: CompleteBy
    ignored: Geometries
    edge_px: float = 0.0
    file: str = ""
    unit: Choice | None = None

    def open(self) -> Raster:
        """The raster, opened anew."""
        return open_raster(self.image, **self.opened_with)

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which annotations are individuals to learn."""
        return ~self.annotations.ignore

    @property
    def boxes(self) -> Floats:
        """Bounding boxes of all annotations, (N, 4) native pixels; of a point its size where known."""
        return self.annotations.boxes

    @property
    def size_px(self) -> Floats:
        """Width of each annotation in native pixels; NaN where unknown."""
        return self.annotations.size_px

    @property
    def xy(self) -> Floats:
        """Positions of all annotations, (N, 2) native pixels: their centroids."""
        return self.annotations.xy


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What the user says about the data.

    class_column : column with the classes; found by its name if not given.
    radius : size of individuals marked by a point, where the file doesn't say it row by row; "contour": boxes
        from the outline around each point, see `outlining`.
    complete : file of polygons inside of which annotation is complete; "image": everywhere.
    complete_layer : its layer, in a file with several.
    ignore : files of shapes, or classes, from which nothing is learned.
    edge : width of a strip along each raster's edge from which nothing is learned.
    gsd_m : metres per pixel where rasters don't say.
    bands, nodata, allow_vrt : how rasters are opened, as `open_raster` takes it.
    layer : layer of the annotations, in a file with several.
    empty_images : images that a file about many doesn't name are empty, not unknown.
    keep_spelling : classes are as they are written; otherwise those that differ in case, blanks or the way
        accents are stored are one.
    values : what counts as black and white in the rasters; None: told by their values.
    """

    class_column: str | None = None
    radius: Length | Literal["contour"] | None = None
    complete: str | None = None
    complete_layer: str | None = None
    ignore: tuple[str, ...] = ()
    edge: Length | None = None
    gsd_m: float | None = None
    bands: str | None = None
    nodata: float | None = None
    allow_vrt: bool = False
    layer: str | None = None
    empty_images: bool = False
    keep_spelling: bool = False
    values: Unit | None = None

    @property
    def opened_with(self) -> Mapping[str, Any]:
        """What `open_raster` takes beside the path."""
        return {
            "bands": self.bands,
            "gsd_m": self.gsd_m,
            "nodata": self.nodata,
            "allow_vrt": self.allow_vrt,
        }


@dataclass(frozen=True, eq=False, slots=True)
class Gathered:
    """All sources, and notes for the user.

    unmarked : names of images without annotations, which were left out.
    """

    sources: tuple[Source, ...]
    notes: tuple[Note, ...]
    unmarked: tuple[str, ...] = ()


def gather(paths: Sequence[str | os.PathLike[str]], asked: Asked | None = None) -> Gathered:
    """The sources that a user means.

    Parameters
    ----------
    paths : one folder of training data, or of such folders called train and val; or image, annotations,
        image, annotations, … where an image may be a folder or pattern, and its annotations a folder or one
        file about all.
    asked : what else is said about them.

    Raises
    ------
    UserError
        In one sentence: nothing found, annotations off the raster (both places named), no such column.
    """
    asked = asked or Asked()
    given = [os.fspath(path) for path in paths]
    notes: list[Note] = []
    pairs: list[tuple[list[str], AnnotationFiles]] = []
    if len(given) == 1:
        known = layouts.parts_of(Path(given[0]))
        pairs += [(images, opened(annotations, layer=asked.layer)) for images, annotations in known]
        if not known:
            pairs += [_in_folder(folder, asked, notes) for folder in _sides(Path(given[0]))]
    elif len(given) % 2 == 0 and given:
        for image, annotations in zip(given[::2], given[1::2], strict=True):
            pairs.append((expand([image]), opened(annotations, layer=asked.layer)))
    else:
        raise UserError(
            "Training takes one folder, or images and annotations in turn (IMAGE ANNOTATIONS IMAGE …);"
            f" got {counted(len(given), 'name')}."
        )
    names = _short_names([image for images, _ in pairs for image in images])
    is_set = len(names) > 1
    outside = _Outside.of(asked)
    sources: list[Source] = []
    unmarked: list[str] = []
    for images, marks in pairs:
        for image in images:
            alone = len(images) == 1
            found = _source(image, names[image], marks, asked, outside, notes, is_one=alone, is_set=is_set)
            if found is None:
                unmarked.append(names[image])
            else:
                sources.append(found)
        notes += marks.notes(images)
    if not sources:
        raise UserError(f"{pairs[0][1].path} has no annotations of {listed(unmarked)}.")
    if unmarked:
        text = (
            f"Left out, for want of annotations: {len(unmarked)} of {len(names)} images ({listed(unmarked)});"
            " an empty file says that there is nothing in an image."
        )
        notes.append(Note("images-unmarked", text, kind="doubt"))
    outside.check()
    sources = _agreed(sources, asked, notes)
    sources = _with_ignored_labels(sources, asked, notes)
    sources = _without_repeated(sources, notes)
    sources = _without_ambiguous_classes(sources, asked, notes)
    sources = _without_doubtful(sources, notes)
    sources = _without_outside(sources, notes)
    return Gathered(with_units(list(_with_hulls(sources)), asked), merged(notes), tuple(unmarked))


def with_units(sources: Sequence[Source], asked: Asked, *, is_one_folder: bool = False) -> tuple[Source, ...]:
    """Sources with the units of their values; those of one folder, type and bands share one.

    is_one_folder : they count as one, as pictures in folders by class do.
    """
    facts = [(source.image, source.dtype, source.bands) for source in sources]
    units = shared(facts, lambda number: sources[number].open(), asked.values, is_one_folder=is_one_folder)
    return tuple(replace(source, unit=unit) for source, unit in zip(sources, units, strict=True))


# -- finding files -----------------------------------------------------------------------------------------


def _sides(folder: Path) -> list[Path]:
    """The folders of training data in a folder: itself, or its `train` and `val` with images of their own."""
    if (folder / "images").is_dir() or (folder.is_dir() and _rasters(folder)):
        return [folder]
    found = [folder / name for name in (*TRAINING_WORDS, *VALIDATION_WORDS) if (folder / name).is_dir()]
    return found or [folder]


def _in_folder(folder: Path, asked: Asked, notes: list[Note]) -> tuple[list[str], AnnotationFiles]:
    """Images and annotations of a folder of training data."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give a raster together with its annotations.")
    inner = folder / "images"
    if inner.is_dir():
        images = expand([inner])
    else:
        inner = folder
        images = [path for path in _rasters(folder) if not is_label_image(Path(path))]
    if not images:
        raise UserError(f"The folder {folder} holds no images; they are looked for in it and in its images/.")
    stems = {stem_of(image).casefold() for image in images}
    folders = [folder / name for name in ANNOTATION_FOLDERS if (folder / name).is_dir()]
    candidates: list[Path] = [path for path in folders if features_in(path)]
    beside = files_in(inner)
    is_by_image = any(
        path.stem.casefold() in stems if path.suffix.lower() not in PICTURES else is_label_image(path)
        for path in beside
    )
    candidates += [inner] if is_by_image else []
    files = [path for path in dict.fromkeys([*files_in(folder), *beside]) if _may_be_about_all(path)]
    named = [path for path in files if path.stem.casefold() in ANNOTATION_FOLDERS]
    rest = [path for path in files if path not in named and path.stem.casefold() not in stems]
    candidates += sorted(named, key=lambda path: ANNOTATION_FOLDERS.index(path.stem.casefold()))
    candidates += rest if not candidates else []
    if not candidates:
        for path in sorted(inner.glob("*_seg.npy"))[:1]:
            formats.read(path)  # says why not
        raise UserError(
            f"The folder {folder} has images ({len(images)}) but no annotations: these are looked for in"
            f" folders {', '.join(ANNOTATION_FOLDERS[:5])}, beside the images, and in one file about all."
        )
    if len(candidates) > 1 and candidates[0] in rest:
        raise UserError(
            f"{folder} has {len(candidates)} files that could be the annotations"
            f" ({listed(str(path) for path in candidates)}); give images and annotations by name."
        )
    if len(candidates) > 1:
        others = listed(str(path) for path in candidates[1:])
        text = f"annotations are those in {candidates[0].name}; not read: {others}."
        notes.append(Note("annotations-chosen", text, about=folder.name, kind="choice"))
    return images, opened(candidates[0], layer=asked.layer)


def _rasters(folder: Path) -> list[str]:
    try:
        return [path for path in expand([folder]) if Path(path).parent == folder]
    except UserError:
        return []


def _may_be_about_all(path: Path) -> bool:
    """Whether a file beside images can hold the annotations of all of them."""
    suffix = path.suffix.lower()
    if suffix in (".txt", *PICTURES):
        return False
    if suffix not in (".csv", ".tsv"):
        return True
    return names_images(path)


# -- one source --------------------------------------------------------------------------------------------


def _source(
    image: str,
    name: str,
    marks: AnnotationFiles,
    asked: Asked,
    outside: _Outside,
    notes: list[Note],
    *,
    is_one: bool,
    is_set: bool,
) -> Source | None:
    """One raster with its marks; None where they say nothing of it.

    is_one : the marks are about this raster alone.  is_set : there are other rasters.
    """
    with open_raster(image, **asked.opened_with) as raster:
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
    complete: Area | None = None
    by: CompleteBy = "hull"
    if asked.complete is not None:
        complete, by = outside.complete(image, grid, is_set=is_set), "polygons"
        if asked.complete == "image":
            complete, by = _area(whole, grid), "image"
    elif not len(layer) or (not is_one and grid.window.area <= WHOLE_PX):
        complete, by = _area(whole, grid), "image"
    ignored = outside.ignored(image, grid, is_set=is_set)
    edge = 0.0 if asked.edge is None else asked.edge.pixels(grid.gsd, name="--ignore-edge")
    opened = asked.opened_with
    return Source(image, name, grid, bands, dtype, opened, marked, complete, by, ignored, edge, file)


def _outlined(image: str, name: str, marked: Annotations, asked: Asked, notes: list[Note]) -> Annotations:
    """Annotations whose points without a size are boxes where there is a clear outline around them."""
    bare = (shapely.area(marked.geometry) == 0) & ~np.isfinite(marked.radius_px)
    if not bare.any():
        return marked
    every = matching.centres(marked.geometry)
    near = spacing(every) if len(every) > 1 else np.full(len(every), np.inf)
    with open_raster(image, **asked.opened_with) as raster:
        shapes, found = outlined(raster, marked.geometry[bare], near[bare])
    text = f"a clear outline around {int(found.sum())} of {len(found)} points, taken as their box."
    notes.append(Note("outlines-taken", text, about=name, kind="choice"))
    geometry = marked.geometry.copy()
    geometry[bare] = shapes
    return replace(marked, geometry=geometry)


def _area(shape: shapely.Geometry, grid: Grid) -> Area:
    shapely.prepare(shape)
    return Area(shape, grid)


class _Outside:
    """The files beside the annotations: where these are complete, and what is ignored."""

    def __init__(self, complete: AnnotationFile | None, ignore: list[AnnotationFile]) -> None:
        self._complete, self._ignore = complete, ignore
        self._met: set[Path] = set()

    @classmethod
    def of(cls, asked: Asked) -> _Outside:
        complete = None
        if asked.complete is not None and asked.complete != "image":
            complete = opened_shapes(asked.complete, "--complete", asked.complete_layer)
        return cls(complete, [opened_shapes(text, "--ignore") for text in asked.ignore if is_file(text)])

    def complete(self, image: str, grid: Grid, *, is_set: bool) -> Area | None:
        """The part of a raster inside the polygons; None where there is none."""
        if self._complete is None:
            return None
        shapes = self._shapes(self._complete, image, grid, is_set=is_set)
        polygons = shapes[shapely.area(shapes) > 0]
        if len(shapes) and not len(polygons):
            raise UserError(
                f"{self._complete.path} has no polygon, so it can't say where annotation is complete."
            )
        inside = shapely.union_all(shapely.make_valid(polygons)).intersection(
            shapely.box(0, 0, grid.width, grid.height)
        )
        return _area(inside, grid) if inside.area > 0 else None

    def ignored(self, image: str, grid: Grid, *, is_set: bool) -> Geometries:
        found = [self._shapes(file, image, grid, is_set=is_set) for file in self._ignore]
        return np.concatenate([np.empty(0, dtype=object), *found])

    def _shapes(self, file: AnnotationFile, image: str, grid: Grid, *, is_set: bool) -> Geometries:
        found = file.of(image, grid, is_one=not is_set)
        shapes: Geometries = np.empty(0, dtype=object)
        if found is not None:
            shapes = united(found.layer.in_pixels(grid))
        meets = touching(shapes, grid)
        if meets.any() or (found is not None and not len(found.layer)):  # an empty file is meant so
            self._met.add(file.path)
        inside: Geometries = shapes[meets]
        return inside

    def check(self) -> None:
        """Raise UserError for a file that lies on none of the rasters."""
        for file in ([] if self._complete is None else [self._complete]) + self._ignore:
            if file.path not in self._met:
                raise UserError(f"{file.path} lies on none of the rasters; does it belong to them?")


# -- all together ------------------------------------------------------------------------------------------


def _agreed(sources: list[Source], asked: Asked, notes: list[Note]) -> list[Source]:
    """Sources whose annotations have their classes from one column and in one spelling."""
    made, said = agreed(
        [source.annotations for source in sources],
        [source.file for source in sources],
        column=asked.class_column,
        keep_spelling=asked.keep_spelling,
    )
    notes += said
    return _with_annotations(sources, made)


def _without_repeated(sources: list[Source], notes: list[Note]) -> list[Source]:
    """Sources with each individual once."""
    made, said = without_repeated(
        [source.annotations for source in sources], [source.file for source in sources]
    )
    notes += said
    return _with_annotations(sources, made)


def _with_annotations(sources: list[Source], made: Sequence[Annotations]) -> list[Source]:
    return [replace(source, annotations=each) for source, each in zip(sources, made, strict=True)]


def _with_ignored_labels(sources: list[Source], asked: Asked, notes: list[Note]) -> list[Source]:
    """Annotations of an ignored class, and those without a class where others have one, are ignored."""
    classes = [text for text in asked.ignore if not is_file(text)]
    labels = Counter(str(label) for source in sources for label in source.annotations.label)
    check_labels(classes, labels, keep_spelling=asked.keep_spelling)
    drop = {*classes, ""} if any(labels.keys() - {""}) else set(classes)
    if "" in drop and labels[""]:
        text = f"Ignored, for want of a class: {labels['']} of {labels.total()} annotations."
        notes.append(Note("class-missing", text, kind="doubt"))
    if not drop:
        return sources
    made = []
    for source in sources:
        marked = source.annotations
        ignore = marked.ignore | means_one_of(marked.label, drop, keep_spelling=asked.keep_spelling)
        made.append(replace(marked, ignore=ignore))
    return _with_annotations(sources, made)


def _without_ambiguous_classes(sources: list[Source], asked: Asked, notes: list[Note]) -> list[Source]:
    """One class for all where the column found by itself holds names of individuals, not classes."""
    labels = Counter(str(label) for source in sources for label in source.annotations.label[source.kept])
    total, many = labels.total(), len(labels)
    if asked.class_column is not None or not are_individuals(labels):
        return sources
    text = (
        f"{many} different names for {total} annotations are no classes: all are taken as one; say which"
        " column has the class with --class-column."
    )
    notes[:] = [note for note in notes if note.code != "class-column"]
    notes.append(Note("classes-as-one", text, kind="doubt"))
    marked = [source.annotations for source in sources]
    one = [replace(each, label=np.full(len(each), "object", dtype=object)) for each in marked]
    return _without_repeated(_with_annotations(sources, one), notes)


def _without_doubtful(sources: list[Source], notes: list[Note]) -> list[Source]:
    """Annotations that lie in shapes of --ignore are ignored, as `evaluate` does."""
    inside = [matching.centred_in(each.annotations.geometry, each.ignored) for each in sources]
    count = sum(int((each.kept & rows).sum()) for each, rows in zip(sources, inside, strict=True))
    if not count:
        return sources
    total = sum(int(each.kept.sum()) for each in sources)
    text = f"{count} of {total} annotations lie in shapes of --ignore and aren't learned from."
    notes.append(Note("inside-ignored", text, kind="choice"))
    return [
        replace(each, annotations=replace(each.annotations, ignore=each.annotations.ignore | rows))
        for each, rows in zip(sources, inside, strict=True)
    ]


def _without_outside(sources: list[Source], notes: list[Note]) -> list[Source]:
    """Annotations outside the polygons in which annotation is complete are ignored, as `evaluate` does.

    Raises UserError where none is left.
    """
    made: list[Source] = []
    outside, total = 0, 0
    for source in sources:
        if source.complete_by == "polygons":
            inside = np.zeros(len(source.annotations), np.bool_)
            if source.complete is not None:
                inside = source.complete.contains(source.xy)
            total += int(source.kept.sum())
            outside += int((source.kept & ~inside).sum())
            ignore = source.annotations.ignore | ~inside
            source = replace(source, annotations=replace(source.annotations, ignore=ignore))
        made.append(source)
    if outside and outside == total == sum(int(source.kept.sum()) for source in sources):
        raise UserError(
            f"None of the {total} annotations lies inside the polygons of --complete; do they belong"
            " together?"
        )
    if outside:
        text = (
            f"{outside} of {total} annotations lie outside the polygons of --complete and aren't learned"
            " from."
        )
        notes.append(Note("outside-complete", text, kind="choice"))
    return made


def _with_hulls(sources: list[Source]) -> Iterator[Source]:
    """Sources with the area in which annotation counts as complete, where nobody says it."""
    for source in sources:
        if source.complete_by != "hull":
            by = source.complete_by if source.complete is not None else "nothing"
            yield replace(source, complete_by=by)
            continue
        grown = shapely.MultiPoint(source.xy).convex_hull.buffer(object_px([source]) / 2)
        inside = grown.intersection(shapely.box(0, 0, source.grid.width, source.grid.height))
        yield replace(source, complete=_area(inside, source.grid) if inside.area > 0 else None)


def object_px(sources: Sequence[Source]) -> float:
    """Width of one object in native pixels: the median.

    For points without a size what their spacing allows: neighbours that touch are as far apart as they are
    wide. One pixel where a lone point says nothing.
    """
    sizes = np.concatenate([source.size_px[source.kept] for source in sources])
    if np.isfinite(sizes).any():
        return float(np.nanmedian(sizes))
    spaces = np.concatenate([spacing(source.xy[source.kept]) for source in sources])
    spaces = spaces[spaces > 0]
    return float(min(np.percentile(spaces, 5), np.median(spaces) / 2)) if len(spaces) else 1.0


def spacing(xy: Floats) -> Floats:
    """Distance of each position (N, 2) to its nearest neighbour; empty for fewer than two."""
    if len(xy) < 2:
        return np.empty(0)
    from scipy.spatial import cKDTree

    distance: Floats = cKDTree(xy).query(xy, k=2)[0][:, 1]
    return distance


def _short_names(images: Sequence[str]) -> dict[str, str]:
    """Base names, with folders where two are equal."""
    bases = Counter(base_name(image) for image in images)
    names = {}
    for image in images:
        base = base_name(image)
        names[image] = base if bases[base] == 1 else "/".join(PurePath(image).parts[-3:])
    return names
