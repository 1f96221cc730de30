"""Each module imports only from the layers under it; a foreign library only where it may."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"ecodetect": ROOT / "ecodetect", "ecodetect_cli": ROOT / "cli"}

# From top to bottom. Units of one line don't know each other. `x.*`: each module in the folder x is a unit of
# its own; any other name is one unit with all that is in its folder. The longest name that fits counts.
LAYERS = [
    ["ecodetect_cli"],
    ["ecodetect"],
    ["ecodetect.checking", "ecodetect.explaining"],
    ["ecodetect.picture_answers"],
    ["ecodetect.training"],
    ["ecodetect.evaluation", "ecodetect.estimation"],
    ["ecodetect.evaluation.evaluating"],
    ["ecodetect.evaluation.report"],
    ["ecodetect.evaluation.pooling", "ecodetect.evaluation.remarks", "ecodetect.evaluation.worst"],
    ["ecodetect.evaluation.judging"],
    ["ecodetect.evaluation.criterion", "ecodetect.evaluation.labels"],
    ["ecodetect.evaluation.pairing"],
    ["ecodetect.evaluation.common_plane", "ecodetect.evaluation.plots"],
    ["ecodetect.annotation_files"],
    ["ecodetect.classifying"],
    ["ecodetect.converting", "ecodetect.describing", "ecodetect.exporting", "ecodetect.scanning"],
    ["ecodetect.results"],
    ["ecodetect.searching"],
    ["ecodetect.overlaps", "ecodetect.pipeline"],
    [
        "ecodetect.candidates",
        "ecodetect.inputs",
        "ecodetect.journal",
        "ecodetect.memory",
        "ecodetect.pictures",
    ],
    ["ecodetect.journal_file", "ecodetect.score_maps"],
    ["ecodetect.pictures.explanation", "ecodetect.pictures.map", "ecodetect.pictures.sheet"],
    ["ecodetect.pictures.thumbnails"],
    ["ecodetect.pictures.background", "ecodetect.pictures.choice", "ecodetect.pictures.frame"],
    [
        "ecodetect.pictures.files",
        "ecodetect.pictures.lettering",
        "ecodetect.pictures.look",
        "ecodetect.pictures.marks",
    ],
    ["ecodetect.pictures.colours"],
    ["ecodetect.classifiers"],  # several of `models`, and what they see of a raster
    ["ecodetect.models"],
    ["ecodetect.detectors"],  # the table; it knows all detectors
    ["ecodetect.detectors.*"],
    [
        "ecodetect.detectors.sliding_window",
        "ecodetect.detectors.pyramids",
    ],  # what detectors on torchvision's networks share
    ["ecodetect.detectors.boxes"],  # what detectors of boxes share
    [  # what several detectors share
        "ecodetect.detectors.filtering",
        "ecodetect.detectors.hierarchy",
        "ecodetect.detectors.intensity",
        "ecodetect.detectors.map_boxes",
        "ecodetect.detectors.segments",
        "ecodetect.detectors.splitting",
        "ecodetect.detectors.window_networks",
    ],
    ["ecodetect.detectors.outlines", "ecodetect.detectors.peaks"],
    ["ecodetect.detectors.protocol", "ecodetect.detectors.card_reading", "ecodetect.raster_values"],
    ["ecodetect.raster"],
    ["ecodetect.raster_pixels"],
    ["ecodetect.raster_header", "ecodetect.input_spec"],
    ["ecodetect.raster_pages"],
    ["ecodetect.raster_opening"],
    ["ecodetect.bands", "ecodetect.page_metadata", "ecodetect.raster_bands"],
    [
        "ecodetect.band_words",
        "ecodetect.georeference",
        "ecodetect.lattice",
        "ecodetect.raster_blocks",
        "ecodetect.raster_rim",
        "ecodetect.raster_safety",
        "ecodetect.raster_state",
        "ecodetect.resampling",
    ],
    ["ecodetect.raster_remote"],
    ["ecodetect.relay"],
    ["ecodetect.upstream"],
    ["ecodetect.web_connection"],
    ["ecodetect.agreement"],
    ["ecodetect.annotations", "ecodetect.aoi"],
    ["ecodetect.formats"],  # the table; it knows all formats
    ["ecodetect.formats.*"],
    [
        "ecodetect.formats.label_image",
        "ecodetect.formats.ogr",
        "ecodetect.formats.on_earth",
        "ecodetect.formats.table_frames",
    ],
    ["ecodetect.formats.arrow_stream", "ecodetect.formats.content"],
    ["ecodetect.formats.shown_upright"],
    [  # what several formats share
        "ecodetect.formats.antimeridian",
        "ecodetect.formats.arrow_columns",
        "ecodetect.formats.arrow_parts",
        "ecodetect.formats.image_matching",
        "ecodetect.formats.json_stream",
        "ecodetect.formats.masks",
        "ecodetect.formats.placing",
        "ecodetect.formats.qgis_metadata",
        "ecodetect.formats.qgis_source",
        "ecodetect.formats.qgis_style",
        "ecodetect.formats.table_columns",
        "ecodetect.formats.xml_reading",
    ],
    ["ecodetect.formats.table_numbers", "ecodetect.formats.xml_writing"],
    [
        "ecodetect.formats.collecting",
        "ecodetect.formats.curves",
        "ecodetect.formats.metadata",
        "ecodetect.formats.text_reading",
        "ecodetect.formats.usable",
    ],
    ["ecodetect.formats.protocol", "ecodetect.formats.tangled"],
    ["ecodetect.confusion"],
    ["ecodetect.raster_sides"],  # masks have side files too
    ["ecodetect.raster_hdf5", "ecodetect.raster_references", "ecodetect.vrt_mosaic"],
    ["ecodetect.tiff_pages"],
    ["ecodetect.metrics"],
    ["ecodetect.network_opening"],
    [
        "ecodetect.learners",
        "ecodetect.networks",
        "ecodetect.onnx_runtime",
        "ecodetect.runtime",
        "ecodetect.scaling",
        "ecodetect.values",
    ],
    ["ecodetect.onnx_work"],
    ["ecodetect.onnx_file"],
    ["ecodetect.parts"],
    ["ecodetect.matching"],
    ["ecodetect.assignment"],
    ["ecodetect.merging"],
    ["ecodetect.tiling"],
    ["ecodetect.chip", "ecodetect.detections"],
    ["ecodetect.bundle", "ecodetect.layer", "ecodetect.places", "ecodetect.training.sample"],
    ["ecodetect.class_names", "ecodetect.duplicates"],
    ["ecodetect.column_roles", "ecodetect.grid", "ecodetect.sizes"],
    ["ecodetect.databases"],
    ["ecodetect.extras", "ecodetect.guard"],
    ["ecodetect.crs_files", "ecodetect.guarded"],
    [
        "ecodetect.errors",
        "ecodetect.notes",
        "ecodetect.spreadsheet",
        "ecodetect.strict_json",
        "ecodetect.whole_file",
        "ecodetect.wording",
    ],
]

# Libraries that only these units may import. A learned detector is added to torch by its name.
LEARNED = {
    "ecodetect.detectors.faster_rcnn",
    "ecodetect.detectors.fcos",
    "ecodetect.detectors.heatmap",
    "ecodetect.detectors.mask_rcnn",
    "ecodetect.detectors.proposals",
    "ecodetect.detectors.pyramids",
    "ecodetect.detectors.retinanet",
    "ecodetect.detectors.sliding_window",
    "ecodetect.detectors.ssd",
    "ecodetect.detectors.window_networks",
    "ecodetect.detectors.yolo",
    "ecodetect.exporting",
    "ecodetect.network_opening",  # for types
    "ecodetect.networks",
    "ecodetect.runtime",
    "ecodetect.training",
}
FOREIGN = {
    "rasterio": {
        "ecodetect.raster",
        "ecodetect.raster_header",  # of what `raster` has opened
        "ecodetect.raster_opening",
        "ecodetect.raster_pages",
        "ecodetect.aoi",  # polygons to pixels, no reading
        "ecodetect.formats.label_image",
        "ecodetect.formats.masks",  # pixels to polygons, no reading
        "ecodetect.score_maps",  # what `scan` has written itself
        "ecodetect_cli.doctor",
    },
    "torch": LEARNED,
    "torchvision": LEARNED,
    "sklearn": {"ecodetect.learners"},
    "onnx": {"ecodetect.exporting"},
    "onnxruntime": {"ecodetect.onnx_runtime"},
    "click": {"ecodetect_cli"},
}

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def place(module: str) -> tuple[int, str] | None:
    """Level and unit of a module; None if no layer names it."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        name, is_whole = ".".join(parts[:length]), length == len(parts)
        if f"{name}.*" in LEVEL and not is_whole:
            return LEVEL[f"{name}.*"], ".".join(parts[: length + 1])
        if name in LEVEL and (is_whole or name != "ecodetect"):
            return LEVEL[name], name
    return None


