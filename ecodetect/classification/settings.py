"""How objects and pictures are classified, as a user says it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ecodetect.bundle.values import ValueUnit
from ecodetect.classification.answering import ClassifierEnsemble, Views, Vote, open_classifier
from ecodetect.raster.reading import Raster, open_raster


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifyingSettings:
    """What a user asks of a classification.

    vote, views : see `ClassifierEnsemble` and `Member`.
    top : how many answers are written; None: 3, if there are as many.
    device : where networks run: auto, cpu, cuda or mps.
    bands, gsd_m, nodata, allow_vrt : see `open_raster`.
    values : what counts as black and white in the rasters; None: told by their values.
    """

    vote: Vote = "mean"
    views: Views = "none"
    top: int | None = None
    device: str = "auto"
    bands: str | None = None
    gsd_m: float | None = None
    nodata: float | None = None
    allow_vrt: bool = False
    values: ValueUnit | None = None

    def classifier(self, models: Sequence[str | os.PathLike[str]]) -> ClassifierEnsemble:
        """The models, answering together; see `open_classifier`."""
        return open_classifier(models, vote=self.vote, views=self.views, device=self.device)

    def opened(self, image: str | os.PathLike[str]) -> Raster:
        """A raster, opened as these settings say."""
        return open_raster(
            image, bands=self.bands, gsd_m=self.gsd_m, nodata=self.nodata, allow_vrt=self.allow_vrt
        )
