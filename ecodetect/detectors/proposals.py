"""Candidate patches and a classifier: a cheap detector proposes where to look, a network decides what it is.

R-CNN's idea (Girshick et al. 2014, arXiv:1311.2524), and the quicker of the two ways of the study that
ecodetect began with (Guirado et al. 2017, doi:10.3390/rs9121220). What isn't proposed can't be found, so the
card says what share of the individuals of validation was.

- Proposals come from `threshold` or `selective_search`, on the network's own input brought to 8 bits: so they
  are the same whatever the raster's type and light.
- The network is that of `sliding_window`, trained as there, on all ground; of each proposal it is shown the
  window about the middle. An individual is the proposal's outline.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ecodetect.bundle.file import Bundle, BundleError, Card, Scaling
from ecodetect.bundle.scaling import as_read, scaled, surveyed
from ecodetect.chip import Chip
from ecodetect.detections import Detections, Kind
from ecodetect.detectors import sliding_window, window_networks
from ecodetect.detectors.boxes import CRITERION, check_sizes
from ecodetect.detectors.protocol import Detector, Needs, Scene, Settling, bands_of, read_options, scaling_of
from ecodetect.detectors.sliding_window import chip_px, losses, targets, weighted
from ecodetect.detectors.window_networks import CardOptions, network, open_classifier
from ecodetect.errors import UserError
from ecodetect.grid import Floats, Grid, Window

if TYPE_CHECKING:
    from ecodetect.annotations.sample import Sample
    from ecodetect.runtime.opening import Network

__all__ = [
    "CRITERION", "Options", "Training", "build", "card_options", "chip_px", "decode", "losses", "network",
    "targets", "weighted",
]  # fmt: skip

IS_LEARNED = True
TYPICAL_PX = sliding_window.TYPICAL_PX
WINDOW_PX = sliding_window.WINDOW_PX
KEPT = sliding_window.KEPT
decode = sliding_window.decode

# The network's input in 8 bits: 0 is 128, and four of its units fill the scale.
_MIDDLE, _PER_UNIT = 128.0, 32.0
_SMALLEST_SHARE = 0.5  # of the width of small individuals: what is smaller isn't proposed
_BRIDGE_SHARE = 0.4  # of that width: radius of the disc that must fit into a proposal everywhere
_AT_ONCE = 64  # windows shown to the network together
_SAME_IOU = 0.3  # of two proposals that overlap more one is dropped: the same individual
_COST = 6.0

Proposer = Literal["threshold", "selective_search"]


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may set.

    threshold : which of the scores chosen on validation cuts, unless --score is given: "f1" (fewest errors)
        or "count" (as many too many as too few).
    """

    threshold: Literal["f1", "count"] = "f1"


@dataclass(frozen=True, slots=True)
class Training(sliding_window.Training):
    """What a user may set when training.

    window : side of the windows; none: twice as wide as a usual individual.
    evaluation : how the network is trained: "dense", "windows", or "auto"; see sliding_window.
    smoothing : how unsure the network may be of what it is told: label smoothing.
    class_weights : whether rare classes count more ("balanced"), or each individual alike ("none").
    proposer : what proposes: "threshold" or "selective_search".
    level : of the proposer "threshold": a number, "otsu" or "local".
    objects : what it takes for an object: what is "dark" or "bright".
    """

    proposer: Proposer = "threshold"
    level: Literal["otsu", "local"] | float = "otsu"
    objects: Literal["dark", "bright"] = "dark"

    def __post_init__(self) -> None:
        sliding_window.Training.__post_init__(self)
        if self.head != "network":
            raise UserError(f"proposals are judged by their network; leave out head={self.head}.")


