"""The user's settings of a classification."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ecodetect.bundle.values import ValueUnit
from ecodetect.classification.answering import ClassifierEnsemble, Views, Vote, open_classifier
from ecodetect.raster.options import RasterOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifyingSettings(RasterOptions):
    """What a user asks of a classification, beside how rasters are opened.

    vote, views : see `ClassifierEnsemble` and `Member`.
    top : number of answers per object; None: 3, if there are as many classes.
    device : where networks run: auto, cpu, cuda or mps.
    values : the values that count as black and white in the rasters; None: inferred from their values.
    """

    vote: Vote = "mean"
    views: Views = "none"
    top: int | None = None
    device: str = "auto"
    values: ValueUnit | None = None

    def classifier(self, models: Sequence[str | os.PathLike[str]]) -> ClassifierEnsemble:
        """The ensemble of models; see `open_classifier`."""
        return open_classifier(models, vote=self.vote, views=self.views, device=self.device)
