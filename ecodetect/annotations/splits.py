"""The split of the ground into training and validation, so that neither sees the other.

A split gives each side its own ground: polygons on each raster. Samples are masked outside the ground of
their side (`dataset.Dataset.limited`), so no window shows a place on Earth to both sides. Rasters that
overlap are cut along the same lines, or go to one side together. Neighbouring objects are similar (spatial
autocorrelation), which flatters a model that is tested next to its training ground; hence blocks, not single
objects, and a strip between the sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import shapely

from ecodetect.annotations.annotated_raster import AnnotatedRaster, object_px
from ecodetect.annotations.laid import Ground
from ecodetect.annotations.planes import Planes
from ecodetect.annotations.shares import Counts, Names, Strip, class_table, nearest_share
from ecodetect.annotations.training_folders import TRAINING_WORDS, VALIDATION_WORDS
from ecodetect.errors import UserError
from ecodetect.grid import Floats
from ecodetect.region import Region

MANY_FILES = 10  # from this number of rasters that don't overlap, split by file

Side = Mapping[int, Ground]


@dataclass(frozen=True, eq=False, slots=True)
class Split:
    """The ground of training and of validation.

    training, validation : number of a source -> its ground; other sources aren't used.
    method : how the split was chosen, in words, for the card.
    objects : individuals in training, in validation, and in neither (in the strip between).
    """

    training: Side
    validation: Side
    method: str
    objects: tuple[int, int, int]


def split(
    sources: Sequence[AnnotatedRaster], *, by: str = "auto", share: float = 0.2, seed: int = 0
) -> Split:
    """Choose ground for validation; the same for the same sources and seed.

    Parameters
    ----------
    sources : as they are numbered in a `Dataset`.
    by : "blocks": squares on the ground, with a strip as wide as half an object around those of validation.
        "files": whole rasters; those that overlap stay together. A pattern (with * or ?), such as
        "*/val/*" or "*madrid*": rasters whose path matches it are for validation. "none": everything is for
        training. Another word: a column of the annotations, whose values stay together; values train and
        val are followed. "auto": folders called train and val are followed; else files if there are ten or
        more that don't overlap, else blocks.
    share : the approximate share of the individuals that go to validation.

    Raises
    ------
    UserError
        For fewer than two individuals, a missing column, or a side without individuals.
    """
    total = sum(int(np.count_nonzero(source.kept)) for source in sources)
    if total < 2:
        what = "one annotation" if total else "no annotation"
        raise UserError(
            f"There is {what} to learn from; training and validation need at least one each, and a useful"
            " model about 40."
        )
    if by == "none":
        everything = {number: _whole(source) for number, source in enumerate(sources)}
        return Split(everything, {}, "no validation", (total, 0, 0))
    made, method = _divided(sources, by, share, np.random.default_rng(seed))
    counts = _counted(sources, made)
    found = Split(made[0], made[1], f"{method}, seed {seed}", counts)
    for number, name in ((counts[0], "training"), (counts[1], "validation")):
        if not number:
            raise UserError(
                f"With the split {found.method} none of the {total} annotations is for {name}; use another"
                " split or seed.",
                parameter=("split", "seed"),
            )
    check_disjoint(sources, found)
    return found


def _divided(
    sources: Sequence[AnnotatedRaster], by: str, share: float, rng: np.random.Generator
) -> tuple[Sides, str]:
    """Both sides, and how they were chosen; parameters as in `split`."""
    planes = Planes(sources)
    if "*" in by or "?" in by:
        return _as_said(sources, planes, _met(sources, by)), f"by file, validation {by}"
    if by == "auto" and (sides := _folders(sources)) is not None:
        return _as_said(sources, planes, sides), "by folder"
    if by == "files" or (by == "auto" and len(set(planes.clusters)) >= MANY_FILES):
        if len(set(planes.clusters)) < 2:
            raise UserError(
                "There is one raster, or all overlap, so they can't be split by file; leave out the split.",
                parameter="split",
            )
        return _by_files(sources, planes, share, rng), "by file"
    if by in ("auto", "blocks"):
        made, side = _by_blocks(sources, planes, share, rng)
        return made, f"blocks of {side}"
    return _by_column(sources, planes, by, share, rng), f"by column {by}"


def check_disjoint(sources: Sequence[AnnotatedRaster], found: Split) -> None:
    """Raise UserError, naming both rasters, when training and validation see the same ground.

    Grounds may share an edge, and less than a pixel beside it.
    """
    planes = Planes(sources)
    seen: dict[str, list[tuple[int, shapely.Geometry, float]]] = {}
    for number, ground in found.validation.items():
        shape = planes.of(number, ground.seen.shape)
        seen.setdefault(planes.key[number], []).append((number, shape, planes.pixel[number]))
    trees = {key: shapely.STRtree([shape for _, shape, _ in each]) for key, each in seen.items()}
    for number, ground in found.training.items():
        key = planes.key[number]
        if key not in trees:
            continue
        shape = planes.of(number, ground.seen.shape)
        for row in trees[key].query(shape, "intersects"):
            other, there, pixel = seen[key][int(row)]
            width = 0.5 * min(pixel, planes.pixel[number])
            if not shape.intersection(there).buffer(-width).is_empty:
                names = (sources[number].name, sources[other].name)
                where = names[0] if names[0] == names[1] else f"{names[0]} and {names[1]}"
                raise UserError(
                    f"Training and validation overlap on the ground, in {where}; a model must not be measured"
                    " where it was trained."
                )


Sides = tuple[dict[int, Ground], dict[int, Ground]]


def _met(sources: Sequence[AnnotatedRaster], pattern: str) -> list[bool]:
    """Which rasters' paths match a pattern; raises UserError unless some but not all do."""
    is_met = [fnmatchcase(Path(source.image).as_posix(), pattern) for source in sources]
    if all(is_met) or not any(is_met):
        which = "all" if any(is_met) else "none"
        raise UserError(
            f"The split '{pattern}' divides nothing: {which} of the {len(sources)} rasters' paths fit it.",
            parameter="split",
        )
    return is_met


