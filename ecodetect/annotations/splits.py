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
from numpy.typing import NDArray

from ecodetect.annotations.annotated_raster import AnnotatedRaster, object_px
from ecodetect.annotations.laid import Ground
from ecodetect.annotations.training_folders import TRAINING_WORDS, VALIDATION_WORDS
from ecodetect.bundle.footprint import cells
from ecodetect.errors import UserError
from ecodetect.grid import WGS84, Floats, transformed
from ecodetect.region import Region

MANY_FILES = 10  # from this number of rasters that don't overlap, split by file
_TRIES = 64  # random choices; the one nearest to the wanted share is taken
_EARTH_M = 6_371_008.8  # mean radius

Side = Mapping[int, Ground]
Counts = NDArray[np.int64]
Names = NDArray[np.str_]


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
    planes = _Planes(sources)
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
    planes = _Planes(sources)
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


def places(sources: Sequence[AnnotatedRaster], *, exact: bool = False) -> list[list[float]]:
    """Where the annotations lie, JSON-able, for a model's card.

    Cells of about 1 km as [longitude, latitude] of their south-western corner; with `exact` the extent of
    each raster's annotations as [west, south, east, north]. Rasters without a place on Earth are left out.
    """
    found: list[list[float]] = []
    lonlats = []
    for source in sources:
        if not source.grid.has_lonlat or not len(source.annotations):
            continue
        lonlat = source.grid.to_lonlat(source.xy)
        lonlat = lonlat[np.isfinite(lonlat).all(axis=1)]
        if len(lonlat):
            lonlats.append(lonlat)
            extent = [*lonlat.min(axis=0), *lonlat.max(axis=0)]
            found.append([round(float(value), 6) for value in extent])
    if exact:
        return sorted(found)
    return [list(cell) for cell in cells(np.concatenate([np.empty((0, 2)), *lonlats]))]


# -- a common plane ----------------------------------------------------------------------------------------


class _Planes:
    """Planes on which rasters can be compared: the Earth in metres, or their own plane without a place.

    key : of each source's plane.  pixel : width of its pixels there.  footprints : of the whole rasters.
    clusters : number of the group of overlapping rasters that each belongs to.
    """

    def __init__(self, sources: Sequence[AnnotatedRaster]) -> None:
        self.grids = [source.grid for source in sources]
        self.key = [_plane(source) for source in sources]
        on_earth = [grid for grid, key in zip(self.grids, self.key, strict=True) if key == "earth"]
        centres = [grid.to_lonlat([(grid.width / 2, grid.height / 2)])[0] for grid in on_earth]
        self._origin = _middle(np.array(centres)) if centres else np.zeros(2)
        self.footprints = [
            self.of(number, shapely.box(0, 0, grid.width, grid.height))
            for number, grid in enumerate(self.grids)
        ]
        self.pixel = [
            float(np.sqrt(shape.area / grid.window.area))
            for shape, grid in zip(self.footprints, self.grids, strict=True)
        ]
        self.clusters = self._clusters()

    def of(self, number: int, shape: shapely.Geometry) -> shapely.Geometry:
        """A shape in native pixels of a source, on its plane."""
        grid = self.grids[number]
        # Straight lines of one map are curved in another: sixteen pieces per side keep them within a pixel.
        fine = shapely.segmentize(shape, max(grid.width, grid.height) / 16)
        return shapely.transform(fine, lambda xy: self._onto(number, xy))

    def _onto(self, number: int, xy: Floats) -> Floats:
        grid, key = self.grids[number], self.key[number]
        if key != "earth":
            return xy if grid.frame == "pixel" else grid.to_world(xy)
        step = np.radians(grid.to_lonlat(xy) - self._origin)
        step[:, 0] = (step[:, 0] + np.pi) % (2 * np.pi) - np.pi
        result: Floats = step * (_EARTH_M * np.cos(np.radians(self._origin[1])), _EARTH_M)
        return result

    def back(self, number: int, shape: shapely.Geometry) -> shapely.Geometry:
        """A shape on the plane of a source, in its native pixels."""
        return shapely.transform(shape, lambda xy: self._pixels(number, xy))

    def _pixels(self, number: int, xy: Floats) -> Floats:
        grid, key = self.grids[number], self.key[number]
        if key != "earth":
            return xy if grid.frame == "pixel" else grid.to_pixel(xy)
        assert grid.crs is not None
        scale = (_EARTH_M * np.cos(np.radians(self._origin[1])), _EARTH_M)
        lonlat = np.degrees(xy / scale) + self._origin
        return grid.to_pixel(transformed(lonlat, WGS84, grid.crs))

    def _clusters(self) -> list[int]:
        """The group number of each raster; rasters that overlap by over a pixel, or via others, share it."""
        cluster = list(range(len(self.grids)))

        def root(number: int) -> int:
            while cluster[number] != number:
                number = cluster[number]
            return number

        for key in dict.fromkeys(self.key):
            members = [number for number, own in enumerate(self.key) if own == key]
            shapes = [self.footprints[number] for number in members]
            for one, other in shapely.STRtree(shapes).query(shapes, "intersects").T:
                if one < other:
                    width = 0.5 * min(self.pixel[members[one]], self.pixel[members[other]])
                    if not shapes[one].intersection(shapes[other]).buffer(-width).is_empty:
                        first, second = root(members[one]), root(members[other])
                        cluster[max(first, second)] = min(first, second)
        return [root(number) for number in range(len(cluster))]


