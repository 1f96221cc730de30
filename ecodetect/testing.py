"""For tests of detectors, yours too: small ground and models, tiles cut in the plainest way, what must hold.

`check_detector("mine")` runs all checks that the detectors of ecodetect pass; `CHECKS` has them one by one::

    @pytest.mark.parametrize("check", testing.CHECKS)
    def test_mine(check: testing.Check) -> None:
        check(testing.Subject("mine"))

A check that fails raises AssertionError. pytest isn't needed.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ecodetect.annotations.sample import Objects, Sample
from ecodetect.bundle.card import Card, Scaling
from ecodetect.bundle.file import Bundle
from ecodetect.chip import Chip
from ecodetect.detections import Detections
from ecodetect.detectors import learners
from ecodetect.detectors import table as detectors
from ecodetect.detectors.learned import Answer, Classical, Kind, NetworkKind
from ecodetect.detectors.protocol import Detector, Scene
from ecodetect.errors import UserError
from ecodetect.grid import Grid, Window

if TYPE_CHECKING:
    from torch import Tensor

    from ecodetect.networks.network import TrainableNetwork

Rows = list[tuple[float, ...]]

BANDS = ("red", "green", "blue", "nir")
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
# For a network: two tilings see the same object within this many pixels, and scores within this.
SAME_PX, SAME_SCORE = 0.01, 1e-4


# -- ground --------------------------------------------------------------------------------------------


def ground(dtype: str = "uint8", width: int = 160, height: int = 120) -> NDArray[Any]:
    """Dark discs of 5 to 9 px radius on rough bright ground, values 0 to 120; (4, height, width)."""
    rng = np.random.default_rng(7)
    image = np.full((height, width), 90.0)
    for x, y in rng.integers(10, (width - 10, height - 10), size=(30, 2)):
        cv2.circle(image, (int(x), int(y)), int(rng.integers(5, 10)), 20.0, -1)
    return (image + rng.normal(0, 3, (4, height, width))).clip(0, 120).astype(dtype)


def discs(bands: int = 4, classes: int = 1, *, seed: int = 0, side: int = 160) -> Sample:
    """Dark discs on rough bright ground, as boxes; all is known. One row of classes after the other."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side), 0.5, np.float32)
    middle: list[tuple[float, float]] = []
    size: list[int] = []
    label: list[int] = []
    for y in range(20, side - 15, 28):
        for x in range(20, side - 15, 28):
            radius = int(rng.integers(5, 9))
            cv2.circle(image, (x, y), radius, -1.8 - len(middle) % classes, -1)
            middle.append((x + 0.5, y + 0.5))
            size.append(2 * radius + 1)
            label.append(len(middle[1:]) % classes)
    stack = image + rng.normal(0, 0.1, (bands, side, side)).astype(np.float32)
    yes = np.ones((side, side), np.bool_)
    sides = np.array([size, size], np.float64).T
    objects = Objects.about(np.array(middle), sides, np.array(label, np.int64), np.zeros(len(size)))
    return Sample(stack.astype(np.float32), yes, yes, ~yes, objects)


# -- tiles ---------------------------------------------------------------------------------------------


def scene_of(pixels: NDArray[Any], bands: tuple[str, ...]) -> Scene:
    """What is known of a raster (B, H, W) without a place."""
    kind = pixels.dtype
    span = None if kind.kind == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    return Scene(bands, None, kind.name, span)


def chip_of(
    pixels: NDArray[Any], valid: NDArray[np.bool_] | None, bands: tuple[str, ...], window: Window
) -> Chip:
    """The pixels of a window, which may reach beyond the raster and isn't valid there."""
    height, width = pixels.shape[1:]
    inside = window.clipped(Window(0, 0, width, height))
    rows, columns = slice(inside.y, inside.bottom), slice(inside.x, inside.right)
    there = (
        slice(inside.y - window.y, inside.bottom - window.y),
        slice(inside.x - window.x, inside.right - window.x),
    )
    # What isn't valid holds anything.
    cut = np.full((len(pixels), window.height, window.width), 7, pixels.dtype)
    mask = np.zeros((window.height, window.width), np.bool_)
    cut[:, there[0], there[1]] = pixels[:, rows, columns]
    mask[there] = True if valid is None else valid[rows, columns]
    grid = Grid(width, height).crop(window)
    return Chip(cut, None if mask.all() else mask, bands, window, grid)


