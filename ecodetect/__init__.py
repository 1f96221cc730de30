"""ecodetect: where are they, and how many? Detection of individuals in rasters, tile by tile.

`scan("ortho.tif", model="threshold")` is the main job. docs/concepts.md explains the words.

The map: every room in a line, each layer above all that it imports. A room is a folder or a file beside
this one. The command line (`cli/`, installed as `ecodetect_cli`) stands above them all.

testing          for tests of detectors, yours too: small ground and models, and what must hold

scanning         rasters to layers: tiles, memory estimate, journal, results, score maps, candidate patches
inspection       facts about a raster, layer or model (`info`), and what training would see (`check`)

estimation       numbers for a paper: plots to check on a scan's ground, and estimates with intervals

classification   a class for each object of a layer or each picture of a folder; accuracy tables; explanations
evaluation       detections against field annotations: matches, rates, errors to look at
training         from annotated rasters to a model: targets, loop, fine-tuning, operating thresholds
exporting        a trained model as one ONNX file (layers go through `formats`)

models           the shipped models; which model is meant, and whether it fits a raster

detectors        one file per detector; the contract that each keeps; learners without a network
converting       features from one format to another

annotations      field annotations: files and folders of any format laid on rasters; training samples; splits
pictures         maps, sheets and thumbnails to look at

region           the area of interest

formats          vector formats: gis (GeoJSON, GeoPackage, QGIS styles…), labels (COCO, YOLO…), tables (CSV)
runtime          inference: networks on CPU or GPU in torch, or in ONNX Runtime; checks of ONNX files

networks         torch modules and their losses

bundle           the model file, its card, where it was trained; the bands, pixel size and values it works at

raster           reading rasters: safety checks, bands, nodata, georeference, resampling, windows

detections       points, boxes or outlines in the pixels of one grid
matching         which detection is which individual, one to one

assignment       the solver under `matching`
chip             the pixels that a detector sees, with mask, bands and place
layer            a vector layer in memory or on its way
metrics          precision, recall, F1, AP and their kin, as pure functions
settling         non-maximum suppression across tiles: one survivor for each object

cores            how many CPU cores this process was given
extras           optional packages, and what to say where one is missing
grid             windows and grids; the only step between pixel and map coordinates
guarding         a child process with limits on time and memory, for files that could hang or crash a library
sizes            lengths and areas as users state them: `3m`, `25px`

errors           the errors, and whose mistake each is
notes            what makes an answer doubtful, as notes with a code
strict_json      JSON from strangers, with bounds
version          the version
web              HTTP for rasters by address: the relay between GDAL and a server
whole_file       outputs that are whole or not there
wording          numbers in sentences
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# name -> module; imported when asked for, so that `import ecodetect` takes no time.
_PUBLIC = {
    "__version__": "ecodetect.version",
    "AnnotationOptions": "ecodetect.annotations.options",
    "Detections": "ecodetect.detections",
    "EcodetectError": "ecodetect.errors",
    "Grid": "ecodetect.grid",
    "Layer": "ecodetect.layer",
    "Length": "ecodetect.sizes",
    "Output": "ecodetect.scanning.settings",
    "Settings": "ecodetect.scanning.settings",
    "Summary": "ecodetect.scanning.results",
    "UserError": "ecodetect.errors",
    "Window": "ecodetect.grid",
    "check": "ecodetect.inspection.training_data",
    "classify": "ecodetect.classification.layers",
    "convert": "ecodetect.converting",
    "count": "ecodetect.estimation.counting",
    "describe": "ecodetect.inspection.files",
    "estimate": "ecodetect.estimation.estimating",
    "evaluate": "ecodetect.evaluation.evaluating",
    "explain": "ecodetect.classification.explaining",
    "export": "ecodetect.exporting",
    "more_plots": "ecodetect.estimation.plotting",
    "open_raster": "ecodetect.raster.reading",
    "plots": "ecodetect.estimation.plotting",
    "scan": "ecodetect.scanning.files",
    "scan_files": "ecodetect.scanning.files",
    "train": "ecodetect.training.recipe",
}

__all__ = [
    "AnnotationOptions",
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
    "check",
    "classify",
    "convert",
    "count",
    "describe",
    "estimate",
    "evaluate",
    "explain",
    "export",
    "more_plots",
    "open_raster",
    "plots",
    "scan",
    "scan_files",
    "train",
]

if TYPE_CHECKING:
    from ecodetect.annotations.options import AnnotationOptions
    from ecodetect.classification.explaining import explain
    from ecodetect.classification.layers import classify
    from ecodetect.converting import convert
    from ecodetect.detections import Detections
    from ecodetect.errors import EcodetectError, UserError
    from ecodetect.estimation.counting import count
    from ecodetect.estimation.estimating import estimate
    from ecodetect.estimation.plotting import more_plots, plots
    from ecodetect.evaluation.evaluating import evaluate
    from ecodetect.exporting import export
    from ecodetect.grid import Grid, Window
    from ecodetect.inspection.files import describe
    from ecodetect.inspection.training_data import check
    from ecodetect.layer import Layer
    from ecodetect.raster.reading import open_raster
    from ecodetect.scanning.files import scan, scan_files
    from ecodetect.scanning.results import Summary
    from ecodetect.scanning.settings import Output, Settings
    from ecodetect.sizes import Length
    from ecodetect.training.recipe import train
    from ecodetect.version import __version__ as __version__


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ecodetect' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
