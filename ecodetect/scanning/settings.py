"""The user's settings of a scan: `Settings` for the search, `Output` for what is written and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ecodetect.bundle.value_survey import Companions
from ecodetect.bundle.values import ValueUnit
from ecodetect.errors import UserError
from ecodetect.raster.options import RasterOptions
from ecodetect.raster.reading import Raster
from ecodetect.region import Region, read_area
from ecodetect.scanning.patches import PatchSize
from ecodetect.sizes import Length


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings(RasterOptions):
    """What a user asks of a scan, beside how rasters are opened.

    model : file of a model, name of a shipped model, or name of a detector.
    others : more models for an ensemble (boxes only).
    flips : test-time augmentation: also search each tile flipped (boxes only).
    options : their options, `name=value` texts.
    aoi : vector file with polygons to search, in any CRS.  aoi_layer : its layer.
    diameter : of typical objects, for a model without a GSD: the raster is resampled so that they have the
        size of the objects it has learned.
    values : the values that count as black and white in the rasters; None: inferred from their values.
    companions : rasters that are scanned together; those of one folder share a unit.
    score : lowest score kept, for all classes or by class name.
    device : where a network runs: auto, cpu, cuda or mps.
    tile_px, batch, workers, max_memory : None: chosen for detector, machine and raster. max_memory in bytes.
    """

    model: str
    others: tuple[str, ...] = ()
    flips: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    aoi: str | None = None
    aoi_layer: str | None = None
    diameter: Length | None = None
    values: ValueUnit | None = None
    companions: Companions | None = field(default=None, compare=False)
    score: float | Mapping[str, float] | None = None
    device: str = "auto"
    tile_px: int | None = None
    batch: int = 1
    workers: int | None = None
    max_memory: int | None = None

    def __post_init__(self) -> None:
        for what, parameter, value, least in (
            ("The width of a tile in px", "tile", self.tile_px, 16),
            ("The batch size", "batch", self.batch, 1),
            ("The number of workers", "workers", self.workers, 1),
        ):
            if value is not None and value < least:
                raise UserError(f"{what} must be at least {least}; got {value}.", parameter=parameter)
        if self.gsd_m is not None and not 0 < self.gsd_m < 1e6:
            raise UserError(
                f"The pixel size must be a positive number of metres; got {self.gsd_m:g}.", parameter="gsd"
            )
        if self.diameter is not None and not self.diameter.value > 0:
            raise UserError(f"The diameter must be above 0; got {self.diameter}.", parameter="diameter")
        scores = self.score.values() if isinstance(self.score, Mapping) else [self.score]
        for score in scores:
            if score is not None and not 0 <= score <= 1:
                raise UserError(f"A score must lie between 0 and 1; got {score:g}.", parameter="score")

    @property
    def models(self) -> tuple[str, ...]:
        """All models of the ensemble."""
        return (self.model, *self.others)

    def together(self, images: Sequence[str]) -> Settings:
        """These settings for rasters that share a unit if they lie in one folder."""
        return self if self.companions else replace(self, companions=Companions(images, self.opened))

    def region(self, raster: Raster) -> Region | None:
        """The area of interest in pixels of a raster's own grid; None: the whole raster."""
        if self.aoi is None:
            return None
        return read_area(self.aoi, raster.grid, layer=self.aoi_layer, image=raster.name)

    def described(self) -> dict[str, Any]:
        """The settings in the output's metadata: those that are set and change the result."""
        stated = {
            "options": dict(self.options),
            "bands": self.bands,
            "gsd_m": self.gsd_m,
            # JSON knows no NaN.
            "nodata": None if self.nodata is None else f"{self.nodata:.10g}",
            "diameter": None if self.diameter is None else str(self.diameter),
            "values": None if self.values is None else f"{self.values.low:g}:{self.values.high:g}",
            "score": self.score,
        }
        return {name: value for name, value in stated.items() if value not in (None, {})}


@dataclass(frozen=True, slots=True)
class Output:
    """What a scan writes besides the detections.

    overwrite : replace an existing file.  restart : discard the work of an interrupted scan.
    picture, sheet : files for a map of the detections and for a contact sheet of cut-outs; one raster only.
    verified : search a few percent of the ground again on shifted tiles.
    score_map : GeoTIFF for the map of scores that detections come from; one raster only.
    patches : write each detection with a square around it, as candidates.
    classify : classifiers that give each detection a species before it is written.
    alignment : how far apart rasters of one layer may show the same place, in metres: within it, detections
        of two of them are one individual.
    """

    overwrite: bool = False
    restart: bool = False
    picture: str | None = None
    sheet: str | None = None
    verified: bool = False
    patches: PatchSize | None = None
    score_map: str | None = None
    classify: tuple[str, ...] = ()
    alignment: Length = Length(2.0, "m")

    def __post_init__(self) -> None:
        if self.alignment.unit != "m":
            raise UserError(
                f"Rasters are aligned within a length in metres, such as 2m; got {self.alignment}.",
                parameter="alignment",
            )

    @property
    def alignment_m(self) -> float:
        return self.alignment.value

    @property
    def map_path(self) -> Path | None:
        """The file for the map of scores; None: there is none."""
        return None if self.score_map is None else Path(self.score_map)
