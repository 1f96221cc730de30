"""The start of a training: rasters, the kind of detector, the starting bundle, the input specification.

`train` continues in `case`; `check` reports this much and stops. Nothing here needs torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ecodetect.annotations.annotated_raster import AnnotatedRaster, gsds, spacing
from ecodetect.annotations.class_folders import are_classes, gather_classes
from ecodetect.annotations.contract import TYPICAL_PX, Contract, contract
from ecodetect.annotations.dataset import Dataset, Statistics
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.annotations.sources import Gathered, gather
from ecodetect.bundle.card import Card
from ecodetect.bundle.file import Bundle
from ecodetect.bundle.value_survey import survey
from ecodetect.bundle.values import remarks, unit_of
from ecodetect.detectors import table as detectors
from ecodetect.detectors.learned import Kind, NetworkKind, Wishes
from ecodetect.detectors.protocol import read_options
from ecodetect.errors import UserError
from ecodetect.grid import Floats
from ecodetect.models import choosing as models
from ecodetect.notes import Note, merged
from ecodetect.raster.bands import stand_ins
from ecodetect.runtime.onnx_file import OnnxModel
from ecodetect.sizes import Length
from ecodetect.training.settings import TrainingSettings

_LOOKED_AT = 32  # rasters whose values are compared with a model's


@dataclass(frozen=True, eq=False, slots=True)
class Beginning:
    """What to train, and on which rasters.

    kind : of detector.  start : the bundle that is fine-tuned, if any.
    wished : the kind's `training` options; None where there is nothing to set.
    backbone : name of a network as encoder, torchvision's, or, after "timm/", timm's.
    is_patches : whether the ground is pictures in folders by class.
    is_asked : whether the user named the starting model.
    """

    kind: Kind
    start: Bundle | None
    wished: Any
    backbone: str | None
    gathered: Gathered
    is_patches: bool
    is_asked: bool

    def contract(self, gsd: float | None = None) -> tuple[Contract, Sequence[Note]]:
        """How the model sees rasters, and notes about it.

        gsd : metres per pixel; chosen from the objects' sizes if not given.
        """
        kind, sources = self.kind, self.gathered.sources
        typical = kind.typical_px or TYPICAL_PX
        if self.is_patches:
            typical = (kind.window_px if self.backbone is None else kind.patch_px) or TYPICAL_PX
        if self.start is None:
            scaling: Literal["auto", "fixed"] = "fixed" if self.is_patches else "auto"
            made, notes = contract(sources, gsd=gsd, typical_px=typical, scaling=scaling)
        else:
            made, chosen = contract_for(self.start.card, sources, gsd, typical_px=typical)
            said = merged(_said_of_values(self.start.card, sources))
            # If the start was chosen automatically, other values aren't a doubt: they are learned again.
            notes = (*(note for note in said if self.is_asked or note.kind != "doubt"), *chosen)
        window = kind.window(self.wished)
        if window is not None and kind.window_px is not None:
            made = _seen_through(window, kind.window_px, made, sources)
        return made, notes

    def dataset(self, made: Contract) -> Dataset:
        """All rasters, seen this way."""
        return Dataset(self.gathered.sources, made, is_shaped=self.kind.needs_shapes)

    def card_options(self, sizes: Floats, whole: Dataset) -> dict[str, Any]:
        """The card options that the detector chooses for these objects.

        sizes : of all objects, in pixels that the network sees.
        Raises UserError where the detector can't learn from them.
        """
        spaces = np.concatenate([spacing(whole.objects(number).xy) for number in whole.used])
        network: Mapping[str, Any] = {}
        if self.start is not None and isinstance(self.kind, NetworkKind):
            # The resolution of its map depends on these objects, not on those it has learned.
            own = self.start.card.options.get("network", {})
            network = {key: own[key] for key in self.kind.kept if key in own}
        elif self.backbone is not None:
            network = {"kind": self.backbone, "depth": 4}
        wishes = Wishes(training=self.wished, is_patches=self.is_patches, network=network)
        return self.kind.card_options(sizes, spaces[spaces > 0], wishes)


def begin(
    paths: Sequence[str | os.PathLike[str]],
    asked: AnnotationOptions | None,
    how: TrainingSettings,
    say: Callable[[Note], None],
) -> Beginning:
    """Gather the data, and choose the detector and the starting model; see `recipe.train`.

    Raises UserError, in one sentence, when data can't be read, matched or trained on.
    """
    model = None if how.model is None else os.fspath(how.model)
    backbone, weights = how.backbone, how.weights
    is_asked = model is not None
    start = models.opened(model) if model is not None else None  # None: the name of a detector
    if isinstance(start, OnnxModel):
        raise UserError(
            f"{model} was exported, so it can't be trained; name the .safetensors file it is from."
        )
    _check_network(start, backbone, weights)
    is_patches = are_classes(paths)
    gathered = gather_classes(paths[0], asked) if is_patches else gather(paths, asked)
    for note in gathered.notes:
        say(note)
    if model is None and is_patches:
        model = "sliding_window"
    elif model is None and backbone is None and weights is None:
        known = nearest(gathered.sources)
        start = models.opened(known) if known is not None else None
        if known is not None:
            text = (
                f"Training starts from '{known}' (transfer learning); to start from scratch, train 'heatmap'."
            )
            say(Note("training-start", text, kind="choice", parameter="model"))
    assert not isinstance(start, OnnxModel)
    kind = _learned(start.card.detector if start is not None else model or "heatmap")
    if is_patches and kind.patch_px is None:
        raise UserError(
            f"{paths[0]} holds pictures in folders by class, which {kind.name} can't learn from; train"
            " sliding_window.",
            parameter="model",
        )
    wished = _wished(kind, how.settings)
    return Beginning(kind, start, wished, backbone, gathered, is_patches, is_asked)


def _check_network(start: Bundle | None, backbone: str | None, weights: str | None) -> None:
    """Raise UserError for a network and weights that don't fit each other."""
    if start is not None and (backbone is not None or weights is not None):
        raise UserError(
            "A model brings its own network and weights: leave out the backbone and its weights.",
            parameter=("backbone", "weights"),
        )
    if start is None and backbone is None and weights not in (None, "none"):
        raise UserError("Weights are those of a backbone; name it too.", parameter="backbone")


