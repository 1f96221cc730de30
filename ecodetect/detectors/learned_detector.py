"""The scan half of every learned detector: a card, the scaling of a raster, and what finds objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.bundle.card import Card, Scaling
from ecodetect.bundle.scaling import as_read, batch_of, scaled, surveyed
from ecodetect.chip import Chip
from ecodetect.detections import Detections, GeometryType
from ecodetect.detectors.learned import Answer, Image, Outputs
from ecodetect.detectors.protocol import Needs, Scene, bands_of

if TYPE_CHECKING:
    from ecodetect.runtime.opening import Network, Runtime

Map = NDArray[np.float32]  # (K, h, w)
Maps = NDArray[np.float32]  # (N, K, h, w)


class Look(Protocol):
    """Finds objects on images.

    runtime, device : what runs its network, and where; None: it has none.
    settings : what it has measured on the raster; JSON-able.
    """

    @property
    def runtime(self) -> Runtime | None: ...

    @property
    def device(self) -> str | None: ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def surveyed(self, samples: Iterable[Chip], image_of: Callable[[Chip], Image]) -> Look:
        """The same after a survey of the raster's samples, if it needs one."""
        ...

    def detect(self, chips: Sequence[Chip], images: Iterable[Image]) -> list[Detections]:
        """Detections of each chip from its image, scaled as the card says. All have the same size."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnedDetector:
    """A learned detector, as it scans a raster.

    hash : of the bundle.
    kind : of the geometry.
    threshold : which of the card's thresholds applies.
    own_settings : what the answer also depends on.
    own_needs : its needs, see `card_needs`; `scaling` and `look` determine the rest.
    scaling : the card's for this raster's values; the measured one after a survey.
    """

    card: Card
    hash: str
    kind: GeometryType
    look: Look
    scaling: Scaling
    threshold: str
    own_needs: Needs
    own_settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def classes(self) -> tuple[str, ...]:
        return self.card.classes

    @property
    def needs(self) -> Needs:
        device = self.look.device
        return replace(
            self.own_needs,
            survey=self.own_needs.survey or self.scaling.mode == "survey",
            is_threaded=device == "cpu",
            on_gpu=device not in (None, "cpu"),
        )

    @property
    def settings(self) -> dict[str, Any]:
        runtime, device = self.look.runtime, self.look.device
        return {
            "model_hash": self.hash,
            "threshold": self.threshold,
            **self.own_settings,
            **({} if device is None else {"runtime": runtime, "device": device}),
            "bands": self.own_needs.bands,
            **self.look.settings,
            **as_read(self.card.scaling, self.scaling),
        }

    def surveyed(self, samples: Iterable[Chip]) -> LearnedDetector:
        ready = replace(self, scaling=surveyed(self.scaling, samples))
        return replace(ready, look=self.look.surveyed(samples, ready.image_of))

    def image_of(self, chip: Chip) -> Image:
        """The network input for a chip."""
        return scaled(chip.pixels, chip.valid, self.scaling, self.card.fill)

    def detect(self, chips: Sequence[Chip]) -> list[Detections]:
        """Detections of each chip."""
        return self.look.detect(chips, map(self.image_of, chips))


def card_needs(card: Card, scene: Scene, threshold: str, *, margin_px: float) -> Needs:
    """The needs that a card states for a scene; raises UserError where the scene lacks a band.

    margin_px : the least margin; it grows where the card says that detections shift more between tilings.
    """
    return Needs(
        bands=bands_of(card, scene),
        largest_px=card.largest_px,
        gsd_m=card.gsd_m,
        own_px=card.unit_per_px if card.gsd_m is None else 1.0,
        margin_px=max(margin_px, float(card.agreement.get("shift_px", 0.0))),
        scores=card.thresholds.get(threshold),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkLook:
    """A network, and the decoding of its outputs.

    kind : of the geometry.
    read : outputs to the detections on each image.
    density : outputs to individuals of each class per pixel (N, K, H, W), if the network has them.
    score_maps : outputs to the maps of scores that detections come from, if there are any, with a cell for
        `map_px` pixels.
    """

    card: Card
    network: Network
    kind: GeometryType
    read: Callable[[Outputs], Sequence[Answer]]
    density: Callable[[Outputs], Maps] | None = None
    score_maps: Callable[[Outputs], Maps] | None = None
    map_px: int = 1

    settings: Mapping[str, Any] = field(default_factory=dict, init=False)

    @property
    def runtime(self) -> Runtime:
        return self.network.runtime

    @property
    def device(self) -> str:
        return self.network.device

    def surveyed(self, samples: Iterable[Chip], image_of: Callable[[Chip], Image]) -> NetworkLook:
        return self

    def detect(self, chips: Sequence[Chip], images: Iterable[Image]) -> list[Detections]:
        """The detections of each chip whose centre lies on a pixel with data."""
        stride = self.network.stride
        outputs = self.network.run(batch_of(images, stride, self.card.fill))
        height, width = chips[0].pixels.shape[1:]
        density: Sequence[Map | None] = [None] * len(chips)
        maps = density
        if self.density is not None:
            density = list(self.density(outputs)[:, :, :height, :width])
        if self.score_maps is not None and chips[0].wants_map:
            rows, columns = -(-height // self.map_px), -(-width // self.map_px)
            maps = list(self.score_maps(outputs)[:, :, :rows, :columns])
        each = zip(chips, self.read(outputs), density, maps, strict=True)
        return [self._detections(*one) for one in each]

    def _detections(
        self, chip: Chip, found: Answer, density: Map | None, score_map: Map | None
    ) -> Detections:
        kept = self._inside(found, chip)
        return Detections(
            chip.grid,
            self.kind,
            found.geometry[kept],
            found.score[kept],
            found.label[kept],
            self.card.classes,
            None if found.diameter is None else found.diameter[kept],
            density,
            score_map,
        )

    def _inside(self, found: Answer, chip: Chip) -> NDArray[np.bool_]:
        """Which detections have their centre on the chip's data; boxes without an area are dropped, (n,)."""
        size = np.array(chip.pixels.shape[:0:-1])
        geometry = shapely.bounds(found.geometry) if self.kind == "polygon" else found.geometry
        ends = np.asarray(geometry, np.float64).reshape(-1, 2 if self.kind == "point" else 4)
        xy = (ends[:, :2] + ends[:, -2:]) / 2
        inside = np.asarray(((xy >= 0) & (xy < size)).all(axis=1), np.bool_)
        if self.kind != "point":
            inside &= (ends[:, 2:] > ends[:, :2]).all(axis=1)
        if chip.valid is not None:
            column, row = np.clip(np.floor(xy).astype(np.int64), 0, size - 1).T
            inside &= chip.valid[row, column]
        return inside
