"""Opens the network of a window classifier: for maps of whole tiles, or for single windows.

Its classifier, the network's own last layer or a learner, is opened with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ecodetect.bundle.card import Card
from ecodetect.bundle.file import Bundle
from ecodetect.bundle.scaling import padded_to_stride
from ecodetect.detectors import card_reading
from ecodetect.detectors.card_reading import Count, Within
from ecodetect.detectors.learned import Head
from ecodetect.detectors.learners import ClassicalClassifier
from ecodetect.errors import BundleError, UserError

if TYPE_CHECKING:
    from ecodetect.networks.network import TrainableNetwork, Weights
    from ecodetect.runtime.opening import Network, Runtime

TAUGHT = "learner."  # prefix of a learner's arrays in a bundle
_LEAST_LIKELY = 1e-6
_POOLED_PX = 2**19  # of images in a batch
_FINEST_STEP = 64  # steps in a window, at most: finer ones take too long
_VALID_PX = 64  # as `networks.windows.VALID_PX`, which needs torch
_FARTHEST_PX = 160  # around an object; it has learned on chips of at most 320 px, so it has never seen more


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Shape of the network; see `networks.windows.build`."""

    kind: card_reading.NetworkName
    evaluation: Literal["dense", "windows"]
    window: Annotated[int, Within(4, 2048)]
    step: Annotated[int, Within(1, 2048)]
    width: card_reading.Width = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposer:
    """The proposing detector and its options; see `proposals.card_options`."""

    name: Literal["threshold", "selective_search"]
    smallest_px: Annotated[float, Within(0.01, 1e5)]
    largest_px: Annotated[float, Within(0.01, 1e5)]
    area_px: Annotated[float, Within(0, 1e10)]
    level: Literal["otsu", "local"] | Annotated[float, Within(-1e6, 1e6)] = "otsu"
    objects: Literal["dark", "bright"] = "dark"


@dataclass(frozen=True, kw_only=True, slots=True)
class CardOptions:
    """What a card says about a window classifier.

    typical_px, sized : width of a typical individual, and whether it was measured.
    patches : whether it learned from pictures in folders by class, so that there is no background.
    boxes : how its map is decoded.
    head : the classifier; `learner` has its settings where it isn't the network itself.
    smoothing, class_weights : of its losses.  temperature : see `sliding_window.calibrated`.
    proposer : for the detector `proposals`.
    """

    network: Shape
    typical_px: card_reading.TypicalPx
    sized: bool
    patches: bool
    boxes: Literal["regions", "peaks", "windows"]
    head: Head = "network"
    smoothing: Annotated[float, Within(0, 1)] = 0.0
    class_weights: Annotated[tuple[Annotated[float, Within(0, 1e6)], ...], Count(0, 10_001)] = ()
    temperature: Annotated[float, Within(1e-3, 1e3)] = 1.0
    learner: Mapping[str, Any] | None = None
    proposer: Proposer | None = None


