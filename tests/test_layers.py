"""Each room imports only from rooms under it on the map; a foreign library only where it may."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import pytest
import source_tree

import ecodetect

CLI = "ecodetect_cli"


def layers_of(docstring: str) -> list[list[str]]:
    """Rooms on a map, layer by layer from the top: `room   what it is for`, a blank line between layers."""
    blocks = docstring.split("\n\n")
    found = [re.findall(r"^([a-z_]+)   *\S", block, re.M) for block in blocks]
    return [
        layer for block, layer in zip(blocks, found, strict=True) if len(layer) == len(block.splitlines())
    ]


LAYERS = [[CLI], ["ecodetect"], *layers_of(ecodetect.__doc__ or "")]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

# Libraries that only these rooms and modules may import.
LEARNED = {
    "detectors.heatmap",
    "detectors.learned",
    "detectors.sliding_window",
    "detectors.torchvision_boxes",
    "detectors.yolo",
    "exporting",
    "networks",
    "runtime.torch_network",
    "runtime.tracing",
    "testing",
    "training",
}
FOREIGN = {
    "rasterio": {
        "estimation.counts_files",  # a raster of density, no reading
        "formats.labels.label_image",
        "formats.labels.masks",  # pixels to polygons, no reading
        "raster.header",
        "raster.opening",
        "raster.pages",
        "raster.reading",
        "region",  # polygons to pixels, no reading
        "scanning.score_maps",  # what `scan` has written itself
        "ecodetect_cli.doctor",
    },
    "torch": LEARNED,
    "torchvision": LEARNED,
    "sklearn": {"detectors.learners"},
    "onnx": {"exporting"},
    "onnxruntime": {"runtime.onnx_network"},
    "click": {CLI},
}


def room(module: str) -> str:
    """`raster` of `ecodetect.raster.header`."""
    package, _, rest = module.partition(".")
    return CLI if package == CLI else rest.split(".")[0] or package


def imported(module: str, is_package: bool, source: str, modules: set[str]) -> Iterator[tuple[int, str]]:
    """Line and full name of each import, wherever it stands: in a function and for types only too."""
    for each in source_tree.imports(source):
        if each.module is None:
            yield from ((each.line, name) for name in each.names)
            continue
        origin = each.module
        if each.level:
            parts = module.split(".")
            parents = parts[: len(parts) - each.level + is_package]
            origin = ".".join([*parents, *([origin] if origin else [])])
        for imported_name in each.names:
            name = f"{origin}.{imported_name}"
            is_room = origin == "ecodetect" and imported_name in LEVEL
            yield each.line, name if name in modules or is_room else origin


def violations(sources: dict[str, tuple[bool, str]]) -> list[str]:
    """What breaks the rules in {module: (is it a package, source)}, one sentence each."""
    found = []
    for module, (is_package, source) in sources.items():
        here = room(module)
        if here not in LEVEL:
            found.append(f"{module} is in no room on the map in ecodetect/__init__.py: give it a line there.")
            continue
        for line, name in imported(module, is_package, source, set(sources)):
            library = name.split(".")[0]
            if library in FOREIGN and not _names(module) & FOREIGN[library]:
                found.append(f"{module}:{line} imports {library}; only {sorted(FOREIGN[library])} may.")
            if library in source_tree.PACKAGES and (there := room(name)) != here:
                if there not in LEVEL:
                    found.append(f"{module}:{line} imports {name}, which is in no room.")
                elif LEVEL[there] <= LEVEL[here]:
                    found.append(f"{module}:{line} imports {name}, which is not in a layer under its own.")
    return found


def _names(module: str) -> set[str]:
    """`raster`, `raster.header` of `ecodetect.raster.header`: what a rule for libraries can name."""
    parts = module.removeprefix("ecodetect.").split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts) + 1)}


def circles(sources: dict[str, tuple[bool, str]]) -> list[str]:
    """The first circle of imports at the top of modules, inside rooms too."""
    graph = {
        module: {name for _, name in imported(module, is_package, source, set(sources)) if name in sources}
        for module, (is_package, source) in sources.items()
    }
    for module, names in graph.items():
        names.discard(module)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" → ".join(error.args[1])]
    return []


def test_rooms_import_only_what_lies_under_them() -> None:
    sources = source_tree.modules()
    assert "ecodetect.errors" in sources
    assert "ecodetect_cli.main" in sources
    assert not (found := violations(sources)), "\n".join(["", *found])


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circles(source_tree.modules()) == []
    assert circles(
        {
            "ecodetect.grid": (False, "import ecodetect.sizes"),
            "ecodetect.sizes": (False, "from ecodetect import grid"),
        }
    )


# What a file must hold to reach a private name: `module._name`, `"module._name"`, `import _name`.
MAY_REACH = re.compile(
    r"(?<!\bself)(?<!\bcls)\._[a-zA-Z]|[\"'](?:[\w.]+\.)?_[a-zA-Z]\w*[\"']|import\b.*\b_[a-zA-Z]"
)
PATCHING = ("delattr", "getattr", "object", "patch", "setattr")
PUBLIC = ("_exit",)  # of `os`; documented


def private_names(source: str) -> Iterator[str]:
    """Names with one underscore that a file imports, asks of another object than its own, or patches."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("cls", "self"):
            names = [node.attr]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in PATCHING:
            texts = [each.value for each in node.args if isinstance(each, ast.Constant)]
            names = [str(text).rpartition(".")[2] for text in texts]
        yield from (f"{node.lineno} {name}" for name in names if is_private(name))