def nearest(sources: Sequence[AnnotatedRaster]) -> str | None:
    """The shipped model to start from for these rasters; None: there is none.

    One with a GSD if theirs is known, else one without; then the one that uses most of their bands; then the
    one with the nearest GSD.
    """
    sides = gsds(sources)
    found = []
    for name, card in models.known().items():
        if card.detector != "heatmap" or (card.gsd_m is None) != (not sides):
            continue
        if any(stand_ins(card.bands, bands) is None for bands in {source.bands for source in sources}):
            continue
        apart = 0.0 if card.gsd_m is None else abs(math.log(float(np.median(sides)) / card.gsd_m))
        found.append((-len(card.bands), apart, name))
    return min(found)[2] if found else None


def _said_of_values(card: Card, sources: Sequence[AnnotatedRaster]) -> Iterator[Note]:
    """Notes that compare the values of the first rasters with those that a model has learned."""
    for source in sources[:_LOOKED_AT]:
        bands = stand_ins(card.bands, source.bands)
        if bands is not None:
            with source.open() as raster:
                yield from remarks(source.name, card, source.unit, survey(raster, bands))


def contract_for(
    card: Card,
    sources: Sequence[AnnotatedRaster],
    gsd: float | None = None,
    *,
    typical_px: float = TYPICAL_PX,
) -> tuple[Contract, tuple[Note, ...]]:
    """How a model that starts from a bundle sees rasters, and notes on the choices.

    gsd : metres per pixel; chosen from the objects' sizes if not given.
    typical_px : wanted width of typical objects where the size of pixels is unknown.
    """
    own = gsds(sources)
    notes: list[Note] = []
    if gsd is None and len(own) == len(sources):
        sizes = np.concatenate(
            [source.size_px[source.kept] * each for source, each in zip(sources, own, strict=True)]
        )
        sizes = sizes[np.isfinite(sizes)]
        typical = card.options.get("typical_px")
        if len(sizes) and typical:
            native = float(np.median(own))
            wanted = float(np.median(sizes)) / float(typical)
            # A finer GSD than the raster's shows nothing new; objects half again as large are still
            # recognised.
            gsd = native if wanted < 1.3 * native else float(f"{wanted:.2g}")
        elif card.unit == "m" and card.gsd is not None:
            gsd = card.gsd
        if gsd is not None:
            text = f"'{card.name}' is adapted to {gsd:.4g} m per pixel."
            notes.append(Note("adapted-gsd", text, kind="choice"))
    onto = unit_of(card.learned) if card.scaling.mode == "fixed" and _have_units(sources) else None
    found, more = contract(sources, gsd=gsd, typical_px=typical_px, onto=onto)
    if set(found.bands) != set(card.bands):
        text = f"'{card.name}' has learned {', '.join(card.bands)}; here it gets {', '.join(found.bands)}."
        notes.append(Note("adapted-bands", text, kind="choice"))
    return found, (*notes, *more)


