"""An ensemble of models, or test-time augmentation of one: boxes of the same object become one.

Each member detects alone. Overlapping boxes of a class are replaced by their mean, weighted by their scores;
an object that only some of the members see gets a lower score. Source: weighted box fusion, Solovyev, Wang
and Gabruseva 2021 (arXiv:1910.13302).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecodetect.bundle.input_spec import NEARLY
from ecodetect.chip import Chip
from ecodetect.detections import Detections, GeometryType
from ecodetect.detectors.protocol import Detector, Needs
from ecodetect.errors import UserError
from ecodetect.grid import Floats
from ecodetect.settling import overlap

FUSED_IOU = 0.55  # of boxes of the same object, as in the paper
# Axes along which a chip is flipped: none, x, y, both.
_FLIPS = ((), (2,), (1,), (1, 2))


def of(members: Sequence[Detector], *, flips: bool) -> Detector:
    """One detector made of several.

    flips : test-time augmentation: each runs on every chip as it is and flipped in x, in y and in both.
    Raises UserError where they can't be combined: not boxes, different classes, or different GSDs.
    """
    if len(members) == 1 and not flips:
        return members[0]
    first = members[0]
    for each in members:
        if each.kind != "box":
            what = "Flips are" if len(members) == 1 else "Several models in one scan are"
            raise UserError(f"{what} for detectors of boxes; {each.name} finds {each.kind}s.")
        if set(each.classes) != set(first.classes):
            raise UserError(
                f"{first.name} knows {', '.join(first.classes)}, but {each.name} {', '.join(each.classes)};"
                " scan with each separately."
            )
        one, other = (needs.gsd_m or needs.own_px for needs in (first.needs, each.needs))
        is_metric = {needs.gsd_m is None for needs in (first.needs, each.needs)}
        if len(is_metric) > 1 or abs(math.log(one / other)) > NEARLY:  # one reads at the GSD of the other
            raise UserError(
                f"{first.name} reads rasters at {_step(first.needs)}, {each.name} at {_step(each.needs)};"
                " scan with each separately."
            )
    return Ensemble(tuple(members), flips)


def _step(needs: Needs) -> str:
    return f"{needs.gsd_m:g} m per pixel" if needs.gsd_m is not None else f"{needs.own_px:g} of their pixels"


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Several detectors as one."""

    members: tuple[Detector, ...]
    flips: bool

    kind: GeometryType = dataclasses.field(default="box", init=False)

    @property
    def name(self) -> str:
        return " + ".join(member.name for member in self.members)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.members[0].classes

    @property
    def needs(self) -> Needs:
        each = [member.needs for member in self.members]
        scores = None
        if all(needs.scores is not None for needs in each):
            own = [self._in_order(member, needs.scores or ()) for member, needs in self._pairs()]
            scores = tuple(float(np.mean(of_class)) for of_class in zip(*own, strict=True))
        stride = math.lcm(*(needs.stride_px for needs in each))
        return replace(
            each[0],
            bands=tuple(dict.fromkeys(band for needs in each for band in needs.bands)),
            largest_px=max(needs.largest_px for needs in each),
            stride_px=stride,
            reach_px=max(needs.reach_px for needs in each),
            margin_px=max(needs.margin_px for needs in each),
            is_local=all(needs.is_local for needs in each) and not self.flips,
            survey=any(needs.survey for needs in each),
            bytes_per_pixel=sum(needs.bytes_per_pixel for needs in each),  # a network keeps what it took
            cost=sum(needs.cost for needs in each) * (len(_FLIPS) if self.flips else 1),
            scores=scores,
            map_px=None,  # only boxes are fused
        )

    def _pairs(self) -> Iterator[tuple[Detector, Needs]]:
        return ((member, member.needs) for member in self.members)

    def _in_order(self, member: Detector, scores: Sequence[float]) -> list[float]:
        """A member's classes in the order of the first's."""
        return [scores[member.classes.index(name)] for name in self.classes]

    @property
    def settings(self) -> Mapping[str, Any]:
        members = [{"model": member.name, **member.settings} for member in self.members]
        return {"members": members, "flips": self.flips}

    def surveyed(self, samples: Iterable[Chip]) -> Ensemble:
        held = [
            member.surveyed(_Picked(samples, member.needs.bands)) if member.needs.survey else member
            for member in self.members
        ]
        return replace(self, members=tuple(held))

    def detect(self, chips: Sequence[Chip]) -> list[Detections]:
        """Boxes of each chip, fused."""
        found: list[list[Detections]] = [[] for _ in chips]
        for member, needs in self._pairs():
            own = [chip.picked(needs.bands) for chip in chips]
            for axes in _FLIPS if self.flips else _FLIPS[:1]:
                for parts, part in zip(found, member.detect([_flipped(c, axes) for c in own]), strict=True):
                    parts.append(self._back(part, axes))
        return [self._fused(chip, parts) for chip, parts in zip(chips, found, strict=True)]

    def _back(self, found: Detections, axes: Sequence[int]) -> Detections:
        """Boxes of a flipped chip, flipped back to the chip, with class numbers of the first member."""
        boxes = np.array(found.geometry, np.float64)
        for axis in axes:
            low, high = (0, 2) if axis == 2 else (1, 3)
            side = found.grid.width if axis == 2 else found.grid.height
            boxes[:, [low, high]] = side - boxes[:, [high, low]]
        number = np.array([self.classes.index(name) for name in found.classes], np.int64)
        return replace(found, geometry=boxes, label=number[found.label], classes=self.classes)

    def _fused(self, chip: Chip, parts: Sequence[Detections]) -> Detections:
        boxes = np.concatenate([part.geometry for part in parts])
        score = np.concatenate([part.score for part in parts])
        label = np.concatenate([part.label for part in parts])
        kept = [fused(boxes[label == k], score[label == k], len(parts)) for k in range(len(self.classes))]
        numbers = [np.full(len(each), k, np.int64) for k, (_, each) in enumerate(kept)]
        return Detections(
            chip.grid,
            "box",
            np.concatenate([box for box, _ in kept]),
            np.concatenate([each for _, each in kept]),
            np.concatenate(numbers),
            self.classes,
        )