def imported(module: str, is_package: bool, source: str, modules: set[str]) -> Iterator[tuple[int, str]]:
    """Line and full name of each import, wherever it stands: in a function and for types only too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                parts = module.split(".")
                parents = parts[: len(parts) - node.level + is_package]
                origin = ".".join([*parents, *([origin] if origin else [])])
            for alias in node.names:
                name = f"{origin}.{alias.name}"
                if name == "ecodetect.__version__":
                    continue  # a constant; `import ecodetect` loads nothing (tests/test_cli_start.py)
                yield node.lineno, name if name in modules or name in LEVEL else origin


def violations(sources: dict[str, tuple[bool, str]]) -> list[str]:
    """What breaks the rules in {module: (is it a package, source)}, one sentence each."""
    found = []
    for module, (is_package, source) in sources.items():
        here = place(module)
        if here is None:
            found.append(
                f"{module} is in no layer: give it a line in LAYERS of tests/test_layers.py, below all that"
                " import it and above all that it imports."
            )
            continue
        for line, name in imported(module, is_package, source, set(sources)):
            library = name.split(".")[0]
            if library in FOREIGN and not {module, here[1], *_parents(module)} & FOREIGN[library]:
                found.append(f"{module}:{line} imports {library}; only {sorted(FOREIGN[library])} may.")
            if library in SOURCES:
                there = place(name)
                if there is None:
                    found.append(f"{module}:{line} imports {name}, which is in no layer.")
                elif there[1] != here[1] and there[0] <= here[0]:
                    found.append(f"{module}:{line} imports {name}, which is not in a layer under its own.")
    return found


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def tree() -> dict[str, tuple[bool, str]]:
    """{module: (is it a package, source)} of the repository."""
    sources = {}
    for package, folder in SOURCES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            sources[name] = (is_package, path.read_text(encoding="utf-8"))
    return sources


def test_modules_import_only_what_lies_under_them() -> None:
    sources = tree()
    assert "ecodetect.errors" in sources
    assert "ecodetect_cli.main" in sources
    assert not (found := violations(sources)), "\n".join(["", *found])


@pytest.mark.parametrize(
    ("module", "source", "says"),
    [
        ("ecodetect.grid", "import ecodetect.tiling", "not in a layer under"),
        ("ecodetect.grid", "def f():\n    from ecodetect import tiling", "not in a layer under"),
        ("ecodetect.grid", "from . import tiling", "not in a layer under"),
        ("ecodetect.grid", "from .tiling import plan", "not in a layer under"),
        ("ecodetect.grid", "from ecodetect.formats.table import read", "not in a layer under"),
        ("ecodetect.grid", "from ecodetect import scan", "not in a layer under"),
        ("ecodetect.grid", "from ecodetect.sizes import Length", "not in a layer under"),
        ("ecodetect.grid", "from ecodetect.helpers import x", "in no layer"),
        ("ecodetect.formats.kml", "from ecodetect.formats.table import read", "not in a layer under"),
        ("ecodetect.formats.kml", "from .table import read", "not in a layer under"),
        ("ecodetect.detectors.blobs", "from ecodetect.detectors import known", "not in a layer under"),
        ("ecodetect.scanning", "import ecodetect_cli.main", "not in a layer under"),
        ("ecodetect.scanning", "import rasterio.windows", "imports rasterio"),
        ("ecodetect.scanning", "from torch import nn", "imports torch"),
        ("ecodetect.scanning", "import click", "imports click"),
        ("ecodetect_cli.scan", "import rasterio", "imports rasterio"),
        ("ecodetect.helpers", "", "in no layer"),
    ],
)
def test_a_violation_is_seen(module: str, source: str, says: str) -> None:
    sources = {"ecodetect.tiling": (False, ""), module: (False, source)}
    (found,) = violations(sources)
    assert says in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ecodetect.tiling", "from ecodetect.grid import Grid\nfrom .errors import UserError"),
        ("ecodetect.detectors.blobs", "from ecodetect.detectors.protocol import Detector"),
        ("ecodetect.networks.unet", "import torch\nfrom ecodetect.networks.backbones import resnet"),
        ("ecodetect.journal", "from ecodetect import __version__"),
        ("ecodetect.raster", "import rasterio"),
        ("ecodetect_cli.scan", "import click\nimport ecodetect\nfrom ecodetect_cli import options"),
        ("ecodetect_cli.doctor", "import rasterio"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert violations({module: (False, source)}) == []