def _seen_through(
    window: Length, window_px: int, made: Contract, sources: Sequence[AnnotatedRaster]
) -> Contract:
    """The contract with the pixel size at which a network's window is as wide as stated."""
    if made.unit == "px":
        return replace(made, gsd=window.pixels(None, name="window") / window_px)
    per_px = float(np.median(gsds(sources)))
    metres = window.value if window.unit == "m" else window.value * per_px
    return replace(made, gsd=rounded(metres / window_px))


def check_classes(training: Statistics, validation: Statistics, split_by: str) -> Note | None:
    """A note on classes that only validation has; raises UserError where the user chose the split."""
    unseen = classes_unseen(training, validation)
    if not unseen:
        return None
    if split_by in ("auto", "blocks", "files", "none"):
        return Note("class-unlearned", f"{unseen}, so nothing learns it.", kind="doubt")
    raise UserError(
        f"{unseen}; split otherwise than by {split_by}, or ignore it.", parameter=("split", "ignore")
    )


def classes_unseen(training: Statistics, validation: Statistics) -> str:
    """The classes that are only in validation, in words; empty: none."""
    counts = {
        name: count
        for name, count in validation.per_class.items()
        if count and not training.per_class.get(name, 0)
    }
    each = ", ".join(f"'{name}' ({count})" for name, count in sorted(counts.items()))
    return f"Validation has annotations of a class that training has none of: {each}" if counts else ""


def _learned(kind: str) -> Kind:
    if kind not in detectors.known():
        raise UserError(f"The bundle's detector is '{kind}', which isn't installed.")
    return detectors.learned(kind)


def _wished(kind: Kind, settings: Mapping[str, str]) -> Any:
    """A user's options for a detector's training; None for a detector without options."""
    if kind.training is not None:
        return read_options(kind.training, settings, kind.name)
    if settings:
        said = ", ".join(sorted(settings))
        raise UserError(f"Training {kind.name} has no options; got {said}.", parameter="set")
    return None


def rounded(value: float) -> float:
    """To four digits, as cards state lengths."""
    return float(f"{value:.4g}")


def _have_units(sources: Sequence[AnnotatedRaster]) -> bool:
    """Whether the units of all rasters' values and the size of their pixels are known."""
    return all(
        source.unit is not None and source.unit.unit is not None and source.grid.gsd is not None
        for source in sources
    )
