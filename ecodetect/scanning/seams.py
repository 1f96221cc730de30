"""Individuals on ground that several rasters share: which detection stays, so that each counts once.

Away from seams that is a matter of ground: a raster's detections on its own stay, those on others' go. Near
a seam the rasters may see one individual a little apart (they never fit exactly), so that it could lie on
the wrong side for both of them, or on the right one. So detections are taken a margin beyond the seam, and
those of different rasters that lie within the margin of each other are one individual, one to one, nearest
first. It belongs to the raster that has the ground at the mean of its places, and counts if that one sees it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ecodetect.detections import Detections
from ecodetect.grid import Floats
from ecodetect.scanning.journal import Journal
from ecodetect.scanning.question import ScanPlan
from ecodetect.scanning.searched_ground import Mask, per_row
from ecodetect.scanning.searching import survivors_as_scanned
from ecodetect.scanning.shared_ground import NEAR, OWN, SharedGround

_CANDIDATES = 16  # of each other raster, that may be the same individual
_LIKE = (
    1 / 8
)  # of the alignment: how much a detector's places of an individual differ, as a standard deviation
_SAMPLE = 1000  # steps that are compared


@dataclass(frozen=True, eq=False, slots=True)
class Counted:
    """What of a raster counts for it, in a layer with others that show the same ground.

    stays : which of its surviving detections, in their order; None: all.
    rows : number of a unit -> its pixels that belong to the raster, per row of its core; None: all searched.
    shares : number of a unit -> the same as a share of its searched pixels.
    """

    stays: Mask | None = None
    rows: Mapping[int, NDArray[np.int64]] | None = None
    shares: Mapping[int, float] = field(default_factory=dict)

    def of(self, batches: Iterable[Detections]) -> Iterator[Detections]:
        """Those that stay of a raster's surviving detections."""
        first = 0
        for batch in batches:
            rows = slice(first, first + len(batch))
            first += len(batch)
            kept = batch if self.stays is None else batch[self.stays[rows]]
            if len(kept):
                yield kept

    @property
    def left_out(self) -> int:
        """How many don't stay."""
        return 0 if self.stays is None else int(np.count_nonzero(~self.stays))


def counted(plans: Sequence[ScanPlan], journal: Journal, alignment_m: float) -> list[Counted]:
    """What of each raster of a layer counts for it.

    alignment_m : how far apart rasters may show the same place.
    Held are a byte for each detection, and 40 for each near a seam.
    """
    ground = SharedGround(plans, journal)
    stays: dict[int, Mask] = {}
    for numbers in ground.groups:
        stays |= _staying([(number, plans[number]) for number in numbers], journal, ground, alignment_m)
    found = []
    for number in range(len(plans)):
        rows, shares = {}, {}
        for unit, core, mask, own in ground.units(number):
            rows[unit] = per_row(own, core)
            shares[unit] = rows[unit].sum() / max(1, per_row(mask, core).sum())
        found.append(Counted(stays[number], rows, shares) if number in stays else Counted())
    return found


def _staying(
    plans: Sequence[tuple[int, ScanPlan]], journal: Journal, ground: SharedGround, alignment_m: float
) -> dict[int, Mask]:
    """Which detections stay, for each raster of a group that hangs together.  plans : with their numbers."""
    kept: dict[int, Mask] = {}
    near, owner = [], []
    for number, plan in plans:
        found = [np.empty(0, np.int8)]
        for batch in survivors_as_scanned(plan, journal):
            places = ground.places(number, batch.centres())
            found.append(ground.standing(number, places, alignment_m))
            near.append(places[found[-1] == NEAR])
            owner.append(np.full(len(near[-1]), number))
        kept[number] = np.concatenate(found)
    none = np.empty((0, 2)), np.empty(0, np.int64)
    stays = _stay(ground, np.concatenate([none[0], *near]), np.concatenate([none[1], *owner]), alignment_m)
    for number, standing in kept.items():
        is_near = standing == NEAR
        kept[number] = standing == OWN
        kept[number][is_near], stays = np.split(stays, [np.count_nonzero(is_near)])
    return kept


