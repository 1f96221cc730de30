"""Boxes of the dark objects of a picture by the way of sahi: slices of the whole, the same function, NMS.

Called by `against_sahi.py`. The function is `threshold` at a fixed level, without a network or torch; with
--model the network of a bundle (a detector on torchvision's), as trained or, with --folded, as in
`scan`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from ecodetect.chip import Chip
from ecodetect.detections import Detections
from ecodetect.detectors import table as detectors
from ecodetect.detectors.protocol import Detector, Scene
from ecodetect.grid import Grid, Window

RGB = ("red", "green", "blue")


def _of_bundle(path: str, scene: Scene, *, is_folded: bool) -> Any:
    """The detector of a bundle for pictures of the bundle's own scaling; as trained unless folded."""
    import importlib

    from ecodetect.bundle import file as bundle
    from ecodetect.runtime import torch_network

    held = bundle.read(path)
    detector: Any = detectors.build(held.card.detector, scene, bundle=held)
    if not is_folded:
        module = importlib.import_module(f"ecodetect.detectors.{held.card.detector}").network(held.card)
        torch_network.load(module, held.weights, name=path)
        network = replace(detector.network, module=module.eval())
        detector = replace(detector, network=network)
    return detector


def main() -> None:
    """Detect in slices, as sahi does, and print the number of boxes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raster")
    parser.add_argument("--slice", type=int, default=1024, help="side of a slice in pixels")
    parser.add_argument("--overlap", type=float, default=0.2, help="share of a slice; sahi's default")
    parser.add_argument("--level", default="126")
    parser.add_argument("--model", help="a bundle")
    parser.add_argument("--folded", action="store_true", help="normalisation folded, channels last")
    parser.add_argument("--slicer-only", action="store_true", help="no objects of sahi's, no NMS")
    given = parser.parse_args()
    # Here, so that --help works without it.
    from sahi.models.base import DetectionModel
    from sahi.predict import get_sliced_prediction
    from sahi.prediction import ObjectPrediction
    from sahi.slicing import slice_image

    scene = Scene(RGB, None, "uint8", (0.0, 255.0))
    detector: Detector
    if given.model:
        detector = _of_bundle(given.model, scene, is_folded=given.folded)
    else:
        detector = detectors.build("threshold", scene, {"level": given.level, "geometry": "box"})

    def search(image: np.ndarray[Any, Any]) -> Detections:
        height, width = image.shape[:2]
        pixels = np.ascontiguousarray(np.moveaxis(image, -1, 0))
        chip = Chip(pixels, None, RGB, Window(0, 0, width, height), Grid(width, height))
        (found,) = detector.detect([chip])
        return found

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