def _folders(sources: Sequence[AnnotatedRaster]) -> list[bool] | None:
    """Which rasters lie in a validation folder; None unless folders name a side for all, and both sides."""
    said = []
    for source in sources:
        parts = {part.casefold().rstrip("0123456789_-") for part in Path(source.image).parts[-4:-1]}
        held, learned = (not parts.isdisjoint(words) for words in (VALIDATION_WORDS, TRAINING_WORDS))
        if held == learned:
            return None
        said.append(held)
    return said if any(said) and not all(said) else None


def _as_said(sources: Sequence[AnnotatedRaster], planes: Planes, is_validation: Sequence[bool]) -> Sides:
    """Sides made of whole rasters; rasters that overlap one of validation go there too."""
    held = {cluster for cluster, said in zip(planes.clusters, is_validation, strict=True) if said}
    sides: Sides = ({}, {})
    for number, (source, cluster) in enumerate(zip(sources, planes.clusters, strict=True)):
        sides[cluster in held][number] = _whole(source)
    return sides


def _whole(source: AnnotatedRaster) -> Ground:
    area = Region(shapely.box(0, 0, source.grid.width, source.grid.height), source.grid)
    return Ground(area, area)


def _by_files(
    sources: Sequence[AnnotatedRaster], planes: Planes, share: float, rng: np.random.Generator
) -> Sides:
    """Sides made of whole rasters, at random; those that overlap stay together."""
    labels = [np.asarray(source.annotations.label[source.kept], dtype=str) for source in sources]
    members: dict[int, list[int]] = {}
    for number, cluster in enumerate(planes.clusters):
        members.setdefault(cluster, []).append(number)
    counts = class_table([np.concatenate([labels[number] for number in each]) for each in members.values()])
    groups = list(members)
    chosen = {groups[row] for row in nearest_share(counts, share, rng)}
    return _as_said(sources, planes, [cluster in chosen for cluster in planes.clusters])


