"""Find nothing, in a known time: what is left of a scan's time and memory is the scan's own.

This folder on PYTHONPATH is enough for `ecodetect scan -m idle`: the entry point stands in the folder beside.
The seconds that it really took, which on a busy machine are more, go into the file that IDLE_SPENT names.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ecodetect.chip import Chip
from ecodetect.detections import Detections, GeometryType
from ecodetect.detectors.protocol import Needs, Plain, Scene

DECODED_MPX_PER_S = 90  # RGB in deflate, one core


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may set.

    seconds : time spent per million pixels of a chip.
    how : "compute" keeps one core busy, "wait" doesn't (as when another device computes).
    largest : what the halo is made for, in pixels.
    map : side of the cells of a map of scores, in pixels: how bright the first band is; 0: none.
    """

    seconds: float = 0.0
    how: Literal["compute", "wait"] = "compute"
    largest: float = 128.0
    map: int = 0


def build(options: Options, scene: Scene) -> Idle:
    """The detector for a scene, on its first three bands."""
    return Idle(options, scene.bands[:3])


@dataclass(frozen=True, slots=True)
class Idle:
    """Takes part in a scan without finding anything: measures everything except detection."""

    options: Options
    bands: tuple[str, ...]

    name = "idle"
    kind: GeometryType = "box"
    classes = ("nothing",)

    @property
    def needs(self) -> Needs:
        cost = self.options.seconds * DECODED_MPX_PER_S
        cell = self.options.map
        return Needs(
            bands=self.bands,
            largest_px=self.options.largest,
            stride_px=max(1, cell),
            bytes_per_pixel=1,
            cost=cost,
            map_px=cell or None,
        )

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"seconds": self.options.seconds, "how": self.options.how, "largest": self.options.largest}

    def surveyed(self, samples: Iterable[Chip]) -> Idle:
        return self

    def detect(self, chips: Sequence[Chip]) -> list[Detections]:
        started = time.monotonic()
        for chip in chips:
            seconds = self.options.seconds * chip.pixels[0].size / 1e6
            if self.options.how == "wait":
                time.sleep(seconds)
            else:
                _compute(seconds)
        _spent.append(time.monotonic() - started)
        empty = [Detections.empty(chip.grid, self.kind, self.classes) for chip in chips]
        return [
            replace(found, score_map=self._map(chip)) if chip.wants_map else found
            for found, chip in zip(empty, chips, strict=True)
        ]

    def _map(self, chip: Chip) -> NDArray[np.float32]:
        """Brightness, smoothed so that its last bits are as little alike as a network's."""
        cell = self.options.map
        height, width = (-(-side // cell) for side in chip.pixels.shape[1:])
        cells = cv2.resize(chip.pixels[0], (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.GaussianBlur(cells.astype(np.float32) / 255, (0, 0), 2.0))[None]


_spent: list[float] = []


@atexit.register
def _say_spent() -> None:
    if "IDLE_SPENT" in os.environ:
        Path(os.environ["IDLE_SPENT"]).write_text(str(sum(_spent)), encoding="utf-8")


def _compute(seconds: float) -> None:
    """Keep this thread's core busy, with the interpreter's lock released as numerical libraries do."""
    image = np.zeros((256, 256), np.float32)
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        cv2.GaussianBlur(image, (15, 15), 3)


KIND = Plain(purpose=__doc__, options=Options, build=build, has_score_map=True)
