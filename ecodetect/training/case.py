"""What is to be trained, on which ground and how seen: all that is settled before a network is built."""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from ecodetect import __version__, detectors, models
from ecodetect.bands import stand_ins
from ecodetect.bundle import Bundle, Card
from ecodetect.detectors.protocol import read_options
from ecodetect.errors import UserError
from ecodetect.notes import Note
from ecodetect.onnx_file import OnnxModel
from ecodetect.sizes import Length
from ecodetect.training.adapting import contract_for
from ecodetect.training.class_folders import Patches, are_classes, gather_classes
from ecodetect.training.drawing import Pieces
from ecodetect.training.sample import Sample
from ecodetect.training.samples import TYPICAL_PX, Contract, Dataset, Statistics, contract
from ecodetect.training.sources import Asked, Gathered, Source, gather, spacing
from ecodetect.training.splits import Split, split

_PLENTY_PX = 32.0  # reach of a target and a network beside an object of unknown size


@dataclass(frozen=True, eq=False, slots=True)
class Case:
    """What is to be trained, and on which ground.

    kind, detector : its name and module.  start : the bundle that it goes on from, if any.
    wished : the detector's `Training`; None where there is nothing to set.
    made : how rasters are seen.  statistics : of the training ground.
    card : as far as it is known before training.
    is_patches : whether the ground is pictures in folders by class.
    """

    kind: str
    detector: Any
    start: Bundle | None
    wished: Any
    made: Contract
    gathered: Gathered
    sides: Split
    whole: Dataset
    training: Dataset
    validation: Dataset
    statistics: Statistics
    card: Card
    is_patches: bool

    @property
    def is_taught(self) -> bool:
        """Whether a learner decides, so that no network is trained."""
        return getattr(self.wished, "head", "network") != "network"

    @property
    def grounds(self) -> tuple[Sequence[Sample], Sequence[Sample]]:
        """The ground of training and of validation, piece by piece."""
        if not self.is_patches:
            return Pieces(self.training), Pieces(self.validation)
        side = int(self.card.options["network"]["window"])
        return Patches(self.training, side), Patches(self.validation, side)

    def close(self) -> None:
        for each in (self.whole, self.training, self.validation):
            each.close()


def begin(
    paths: Sequence[str | os.PathLike[str]],
    name: str,
    model: str | None,
    asked: Asked | None,
    backbone: str | None,
    weights: str | None,
    split_by: str,
    seed: int,
    gsd: float | None,
    settings: Mapping[str, str] | None,
    command: str,
    say: Callable[[Note], None],
) -> Case:
    """Gather, choose the detector and how rasters are seen, split; see `train`.

    name : of the new bundle.
    """
    start = models.opened(model) if model is not None else None  # None: the name of a detector
    if isinstance(start, OnnxModel):
        raise UserError(
            f"{model} was exported, so it can't be trained; say the .safetensors file it is from."
        )
    is_patches = are_classes(paths)
    gathered = gather_classes(paths[0], asked) if is_patches else gather(paths, asked)
    sources = gathered.sources
    for note in gathered.notes:
        say(note)
    if model is None and is_patches:
        model = "sliding_window"
    elif model is None and backbone is None and weights is None:
        known = nearest(sources)
        start = models.opened(known) if known is not None else None
        if known is not None:
            text = f"Training begins with what '{known}' has learned; -m heatmap begins with nothing."
            say(Note("training-start", text, kind="choice"))
    kind = start.card.detector if start is not None else model or "heatmap"
    detector = _learned(kind)
    if is_patches and not hasattr(detector, "PATCH_PX"):
        raise UserError(
            f"{paths[0]} holds pictures in folders by class, which {kind} can't learn from; train -m"
            " sliding_window."
        )
    wished = _wished(detector, kind, settings or {})
    made, notes = _seen(detector, sources, start, backbone, gsd, wished, is_patches=is_patches)
    for note in notes:
        say(note)
    sides = split(sources, by=split_by, seed=seed)
    whole = Dataset(sources, made, is_shaped=getattr(detector, "NEEDS_SHAPES", False))
    training, validation = whole.limited(sides.training), whole.limited(sides.validation)
    statistics = training.statistics()
    unseen = classes_unseen(statistics, validation.statistics())
    if unseen and split_by in ("auto", "blocks", "files", "none"):
        say(Note("class-unlearned", f"{unseen}, so nothing learns it.", kind="doubt"))
    elif unseen:
        raise UserError(f"{unseen}; split otherwise than by {split_by}, or leave it out with --ignore.")
    asked_of_card = {} if wished is None else {"training": wished, "patches": is_patches}
    card = _card(name, kind, detector, made, sources, whole, start, backbone, command, asked_of_card)
    if hasattr(detector, "weighted"):
        card = detector.weighted(card, statistics.per_class, wished)
    return Case(
        kind, detector, start, wished, made, gathered, sides, whole, training, validation, statistics, card,
        is_patches,
    )  # fmt: skip


def nearest(sources: Sequence[Source]) -> str | None:
    """The model that comes with ecodetect from which to learn the objects of these rasters; None: none.

    One that sees pixels of a known size if theirs is known, else one that doesn't; then the one that sees
    most of their bands; then the one whose pixels are nearest in size.
    """
    gsds = [float(np.sqrt(np.prod(s.grid.gsd))) for s in sources if s.grid.gsd is not None]
    found = []
    for name, card in models.known().items():
        if card.detector != "heatmap" or (card.gsd_m is None) != (not gsds):
            continue
        if any(stand_ins(card.bands, bands) is None for bands in {source.bands for source in sources}):
            continue
        apart = 0.0 if card.gsd_m is None else abs(math.log(float(np.median(gsds)) / card.gsd_m))
        found.append((-len(card.bands), apart, name))
    return min(found)[2] if found else None


