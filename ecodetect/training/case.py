"""A training case: model, ground and input specification, fixed before a network is built."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch

from ecodetect.annotations.annotated_raster import gsds
from ecodetect.annotations.class_folders import ClassPictures
from ecodetect.annotations.contract import Contract
from ecodetect.annotations.dataset import Dataset, Statistics
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.annotations.sample import Sample
from ecodetect.annotations.sources import Gathered
from ecodetect.annotations.splits import Split, split
from ecodetect.bundle.card import Card
from ecodetect.bundle.file import Bundle
from ecodetect.detectors import table as detectors
from ecodetect.detectors.learned import Kind, NetworkKind
from ecodetect.errors import BundleError, UserError
from ecodetect.extras import TIMM
from ecodetect.notes import Note
from ecodetect.training.beginning import Beginning, check_classes, rounded
from ecodetect.training.beginning import begin as begin_with
from ecodetect.training.drawing import Pieces
from ecodetect.training.settings import TrainingSettings
from ecodetect.version import __version__

_PLENTY_PX = 32.0  # context of a target and a network around an object of unknown size


@dataclass(frozen=True, eq=False, slots=True)
class Case:
    """What to train, and on which ground.

    kind : of detector.  start : the bundle that is fine-tuned, if any.
    made : how rasters are seen.  statistics : of the training ground.
    card : as known before training.
    is_patches : whether the ground is pictures in folders by class.
    """

    kind: Kind
    start: Bundle | None
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
        """Whether a classical learner is trained instead of a network."""
        return self.kind.head(self.card) != "network"

    @property
    def grounds(self) -> tuple[Sequence[Sample], Sequence[Sample]]:
        """The ground of training and of validation, piece by piece."""
        if not self.is_patches:
            return Pieces(self.training), Pieces(self.validation)
        assert isinstance(self.kind, NetworkKind), "only networks learn from pictures by class"
        side = self.kind.chip_px(self.card)
        assert side is not None, "a kind with `patch_px` says how wide they are"
        return ClassPictures(self.training, side), ClassPictures(self.validation, side)

    def close(self) -> None:
        for each in (self.whole, self.training, self.validation):
            each.close()


def begin(
    paths: Sequence[str | os.PathLike[str]],
    name: str,
    asked: AnnotationOptions | None,
    how: TrainingSettings,
    say: Callable[[Note], None],
) -> Case:
    """Gather the data, choose the detector and the input specification, and split; see `train`.

    name : of the new bundle.
    """
    begun = begin_with(paths, asked, how, say)
    made, notes = begun.contract(how.gsd)
    for note in notes:
        say(note)
    sides = split(begun.gathered.sources, by=how.split_by, seed=how.seed)
    whole = begun.dataset(made)
    training, validation = whole.limited(sides.training), whole.limited(sides.validation)
    statistics = training.statistics()
    unseen = check_classes(statistics, validation.statistics(), how.split_by)
    if unseen is not None:
        say(unseen)
    card = _card(name, begun, made, whole, how.command)
    card = begun.kind.weighted(card, statistics.per_class, begun.wished)
    return Case(
        begun.kind, begun.start, made, begun.gathered, sides, whole, training,
        validation, statistics, card, begun.is_patches,
    )  # fmt: skip


def _card(name: str, begun: Beginning, made: Contract, whole: Dataset, command: str) -> Card:
    """The card as known before training."""
    objects = [whole.objects(number) for number in whole.used]
    sizes = np.concatenate([np.sqrt(np.prod(each.size, axis=1)) for each in objects])
    options = begun.card_options(sizes, whole)
    is_of_timm = str(options.get("network", {}).get("kind", "")).startswith(TIMM)
    scale = made.unit_per_px
    known = sizes[np.isfinite(sizes)]
    widest = 2 * float(known.max()) if len(known) else _PLENTY_PX
    own = gsds(begun.gathered.sources)
    span = None
    if made.unit == "m" and own and made.gsd is not None:
        span = (rounded(0.75 * min(own)), rounded(1.25 * max([made.gsd, *own])))
    diameters = None
    if len(known):
        low, high = np.percentile(known, (5, 95)) * scale
        diameters = (rounded(float(low)), rounded(float(high)))
    return Card(
        name=name,
        detector=begun.kind.name,
        options=options,
        bands=made.bands,
        scaling=made.scaling,
        learned=made.learned,
        fill=made.fill,
        unit=made.unit,
        gsd=made.gsd,
        gsd_range=span,
        diameter_range=diameters,
        largest=rounded(widest * scale),
        classes=made.classes,
        command=command,
        versions={
            "ecodetect": __version__,
            "numpy": np.__version__,
            "python": ".".join(map(str, sys.version_info[:3])),
            "torch": str(torch.__version__),
            **({"timm": version("timm")} if is_of_timm else {}),
        },
    )


def check_card(card: Card) -> None:
    """Raise UserError, before hours of training, for a card that couldn't be opened afterwards."""
    try:
        detectors.check_card(Card.from_json(card.to_json(), source=card.name))
    except BundleError as error:
        raise UserError(f"No model can be made from these annotations and settings: {error}") from error
