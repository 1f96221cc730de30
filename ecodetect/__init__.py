"""ecodetect: where are they, and how many? Detection of individuals in rasters, tile by tile.

The map of the house, from the ground up; each layer imports only from those before it:

errors, sizes → grid → layer → chip, detections → tiling, merging → formats → annotations, aoi → raster
→ detectors → classifiers → pictures, pipeline, memory, journal → searching (one raster) → results → scanning
(many, to files), converting, describing → classifying → annotation_files (of many images) → evaluation
→ training → picture_answers → explaining → the command line

`scan("ortho.tif", model="threshold")` is the main job. docs/concepts.md explains the words.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> module; imported when asked for, so that `import ecodetect` takes no time.
_PUBLIC = {
    "Detections": "ecodetect.detections",
    "EcodetectError": "ecodetect.errors",
    "Grid": "ecodetect.grid",
    "Layer": "ecodetect.layer",
    "Length": "ecodetect.sizes",
    "Output": "ecodetect.scanning",
    "Settings": "ecodetect.searching",
    "Summary": "ecodetect.results",
    "UserError": "ecodetect.errors",
    "Window": "ecodetect.grid",
    "classify": "ecodetect.classifying",
    "convert": "ecodetect.converting",
    "evaluate": "ecodetect.evaluation",
    "explain": "ecodetect.explaining",
    "open_raster": "ecodetect.raster",
    "scan": "ecodetect.scanning",
    "scan_files": "ecodetect.scanning",
}

__all__ = [
    "Detections",
    "EcodetectError",
    "Grid",
    "Layer",
    "Length",
    "Output",
    "Settings",
    "Summary",
    "UserError",
    "Window",
    "classify",
    "convert",
    "evaluate",
    "explain",
    "open_raster",
    "scan",
    "scan_files",
]

if TYPE_CHECKING:
    from ecodetect.classifying import classify
    from ecodetect.converting import convert
    from ecodetect.detections import Detections
    from ecodetect.errors import EcodetectError, UserError
    from ecodetect.evaluation import evaluate
    from ecodetect.explaining import explain
    from ecodetect.grid import Grid, Window
    from ecodetect.layer import Layer
    from ecodetect.raster import open_raster
    from ecodetect.results import Summary
    from ecodetect.scanning import Output, scan, scan_files
    from ecodetect.searching import Settings
    from ecodetect.sizes import Length


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ecodetect' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
