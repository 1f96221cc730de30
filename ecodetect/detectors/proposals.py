"""Region proposals and a classifier: a cheap detector proposes regions, a network classifies them.

The idea of R-CNN (Girshick et al. 2014, arXiv:1311.2524), and the faster of the two methods in the study that
ecodetect began with (Guirado et al. 2017, doi:10.3390/rs9121220). An individual without a proposal can't be
found, so the card states the share of validation individuals with a proposal.

- Proposals come from `threshold` or `selective_search`, run on the network's input converted to 8 bits: so
they
  don't depend on the raster's type or exposure.
- The network is that of `sliding_window`, trained in the same way on all ground; it classifies the window
  around the centre of each proposal. An individual has the proposal's outline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ecodetect.bundle.card import Card
from ecodetect.bundle.file import Bundle
from ecodetect.bundle.scaling import padded_to_stride
from ecodetect.chip import Chip
from ecodetect.detections import Detections
from ecodetect.detectors import selective_search, sliding_window, threshold, window_networks
from ecodetect.detectors.boxes import check_sizes
from ecodetect.detectors.learned import NO_WISHES, Answer, Image, Wishes
from ecodetect.detectors.learned_detector import LearnedDetector, card_needs
from ecodetect.detectors.protocol import Detector, Scene, Settling, read_options, scaling_of
from ecodetect.detectors.window_networks import CardOptions, open_classifier
from ecodetect.errors import BundleError, UserError
from ecodetect.grid import Floats, Grid, Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ecodetect.annotations.sample import Sample
    from ecodetect.runtime.opening import Network, Runtime

# The network's input in 8 bits: 0 is 128, and four of its units fill the scale.
_MIDDLE, _PER_UNIT = 128.0, 32.0
_SMALLEST_SHARE = 0.5  # of the width of small individuals; anything smaller isn't proposed
_BRIDGE_SHARE = 0.4  # of that width: radius of the disc that must fit into a proposal everywhere
_AT_ONCE = 64  # batch size of windows
_SAME_IOU = 0.3  # of two proposals with more overlap, one is dropped as the same individual
_COST = 6.0

Proposer = Literal["threshold", "selective_search"]


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may set.

    threshold : which of the scores chosen on validation cuts, unless a score is given: "f1" (fewest errors)
        or "count" (as many too many as too few).
    """

    threshold: Literal["f1", "count"] = "f1"


@dataclass(frozen=True, slots=True)
class TrainingOptions(sliding_window.TrainingOptions):
    """What a user may set when training.

    window : side of the windows; none: twice as wide as a typical individual.
    evaluation : how the network is trained: "dense", "windows", or "auto"; see sliding_window.
    smoothing : label smoothing: how far the network's targets are from 0 and 1.
    class_weights : "balanced": rare classes count more; "none": each individual counts the same.
    proposer : the detector that proposes: "threshold" or "selective_search".
    level : of the proposer "threshold": a number, "otsu" or "local".
    objects : whether its objects are "dark" or "bright".
    """

    proposer: Proposer = "threshold"
    level: Literal["otsu", "local"] | float = "otsu"
    objects: Literal["dark", "bright"] = "dark"

    def __post_init__(self) -> None:
        sliding_window.TrainingOptions.__post_init__(self)
        if self.head != "network":
            raise UserError(f"proposals are judged by their network; leave out head={self.head}.")


def card_options(diameter_px: Floats, spacing_px: Floats, wishes: Wishes = NO_WISHES) -> dict[str, Any]:
    """Options of the card of a network to be trained; see `sliding_window.card_options`.

    Raises UserError where most objects have no size, because sizes limit the proposals.
    """
    known = check_sizes(diameter_px, "proposals")
    wished: TrainingOptions = wishes.training or TrainingOptions()
    small, large = np.percentile(known, (5, 95))
    area = (_SMALLEST_SHARE * small) ** 2 * math.pi / 4
    proposer: dict[str, Any] = {
        "name": wished.proposer,
        "smallest_px": round(_SMALLEST_SHARE * float(small), 2),
        "largest_px": round(2 * float(large), 2),
        "area_px": round(float(area), 2),
    }
    if wished.proposer == "threshold":
        proposer |= {"level": wished.level, "objects": wished.objects}
    return sliding_window.card_options(diameter_px, spacing_px, wishes) | {"proposer": proposer}


def options_of(card: Card) -> CardOptions:
    """The options of a card; raises BundleError where they can't be of this detector."""
    found = window_networks.options_of(card)
    if found.proposer is None:
        raise BundleError(f"The card of '{card.name}' is damaged (it has no option proposer).")
    return found


# -- scanning ----


