"""What a learned detector declares: its `KIND`. Training, scanning, checking and exporting read only this.

A detector that trains a network is a `NetworkKind`; `docs/detectors/writing.md` explains one step by step. A
detector that trains a classical learner instead (`obia`) is a plain `Kind`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ecodetect.bundle.card import Card
from ecodetect.bundle.file import Bundle
from ecodetect.detectors.learners import ClassicalClassifier
from ecodetect.detectors.protocol import Detector, Scene
from ecodetect.grid import Floats
from ecodetect.sizes import Length

if TYPE_CHECKING:
    from torch import Tensor

    from ecodetect.annotations.sample import Sample
    from ecodetect.networks.network import Settings, TrainableNetwork, Weights

Image = NDArray[np.float32]  # (B, H, W), scaled as the card says
Labels = NDArray[np.int64]
Outputs = Sequence[NDArray[np.float32]]  # of a network, each (N, …)
Arrays = dict[str, NDArray[np.float32]]
Thresholds = dict[str, tuple[float, ...]]  # purpose -> one score for each class
Head = Literal["network", "best", "knn", "forest", "svm"]


class Answer(NamedTuple):
    """The detections on one image, in its pixels.

    geometry : points (n, 2), boxes (n, 4) as xmin, ymin, xmax, ymax, or polygons (n,).
    score : (n,), 0 to 1.  label : int64 (n,), index of the class.
    diameter : (n,), of points with a known size; None: sizes are unknown.
    """

    geometry: NDArray[Any]
    score: Floats
    label: Labels
    diameter: Floats | None = None

    @property
    def is_boxes(self) -> bool:
        return self.geometry.ndim == 2 and self.geometry.shape[1] == 4

    @property
    def xy(self) -> Floats:
        """Centres of points or boxes, (n, 2)."""
        middle: Floats = (self.geometry[:, :2] + self.geometry[:, -2:]) / 2
        return middle


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What a training fixes in a card's options; the rest follows from the annotations.

    training : the kind's `training` options; None where it has none.
    is_patches : the data are pictures in folders by class.
    network : fixed settings of the network: the `kept` ones of a bundle that is fine-tuned, or the kind and
        depth of a backbone.
    """

    training: Any = None
    is_patches: bool = False
    network: Settings = field(default_factory=dict)


NO_WISHES = Wishes()


class ChoosesOptions(Protocol):
    """Chooses the options of a card from the annotations."""

    def __call__(self, diameter_px: Floats, spacing_px: Floats, wishes: Wishes = ...) -> dict[str, Any]:
        """JSON-able options that `options_of` accepts.

        diameter_px : (N,), of the annotated objects at the GSD of the model; NaN where unknown.
        spacing_px : (N,), distance from each object to the nearest other; infinite where there is none.
        Raises UserError where the detector can't learn from such annotations.
        """
        ...


class CardOptions(Protocol):
    """The options that every learned detector has.

    typical_px : width of a typical object, in pixels of the model.
    """

    @property
    def typical_px(self) -> float: ...


class Builds(Protocol):
    """The detector of a bundle for a scene."""

    def __call__(
        self, options: Any, scene: Scene, bundle: Bundle, *, device: str = ..., threads: int | None = ...
    ) -> Detector:
        """Raises UserError where they don't fit.

        options : an instance of the kind's `options`.
        device, threads : where a network runs, and the number of CPU threads; None: all.
        """
        ...


class Looked(Protocol):
    """What is kept of an image: `features` (n, C), which a learner classifies row by row."""

    @property
    def features(self) -> NDArray[Any]: ...


class Classical(Protocol):
    """What training a learner needs: images to rows of features, and rows to objects."""

    def features_of(self, image: Image, valid: NDArray[np.bool_], card: Card) -> Looked: ...

    def examples(self, sample: Sample, look: Any, card: Card) -> tuple[Labels, Floats]:
        """The class of each row (the number of classes: background; -1: unused), and its place (n, 2)."""
        ...

    def decode(self, look: Any, probability: Floats, card: Card) -> Answer:
        """Polygons from the probability of each class for each row, background last: (n, classes + 1)."""
        ...

    def bundled(self, card: Card, learner: ClassicalClassifier) -> Bundle:
        """A model from a card and what was learned."""
        ...