def card_options(
    diameter_px: Floats, spacing_px: Floats, asked: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Options of the card of a network to be trained; see `sliding_window.card_options`.

    Raises UserError where most objects have no size, for what is proposed must be no smaller or larger.
    """
    known = check_sizes(diameter_px, "proposals")
    wished = (asked or {}).get("training") or Training()
    small, large = np.percentile(known, (5, 95))
    area = (_SMALLEST_SHARE * small) ** 2 * math.pi / 4
    proposer = {"name": wished.proposer, "smallest_px": round(_SMALLEST_SHARE * float(small), 2)}
    proposer |= {"largest_px": round(2 * float(large), 2), "area_px": round(float(area), 2)}
    if wished.proposer == "threshold":
        proposer |= {"level": wished.level, "objects": wished.objects}
    return sliding_window.card_options(diameter_px, spacing_px, asked) | {"proposer": proposer}


def options_of(card: Card) -> CardOptions:
    """The options of a card; raises BundleError where they can't be of this detector."""
    found = window_networks.options_of(card)
    if found.proposer is None:
        raise BundleError(f"The card of '{card.name}' is damaged (it has no option proposer).")
    return found


def alternatives(card: Card) -> dict[str, Card]:
    """While it is trained the network is judged by the regions of its map: there is one way."""
    return {"": card}


# -- scanning ----


def build(
    options: Options, scene: Scene, bundle: Bundle, *, device: str = "auto", threads: int | None = None
) -> Proposals:
    """The detector of a bundle for a scene; raises UserError where they don't fit."""
    card = bundle.card
    opened = open_classifier(_alone(bundle), device, threads)
    bands = bands_of(card, scene)
    return Proposals(options, card, bundle.hash, opened, bands, scaling_of(card, scene), _proposer(card))


def _alone(bundle: Bundle) -> Bundle:
    """The same weights, for windows that are given one by one."""
    card, shape = bundle.card, options_of(bundle.card).network
    if shape.kind != "valid" and shape.evaluation != "windows":
        return bundle
    alone = {**card.options["network"], "evaluation": "windows", "step": shape.window}
    card = replace(card, options={**card.options, "network": alone}, reach_px=shape.window)
    return Bundle(card, bundle.weights)


def _proposer(card: Card) -> Detector:
    """What proposes, for 8-bit images with the card's bands."""
    stated = options_of(card).proposer
    assert stated is not None
    module = importlib.import_module(f"ecodetect.detectors.{stated.name}")
    given = {"largest": f"{stated.largest_px}px"}
    if stated.name == "threshold":
        given |= {"level": str(stated.level), "objects": stated.objects}
        # Bushes that touch a shrub, thinner than the smallest, must not make one object of many.
        opening = max(1.0, round(_BRIDGE_SHARE * stated.smallest_px))
        given |= {"min_area": f"{stated.area_px}px", "open": f"{opening:g}px", "split": "yes"}
    else:
        given |= {"smallest": f"{stated.smallest_px}px"}
    made: Detector = module.build(
        read_options(module.Options, given, stated.name), Scene(card.bands, None, "uint8", (0.0, 255.0))
    )
    return made


@dataclass(frozen=True, slots=True)
class Proposals:
    """What a proposer finds and a classifier confirms.

    classifier : a network for single windows, or for whole images where it was trained so and padded.
    bands : of the raster, to be read for those of the card.
    scaling : the card's, or once surveyed what it becomes on this raster.
    proposer : what proposes, surveyed on this raster once it is needed.
    """

    options: Options
    card: Card
    hash: str
    classifier: Network
    bands: tuple[str, ...]
    scaling: Scaling
    proposer: Detector

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def kind(self) -> Kind:
        return self.proposer.kind

    @property
    def classes(self) -> tuple[str, ...]:
        return self.card.classes

    @property
    def needs(self) -> Needs:
        card, proposing = self.card, self.proposer.needs
        window = options_of(card).network.window
        return Needs(
            bands=self.bands,
            largest_px=min(card.largest / (card.gsd or 1.0), proposing.largest_px),
            gsd_m=card.gsd_m,
            own_px=(card.gsd or 1.0) if card.gsd_m is None else 1.0,
            # The proposer needs all of an object, the network the window about its middle.
            reach_px=max(window, proposing.reach_px),
            stride_px=proposing.stride_px if self._is_windowed else self.classifier.stride,
            margin_px=proposing.margin_px,
            is_local=proposing.is_local and self._is_windowed,
            settling=None if proposing.settling is None else Settling("iou", _SAME_IOU),
            survey=self.scaling.mode == "survey" or proposing.survey,
            bytes_per_pixel=sliding_window.bytes_per_pixel(card) + proposing.bytes_per_pixel,
            cost=_COST,
            is_threaded=self.classifier.device == "cpu",
            on_gpu=self.classifier.device != "cpu",
            scores=card.thresholds.get(self.options.threshold),
            typical_px=options_of(card).typical_px,
            least_px=window if self._is_windowed else 1,
        )

    @property
    def _is_windowed(self) -> bool:
        shape = options_of(self.card).network
        return shape.kind == "valid" or shape.evaluation == "windows"

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "model_hash": self.hash,
            "threshold": self.options.threshold,
            "device": self.classifier.device,
            "bands": self.bands,
            "proposer": {"name": self.proposer.name, **self.proposer.settings},
            **as_read(self.card.scaling, self.scaling),
        }

    def surveyed(self, samples: Iterable[Chip]) -> Proposals:
        scaling = surveyed(self.scaling, samples)
        ready = replace(self, scaling=scaling)
        if not self.proposer.needs.survey:
            return ready
        proposer = self.proposer.surveyed(_Proposed(samples, ready))
        return replace(ready, proposer=proposer)

    def detect(self, chips: Sequence[Chip]) -> list[Detections]:
        """What is proposed on each chip, with the classifier's score, where its middle has data."""
        return [self._detect(chip, self.input_of(chip)) for chip in chips]

    def input_of(self, chip: Chip) -> NDArray[np.float32]:
        """The network's input of a chip."""
        return scaled(chip.pixels, chip.valid, self.scaling, self.card.fill)

    def _detect(self, chip: Chip, image: NDArray[np.float32]) -> Detections:
        (found,) = self.proposer.detect([in_8_bits(chip, image, self)])
        centres = found.centres()
        kept = np.ones(len(found), np.bool_)
        if len(found) and chip.valid is not None:
            at = np.clip(np.floor(centres).astype(np.int64), 0, np.array(chip.valid.shape)[::-1] - 1)
            kept = chip.valid[at[:, 1], at[:, 0]]
        found, centres = found[kept], centres[kept]
        likely = self._likely(image, centres)
        label = likely.argmax(axis=0).astype(np.int64)
        score = likely.max(axis=0, initial=0.0).astype(np.float64)
        return Detections(chip.grid, found.kind, found.geometry, score, label, self.classes)

    def _likely(self, image: NDArray[np.float32], centres: Floats) -> NDArray[np.float32]:
        """How likely each class is in the middle of windows about places: (K, n)."""
        if not len(centres):
            return np.empty((len(self.classes), 0), np.float32)
        if not self._is_windowed:
            return self._read_off(image, centres)
        window = options_of(self.card).network.window
        around = window  # a middle lies on the image, so its window lies within this of it
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

    def _read_off(self, image: NDArray[np.float32], centres: Floats) -> NDArray[np.float32]:
        """The same, of the map that a padded network gives of the whole image, as it was trained."""
        from ecodetect.bundle.scaling import continued

        (maps,) = self.classifier.run(continued(image, self.classifier.stride, self.card.fill)[None])
        step = options_of(self.card).network.step
        column, row = np.clip(np.floor(centres / step).astype(np.int64), 0, np.array(maps.shape[:1:-1]) - 1).T
        return sliding_window.probability(maps[0][:, row, column], self.card)


