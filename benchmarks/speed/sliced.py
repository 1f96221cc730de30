"""Boxes of the dark objects of a picture by the way of sahi: slices of the whole, the same function, NMS.

Called by `against_sahi.py`. The function is `threshold` at a fixed level, without a network or torch; with
--model that of a trained model, by ONNX Runtime as in `scan`, or with --torch by torch. A point is a box of
20 px. --plain is a plain loop over slices beside each other, which keeps all that is found in each.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import rasterio

from ecodetect.bundle.file import Bundle
from ecodetect.chip import Chip
from ecodetect.detections import Detections
from ecodetect.detectors import table as detectors
from ecodetect.detectors.protocol import Detector, Scene, scene_of
from ecodetect.grid import Grid, Window
from ecodetect.models import choosing as models
from ecodetect.raster.reading import open_raster

RGB = ("red", "green", "blue")


def _of_bundle(name: str, path: str, *, in_torch: bool) -> Detector:
    """The detector of a model for a picture, run by ONNX Runtime, or by torch as before there were graphs."""
    held = models.opened(name)
    assert held is not None
    if in_torch:
        held = Bundle(replace(held.card, graphs={}), held.weights)
    with open_raster(path) as raster:
        detector = detectors.build(held.card.detector, scene_of(raster), bundle=held, device="cpu")
        return detector.surveyed(raster.samples(raster.grid, detector.needs.bands))


def _plain(path: str, side: int, search: Callable[[np.ndarray[Any, Any]], Detections]) -> int:
    """Objects found in slices beside each other."""
    found = 0
    with rasterio.open(path) as picture:
        for y in range(0, picture.height, side):
            for x in range(0, picture.width, side):
                part = picture.read(
                    window=((y, min(y + side, picture.height)), (x, min(x + side, picture.width)))
                )
                found += len(search(np.moveaxis(part, 0, -1)))
    return found


def main() -> None:
    """Detect in slices, as sahi does, and print the number of boxes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raster")
    parser.add_argument("--slice", type=int, default=1024, help="side of a slice in pixels")
    parser.add_argument("--overlap", type=float, default=0.2, help="share of a slice; sahi's default")
    parser.add_argument("--level", default="126")
    parser.add_argument("--model", help="a trained model")
    parser.add_argument("--torch", action="store_true", help="run its network by torch")
    parser.add_argument("--plain", action="store_true", help="a plain loop")
    parser.add_argument("--slicer-only", action="store_true", help="no objects of sahi's, no NMS")
    given = parser.parse_args()
    scene = Scene(RGB, None, "uint8", (0.0, 255.0))
    detector: Detector
    if given.model:
        detector = _of_bundle(given.model, given.raster, in_torch=given.torch)
    else:
        detector = detectors.build("threshold", scene, {"level": given.level, "geometry": "box"})

    def search(image: np.ndarray[Any, Any]) -> Detections:
        height, width = image.shape[:2]
        bands = detector.needs.bands
        pixels = np.ascontiguousarray(np.moveaxis(image, -1, 0)[np.arange(len(bands)) % image.shape[2]])
        chip = Chip(pixels, None, bands, Window(0, 0, width, height), Grid(width, height))
        (found,) = detector.detect([chip])
        if found.kind != "point":
            return found
        return replace(found, kind="box", geometry=np.hstack([found.geometry - 10, found.geometry + 10]))

    if given.plain:
        print(_plain(given.raster, given.slice, search))
        return
    # Here, so that --help works without it.
    from sahi.models.base import DetectionModel
    from sahi.predict import get_sliced_prediction
    from sahi.prediction import ObjectPrediction
    from sahi.slicing import slice_image

    cuts = {
        "slice_height": given.slice,
        "slice_width": given.slice,
        "overlap_height_ratio": given.overlap,
        "overlap_width_ratio": given.overlap,
    }
    if given.slicer_only:
        slices = slice_image(image=given.raster, **cuts)
        boxes = [search(part["image"]).geometry + np.tile(part["starting_pixel"], 2) for part in slices]
        print(sum(map(len, boxes)))
        return

    class Model(DetectionModel):  # type: ignore[misc]  # sahi has no types
        def load_model(self) -> None:
            self.category_mapping = {"0": "object"}

        def perform_inference(self, image: np.ndarray[Any, Any]) -> None:
            self._original_predictions = search(image)

        def _create_object_prediction_list_from_original_predictions(
            self, shift_amount_list: Any = None, full_shape_list: Any = None
        ) -> None:
            found = self._original_predictions
            self._object_prediction_list_per_image = [[
                ObjectPrediction(
                    bbox=box, category_id=0, category_name="object", score=score,
                    shift_amount=shift_amount_list[0], full_shape=full_shape_list[0],
                )
                for box, score in zip(found.geometry.tolist(), found.score.tolist(), strict=True)
            ]]  # fmt: skip

    result = get_sliced_prediction(
        given.raster,
        Model(confidence_threshold=0.1),
        perform_standard_pred=False,
        postprocess_type="NMS",
        postprocess_match_metric="IOU",
        verbose=0,
        **cuts,
    )
    print(len(result.object_prediction_list))


if __name__ == "__main__":
    main()