def options_of(card: Card) -> CardOptions:
    """The options of a card; raises BundleError where they can't be a window classifier's."""
    found = card_reading.options_of(CardOptions, card)
    shape = found.network
    least = max(1, shape.window // _FINEST_STEP)
    if not least <= shape.step <= shape.window or (shape.kind == "valid" and shape.window != _VALID_PX):
        raise BundleError(
            f"The card of '{card.name}' is damaged (windows of {shape.window} px, {shape.step} px apart)."
        )
    return found


def network(card: Card, weights: Weights | None = None) -> TrainableNetwork:
    """The network that a card describes.

    weights : of a backbone; see `networks.building.build`. None: at random.
    """
    from ecodetect.networks import windows

    return windows.build(asdict(options_of(card).network), card.bands, outputs_of(card), weights)


def outputs_of(card: Card) -> int:
    """Number of values per cell: one per class, preceded by background where there is one; 0: features."""
    if options_of(card).head != "network":
        return 0
    return len(card.classes) + (not options_of(card).patches)


@lru_cache(maxsize=4)
def open_classifier(bundle: Bundle, device: str, threads: int | None) -> Network:
    """The network of a bundle; kept, for a detector is built for each raster of many."""
    from ecodetect.runtime.opening import open_network

    card = bundle.card
    shape = options_of(card).network
    own = bundle if options_of(card).learner is None else replace(bundle, weights=_of_network(bundle))
    wanted = _wanted(card)
    opened = open_network(
        own,
        lambda: network(card),
        {wanted: (_channels(card, wanted), 1 / shape.step)},
        device=device,
        threads=threads,
        around=None if _is_map(shape) else partial(_around, shape=shape, device=device, threads=threads),
    )
    if opened.stride != shape.step and (shape.kind != "valid" or opened.stride % shape.step):
        raise BundleError(f"The card of '{card.name}' is damaged (its network's step is {opened.stride} px).")
    return _with_learner(bundle, opened)


def _channels(card: Card, output: str) -> int:
    """Channels of an output of the network for images; of features a card says how many, within bounds."""
    if output == "scores" or "image" not in card.graphs:
        return outputs_of(card)
    return card.graphs["image"].outputs.get(output, 0)


def _wanted(card: Card) -> str:
    """The output of the network that is looked at: where a learner decides, the features."""
    return "scores" if options_of(card).head == "network" else "features"


def _is_map(shape: Shape) -> bool:
    """Whether the network sees whole images, and not windows."""
    return shape.kind != "valid" and shape.evaluation == "dense"


def _around(
    bundle: Bundle, *, shape: Shape, device: str, threads: int | None, output: str | None = None
) -> Network:
    """A network for images of a graph for windows."""
    from ecodetect.runtime import onnx_network, window_maps

    wanted = (output or _wanted(bundle.card),)
    session = onnx_network.open_part(bundle, "windows", wanted, device=device, threads=threads)
    card = bundle.card
    made = session.shapes((1, len(card.bands), shape.window, shape.window))
    if wanted == ("scores",) and made["scores"][1] != outputs_of(card):
        raise BundleError(f"The network of '{card.name}' isn't the one of its card (it has other scores).")
    if shape.kind == "valid" and shape.evaluation == "dense":
        return window_maps.ShiftedPasses(session, shape.step)
    return window_maps.EachWindow(session, shape.window, shape.step)


def _of_network(bundle: Bundle) -> dict[str, NDArray[Any]]:
    return {name: each for name, each in bundle.weights.items() if not name.startswith(TAUGHT)}


def _with_learner(bundle: Bundle, opened: Network) -> Network:
    """The network, together with the learner where one classifies its features."""
    card = bundle.card
    settings = options_of(card).learner
    if settings is None:
        return opened
    arrays = {
        name.removeprefix(TAUGHT): values
        for name, values in bundle.weights.items()
        if name.startswith(TAUGHT)
    }
    learner = ClassicalClassifier.of(settings, arrays)
    classes = len(card.classes) + (not options_of(card).patches)
    if learner.settings["classes"] != len(card.classes) + 1:
        raise BundleError(f"The learner of '{card.name}' has other classes than its card.")
    return _Taught(opened, learner, classes)


@dataclass(frozen=True, eq=False, slots=True)
class _Taught:
    """A backbone and a learner that classifies its features; outputs are logits, like a network's."""

    of: Network
    learner: ClassicalClassifier
    outputs: int

    @property
    def runtime(self) -> Runtime:
        return self.of.runtime

    @property
    def device(self) -> str:
        return self.of.device

    @property
    def stride(self) -> int:
        return self.of.stride

    @property
    def reach_px(self) -> int | None:
        return self.of.reach_px

    @property
    def is_local(self) -> bool:
        return self.of.is_local

    @property
    def bytes_per_pixel(self) -> int | None:
        return self.of.bytes_per_pixel

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        (features,) = self.of.run(batch)
        n, channels, height, width = features.shape
        rows = features.transpose(0, 2, 3, 1).reshape(-1, channels)
        likely = np.log(np.maximum(self.learner.probability(rows), _LEAST_LIKELY)).astype(np.float32)
        # A learner has the background last, a network first.
        likely = np.roll(likely, 1, axis=1)[:, likely.shape[1] - self.outputs :]
        return [likely.reshape(n, height, width, -1).transpose(0, 3, 1, 2)]


@lru_cache(maxsize=8)
def open_single(
    bundle: Bundle, device: str, threads: int | None, *, has_head: bool = True
) -> tuple[Network, int]:
    """The network of a bundle for single windows, and the side of its input in pixels.

    It classifies the middle of the image: "valid" and "windows" take a window and return (n, K, 1, 1).
    "dense" has learned on whole chips, so it takes the object with its receptive field, and returns a map
    with an odd number of cells along a side, whose middle cell counts.

    has_head : False: it returns the pooled features that the logits are computed from.
    Raises UserError for a model in ONNX, whose network is made for rasters, not for windows.
    """
    from ecodetect.runtime.onnx_file import OnnxModel
    from ecodetect.runtime.opening import open_network

    card = bundle.card
    if isinstance(bundle, OnnxModel):
        raise UserError(
            f"The model '{card.name}' was exported to ONNX to scan rasters; to classify, or explain, give the"
            " .safetensors file it is from."
        )
    shape = options_of(card).network
    is_dense = _is_map(shape)
    outputs = outputs_of(card) if has_head else 0
    own = _of_network(bundle)
    weights = {name: each for name, each in own.items() if has_head or not _is_of_head(name)}
    single = replace(
        bundle,
        card=card if is_dense and has_head else replace(card, reach_px="whole image"),
        weights=weights,
    )
    wanted = _wanted(card) if has_head else "features"
    alone = replace(shape, evaluation="windows", step=shape.window)

    def build() -> TrainableNetwork:
        from ecodetect.networks.windows import build_single

        return build_single(asdict(shape), card.bands, outputs)

    each = partial(_around, shape=alone, device=device, threads=threads, output=wanted)
    opened = open_network(
        single,
        build,
        {wanted: (_channels(card, wanted), 1 / shape.step)},
        device=device,
        threads=threads,
        around=None if is_dense else each,
    )
    answering = _with_learner(bundle, opened) if has_head else opened
    if not is_dense or options_of(card).patches:
        return answering, shape.window
    around = min(_FARTHEST_PX, _FARTHEST_PX if opened.reach_px is None else opened.reach_px)
    step = shape.step
    return answering, (2 * math.ceil(around / step) + 1) * step


def pooled(bundle: Bundle, device: str, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The features that logits are computed from, (n, C), of images (n, B, S, S) as for `open_single`."""
    network, _ = open_single(bundle, device, None, has_head=False)
    at_once = max(1, _POOLED_PX // (images.shape[2] * images.shape[3]))
    found = []
    for start in range(0, len(images), at_once):
        some = images[start : start + at_once]
        if some.shape[2] % network.stride:
            some = np.stack([padded_to_stride(each, network.stride, bundle.card.fill) for each in some])
        (maps,) = network.run(some)
        middle = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2]
        found.append(maps.mean(axis=(2, 3)) if options_of(bundle.card).patches else middle)
    return np.concatenate(found)


def activation(bundle: Bundle, image: NDArray[np.float32], output: int) -> NDArray[np.float32]:
    """A heat map: which pixels of an image (B, S, S), as for `open_single`, support an output of the network.

    Returns (S, S), 0 to 1, with S rounded up to a multiple of the stride; see `networks.explanation`.
    """
    from ecodetect.networks.explanation import class_activation
    from ecodetect.networks.windows import build_single
    from ecodetect.runtime import torch_network

    card = bundle.card
    module = build_single(asdict(options_of(card).network), card.bands, outputs_of(card))
    torch_network.load(module, bundle.weights, name=card.name)
    stride = module.stride
    whole = padded_to_stride(image, stride, card.fill) if image.shape[1] % stride else image
    return class_activation(module.eval(), whole, output, is_whole=options_of(card).patches)


def _is_of_head(name: str) -> bool:
    return name.startswith(("head.", "classifier.head."))
