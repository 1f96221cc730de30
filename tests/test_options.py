"""An option that exists in one command exists, with the same meaning, in all that read the same thing."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import click
import source_tree
from command_line import Run
from ecodetect_cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "options.md"
ROW = re.compile(r"^\| [^|]+ \| ((?:`--[a-z-]+` ?)+) \| ([a-z, ]+) \|$", re.MULTILINE)
# Options that say what is done or written, not how something is read.
DEEDS = {
    *(
        "--at",
        "--batch",
        "--classify",
        "--crs",
        "--diameter",
        "--dry-run",
        "--epochs",
        "--examples",
        "--flips",
    ),
    *("--freeze", "--help", "--inside", "--iou", "--json", "--max-memory", "--model", "--out", "--overwrite"),
    *(
        "--picture",
        "--quiet",
        "--restart",
        "--resume",
        "--score",
        "--score-map",
        "--sheet",
        "--side",
        "--strict",
    ),
    *("--tile", "--top", "--verify", "--views", "--vote", "--within", "--workers"),
}
ALIASES = {"--area": "--complete", "--area-layer": "--complete-layer"}


def options_of(command: str) -> dict[str, click.Option]:
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    options = [parameter for parameter in found.params if isinstance(parameter, click.Option)]
    return {flag: option for option in options for flag in option.opts if flag.startswith("--")}


def test_the_page_says_which_command_takes_which_option() -> None:
    listed: dict[str, set[str]] = {}
    for flags, commands in ROW.findall(PAGE.read_text(encoding="utf-8")):
        for flag in re.findall(r"--[a-z-]+", flags):
            listed.setdefault(flag, set()).update(commands.split(", "))
    there: dict[str, set[str]] = {}
    for command in COMMANDS:
        for flag in options_of(command).keys() - DEEDS - ALIASES.keys():
            there.setdefault(flag, set()).add(command)
    assert there == listed, (
        "docs/options.md doesn't say which commands take an option, or not which subject it has"
    )


def test_an_option_means_the_same_everywhere() -> None:
    kinds: dict[str, set[tuple[object, ...]]] = {}
    for command in COMMANDS:
        for flag, option in options_of(command).items():
            if flag not in DEEDS:
                kind = (option.type.name, option.is_flag, option.multiple, repr(option.default))
                kinds.setdefault(flag, set()).add(kind)
    several = {flag: found for flag, found in kinds.items() if len(found) > 1}
    # Of a layer the raster is one; of detections and annotations there may be many.
    assert several.keys() <= {"--image"}


def test_check_takes_all_that_decides_what_training_sees() -> None:
    only_of_train = options_of("train").keys() - options_of("check").keys()
    assert only_of_train <= DEEDS | {"--device"}


def test_aliases_are_one_option() -> None:
    options = options_of("evaluate")
    for alias, name in ALIASES.items():
        assert options[alias] is options[name]


# -- hints -------------------------------------------------------------------------------------------------

# Messages with an option that a command which reaches the module lacks, and why it never says them.
UNSAID = {
    "annotations.agreement": "said to commands in which classes can be chosen",
    "annotations.files": "files to ignore are read by the commands that have the option",
    "annotations.laying": "a radius is only read where it is said",
    "raster.bands": "convert and export open no bands by name, and tell no notes of a raster",
    "annotations.class_names": "said where annotations are the truth",
    "classification.answering": "about the number of answers that was asked for",
    "converting": "classify only takes a layer apart with it",
    "detectors.boxes": "said when the card of a training is made",
    "detectors.ensemble": "about several models in one scan",
    "detectors.intensity": "evaluate and export search nothing",
    "detectors.sliding_window": "said when the card of a training is made",
    "extras": "an option of pip",
    "formats.files": "said when a file is written; --save_png is Cellpose's",
    "networks.backbones": "said when a training begins",
    "runtime.onnx_network": "about the device or the options that were asked for, of export and scan",
    "classification.folders": "explain only looks at the pictures",
    "raster.reading": "convert and export tell no notes of a raster",
    "raster.header": "convert and export tell no notes of a raster",
    "raster.pages": "convert and export tell no notes of a raster",
    "runtime.torch_network": "about the device that was asked for",
    "scanning.files": "about what a scan was asked for; candidates asks for none of it",
    "scanning.question": "about what a scan was asked for; candidates asks for none of it",
    "scanning.settings": "about what a scan was asked for; candidates asks for none of it",
    "scanning.tiling": "about the side that was asked for",
    "annotations.counting": "annotations are gathered by check and train",
    "annotations.ground_files": "annotations are gathered by check and train",
    "annotations.sources": "annotations are gathered by check and train",
    "bundle.values": "said where a raster is shown to a model",
    "grid": "`models` reads no raster",
    "guarding.guard": "`models` opens no file of others",
    "bundle.input_spec": "`models` reads no raster",
    "matching": "said where detections are paired with a truth",
    "models.choosing": "`models` reads no raster",
    "sizes": "`models` reads no raster",
    "raster.vrt_mosaic": "`models` reads no raster",
}


@cache
def imported(module: str) -> frozenset[str]:
    """Our modules that a module imports, at its top or in a function, but not only for types."""
    modules = source_tree.modules()
    found = set()
    for each in source_tree.imports(modules[module][1]):
        if each.module is not None and not each.is_for_types:
            base = ".".join(filter(None, ["ecodetect_cli" if each.level else "", each.module]))
            found |= {base, *(f"{base}.{name}" for name in each.names)}
    if module in ("ecodetect.formats", "ecodetect.detectors"):  # tables of modules that are imported by name
        folder = ROOT / module.replace(".", "/")
        found |= {f"{module}.{path.stem}" for path in folder.glob("*.py")}
    return frozenset(found & modules.keys())


def reached(module: str) -> set[str]:
    seen, waiting = set[str](), [module]
    while waiting:
        each = waiting.pop()
        if each not in seen:
            seen.add(each)
            waiting += imported(each)
    return seen


@cache
def hints(module: str) -> tuple[str, ...]:
    """The options that messages of a module name, but for `command --option`, which says whose it is."""
    source = source_tree.modules()[module][1]
    if "--" not in source:
        return ()
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    said = [
        re.sub(rf"`({'|'.join(COMMANDS)}) --[a-z-]+`", "", node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        if "--" in node.value
    ]
    return tuple(flag for text in said for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))


def test_a_hint_names_an_option_that_the_command_has() -> None:
    wrong = []
    for command, (module, _, _) in COMMANDS.items():
        own = options_of(command)
        for each in sorted(reached(module)):
            name = each.removeprefix("ecodetect.")
            if name not in UNSAID and not each.startswith("ecodetect_cli"):
                wrong += [f"{command}: {each} says {flag}" for flag in hints(each) if flag not in own]
    assert wrong == []


def test_no_reason_is_left_over() -> None:
    named = {name for name in UNSAID if any(hints(f"ecodetect.{name}"))}
    assert named == set(UNSAID)


def test_what_would_help_is_said_as_the_commands_option(tmp_path: Path, ecodetect: Run) -> None:
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n", encoding="utf-8")
    assert "name the image (--image)." in ecodetect("convert", tmp_path / "a.txt", tmp_path / "a.geojson").err
    assert ecodetect("info", tmp_path / "a.txt").err.endswith("name the image.\n")