def build(
    options: Options, scene: Scene, bundle: Bundle, *, device: str = "auto", threads: int | None = None
) -> LearnedDetector:
    """The detector of a bundle for a scene; raises UserError where they don't fit."""
    card, stated = bundle.card, options_of(bundle.card)
    needs = card_needs(card, scene, options.threshold, margin_px=0.0)
    look = Proposing(card, open_classifier(_alone(bundle), device, threads), _proposer(card))
    asked, window = look.proposer.needs, stated.network.window
    return LearnedDetector(
        card=card,
        hash=bundle.hash,
        kind=look.proposer.kind,
        look=look,
        scaling=scaling_of(card, scene),
        threshold=options.threshold,
        own_needs=replace(
            needs,
            largest_px=min(needs.largest_px, asked.largest_px),
            # The proposer needs the whole object, the network the window around its middle.
            reach_px=max(window, asked.reach_px),
            stride_px=asked.stride_px if look.is_windowed else look.classifier.stride,
            margin_px=asked.margin_px,
            is_local=asked.is_local and look.is_windowed,
            settling=None if asked.settling is None else Settling("iou", _SAME_IOU),
            survey=asked.survey,
            bytes_per_pixel=sliding_window.bytes_per_pixel(card) + asked.bytes_per_pixel,
            cost=_COST,
            typical_px=stated.typical_px,
            least_px=window if look.is_windowed else 1,
        ),
    )


def _alone(bundle: Bundle) -> Bundle:
    """The same weights, for windows that are given one by one."""
    card, shape = bundle.card, options_of(bundle.card).network
    if shape.kind != "valid" and shape.evaluation != "windows":
        return bundle
    alone = {**card.options["network"], "evaluation": "windows", "step": shape.window}
    card = replace(card, options={**card.options, "network": alone}, reach_px=shape.window)
    return replace(bundle, card=card)


def _proposer(card: Card) -> Detector:
    """The proposing detector, for 8-bit images with the card's bands."""
    stated = options_of(card).proposer
    assert stated is not None
    given = {"largest": f"{stated.largest_px}px"}
    if stated.name == "threshold":
        given |= {"level": str(stated.level), "objects": stated.objects}
        # Bushes that touch a shrub, thinner than the smallest, must not join objects into one.
        opening = max(1.0, round(_BRIDGE_SHARE * stated.smallest_px))
        given |= {"min_area": f"{stated.area_px}px", "open": f"{opening:g}px", "split": "yes"}
    else:
        given |= {"smallest": f"{stated.smallest_px}px"}
    kind = {"threshold": threshold.KIND, "selective_search": selective_search.KIND}[stated.name]
    options = read_options(kind.options, given, stated.name)
    return kind.build(options, Scene(card.bands, None, "uint8", (0.0, 255.0)))


@dataclass(frozen=True, slots=True)
class Proposing:
    """Finds objects on images: a proposer that proposes, and a classifier that confirms.

    classifier : a network for single windows, or for whole images where it was trained with padding.
    proposer : the proposing detector, surveyed on a raster when first needed.
    """

    card: Card
    classifier: Network
    proposer: Detector

    @property
    def runtime(self) -> Runtime:
        return self.classifier.runtime

    @property
    def device(self) -> str:
        return self.classifier.device

    @property
    def settings(self) -> dict[str, Any]:
        return {"proposer": {"name": self.proposer.name, **self.proposer.settings}}

    @property
    def is_windowed(self) -> bool:
        """Whether the classifier sees single windows."""
        shape = options_of(self.card).network
        return shape.kind == "valid" or shape.evaluation == "windows"

    def surveyed(self, samples: Iterable[Chip], image_of: Callable[[Chip], Image]) -> Proposing:
        if not self.proposer.needs.survey:
            return self
        seen = _Proposed(samples, image_of, self.card.bands)
        return replace(self, proposer=self.proposer.surveyed(seen))

    def proposed(self, chip: Chip, image: Image) -> Detections:
        """All proposals on a chip."""
        (found,) = self.proposer.detect([in_8_bits(chip, image, self.card.bands)])
        return found

    def detect(self, chips: Sequence[Chip], images: Iterable[Image]) -> list[Detections]:
        """The proposals on each chip whose middle has data, with the classifier's score."""
        return [self._detect(*each) for each in zip(chips, images, strict=True)]

    def _detect(self, chip: Chip, image: Image) -> Detections:
        found = self.proposed(chip, image)
        centres = found.centres()
        kept = np.ones(len(found), np.bool_)
        if len(found) and chip.valid is not None:
            at = np.clip(np.floor(centres).astype(np.int64), 0, np.array(chip.valid.shape)[::-1] - 1)
            kept = chip.valid[at[:, 1], at[:, 0]]
        found, centres = found[kept], centres[kept]
        likely = self._likely(image, centres)
        label = likely.argmax(axis=0).astype(np.int64)
        score = likely.max(axis=0, initial=0.0).astype(np.float64)
        return Detections(chip.grid, found.kind, found.geometry, score, label, self.card.classes)

    def _likely(self, image: Image, centres: Floats) -> NDArray[np.float32]:
        """The probability of each class in the middle of windows around places: (K, n)."""
        if not len(centres):
            return np.empty((len(self.card.classes), 0), np.float32)
        if not self.is_windowed:
            return self._read_off(image, centres)
        window = options_of(self.card).network.window
        around = window  # a middle lies on the image, so its window reaches at most this far beyond it
        fill = self.card.fill
        padded = np.pad(image, [(0, 0), (around, around), (around, around)], constant_values=fill)
        first = np.floor(centres - window / 2 + 0.5).astype(np.int64) + around
        logits = []
        for begin in range(0, len(first), _AT_ONCE):
            batch = np.stack(
                [padded[:, y : y + window, x : x + window] for x, y in first[begin : begin + _AT_ONCE]]
            )
            logits.append(self.classifier.run(batch)[0][:, :, 0, 0])
        return sliding_window.probability(np.concatenate(logits).T, self.card)

    def _read_off(self, image: Image, centres: Floats) -> NDArray[np.float32]:
        """The same, from the map that a network with padding gives for the whole image, as in training."""
        (maps,) = self.classifier.run(padded_to_stride(image, self.classifier.stride, self.card.fill)[None])
        step = options_of(self.card).network.step
        column, row = np.clip(np.floor(centres / step).astype(np.int64), 0, np.array(maps.shape[:1:-1]) - 1).T
        return sliding_window.probability(maps[0][:, row, column], self.card)