def fused(boxes: Floats, score: Floats, looks: int) -> tuple[Floats, Floats]:
    """Weighted box fusion of one class's boxes.

    boxes : (N, 4).  score : (N,).  looks : the number of runs that they come from.
    Returns boxes (M, 4) and scores (M,): the mean of the fused boxes, times the share of the runs that saw
    it.
    """
    means, weights, counts = np.empty((len(boxes), 4)), np.zeros(len(boxes)), np.zeros(len(boxes), np.int64)
    n = 0
    for row in np.lexsort((*boxes.T, -score)):
        box, weight = boxes[row], score[row]
        iou = overlap(means[:n], np.broadcast_to(box, (n, 4)))
        best = int(iou.argmax()) if n else -1
        if n and iou[best] > FUSED_IOU:
            total = weights[best] + weight
            means[best] += (box - means[best]) * (weight / total)
            weights[best], counts[best] = total, counts[best] + 1
        else:
            means[n], weights[n], counts[n] = box, weight, 1
            n += 1
    seen = np.minimum(counts[:n], looks) / looks
    return means[:n], weights[:n] / np.maximum(counts[:n], 1) * seen


class _Picked:
    """Samples with the bands of one member; like the samples, it can be iterated repeatedly."""

    def __init__(self, samples: Iterable[Chip], bands: tuple[str, ...]) -> None:
        self._samples, self._bands = samples, bands

    def __iter__(self) -> Iterator[Chip]:
        return (chip.picked(self._bands) for chip in self._samples)


def _flipped(chip: Chip, axes: Sequence[int]) -> Chip:
    """A flipped chip. Its grid no longer holds; only pixel coordinates are used."""
    if not axes:
        return chip
    pixels: NDArray[Any] = np.flip(chip.pixels, tuple(axes))
    valid = None if chip.valid is None else np.flip(chip.valid, tuple(axis - 1 for axis in axes))
    return replace(chip, pixels=pixels, valid=valid, asked=None)