def in_8_bits(chip: Chip, image: NDArray[np.float32], detector: Proposals) -> Chip:
    """A chip whose pixels are the network's input in 8 bits, with the card's bands."""
    pixels = np.clip(np.rint(image * _PER_UNIT + _MIDDLE), 0, 255).astype(np.uint8)
    return Chip(pixels, chip.valid, detector.card.bands, chip.window, chip.grid, chip.asked)


@dataclass(frozen=True, slots=True)
class _Proposed:
    """Samples of a raster as the proposer sees them, read whenever they are gone through."""

    samples: Iterable[Chip]
    detector: Proposals

    def __iter__(self) -> Iterator[Chip]:
        for chip in self.samples:
            yield in_8_bits(chip, self.detector.input_of(chip), self.detector)


# -- what validation says ----


def answers(bundle: Bundle, samples: Sequence[Sample]) -> Iterator[tuple[Floats, Floats, NDArray[np.int64]]]:
    """What a scan of each sample finds: boxes (n, 4) in its pixels, scores (n,) and labels (n,).

    The proposer's survey is of all samples together.
    """
    ready = _surveyed(bundle, samples)
    for sample in samples:
        found = ready._detect(_chip(sample, ready.card), sample.image)
        yield found.bounds(), found.score, found.label


def measured(bundle: Bundle, samples: Sequence[Sample]) -> dict[str, Any]:
    """What the proposals cost, as an entry of the card's metrics: the share of individuals that they miss.

    An individual is proposed if a proposal has its middle in its box: no classifier can find others.
    """
    ready = _surveyed(bundle, samples)
    met = total = proposals = 0
    for sample in samples:
        (found,) = ready.proposer.detect([in_8_bits(_chip(sample, ready.card), sample.image, ready)])
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


def _surveyed(bundle: Bundle, samples: Sequence[Sample]) -> Proposals:
    card = replace(bundle.card, scaling=Scaling(offset=(0.0,), span=(1.0,)))
    opened = open_classifier(_alone(bundle), "cpu", None)
    ready = Proposals(Options(), card, "", opened, card.bands, card.scaling, _proposer(card))
    if not ready.proposer.needs.survey:
        return ready
    seen = (in_8_bits(_chip(each, card), each.image, ready) for each in samples)
    return replace(ready, proposer=ready.proposer.surveyed(list(seen)))


def _chip(sample: Sample, card: Card) -> Chip:
    height, width = sample.valid.shape
    return Chip(sample.image, sample.valid, card.bands, Window(0, 0, width, height), Grid(width, height))