def in_8_bits(chip: Chip, image: Image, bands: tuple[str, ...]) -> Chip:
    """A chip whose pixels are the network's input in 8 bits, with the card's bands."""
    pixels = np.clip(np.rint(image * _PER_UNIT + _MIDDLE), 0, 255).astype(np.uint8)
    return Chip(pixels, chip.valid, bands, chip.window, chip.grid, chip.asked)


@dataclass(frozen=True, slots=True)
class _Proposed:
    """Samples of a raster as the proposer sees them, read on each iteration."""

    samples: Iterable[Chip]
    image_of: Callable[[Chip], Image]
    bands: tuple[str, ...]

    def __iter__(self) -> Iterator[Chip]:
        return (in_8_bits(chip, self.image_of(chip), self.bands) for chip in self.samples)


# -- validation ----


def answers(bundle: Bundle, samples: Sequence[Sample]) -> Iterator[Answer]:
    """What a scan of each sample finds, as boxes. The proposer surveys all samples together."""
    ready = _surveyed(bundle, samples)
    for sample in samples:
        (found,) = ready.detect([_chip(sample, ready.card)], [sample.image])
        yield Answer(found.bounds(), found.score, found.label)


def measured(bundle: Bundle, samples: Sequence[Sample]) -> dict[str, Any]:
    """The recall of the proposals, as an entry of the card's metrics.

    An individual is proposed if the middle of a proposal lies in its box. No classifier can find the others.
    """
    ready = _surveyed(bundle, samples)
    met = total = proposals = 0
    for sample in samples:
        found = ready.proposed(_chip(sample, ready.card), sample.image)
        x, y = found.centres().T if len(found) else np.empty((2, 0))
        proposals += len(found)
        counted = sample.valid & ~sample.ignored
        for box, (left, top) in zip(sample.objects.box, sample.objects.xy, strict=True):
            row, column = int(top), int(left)
            if not (0 <= row < counted.shape[0] and 0 <= column < counted.shape[1] and counted[row, column]):
                continue
            total += 1
            met += bool(((x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])).any())
    return {
        "split": "candidates",
        "chosen": "on the same ground",
        "n": total,
        "criterion": "middle in the individual's box",
        "recall": round(met / total, 4) if total else None,
        "note": f"{proposals} proposals",
    }


def _surveyed(bundle: Bundle, samples: Sequence[Sample]) -> Proposing:
    card = bundle.card
    ready = Proposing(card, open_classifier(_alone(bundle), "cpu", None), _proposer(card))
    if not ready.proposer.needs.survey:
        return ready
    seen = [in_8_bits(_chip(each, card), each.image, card.bands) for each in samples]
    return replace(ready, proposer=ready.proposer.surveyed(seen))


def _chip(sample: Sample, card: Card) -> Chip:
    height, width = sample.valid.shape
    return Chip(sample.image, sample.valid, card.bands, Window(0, 0, width, height), Grid(width, height))


KIND = replace(
    sliding_window.KIND,
    name="proposals",
    purpose=__doc__,
    options=Options,
    card_options=card_options,
    options_of=options_of,
    build=build,
    training=TrainingOptions,
    head=lambda card: "network",
    taught=None,
    # During training the network is always judged by the regions of its map.
    alternatives=lambda card: {"": card},
    thresholds=lambda card: None,
    patch_px=None,
    answers=answers,
    calibrated=None,
    measured=measured,
    measure_agreement=lambda bundle, image: {},
    has_score_map=False,
)