def _by_blocks(
    sources: Sequence[AnnotatedRaster], planes: Planes, share: float, rng: np.random.Generator
) -> tuple[Sides, str]:
    """Sides made of squares on the ground, and how wide these are."""
    centres, planes_of, labels = _on_planes(sources, planes)
    buffer = _strip(sources, planes)
    extent = sum(
        float(planes.of(number, source.complete.shape).area) if source.complete is not None else 0.0
        for number, source in enumerate(sources)
    )
    wanted = float(np.clip(len(centres) / 8, 9, 64))
    first = max(np.sqrt(max(extent, buffer**2) / wanted), 4 * buffer)
    most = max(1.75 * share, 1.5 / len(centres))  # of two individuals, one is half
    for side in first / 1.6 ** np.arange(5):
        cells_of = np.column_stack([planes_of, np.floor(centres / side).astype(np.int64)])
        blocks, block = np.unique(cells_of, axis=0, return_inverse=True)
        counts = class_table([labels[block.ravel() == row] for row in range(len(blocks))])
        strip = Strip(planes_of, centres / side, blocks, min(buffer / side, 0.25))
        chosen = nearest_share(counts, share, rng, strip) if len(blocks) > 1 else []
        held = counts[chosen].sum() / counts.sum()
        if chosen and 0.5 * share <= held <= most and held + strip.lost(chosen) < 0.9:
            break
    if not chosen:
        raise UserError(
            f"The annotations ({len(centres)}) lie too close together to be split into blocks of ground; mark"
            " more of them, or split by a column.",
            parameter="split",
        )
    buffer = min(buffer, side / 4)
    squares = {
        key: shapely.union_all(
            [
                shapely.box(x * side, y * side, (x + 1) * side, (y + 1) * side)
                for plane, x, y in blocks[chosen]
                if plane == index
            ]
        )
        for index, key in enumerate(dict.fromkeys(planes.key))
    }
    unit = "m" if planes.key[0] == "earth" else "px" if planes.key[0].startswith("pixels") else "units"
    if unit == "px" and (gsd := sources[0].grid.gsd_mean) is not None:
        text = f"{side * gsd:.3g} m"
    else:
        text = f"{side:.3g} {unit}"
    return _cut(sources, planes, squares, buffer), text


def _cut(
    sources: Sequence[AnnotatedRaster],
    planes: Planes,
    squares: Mapping[str, shapely.Geometry],
    buffer: float,
) -> Sides:
    """Sides: validation counts in shapes on the planes and sees a strip around, training has the rest."""
    sides: Sides = ({}, {})
    for number, source in enumerate(sources):
        grid = source.grid
        whole = shapely.box(0, 0, grid.width, grid.height)
        shape = squares.get(planes.key[number], shapely.Polygon())
        near = shape.intersection(planes.footprints[number].buffer(2 * buffer))
        if near.is_empty:
            sides[0][number] = Ground(Region(whole, grid), Region(whole, grid))
            continue
        fine = shapely.segmentize(near, max(near.length / 64, buffer / 4))
        grown = shapely.segmentize(near.buffer(buffer, join_style="mitre"), max(near.length / 64, buffer / 4))
        counted = _polygons(planes.back(number, fine).intersection(whole))
        seen = _polygons(planes.back(number, grown).intersection(whole))
        rest = _polygons(whole.difference(seen))
        if counted.area > 0:
            sides[1][number] = Ground(Region(seen, grid), Region(counted, grid))
        if rest.area > 0:
            sides[0][number] = Ground(Region(rest, grid), Region(rest, grid))
    return sides