def _plane(source: AnnotatedRaster) -> str:
    grid = source.grid
    if grid.has_lonlat:
        return "earth"
    if grid.crs is not None:
        return grid.crs.to_wkt()
    return "affine" if grid.frame == "affine" else f"pixels of {Path(source.image).absolute()}"


def _middle(lonlat: Floats) -> Floats:
    """The mean of positions in degrees, also across the antimeridian."""
    known = lonlat[np.isfinite(lonlat).all(axis=1)]
    angle = np.radians(known[:, 0])
    longitude = np.degrees(np.arctan2(np.sin(angle).mean(), np.cos(angle).mean()))
    return np.array([longitude, known[:, 1].mean()])


# -- choosing ----------------------------------------------------------------------------------------------

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


def _as_said(sources: Sequence[AnnotatedRaster], planes: _Planes, is_validation: Sequence[bool]) -> Sides:
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
    sources: Sequence[AnnotatedRaster], planes: _Planes, share: float, rng: np.random.Generator
) -> Sides:
    """Sides made of whole rasters, at random; those that overlap stay together."""
    labels = [np.asarray(source.annotations.label[source.kept], dtype=str) for source in sources]
    members: dict[int, list[int]] = {}
    for number, cluster in enumerate(planes.clusters):
        members.setdefault(cluster, []).append(number)
    counts = _table([np.concatenate([labels[number] for number in each]) for each in members.values()])
    groups = list(members)
    chosen = {groups[row] for row in _nearest(counts, share, rng)}
    return _as_said(sources, planes, [cluster in chosen for cluster in planes.clusters])


def _by_blocks(
    sources: Sequence[AnnotatedRaster], planes: _Planes, share: float, rng: np.random.Generator
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
        counts = _table([labels[block.ravel() == row] for row in range(len(blocks))])
        strip = _Strip(planes_of, centres / side, blocks, min(buffer / side, 0.25))
        chosen = _nearest(counts, share, rng, strip) if len(blocks) > 1 else []
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
    planes: _Planes,
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
    sources: Sequence[AnnotatedRaster], planes: _Planes, column: str, share: float, rng: np.random.Generator
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
        counts = _table([labels[every == name] for name in names])
        held = {names[row] for row in _nearest(counts, share, rng)}
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


def _on_planes(sources: Sequence[AnnotatedRaster], planes: _Planes) -> tuple[Floats, Counts, Names]:
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


def _strip(sources: Sequence[AnnotatedRaster], planes: _Planes) -> float:
    """Width on the plane of the strip between the sides: training sees no pixel of what validation counts.

    Half the width of the largest objects (95th percentile); a whole width where sizes are unknown.
    """
    halves = []
    for number, source in enumerate(sources):
        size = source.size_px[source.kept]
        size = size[np.isfinite(size)] / 2 if np.isfinite(size).any() else np.array([object_px([source])])
        halves.append(size * planes.pixel[number])
    return float(np.percentile(np.concatenate(halves), 95))


@dataclass(frozen=True, eq=False, slots=True)
class _Strip:
    """Counts the individuals that would be lost in the strip around blocks.

    plane, xy : of the individuals, in sides of a block.  blocks : (plane, x, y).  width : in sides.
    """

    plane: Counts
    xy: Floats
    blocks: Counts
    width: float

    def lost(self, chosen: Sequence[int]) -> float:
        """Share of the individuals (of at most 1000) that lie in the strip around the chosen blocks."""
        every = slice(None, None, -(-len(self.xy) // 1000))
        plane, xy = self.plane[every], self.xy[every]
        nearest = np.full(len(xy), np.inf)
        for own, x, y in self.blocks[list(chosen)].tolist():
            away = np.maximum(np.array([x, y]) - xy, xy - np.array([x + 1, y + 1])).max(axis=1)
            nearest = np.minimum(nearest, np.where(plane == own, away, np.inf))
        return float(np.mean((nearest > 0) & (nearest < self.width)))


def _table(labels: Sequence[Names]) -> Counts:
    """The number of each class in each unit, (units, classes)."""
    names = np.unique(np.concatenate([*labels, np.empty(0, dtype=str)]))
    counts = [np.bincount(np.searchsorted(names, each), minlength=len(names)) for each in labels]
    return np.array(counts, np.int64).reshape(len(labels), len(names))


def _nearest(
    counts: Counts, share: float, rng: np.random.Generator, strip: _Strip | None = None
) -> list[int]:
    """Units that hold about this share of each class and lose few others; never all that hold any."""
    total = counts.sum(axis=0)
    weight = np.sqrt(total / max(1, total.sum()))  # rare classes count, but less
    best: tuple[float, list[int]] = (np.inf, [])
    holding = np.count_nonzero(counts.sum(axis=1))
    for _ in range(_TRIES):
        held = np.zeros(counts.shape[1])
        chosen: list[int] = []
        order = rng.permutation(len(counts))
        for row in order.tolist():
            if held.sum() >= share * total.sum():
                break
            if held.sum() + counts[row].sum() <= 1.5 * share * total.sum() or not held.sum():
                chosen.append(row)
                held += counts[row]
        if not held.sum() or np.count_nonzero(counts[chosen].sum(axis=1)) == holding:
            continue
        off = float((weight * np.abs(held / np.maximum(total, 1) - share)).sum())
        if strip is not None:
            off += strip.lost(chosen)
        if off < best[0]:
            best = (off, sorted(chosen))
    return best[1]


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