def _stay(ground: SharedGround, places: Floats, owner: NDArray[np.int64], alignment_m: float) -> Mask:
    """Which of the detections near seams stay.  places : (N, 2) metres.  owner : raster of each, (N,)."""
    individual = individuals(places, owner, alignment_m, ground.pairs)
    count = int(individual.max(initial=-1)) + 1
    members = np.bincount(individual, minlength=count)
    mean = np.stack([np.bincount(individual, axis, minlength=count) / members for axis in places.T], axis=1)
    there = mean[individual]
    there[members[individual] == 1] = places[members[individual] == 1]
    belongs = np.zeros(len(places), bool)
    for number in np.unique(owner).tolist():
        rows = owner == number
        belongs[rows] = ground.belongs(number, there[rows])
    key = ground.nearest(owner, there)
    rows = np.flatnonzero(belongs)
    rows = rows[np.lexsort((*key[rows].T[::-1], individual[rows]))]
    stays = np.zeros(len(places), bool)
    stays[rows[np.r_[True, np.diff(individual[rows]) > 0]] if len(rows) else rows] = True
    return stays


def individuals(
    places: Floats, owner: NDArray[np.int64], alignment_m: float, pairs: Iterable[tuple[int, int]]
) -> NDArray[np.int64]:
    """The individual that each detection shows, (N,), numbered from 0.

    places : (N, 2) metres.  owner : its raster, (N,).  pairs : of rasters that share ground.
    Detections of one raster are different individuals, and those of an individual lie within `alignment_m` of
    each other. Nearest first; of equally near pairs the first by place.
    """
    one, two, distance = _pairs(places, owner, alignment_m, pairs)
    low, high = np.minimum(places[one], places[two]), np.maximum(places[one], places[two])
    first = np.lexsort((*high.T, *low.T, np.round(distance, 6)))
    group = list(range(len(places)))
    members: dict[int, list[int]] = {}
    owners, xy = owner.tolist(), places.tolist()
    for a, b in zip(one[first].tolist(), two[first].tolist(), strict=True):
        into, gone = group[a], group[b]
        if into == gone:
            continue
        mine, others = members.get(into, [into]), members.get(gone, [gone])
        if _fit(mine, others, owners, xy, alignment_m):
            members[into] = [*mine, *others]
            members.pop(gone, None)
            for each in others:
                group[each] = into
    return np.unique(np.array(group, np.int64), return_inverse=True)[1].reshape(-1)


def _fit(
    mine: list[int], others: list[int], owners: list[int], xy: list[list[float]], alignment_m: float
) -> bool:
    """Whether two groups may be one individual: no raster has it twice, and all its places are near."""
    return all(
        owners[a] != owners[b] and (xy[a][0] - xy[b][0]) ** 2 + (xy[a][1] - xy[b][1]) ** 2 <= alignment_m**2
        for a in mine
        for b in others
    )


def _pairs(
    places: Floats, owner: NDArray[np.int64], alignment_m: float, pairs: Iterable[tuple[int, int]]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Pairs of detections of different rasters that lie near each other, and their distances."""
    found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    rows = {number: np.flatnonzero(owner == number) for number in np.unique(owner).tolist()}
    trees = {number: cKDTree(places[each]) for number, each in rows.items()}
    for number, other in pairs:
        if number not in rows or other not in rows:
            continue
        mine, tree = rows[number], trees[other]
        nth = [*range(1, min(_CANDIDATES, tree.n) + 1)]
        distance, which = tree.query(places[mine], k=nth, distance_upper_bound=alignment_m)
        a, column = np.nonzero(np.isfinite(distance))
        one, two = mine[a], rows[other][which[a, column]]
        steps = places[two] - places[one]
        found.append((one, two, np.hypot(*(steps - _shift(steps, alignment_m)).T)))
    one, two, length = (np.concatenate(each) for each in zip(*found, strict=True))
    return one, two, length


def _shift(steps: Floats, alignment_m: float) -> Floats:
    """By how much one raster is off another, (2,): where the steps between detections of both lie densest.

    steps : (M, 2), from each to those of the other raster near it; right ones are alike, others differ.
    """
    if not len(steps):
        return np.zeros(2)
    some = steps[np.lexsort(steps.T)][:: max(1, len(steps) // _SAMPLE)]
    apart = ((some[:, None] - some[None]) ** 2).sum(axis=2)
    near = np.exp(-apart / (2 * (alignment_m * _LIKE) ** 2))
    weight = near[np.argmax(near.sum(axis=1))]
    return np.asarray(weight @ some / weight.sum())