def searched(
    detector: Detector,
    pixels: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    bands: tuple[str, ...],
    tile: int,
    origin: tuple[int, int] = (0, 0),
) -> Rows:
    """What the cores of all tiles own, sorted; each row is score and coordinates, to the last bit."""
    needs = detector.needs
    height, width = pixels.shape[1:]
    chosen = [bands.index(band) for band in needs.bands]
    halo = math.ceil(needs.largest_px / 2 + needs.reach_px + needs.margin_px)
    rows: Rows = []
    for core in _cores(width, height, tile, origin):
        chip = chip_of(pixels[chosen], valid, needs.bands, core.grown(halo))
        (found,) = detector.detect([chip])
        found = found.moved_to(Grid(width, height))
        box = found.bounds()
        fits = (box[:, 2:] - box[:, :2] <= needs.largest_px).all(axis=1)
        rows += rows_of(found[fits & core.owns(found.centres())])
    return sorted(rows)


def _cores(width: int, height: int, tile: int, origin: tuple[int, int]) -> Iterator[Window]:
    for y in range(origin[1] - tile, height, tile):
        for x in range(origin[0] - tile, width, tile):
            core = Window(x, y, tile, tile).clipped(Window(0, 0, width, height))
            if core.area:
                yield core


def rows_of(found: Detections) -> Rows:
    """One tuple for each detection: score, coordinates, diameter."""
    if found.kind == "polygon":
        coordinates = [tuple(shapely.get_coordinates(shape).ravel().tolist()) for shape in found.geometry]
    else:
        coordinates = [tuple(row) for row in found.geometry.tolist()]
    sizes = [()] * len(found) if found.diameter is None else [(d,) for d in found.diameter.tolist()]
    return [
        (score, *at, *size) for score, at, size in zip(found.score.tolist(), coordinates, sizes, strict=True)
    ]


def assert_same(one: Rows, two: Rows, *, share: float = 1.0) -> None:
    """The same detections, within `SAME_PX` and `SAME_SCORE`; outlines by the boxes about them.

    share : of the detections that must lie at the same place.
    """
    assert len(one) == len(two), f"{len(one)} and {len(two)} detections"
    if not one:
        return
    if len(set(map(len, one))) > 1:
        one, two = ([_boxed(row) for row in rows] for rows in (one, two))
    first, second = np.array(one), np.array(two)
    scores = np.abs(np.sort(first[:, 0]) - np.sort(second[:, 0])).max()
    assert scores <= SAME_SCORE, f"scores differ by {scores:.2g}"
    nearest = KDTree(second[:, 1:]).query(first[:, 1:])[1]
    off = np.abs(first - second[nearest])
    is_same = (off[:, 1:] <= SAME_PX).all(axis=1)
    assert is_same.mean() >= share, f"places differ by {off[:, 1:].max():.2g} px"
    if share == 1:
        assert len(set(nearest.tolist())) == len(first), "two detections of one tiling are one of the other"
        assert off[:, 0].max() <= SAME_SCORE, f"scores differ by {off[:, 0].max():.2g}"


def _boxed(row: tuple[float, ...]) -> tuple[float, ...]:
    score, x, y = row[0], row[1::2], row[2::2]
    return score, min(x), min(y), max(x), max(y)


# -- models --------------------------------------------------------------------------------------------


