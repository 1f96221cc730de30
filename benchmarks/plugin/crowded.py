"""Find a box every few pixels, wherever one looks: a million of them take no detector's time.

The places depend on the raster's pixels alone, so the tiles can't be seen. With `copies` above 1 each object
is found several times, a few pixels apart, and the copies have to be settled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecodetect.chip import Chip
from ecodetect.detections import Detections, GeometryType
from ecodetect.detectors.protocol import Needs, Plain, Scene, Settling

JITTER_PX = 3
LARGEST_PX = 60


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may set.

    spacing : pixels from one object to the next.
    copies : boxes per object.
    """

    spacing: int = 20
    copies: int = 1


def build(options: Options, scene: Scene) -> Crowded:
    """The detector for a scene, on its first band."""
    return Crowded(options, scene.bands[:1])


@dataclass(frozen=True, slots=True)
class Crowded:
    """Reports a dense lattice of boxes, however the ground looks: many detections without any work."""

    options: Options
    bands: tuple[str, ...]

    name = "crowded"
    kind: GeometryType = "box"
    classes = ("something",)

    @property
    def needs(self) -> Needs:
        settling = Settling("iou", 0.5) if self.options.copies > 1 else None
        return Needs(
            bands=self.bands,
            largest_px=LARGEST_PX,
            margin_px=JITTER_PX,
            settling=settling,
            bytes_per_pixel=8,
        )

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self.options)

    def surveyed(self, samples: Iterable[Chip]) -> Crowded:
        return self

    def detect(self, chips: Sequence[Chip]) -> list[Detections]:
        return [self._detect(chip) for chip in chips]

    def _detect(self, chip: Chip) -> Detections:
        step, window = self.options.spacing, chip.window
        x = np.arange(window.x // step, (window.x + window.width) // step + 1) * step
        y = np.arange(window.y // step, (window.y + window.height) // step + 1) * step
        objects = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 1, 2)
        copy = np.arange(self.options.copies)[None]
        noise = [_noise(objects[..., 0], objects[..., 1], copy, k) for k in range(4)]
        shift = np.stack(noise[:2], axis=-1) * 2 * JITTER_PX - JITTER_PX
        half = 10 + 20 * _noise(objects[..., 0], objects[..., 1], 0 * copy, 9)
        centre = (objects + shift if self.options.copies > 1 else objects + 0 * shift) - (window.x, window.y)
        boxes = np.concatenate([centre - half[..., None], centre + half[..., None]], axis=-1).reshape(-1, 4)
        label = np.zeros(len(boxes), np.int64)
        return Detections(chip.grid, "box", boxes, np.ravel(noise[2]), label, self.classes)


def _noise(x: NDArray[Any], y: NDArray[Any], copy: NDArray[Any], nth: int) -> NDArray[np.float64]:
    """A number in [0, 1) of place, copy and nth, the same each time; (objects, copies)."""
    mixed: NDArray[Any] = (x.astype(np.uint64) * 73856093) ^ (y.astype(np.uint64) * 19349663)
    mixed = mixed ^ (copy.astype(np.uint64) * 83492791 + nth * 2654435761)
    mixed = (mixed ^ (mixed >> 33)) * np.uint64(0xFF51AFD7ED558CCD)
    mixed = (mixed ^ (mixed >> 33)) * np.uint64(0xC4CEB9FE1A85EC53)
    return (mixed >> np.uint64(11)) / 2.0**53


KIND = Plain(purpose=__doc__, options=Options, build=build)
