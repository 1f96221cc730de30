"""Ground that rasters of one layer share: which of them each place belongs to.

A place belongs to the raster whose centre is nearest, among those that searched it. So the seam between two
rasters lies far from the edges of both, and it doesn't depend on the order of the rasters. A seam is half
open: of equally near rasters the one with the smaller centre (x, then y) has the place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ecodetect.errors import GridError
from ecodetect.grid import Floats, Grid, Window, lonlat_of, transformed
from ecodetect.region import Region
from ecodetect.scanning.journal import Journal
from ecodetect.scanning.overlaps import Footprint, overlapping
from ecodetect.scanning.question import ScanPlan
from ecodetect.scanning.searched_ground import Mask, SearchedGround

_AROUND = 8  # directions in which the surroundings of a place are looked at
_FAR = 4.0  # how far half-planes reach, in diameters of all rasters
OWN, NEAR, OTHERS = 0, 1, 2


@dataclass(frozen=True, eq=False, slots=True)
class _Member:
    """A raster that shares ground with others.

    grid : the scanned grid.  searched : its pixels.
    crs : the plane in which it is compared with its neighbours.  unit_m : metres of a unit of that plane.
    centre : (2,), of the raster in the plane.
    rank : its place among all by centre, for ties.
    neighbours : numbers of the rasters that it shares ground with.
    """

    grid: Grid
    searched: SearchedGround
    crs: CRS
    unit_m: float
    centre: Floats
    rank: int
    neighbours: tuple[int, ...]


class SharedGround:
    """The ground of the rasters of one layer, by their numbers in it.

    pairs : of rasters that share ground, the lower number first.
    groups : of rasters that hang together by it.
    """

    def __init__(self, plans: Sequence[ScanPlan], journal: Journal) -> None:
        """plans : of searched rasters."""
        pairs = overlapping([plan.footprint for plan in plans])
        self.pairs = [(one, two) for one, two in pairs.tolist()]
        self._members: dict[int, _Member] = {}
        self._others: dict[tuple[int, int], Region] = {}
        self.groups: list[tuple[int, ...]] = []
        if not len(pairs):
            return
        ones = np.ones(len(pairs), np.int8)
        graph = coo_array((ones, pairs.T), shape=(len(plans), len(plans)))
        _, component = connected_components(graph, directed=False)
        both = np.concatenate([pairs, pairs[:, ::-1]])
        for each in np.unique(component[pairs[:, 0]]).tolist():
            numbers = np.flatnonzero(component == each).tolist()
            self.groups.append(tuple(numbers))
            for number, member in zip(numbers, _members(plans, numbers, both, journal), strict=True):
                self._members[number] = member

    def places(self, number: int, xy: Floats) -> Floats:
        """Positions in metres of the plane that a raster shares with its neighbours, (N, 2) -> (N, 2).

        xy : in pixels of the scanned grid.
        """
        member = self._members[number]
        world, own = member.grid.to_world(xy), member.grid.crs
        assert own is not None
        return (world if own == member.crs else transformed(world, own, member.crs)) * member.unit_m

    def belongs(self, number: int, places: Floats) -> Mask:
        """Whether places (N, 2) that a raster has searched belong to it, (N,)."""
        lost = np.zeros(len(places), bool)
        for other in self._members[number].neighbours:
            open_ = np.flatnonzero(~lost)
            nearer = open_[self._lead(number, other, places[open_]) < 0]
            lost[nearer] = self._has_searched(other, places[nearer])
        return ~lost

    def standing(self, number: int, places: Floats, reach_m: float) -> NDArray[np.int8]:
        """How places (N, 2) of a raster stand to its own ground, (N,).

        OWN: its own, and no other raster's within `reach_m`; OTHERS: another's, and none of its own within
        `reach_m`; NEAR: what may be neither.
        """
        belongs = self.belongs(number, places)
        is_apart = np.ones(len(places), bool)  # of its own: no other ground in reach
        is_deep = np.zeros(len(places), bool)  # of others': no own ground in reach
        for other in self._members[number].neighbours:
            lead = self._lead(number, other, places)
            rim = self._rim(other, places)
            is_apart &= (lead >= reach_m) | (rim < -reach_m)
            inner = np.flatnonzero((lead < -reach_m) & (rim >= reach_m) & ~belongs & ~is_deep)
            if not self._members[other].searched.is_whole:
                around = (places[inner, None] + reach_m * _CIRCLE).reshape(-1, 2)
                inner = inner[self._has_searched(other, around).reshape(-1, len(_CIRCLE)).all(axis=1)]
            is_deep[inner] = True
        return np.where(belongs, np.where(is_apart, OWN, NEAR), np.where(is_deep, OTHERS, NEAR)).astype(
            np.int8
        )

    def nearest(self, numbers: NDArray[np.int64], places: Floats) -> Floats:
        """A key for each raster and place, (N, 2): the smaller one, row by row, is the raster that has it."""
        centres = np.array([self._members[number].centre for number in numbers.tolist()]).reshape(-1, 2)
        ranks = np.array([self._members[number].rank for number in numbers.tolist()], np.float64)
        return np.stack([((places - centres) ** 2).sum(axis=1), ranks], axis=1)

    def units(self, number: int) -> Iterator[tuple[int, Window, Mask | None, Mask | None]]:
        """The units of a raster: number, core, its searched pixels, and those of them that belong to it.

        Nothing for a raster that shares no ground. A mask of None: all of the core.
        """
        if number not in self._members:
            return
        member = self._members[number]
        for unit, core, mask in member.searched.units():
            own = mask
            for other in member.neighbours:
                taken = self._others_ground(number, other).pixels(core)
                if own is not None:
                    taken &= own
                if not taken.any():
                    continue
                if not self._members[other].searched.is_whole:
                    y, x = np.nonzero(taken)
                    xy = np.stack([x + core.x + 0.5, y + core.y + 0.5], axis=1)
                    taken[y, x] = self._has_searched(other, self.places(number, xy))
                own = ~taken if own is None else own & ~taken
            yield unit, core, mask, own

    def _lead(self, number: int, other: int, places: Floats) -> Floats:
        """Metres by which places lie on a raster's side of the line half-way to another, (N,).

        Negative on the other's side. Places on the line are on the side of the raster with the lower rank.
        """
        one, two = self._members[number], self._members[other]
        step = two.centre - one.centre
        length = float(np.hypot(*step))
        first = np.inf if one.rank < two.rank else -np.inf
        if not length:
            return np.full(len(places), first)
        lead: Floats = ((one.centre + two.centre) / 2 - places) @ (step / length)
        lead[lead == 0] = np.copysign(np.finfo(float).tiny, first)
        return lead

    def _pixels(self, number: int, places: Floats) -> Floats:
        """Places in pixels of the scanned grid."""
        member = self._members[number]
        world, own = places / member.unit_m, member.grid.crs
        assert own is not None
        return member.grid.to_pixel(world if own == member.crs else transformed(world, member.crs, own))

    def _has_searched(self, number: int, places: Floats) -> Mask:
        return self._members[number].searched.at(self._pixels(number, places))

    def _rim(self, number: int, places: Floats) -> Floats:
        """Metres from places to the edge of a raster, (N,): positive inside."""
        grid = self._members[number].grid
        assert grid.gsd is not None
        xy = self._pixels(number, places)
        sides = np.minimum(xy, (grid.width, grid.height) - xy) * grid.gsd
        return np.asarray(sides.min(axis=1))

    def _others_ground(self, number: int, other: int) -> Region:
        """Where another raster is nearer, as far as it reaches, in pixels of a raster's scanned grid."""
        if (number, other) not in self._others:
            one, two = self._members[number], self._members[other]
            outline = Footprint("", two.grid).shape(two.crs)
            step = two.centre - one.centre
            length = float(np.hypot(*step))
            if length:
                outline = shapely.intersection(outline, _half_plane(one, two, outline))
            elif one.rank < two.rank:
                outline = shapely.Polygon()
            own = one.grid.crs
            assert own is not None

            def step_back(xy: Floats) -> Floats:
                return one.grid.to_pixel(
                    xy if own == one.crs or not len(xy) else transformed(xy, one.crs, own)
                )

            if own != one.crs:
                outline = shapely.segmentize(outline, max(float(shapely.length(outline)) / 64, 1e-9))
            self._others[number, other] = Region(shapely.transform(outline, step_back), one.grid)
        return self._others[number, other]