def is_private(name: str) -> bool:
    return re.match("_[a-zA-Z]", name) is not None and name not in PUBLIC


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "recipes", "sample_data"])
def test_no_private_name_is_reached_from(folder: str) -> None:
    """What a user can't rely on may change without a test; what a test must lower has a public name."""
    found = []
    for path in sorted((source_tree.ROOT / folder).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if MAY_REACH.search(source):
            found += [f"{path.name}:{each}" for each in private_names(source)]
    assert found == []


def test_a_reach_for_a_private_name_is_seen() -> None:
    for reaching in (
        "from ecodetect.grid import _cut",
        "grid._cut()",
        "raster.grid._cut",
        "monkeypatch.setattr('ecodetect.grid._PX', 1)",
        "patch.object(grid, '_PX', 1)",
    ):
        assert MAY_REACH.search(reaching)
        assert list(private_names(reaching)), reaching


def test_the_map_names_every_room_once() -> None:
    on_map = [name for layer in LAYERS[2:] for name in layer]
    assert sorted(on_map) == sorted({room(name) for name in source_tree.modules()} - {"ecodetect", CLI})


def test_importing_a_room_imports_no_more_than_its_name() -> None:
    """So that `raster.bands` costs no rasterio: every module pays for the `__init__.py` beside it."""
    for module, (is_package, source) in source_tree.modules().items():
        if is_package and module != "ecodetect":
            body = ast.parse(source).body
            assert len(body) == 1, module
            assert isinstance(body[0], ast.Expr), module  # its docstring


@pytest.mark.parametrize(
    ("module", "source", "says"),
    [
        ("ecodetect.grid", "import ecodetect.settling", "not in a layer under"),
        ("ecodetect.grid", "def f():\n    from ecodetect import settling", "not in a layer under"),
        ("ecodetect.grid", "from . import settling", "not in a layer under"),
        ("ecodetect.grid", "from .settling import survivors", "not in a layer under"),
        ("ecodetect.grid", "from ecodetect.formats.tables.table import read", "not in a layer under"),
        ("ecodetect.grid", "from ecodetect import scan", "not in a layer under"),
        ("ecodetect.grid", "from ecodetect.sizes import Length", "not in a layer under"),
        ("ecodetect.grid", "from ecodetect.helpers import x", "in no room"),
        ("ecodetect.raster.header", "from ecodetect.bundle.card import Card", "not in a layer under"),
        ("ecodetect.scanning.files", "import ecodetect_cli.main", "not in a layer under"),
        ("ecodetect.scanning.files", "import rasterio.windows", "imports rasterio"),
        ("ecodetect.scanning.files", "from torch import nn", "imports torch"),
        ("ecodetect.scanning.files", "import click", "imports click"),
        ("ecodetect_cli.scan", "import rasterio", "imports rasterio"),
        ("ecodetect.helpers", "", "in no room"),
    ],
)
def test_a_violation_is_seen(module: str, source: str, says: str) -> None:
    sources = {"ecodetect.settling": (False, ""), module: (False, source)}
    (found,) = violations(sources)
    assert says in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ecodetect.settling", "from ecodetect.grid import Grid\nfrom .errors import UserError"),
        ("ecodetect.detectors.blobs", "from ecodetect.detectors.protocol import Detector"),
        ("ecodetect.networks.unet", "import torch\nfrom ecodetect.networks.backbones import resnet"),
        ("ecodetect.scanning.journal", "from ecodetect.version import __version__"),
        ("ecodetect.raster.reading", "import rasterio"),
        ("ecodetect_cli.scan", "import click\nimport ecodetect\nfrom ecodetect_cli import options"),
        ("ecodetect_cli.doctor", "import rasterio"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert violations({module: (False, source)}) == []