def _by_column(
    sources: Sequence[AnnotatedRaster], planes: Planes, column: str, share: float, rng: np.random.Generator
) -> Sides:
    """Sides by the values of a column: by file where each has one value, else by the hull of each value."""
    values = []
    for source in sources:
        if column not in source.annotations.columns:
            if len(source.annotations):
                known = ", ".join(source.annotations.columns) or "none"
                raise UserError(
                    f"The annotations of {source.name} have no column '{column}' to split by, only {known}.",
                    parameter="split",
                )
            values.append(np.empty(0, dtype=str))
        else:
            values.append(source.annotations.columns[column].astype(str))
    names = sorted({str(value) for each in values for value in each})
    if len(names) < 2:
        raise UserError(
            f"The column '{column}' has one value ('{names[0]}'), so it splits nothing.", parameter="split"
        )
    plain = {name.casefold().strip() for name in names}
    if plain & {*VALIDATION_WORDS} and plain & {*TRAINING_WORDS}:
        held = {name for name in names if name.casefold().strip() in VALIDATION_WORDS}
    else:
        every = np.concatenate(values)
        labels = np.concatenate([source.annotations.label for source in sources]).astype(str)
        counts = class_table([labels[every == name] for name in names])
        held = {names[row] for row in nearest_share(counts, share, rng)}
    if all(len(set(each.tolist())) <= 1 for each in values):
        return _as_said(sources, planes, [len(each) > 0 and str(each[0]) in held for each in values])
    buffer = _strip(sources, planes)
    hulls: dict[str, list[shapely.Geometry]] = {}
    for number, (source, each) in enumerate(zip(sources, values, strict=True)):
        for name in sorted(held):
            rows = each == name
            if rows.any():
                points = shapely.MultiPoint(source.xy[rows])
                hull = planes.of(number, points.convex_hull).buffer(buffer)
                hulls.setdefault(planes.key[number], []).append(hull)
    return _cut(sources, planes, {key: shapely.union_all(shapes) for key, shapes in hulls.items()}, buffer)


def _on_planes(sources: Sequence[AnnotatedRaster], planes: Planes) -> tuple[Floats, Counts, Names]:
    """For all individuals: position on the plane (N, 2), number of the plane, class."""
    index = {key: number for number, key in enumerate(dict.fromkeys(planes.key))}
    positions, plane, labels = [], [], []
    for number, source in enumerate(sources):
        xy = source.xy[source.kept]
        points = shapely.get_coordinates(planes.of(number, shapely.MultiPoint(xy))) if len(xy) else xy
        positions.append(points.reshape(-1, 2))
        plane.append(np.full(len(xy), index[planes.key[number]]))
        labels.append(np.asarray(source.annotations.label[source.kept], dtype=str))
    return np.concatenate(positions), np.concatenate(plane), np.concatenate(labels)


def _strip(sources: Sequence[AnnotatedRaster], planes: Planes) -> float:
    """Width on the plane of the strip between the sides: training sees no pixel of what validation counts.

    Half the width of the largest objects (95th percentile); a whole width where sizes are unknown.
    """
    halves = []
    for number, source in enumerate(sources):
        size = source.size_px[source.kept]
        size = size[np.isfinite(size)] / 2 if np.isfinite(size).any() else np.array([object_px([source])])
        halves.append(size * planes.pixel[number])
    return float(np.percentile(np.concatenate(halves), 95))


def _counted(sources: Sequence[AnnotatedRaster], sides: Sides) -> tuple[int, int, int]:
    counts = [0, 0]
    total = 0
    for number, source in enumerate(sources):
        xy = source.xy[source.kept]
        total += len(xy)
        for side in (0, 1):
            if number in sides[side]:
                counts[side] += int(np.count_nonzero(sides[side][number].counted.contains(xy)))
    return counts[0], counts[1], total - sum(counts)


def _polygons(shape: shapely.Geometry) -> shapely.Geometry:
    """The polygons among the parts of a shape."""
    parts = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon" and part.area > 0]
    return shapely.MultiPolygon(parts)