def small_card(kind: Kind, **changes: Any) -> Card:
    """A card for `ground` and `discs`: four bands, objects of some 14 px.

    changes : other fields of the card. Without `options` the kind chooses them, as for a training.
    """
    sample = discs()
    size = np.sqrt(np.prod(sample.objects.size, axis=1))
    facts: dict[str, Any] = {
        "name": kind.name,
        "detector": kind.name,
        "bands": BANDS,
        "unit": "px",
        "largest": 20.0,
        "classes": ("object",),
    }
    facts |= changes
    if "options" not in facts:
        facts["options"] = kind.card_options(size, np.full(len(size), 28.0))
    bands = len(facts["bands"])
    # What `ground` becomes with it looks like `discs`.
    facts.setdefault("scaling", Scaling(offset=(75.0,) * bands, span=(30.0,) * bands))
    return Card(**facts)


@dataclass(frozen=True, eq=False, slots=True)
class Learned:
    """The result of a few steps on one sample.

    losses : the sum at each step.
    """

    bundle: Bundle
    losses: tuple[float, ...]


def learn(kind: NetworkKind, card: Card, sample: Sample, *, steps: int, rate: float = 2e-3) -> Learned:
    """A network that overfits one sample, in this number of steps."""
    import torch

    from ecodetect.training.loop import stacked

    torch.manual_seed(0)
    network = kind.network(card, None).train()
    image = torch.from_numpy(sample.image)[None]
    made = kind.targets(sample, card)
    targets = {name: torch.from_numpy(stacked([values])) for name, values in made.items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    seen = []
    for step in range(steps):
        torch.manual_seed(step)
        loss = torch.stack(list(losses_of(kind, card, network, image, targets).values())).sum()
        seen.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
    weights = {name: values.numpy() for name, values in network.state_dict().items()}
    return Learned(Bundle(card, weights), tuple(seen))


def losses_of(
    kind: NetworkKind, card: Card, network: TrainableNetwork, images: Tensor, targets: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Losses of a batch by name, as training takes them."""
    outputs = network(images, targets) if network.takes_targets else network(images)
    return kind.losses(outputs, targets, card)


def taught(kind: Kind, card: Card, sample: Sample, *, seed: int = 0) -> Bundle:
    """A model of a kind without a network: nearest neighbours trained on one sample."""
    assert kind.taught is not None
    classical: Classical = kind.taught(card, {})
    look = classical.features_of(sample.image, sample.valid, card)
    label, _ = classical.examples(sample, look, card)
    known = label >= 0
    learner = learners.fit("knn", look.features[known], label[known], len(card.classes) + 1, seed)
    return classical.bundled(card, learner)


def small_bundle(kind: Kind, *, steps: int = 60) -> Bundle:
    """A model of a kind that has learned `discs`, a little."""
    card, sample = small_card(kind), discs()
    if isinstance(kind, NetworkKind):
        return learn(kind, card, sample, steps=steps).bundle
    return taught(kind, card, sample)


# -- what must hold ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A detector that is tested.

    name : in the table, or of an entry point.
    model : of a learned one; None: it learns `discs`, a little.
    share : of the detections that must be the same in two tilings or batches, for a network.
    """

    name: str
    model: Bundle | None = None
    share: float = 1.0

    @cached_property
    def bundle(self) -> Bundle | None:
        if self.model is not None or not detectors.is_learned(self.name):
            return self.model
        return small_bundle(detectors.learned(self.name))

    def build(self, scene: Scene, options: dict[str, str] | None = None) -> Detector:
        return detectors.build(self.name, scene, options, bundle=self.bundle, device="cpu")

    def ready(self, pixels: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> Detector:
        """The detector with default options, surveyed on all of a raster with `BANDS`."""
        detector = self.build(scene_of(pixels, BANDS))
        if detector.needs.survey:
            detector = detector.surveyed([chip_for(detector, pixels, valid)])
        return detector

    def assert_alike(self, one: Rows, two: Rows) -> None:
        """The same detections: to the last bit where nothing is learned."""
        if detectors.is_learned(self.name):
            assert_same(one, two, share=self.share)
        else:
            assert one == two


Check = Callable[[Subject], None]


def chip_for(
    detector: Detector,
    pixels: NDArray[Any],
    valid: NDArray[np.bool_] | None = None,
    window: Window | None = None,
) -> Chip:
    """The bands that a detector needs, of a whole raster with `BANDS` or of a window."""
    chosen = [BANDS.index(band) for band in detector.needs.bands]
    whole = Window(0, 0, pixels.shape[2], pixels.shape[1])
    return chip_of(pixels[chosen], valid, detector.needs.bands, window or whole)


def assert_detections(detector: Detector, found: Detections, chip: Chip) -> None:
    """What holds for any detections of a chip."""
    assert found.kind == detector.kind
    assert found.classes == detector.classes
    assert found.grid == chip.grid
    assert ((found.score >= 0) & (found.score <= 1)).all(), "a score isn't in 0 to 1"
    assert ((found.label >= 0) & (found.label < len(found.classes))).all(), "a label isn't a class"
    bounds = found.bounds()
    assert np.isfinite(bounds).all(), "a coordinate isn't finite"
    assert (bounds[:, 2:] >= bounds[:, :2]).all()
    centres = found.centres()
    assert ((centres >= 0) & (centres <= (chip.grid.width, chip.grid.height))).all(), "a centre lies outside"


def check_options_are_documented(subject: Subject) -> None:
    """Options are a frozen dataclass, and its docstring says what each means."""
    declared, described = detectors.declared(subject.name), detectors.describe(subject.name)
    assert described.purpose.endswith("."), "its purpose isn't a sentence"
    assert dataclasses.is_dataclass(declared.options)
    assert declared.options.__dataclass_params__.frozen, "options can be changed"  # type: ignore[attr-defined]
    assert set(described.options) == {field.name for field in dataclasses.fields(declared.options)}
    undocumented = [name for name, (_, meaning) in described.options.items() if not meaning]
    assert not undocumented, f"the docstring of its options says nothing of {', '.join(undocumented)}"


def check_an_unknown_option_is_answered(subject: Subject) -> None:
    """An unknown option raises UserError that names the detector and the option."""
    said = ""
    try:
        subject.build(scene_of(ground(), BANDS), {"nonsense": "1"})
    except UserError as error:
        said = str(error)
    assert f"{subject.name} has no option 'nonsense'" in said


def check_it_says_what_it_is(subject: Subject) -> None:
    """Classes, needs and settings are complete and consistent; settings are JSON-able."""
    detector = subject.ready(ground())
    assert isinstance(detector, Detector)
    assert detector.classes
    needs = detector.needs
    assert set(needs.bands) <= set(BANDS)
    assert needs.largest_px > 0
    assert needs.reach_px >= 0
    assert needs.bytes_per_pixel > 0
    settings = json.dumps(detector.settings, allow_nan=False)
    assert json.loads(settings) == json.loads(json.dumps(detector.settings))


def check_a_survey_is_a_function_of_the_samples(subject: Subject) -> None:
    """Two surveys of the same samples give the same detector."""
    first, second = subject.ready(ground()), subject.ready(ground())
    if not detectors.is_learned(subject.name):  # networks are compared by what they are made of
        assert first == second
    assert first.settings == second.settings


def check_every_type_of_pixel(subject: Subject, dtypes: Sequence[str] = DTYPES) -> None:
    """Objects are found at every numpy type of pixels."""
    for dtype in dtypes:
        pixels = ground(dtype)
        detector = subject.ready(pixels)
        whole = chip_for(detector, pixels)
        (found,) = detector.detect([whole])
        assert_detections(detector, found, whole)
        assert len(found) > 5, f"of {dtype} {len(found)} objects are found"


def check_values_that_are_no_measurement(
    subject: Subject, values: Sequence[float] = (math.nan, math.inf, -math.inf, 1e308, -1e308)
) -> None:
    """NaN, infinity and huge numbers among the pixels give valid detections and no error."""
    for value in values:
        pixels = ground("float64")
        pixels[:, 20:40, 20:40] = value
        valid = np.isfinite(pixels[0]) if not math.isfinite(value) else None
        detector = subject.ready(pixels, valid)
        whole = chip_for(detector, pixels, valid)
        (found,) = detector.detect([whole])
        assert_detections(detector, found, whole)


def check_nothing_valid_nothing_found(subject: Subject) -> None:
    """Nothing is found on a chip without valid pixels."""
    pixels = ground()
    nowhere = np.zeros(pixels.shape[1:], np.bool_)
    for detector in (subject.ready(pixels), subject.ready(pixels, nowhere)):
        whole = chip_for(detector, pixels, nowhere)
        (found,) = detector.detect([whole])
        assert_detections(detector, found, whole)
        assert len(found) == 0, "something is found where there are no data"


def check_chips_smaller_than_any_filter(
    subject: Subject, sizes: Sequence[tuple[int, int]] = ((1, 1), (1, 50), (50, 1), (3, 3))
) -> None:
    """Chips of a few pixels give valid detections and no error."""
    pixels = ground()
    detector = subject.ready(pixels)
    for size in sizes:
        for valid in (None, np.random.default_rng(1).random(pixels.shape[1:]) < 0.5):
            small = chip_for(detector, pixels, valid, Window(30, 30, *size))
            (found,) = detector.detect([small])
            assert_detections(detector, found, small)


def check_a_chip_is_not_changed_and_gives_the_same_alone_and_in_a_batch(subject: Subject) -> None:
    """`detect` leaves chips as they are, and a chip has the same detections alone and in a batch."""
    pixels = ground()
    valid = np.random.default_rng(2).random(pixels.shape[1:]) < 0.98
    detector = subject.ready(pixels, valid)
    chips = [chip_for(detector, pixels, valid, Window(x, 10, 100, 100)) for x in (0, 60)]
    before = [(chip.pixels.copy(), None if chip.valid is None else chip.valid.copy()) for chip in chips]
    together = [rows_of(found) for found in detector.detect(chips)]
    alone = [rows_of(detector.detect([chip])[0]) for chip in chips]
    assert together == [rows_of(found) for found in detector.detect(chips)], "the second time it differs"
    for one, two in zip(together, alone, strict=True):
        subject.assert_alike(one, two)
    for chip, (old, mask) in zip(chips, before, strict=True):
        assert np.array_equal(chip.pixels, old)
        assert mask is None or (chip.valid is not None and np.array_equal(chip.valid, mask))


def check_tiling_cannot_be_seen(subject: Subject) -> None:
    """The same detections for any tiling; a detector that isn't local only needs a margin."""
    pixels = ground()
    valid = np.ones(pixels.shape[1:], np.bool_)
    valid[:40, :30] = False
    detector = subject.ready(pixels, valid)
    if not detector.needs.is_local:
        assert detector.needs.margin_px > 1, "it isn't local, and a seam is settled with a margin"
        return
    stride = detector.needs.stride_px
    one = searched(detector, pixels, valid, BANDS, 1000)
    assert len(one) > 5
    for tile, origin in ((32, (0, 0)), (47, (5, 13)), (128, (64, 1))):
        side = -(-tile // stride) * stride
        begin = origin[0] // stride * stride, origin[1] // stride * stride
        subject.assert_alike(searched(detector, pixels, valid, BANDS, side, begin), one)


def check_a_map_of_scores_is_given_when_asked_for(subject: Subject) -> None:
    """The map of scores exists exactly where it is declared and requested, with the declared cells."""
    pixels = ground()
    detector = subject.ready(pixels)
    whole = chip_for(detector, pixels)
    (found,) = detector.detect([whole])
    assert found.score_map is None
    step = detector.needs.map_px
    assert (step is not None) == detectors.declared(subject.name).has_score_map
    if step is None:
        return
    assert detector.needs.stride_px % step == 0
    (same,) = detector.detect([replace(whole, wants_map=True)])
    assert rows_of(same) == rows_of(found)
    scores = same.score_map
    assert scores is not None
    shape = len(detector.classes), -(-whole.grid.height // step), -(-whole.grid.width // step)
    assert scores.dtype == np.float32
    assert scores.shape == shape
    known = scores[~np.isnan(scores)]
    assert len(known) > 0
    assert ((known >= 0) & (known <= 1)).all()


def check_its_card_opens(subject: Subject) -> None:
    """Options that it chooses for a card can be read again, and written as JSON."""
    if not detectors.is_learned(subject.name):
        return
    kind = detectors.learned(subject.name)
    card = small_card(kind)
    again = Card.from_json(card.to_json(), source="the card")
    assert kind.options_of(again) == kind.options_of(card)
    assert kind.options_of(card).typical_px > 0
    ways = kind.alternatives(card)
    assert all(kind.options_of(way).typical_px > 0 for way in ways.values())


def check_it_learns(subject: Subject, steps: int = 8, side: int = 160) -> None:
    """Losses are finite, and fall on one sample; what is read off its answers is well formed.

    For a kind without a network, what a learner says of the sample that it has seen are the objects.
    side : of the sample, in pixels.
    """
    if not detectors.is_learned(subject.name):
        return
    kind = detectors.learned(subject.name)
    card, sample = small_card(kind), discs(side=side)
    if isinstance(kind, NetworkKind):
        losses = learn(kind, card, sample, steps=steps).losses
        assert all(map(math.isfinite, losses)), f"losses are {losses}"
        assert np.mean(losses[-2:]) < np.mean(losses[:2]), f"losses don't fall: {losses}"
        return
    pixels = np.clip(np.rint(sample.image * 30 + 75), 0, 255).astype(np.uint8)
    model = taught(kind, card, sample)
    detector = detectors.build(subject.name, scene_of(pixels, card.bands), bundle=model, device="cpu")
    side = sample.valid.shape[0]
    (found,) = detector.detect([chip_of(pixels, None, card.bands, Window(0, 0, side, side))])
    assert_found(Answer(found.bounds(), found.score, found.label), sample)


def assert_found(answer: Answer, sample: Sample, *, share: float = 0.8) -> None:
    """At least this share of a sample's objects is found, within its radius, with few false positives."""
    xy = np.asarray(answer.xy, np.float64)
    truths, radius = sample.objects.xy, sample.objects.size.mean(axis=1) / 2
    assert len(xy), "nothing is found"
    off, nearest = KDTree(xy).query(truths)
    met = off < radius
    assert met.mean() >= share, f"{met.sum()} of {len(met)} objects are found"
    assert (answer.label[nearest[met]] == sample.objects.label[met]).all(), "classes are mixed up"
    assert len(xy) <= len(truths) / share, f"{len(xy)} are found where {len(truths)} are"


# In the order in which a new detector is best made to pass them.
CHECKS: tuple[Check, ...] = (
    check_options_are_documented,
    check_its_card_opens,
    check_it_learns,
    check_an_unknown_option_is_answered,
    check_it_says_what_it_is,
    check_a_survey_is_a_function_of_the_samples,
    check_every_type_of_pixel,
    check_values_that_are_no_measurement,
    check_nothing_valid_nothing_found,
    check_chips_smaller_than_any_filter,
    check_a_chip_is_not_changed_and_gives_the_same_alone_and_in_a_batch,
    check_tiling_cannot_be_seen,
    check_a_map_of_scores_is_given_when_asked_for,
)


def check_detector(name: str, model: Bundle | None = None) -> None:
    """All of `CHECKS`, on a detector of the table or of an entry point.

    model : of a learned one, for `ground`; None: it learns `discs`, a little.
    """
    subject = Subject(name, model)
    for check in CHECKS:
        check(subject)
