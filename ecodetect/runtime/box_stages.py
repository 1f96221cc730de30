"""Box networks whose graphs answer maps: what lies between the graphs and after them, in numpy.

What torchvision does with `networks.detection`'s settings: which places are looked at, boxes from anchors,
non-maximum suppression, features under proposals. How many boxes an image may have follows from its size at
each run. Only what counts is reckoned: of millions of scores, those above the lowest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecodetect.bundle.file import Bundle
from ecodetect.errors import BundleError
from ecodetect.networks.box_limits import (
    LEAST_OBJECTNESS,
    LEAST_SCORE,
    LOOKED_AT,
    POOLED,
    POOLED_MASK,
    PROPOSED,
    SAME_IOU,
    SAME_PROPOSAL,
    most_boxes,
)
from ecodetect.runtime.anchors import (
    ENLARGED,
    PLAIN,
    Level,
    Places,
    Values,
    around,
    clipped,
    shifted,
    with_anchors,
)
from ecodetect.runtime.onnx_network import FEW, Running, Session, open_part
from ecodetect.runtime.pooling import Pool, open_pool
from ecodetect.settling import settle

_SMALLEST_PROPOSAL, _SMALLEST_BOX = 1e-3, 1e-2  # sides in pixels; as in torchvision
_CLOSE = 1e-3  # logits so far below a limit are looked at exactly


class Found(NamedTuple):
    """Boxes (n, 4) in pixels, their scores (n,) and classes (n,)."""

    box: Values
    score: Values
    label: Places

    def some(self, which: NDArray[Any]) -> Found:
        return Found(*(each[which] for each in self))


class Maps(NamedTuple):
    """What a one-stage head says of a level: scores (A · K, h, w), boxes (4A, h, w), FCOS also (A, h, w)."""

    scores: Values
    boxes: Values
    centreness: Values | None = None


@dataclass(frozen=True, eq=False, slots=True)
class OneStage(Running):
    """A network that answers boxes at once; see `opening.Network`.

    session : of the graph "image".
    seen : what the maps of the levels of an image say, at most so many boxes a level or class.
    first_label : number of the first class in the maps.
    """

    session: Session
    levels: Sequence[Level]
    seen: Callable[[Sequence[Maps], Sequence[Level], int], Found]
    stride: int
    smallest_px: float

    @property
    def reach_px(self) -> int | None:
        return None

    @property
    def is_local(self) -> bool:
        return False

    def run(self, batch: Values) -> list[Values]:
        """What `networks.detection.Detection` answers for a batch (N, B, H, W)."""
        height, width = batch.shape[2:]
        most = most_boxes(height, width, self.smallest_px)
        outputs = self.session.run(batch)
        kinds = len(outputs) // len(self.levels)
        answers = []
        for each in zip(*outputs, strict=True):
            maps = [Maps(*each[start : start + kinds]) for start in range(0, len(each), kinds)]
            found = self.seen(maps, self.levels, LOOKED_AT * most)
            found = found._replace(box=clipped(found.box, height, width))
            answers.append(_rows(_best(found, SAME_IOU, most), most))
        return [np.stack(answers)]


@dataclass(frozen=True, eq=False, slots=True)
class TwoStages(Running):
    """A network that proposes boxes and looks at each again; see `opening.Network`.

    session : of the graph "image", what is proposed.
    pool, second : features under boxes, and what is said of them.
    masks : the same two for the outlines, where there are some.
    """

    session: Session
    levels: Sequence[Level]
    pool: Pool
    second: Session
    masks: tuple[Pool, Session] | None
    stride: int
    smallest_px: float

    @property
    def reach_px(self) -> int | None:
        return None

    @property
    def is_local(self) -> bool:
        return False

    def run(self, batch: Values) -> list[Values]:
        """What `networks.detection.Detection` answers for a batch (N, B, H, W)."""
        height, width = batch.shape[2:]
        most = most_boxes(height, width, self.smallest_px)
        count = len(self.levels)
        answers, drawn = [], []
        for each in zip(*self.session.run(batch), strict=True):
            features, said = each[:count], zip(each[count : 2 * count], each[2 * count :], strict=True)
            proposals = self._proposals(list(said), height, width, PROPOSED * most)
            found = _best(self._looked_at(features, proposals, height, width), SAME_IOU, most)
            answers.append(_rows(found, most))
            if self.masks is not None:
                drawn.append(_outlines(*self.masks, features, found, most))
        return [np.stack(answers), np.stack(drawn)] if drawn else [np.stack(answers)]

    def _proposals(self, said: Sequence[tuple[Values, Values]], height: int, width: int, kept: int) -> Values:
        """Boxes (n, 4) that may hold an object, the surest first.

        said : objectness (A, h, w) and deltas (4A, h, w) of each level.
        """
        found = []
        for number, (objectness, deltas) in enumerate(said):
            logits = objectness.reshape(len(objectness), -1)
            which, place = np.nonzero(logits > _logit(LEAST_OBJECTNESS))
            score = _sigmoid(logits[which, place])
            best = _highest(score, 2 * kept)
            which, place, score = which[best], place[best], score[best]
            boxes = _of_anchors(self.levels[number], deltas, which, place, PLAIN)
            found.append(Found(clipped(boxes, height, width), score, np.full(len(score), number)))
        every = _joined(found)
        every = every.some(_is_wide(every.box, _SMALLEST_PROPOSAL) & (every.score >= LEAST_OBJECTNESS))
        return _best(every, SAME_PROPOSAL, kept).box

    def _looked_at(self, features: Sequence[Values], proposals: Values, height: int, width: int) -> Found:
        """What the second stage says: a box for each class that a proposal may be of."""
        found = [Found(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))]
        for some, pooled in self.pool.portions(features, proposals):
            logits, deltas = self.second.run(pooled)
            which, label = np.nonzero((likely := _softmax(logits))[:, 1:] > LEAST_SCORE)
            said = deltas.reshape(len(deltas), -1, 4)[which, label + 1]
            boxes = clipped(shifted(said, proposals[some][which], ENLARGED), height, width)
            found.append(Found(boxes, likely[which, label + 1], label))
        every = _joined(found)
        return every.some(_is_wide(every.box, _SMALLEST_BOX))


def open_network(
    bundle: Bundle, settings: Mapping[str, Any], *, device: str = "auto", threads: int | None = None
) -> OneStage | TwoStages:
    """The network of a bundle with graphs, ready to run.

    settings : as of `networks.detection`: strides, smallest_px, width, anchors and ratios.
    Raises UserError for a device that isn't available, BundleError for graphs that aren't the card's.
    """
    card = bundle.card
    classes, stride = len(card.classes), card.stride or 1
    strides, smallest_px = settings["strides"], float(settings["smallest_px"])
    is_two = card.detector in ("faster_rcnn", "mask_rcnn")
    if card.detector == "fcos":
        levels = [with_anchors(each, (each,), (1.0,)) for each in strides]
    else:
        levels = [
            with_anchors(each, sizes, settings["ratios"])
            for each, sizes in zip(strides, settings["anchors"], strict=True)
        ]
    anchors, width = len(levels[0].anchors), int(settings["width"])
    opened = partial(_opened, bundle, device=device, threads=threads)
    if not is_two:
        seen, background = _SEEN[card.detector]
        channels = {"scores": anchors * (classes + background), "boxes": 4 * anchors}
        if card.detector == "fcos":
            channels["centreness"] = anchors
        wanted = {
            f"{name}_{number}": (many, each)
            for number, each in enumerate(strides)
            for name, many in channels.items()
        }
        return OneStage(opened("image", wanted), levels, seen, stride, smallest_px)
    wanted = {
        f"{name}_{number}": (many, each)
        for name, many in (("level", width), ("objectness", anchors), ("deltas", 4 * anchors))
        for number, each in enumerate(strides)
    }
    said = classes + 1
    pooled = partial(open_pool, card.name, strides, device=device, threads=threads)
    masks = None
    if card.detector == "mask_rcnn":
        sides = (said, 2 * POOLED_MASK, 2 * POOLED_MASK)
        masks = (
            pooled(POOLED_MASK, max(width * POOLED_MASK**2, math.prod(sides))),
            opened("masks", {"masks": sides}, (width, POOLED_MASK, POOLED_MASK)),
        )
    return TwoStages(
        opened("image", wanted),
        levels,
        pooled(POOLED, max(width * POOLED**2, 5 * said)),
        opened("boxes", {"logits": (said,), "deltas": (4 * said,)}, (width, POOLED, POOLED)),
        masks,
        stride,
        smallest_px,
    )


def _opened(
    bundle: Bundle,
    part: str,
    outputs: Mapping[str, tuple[int, ...]],
    pooled: tuple[int, int, int] | None = None,
    *,
    device: str,
    threads: int | None,
) -> Session:
    """A session of a graph whose outputs are of the shapes that the card says.

    outputs : of an image, channels and stride of each; of pooled features (C, S, S), the shape of each.
    """
    name, side = bundle.card.name, FEW * (bundle.card.stride or 1)
    example = (len(bundle.card.bands), side, side) if pooled is None else pooled
    wanted = {
        each: (1, *shape) if pooled is not None else (1, shape[0], side // shape[1], side // shape[1])
        for each, shape in outputs.items()
    }
    values = sum(map(math.prod, wanted.values())) // math.prod(example[1:])
    if part not in bundle.graphs:
        raise BundleError(f"The model '{name}' lacks the graph '{part}' of its network.")
    session = open_part(bundle, part, list(outputs), device=device, threads=threads, values=values)
    if session.shapes((1, *example)) != wanted:
        raise BundleError(f"The graph '{part}' of '{name}' isn't the one of its card (it has other maps).")
    session.run(np.zeros((1, *example), np.float32))
    return session


# -- what maps say -----------------------------------------------------------------------------------------


def _of_anchors(
    level: Level, deltas: Values, which: Places, place: Places, weights: Sequence[float]
) -> Values:
    """Boxes (n, 4) of some anchors; deltas (4A, h, w)."""
    said = deltas.reshape(len(deltas) // 4, 4, -1)[which, :, place]
    return shifted(said, level.at(which, place, deltas.shape[2]), weights)


def _retina(maps: Sequence[Maps], levels: Sequence[Level], most: int) -> Found:
    found = []
    for each, level in zip(maps, levels, strict=True):
        logits = each.scores.reshape(len(level.anchors), -1, each.scores[0].size)
        which, label, place = np.nonzero(logits > _logit(LEAST_SCORE))
        score = _sigmoid(logits[which, label, place])
        best = _highest(np.where(score > LEAST_SCORE, score, 0), most)
        which, label, place = which[best], label[best], place[best]
        found.append(Found(_of_anchors(level, each.boxes, which, place, PLAIN), score[best], label))
    return _joined(found)


def _fcos(maps: Sequence[Maps], levels: Sequence[Level], most: int) -> Found:
    found = []
    for each, level in zip(maps, levels, strict=True):
        assert each.centreness is not None
        logits, columns = each.scores.reshape(len(each.scores), -1), each.scores.shape[2]
        label, place = np.nonzero(logits > _logit(LEAST_SCORE**2))
        score = np.sqrt(_sigmoid(logits[label, place]) * _sigmoid(each.centreness.ravel()[place]))
        best = _highest(np.where(score > LEAST_SCORE, score, 0), most)
        label, place = label[best], place[best]
        said = each.boxes.reshape(4, -1)[:, place].T
        boxes = around(said, level.at(np.zeros(len(place), np.int64), place, columns))
        found.append(Found(boxes, score[best], label))
    return _joined(found)


def _ssd(maps: Sequence[Maps], levels: Sequence[Level], most: int) -> Found:
    found = []
    for each, level in zip(maps, levels, strict=True):
        logits = each.scores.reshape(len(level.anchors), -1, each.scores[0].size)
        # No class is likelier than it is beside the background alone.
        hopeful = (logits[:, 1:] > logits[:, :1] + _logit(LEAST_SCORE)).any(axis=1)
        which, place = np.nonzero(hopeful)
        likely = _softmax(logits[which, :, place])[:, 1:]
        row, label = np.nonzero(likely > LEAST_SCORE)
        boxes = _of_anchors(level, each.boxes, which[row], place[row], ENLARGED)
        found.append(Found(boxes, likely[row, label], label))
    every = _joined(found)
    crowded = np.flatnonzero(np.bincount(every.label) > most)
    if not len(crowded):
        return every
    stays = ~np.isin(every.label, crowded)
    for one in crowded:
        mine = np.flatnonzero(every.label == one)
        stays[mine[_highest(every.score[mine], most)]] = True
    return every.some(stays)


# How the maps of a detector are read, and whether they speak of the background too.
_SEEN: Mapping[str, tuple[Callable[[Sequence[Maps], Sequence[Level], int], Found], bool]] = {
    "retinanet": (_retina, False),
    "fcos": (_fcos, False),
    "ssd": (_ssd, True),
}


def _outlines(pool: Pool, session: Session, features: Sequence[Values], found: Found, most: int) -> Values:
    """How surely each part of a box belongs to its object, (most, M, M): 0 where there is no box."""
    side = 2 * POOLED_MASK
    drawn = np.zeros((most, side, side), np.float32)
    for some, pooled in pool.portions(features, found.box):
        (logits,) = session.run(pooled)
        drawn[some] = _sigmoid(logits[np.arange(len(some)), found.label[some] + 1])
    return drawn


def _rows(found: Found, most: int) -> Values:
    """Boxes as rows (most, 6), zeros where there are fewer."""
    rows = np.zeros((most, 6), np.float32)
    rows[: len(found.score)] = np.column_stack(found)
    return rows


def _joined(found: Sequence[Found]) -> Found:
    return Found(*map(np.concatenate, zip(*found, strict=True)))


def _best(found: Found, iou: float, most: int) -> Found:
    """The surest that remain after non-maximum suppression within a class, the surest first."""
    # Classes lie side by side, far enough apart not to meet.
    apart = found.box + (found.label * (float(found.box.max(initial=0.0)) + 1.0))[:, None]
    kept = np.flatnonzero(settle(apart, found.score.astype(np.float64), criterion="iou", limit=iou))
    return found.some(kept[np.argsort(-found.score[kept], kind="stable")[:most]])


def _highest(score: Values, most: int) -> Places:
    """Numbers of the highest scores, above 0 and at most so many, in their order."""
    there = np.flatnonzero(score > 0)
    if len(there) <= most:
        return there
    return np.sort(there[np.argpartition(-score[there], most - 1)[:most]])


def _is_wide(boxes: Values, least: float) -> NDArray[np.bool_]:
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.asarray(np.minimum(sides[:, 0], sides[:, 1]) >= np.float32(least), np.bool_)


def _logit(score: float) -> np.float32:
    """A little below the logit of a score."""
    return np.float32(math.log(score / (1 - score)) - _CLOSE)


def _sigmoid(logits: Values) -> Values:
    with np.errstate(over="ignore"):  # to infinity, and then to 0
        found: Values = np.float32(1) / (np.float32(1) + np.exp(-logits))
    return found


def _softmax(logits: Values) -> Values:
    """Along the last axis, (n, K)."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    found: Values = raised / raised.sum(axis=1, keepdims=True)
    return found