def _is_learned(kind: str) -> bool:
    return bool(
        getattr(importlib.import_module(detectors.known()[kind].partition(":")[0]), "IS_LEARNED", False)
    )


def _learned(kind: str) -> Any:
    if kind not in detectors.known():
        raise UserError(f"The bundle's detector is '{kind}', which isn't installed.")
    if not _is_learned(kind):
        raise UserError(f"'{kind}' has nothing to learn; train a detector such as heatmap.")
    return importlib.import_module(detectors.known()[kind].partition(":")[0])


def _wished(detector: Any, kind: str, settings: Mapping[str, str]) -> Any:
    """What a user wants of a detector's training; None for one that has nothing to set."""
    known = getattr(detector, "Training", None)
    if known is not None:
        return read_options(known, settings, kind)
    if settings:
        raise UserError(f"Training {kind} has nothing to set with --set; got {', '.join(sorted(settings))}.")
    return None


def _seen(
    detector: Any,
    sources: Sequence[Source],
    start: Bundle | None,
    backbone: str | None,
    gsd: float | None,
    wished: Any,
    *,
    is_patches: bool,
) -> tuple[Contract, Sequence[Note]]:
    """How rasters are seen, and what to say of it."""
    typical = getattr(detector, "TYPICAL_PX", TYPICAL_PX)
    if is_patches:
        typical = detector.WINDOW_PX if backbone is None else detector.PATCH_PX
    if start is None:
        scaling: Literal["auto", "fixed"] = "fixed" if is_patches else "auto"
        made, notes = contract(sources, gsd=gsd, typical_px=typical, scaling=scaling)
    else:
        made, notes = contract_for(start.card, sources, gsd, typical_px=typical)
    window: Length | None = getattr(wished, "window", None)
    if window is not None:
        made = _seen_through(window, detector, made, sources)
    return made, notes


def _seen_through(window: Length, detector: Any, made: Contract, sources: Sequence[Source]) -> Contract:
    """The contract with pixels so large that a network's window is as wide as stated."""
    if made.unit == "px":
        return replace(made, gsd=window.pixels(None, name="window") / detector.WINDOW_PX)
    native = [source.grid.gsd for source in sources if source.grid.gsd is not None]
    per_px = float(np.median([np.sqrt(np.prod(gsd)) for gsd in native]))
    metres = window.value if window.unit == "m" else window.value * per_px
    return replace(made, gsd=_round(metres / detector.WINDOW_PX))


def classes_unseen(training: Statistics, validation: Statistics) -> str:
    """Which classes are only in validation, in words; empty: none."""
    counts = {
        name: count
        for name, count in validation.per_class.items()
        if count and not training.per_class.get(name, 0)
    }
    each = ", ".join(f"'{name}' ({count})" for name, count in sorted(counts.items()))
    return f"Validation has annotations of a class that training has none of: {each}" if counts else ""


def _card(
    name: str,
    kind: str,
    detector: Any,
    made: Contract,
    sources: Sequence[Source],
    whole: Dataset,
    start: Bundle | None,
    backbone: str | None,
    command: str,
    wished: Mapping[str, Any],
) -> Card:
    """The card as far as it is known before training."""
    objects = [whole.objects(number) for number in whole.used]
    sizes = np.concatenate([np.sqrt(np.prod(each.size, axis=1)) for each in objects])
    spaces = np.concatenate([spacing(each.xy) for each in objects])
    spaces = spaces[spaces > 0]
    asked: dict[str, Any] = dict(wished)
    if start is not None:
        # How fine its map must be depends on these objects, not on those it has learned.
        network = start.card.options.get("network", {})
        kept = getattr(detector, "KEPT", ("kind", "width", "depth"))
        asked["network"] = {key: network[key] for key in kept if key in network}
    elif backbone is not None:
        asked["network"] = {"kind": backbone, "depth": 4}
    options = detector.card_options(sizes, spaces, asked)
    scale = made.gsd or 1.0
    known = sizes[np.isfinite(sizes)]
    widest = 2 * float(known.max()) if len(known) else _PLENTY_PX
    gsds = [float(np.sqrt(np.prod(s.grid.gsd))) for s in sources if s.grid.gsd is not None]
    span = None
    if made.unit == "m" and gsds and made.gsd is not None:
        span = (_round(0.75 * min(gsds)), _round(1.25 * max([made.gsd, *gsds])))
    diameters = None
    if len(known):
        low, high = np.percentile(known, (5, 95)) * scale
        diameters = (_round(float(low)), _round(float(high)))
    return Card(
        name=name,
        detector=kind,
        options=options,
        bands=made.bands,
        scaling=made.scaling,
        fill=made.fill,
        unit=made.unit,
        gsd=made.gsd,
        gsd_range=span,
        diameter_range=diameters,
        largest=_round(widest * scale),
        classes=made.classes,
        command=command,
        versions={
            "ecodetect": __version__,
            "numpy": np.__version__,
            "python": ".".join(map(str, sys.version_info[:3])),
            "torch": str(torch.__version__),
        },
    )


def _round(value: float) -> float:
    return float(f"{value:.4g}")