class Grounds(Protocol):
    """Measures something on annotated ground."""

    def __call__(self, bundle: Bundle, training: Iterable[Sample], validation: Iterable[Sample]) -> Card: ...


def _one_way(card: Card) -> Mapping[str, Card]:
    return {"": card}


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A learned detector. Fields with a default are optional.

    What every kind says
    --------------------
    name : as in the table, and in a card's `detector`.
    purpose : one sentence, for `ecodetect models` and the docs; text after an empty line is left out.
    options : frozen dataclass of what a user may set when scanning; its docstring explains each field.
    card_options : chooses the options of a new card.
    options_of : the options of a card, parsed; raises BundleError where they can't be this detector's.
    build : the detector that scans.

    What training needs besides
    ---------------------------
    training : frozen dataclass of what a user may set when training; None: nothing.
    window : width of a network's window on the ground, if the options state one.
    weighted : the card with the weight of each class; `per_class` holds the number of objects per class.
    typical_px : width of a typical object when rasters are read; None: as for points.
    window_px, patch_px : side of the network's window, if it has one, and of pictures in folders by class, if
        it can learn from them.
    needs_shapes : whether samples carry the objects' outlines.
    head : what classifies, for a card: its network, or one kind of learner, or the best of them.
    taught : what training a learner needs, for a card and the network's weights; None: the network
        classifies.
    alternatives : the card with each way to decode objects; the model gets the one that is best on
        validation.
    thresholds : fixed scores; None: they are chosen on validation.
    criterion : what makes a detection of validation a true positive, in words; None: its distance.

    What is measured after training
    -------------------------------
    answers : what a scan finds on samples, where that isn't simply `decode` of the network's outputs.
    calibrated : the card with values measured on annotated ground.
    measured : an entry of the card's metrics, besides the usual one.
    measure_agreement : how much detections depend on the tiling; image None: there was no image.

    has_score_map : whether detections come from a map of scores that a scan can write.
    """

    name: str
    purpose: str
    options: type[Any]
    card_options: ChoosesOptions
    options_of: Callable[[Card], CardOptions]
    build: Builds

    training: type[Any] | None = None
    window: Callable[[Any], Length | None] = lambda training: None
    weighted: Callable[[Card, Mapping[str, int], Any], Card] = lambda card, per_class, training: card
    typical_px: float | None = None
    window_px: int | None = None
    patch_px: float | None = None
    needs_shapes: bool = False
    head: Callable[[Card], Head] = lambda card: "network"
    taught: Callable[[Card, Mapping[str, NDArray[Any]]], Classical] | None = None
    alternatives: Callable[[Card], Mapping[str, Card]] = _one_way
    thresholds: Callable[[Card], Thresholds | None] = lambda card: None
    criterion: str | None = None

    answers: Callable[[Bundle, Sequence[Sample]], Iterator[Answer]] | None = None
    calibrated: Grounds | None = None
    measured: Callable[[Bundle, Sequence[Sample]], dict[str, Any]] | None = None
    measure_agreement: Callable[[Bundle, Image | None], dict[str, float]] = lambda bundle, image: {}

    has_score_map: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkKind(Kind):
    """A detector whose network is trained.

    network : the network for a card, with random weights, or with the given weights of a backbone's encoder.
    targets : the training targets of a sample, with the masks and weights that the losses need. Arrays of a
        batch are stacked; shorter ones are padded with rows of NaN.
    losses : of a batch, by name; training minimises their sum.
    decode : the detections on each image of a batch, from the network's outputs.
    chip_px : side of the training chips; None: chosen from the size of the objects.
    kept : settings of the network that fine-tuning keeps.
    augmentations : that differ from the default: name -> value, see `training.augmentation`.
    """

    network: Callable[[Card, Weights | None], TrainableNetwork]
    targets: Callable[[Sample, Card], Arrays]
    losses: Callable[[Any, Mapping[str, Tensor], Card], dict[str, Tensor]]
    decode: Callable[[Outputs, Card], Sequence[Answer]]

    chip_px: Callable[[Card], int | None] = lambda card: None
    kept: tuple[str, ...] = ("kind", "width", "depth")
    augmentations: Mapping[str, Any] = field(default_factory=dict)