_TURNS = np.linspace(0, 2 * np.pi, _AROUND, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURNS), np.sin(_TURNS)], axis=1)


def _members(
    plans: Sequence[ScanPlan], numbers: Sequence[int], pairs: NDArray[np.int64], journal: Journal
) -> Iterator[_Member]:
    """The rasters of a group that hangs together by shared ground.  pairs : (P, 2), each both ways."""
    grids = [plans[number].grid for number in numbers]
    crs, unit_m = _plane(grids)
    centres = np.concatenate([_centre(grid, crs) for grid in grids]) * unit_m
    names = [(plans[number].source, plans[number].fingerprint) for number in numbers]
    order = sorted(range(len(numbers)), key=lambda each: (*centres[each].tolist(), *names[each]))
    rank = np.argsort(order)
    for place, number in enumerate(numbers):
        neighbours = tuple(np.unique(pairs[pairs[:, 0] == number, 1]).tolist())
        searched = SearchedGround(plans[number], journal)
        yield _Member(grids[place], searched, crs, unit_m, centres[place], int(rank[place]), neighbours)


def _plane(grids: Sequence[Grid]) -> tuple[CRS, float]:
    """The plane of a group, and metres of its unit: the rasters' CRS, or a transverse Mercator around it."""
    first = min(grids, key=lambda grid: grid.transform)  # whatever the order in which they were named
    assert first.crs is not None
    is_one = all(grid.crs == first.crs for grid in grids)
    if is_one and not first.crs.is_geographic:
        a, b, _, d, e, _ = first.transform
        assert first.gsd_mean is not None
        return first.crs, first.gsd_mean / float(abs(a * e - b * d) ** 0.5)
    lonlat = np.concatenate([lonlat_of(grid.to_world(_middle(grid)), grid.crs) for grid in grids])
    turned = np.exp(1j * np.radians(np.sort(lonlat[:, 0]))).mean()  # without a jump at the antimeridian
    lon, lat = float(np.degrees(np.angle(turned))), float(np.sort(lonlat[:, 1]).mean())
    return CRS.from_proj4(f"+proj=tmerc +lon_0={lon:.6f} +lat_0={lat:.6f} +datum=WGS84 +units=m"), 1.0


def _middle(grid: Grid) -> Floats:
    return np.array([[grid.width / 2, grid.height / 2]])


def _centre(grid: Grid, crs: CRS) -> Floats:
    world = grid.to_world(_middle(grid))
    assert grid.crs is not None
    found = world if grid.crs == crs else transformed(world, grid.crs, crs)
    if not np.isfinite(found).all():
        raise GridError(f"{grid.describe()} has no place among the other rasters.")
    return found


def _half_plane(one: _Member, two: _Member, outline: shapely.Geometry) -> shapely.Polygon:
    """What is nearer to the second raster's centre, as far as an outline reaches, in units of the plane."""
    low, high = one.centre / one.unit_m, two.centre / two.unit_m
    corners = np.array([*low, *high, *outline.bounds]).reshape(-1, 2)
    reach = _FAR * float(np.hypot(*np.ptp(corners, axis=0)))
    ahead = (high - low) / np.hypot(*(high - low))
    aside = np.array([-ahead[1], ahead[0]])
    middle = (low + high) / 2
    near, far = middle - reach * aside, middle + reach * aside
    return shapely.Polygon([near, far, far + reach * ahead, near + reach * ahead])
