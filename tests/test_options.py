"""An option that exists in one command exists, with the same meaning, in all that read the same thing."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import click
import source_tree
from command_line import Run
from ecodetect_cli.main import COMMANDS, cli
from ecodetect_cli.terminal import sentence
from PIL import Image

from ecodetect.errors import UserError
from ecodetect.notes import Note

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


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def options_of(name: str) -> dict[str, click.Option]:
    options = [each for each in command(name).params if isinstance(each, click.Option)]
    return {flag: option for option in options for flag in option.opts if flag.startswith("--")}


def test_the_page_says_which_command_takes_which_option() -> None:
    listed: dict[str, set[str]] = {}
    for flags, commands in ROW.findall(PAGE.read_text(encoding="utf-8")):
        for flag in re.findall(r"--[a-z-]+", flags):
            listed.setdefault(flag, set()).update(commands.split(", "))
    there: dict[str, set[str]] = {}
    for name in COMMANDS:
        for flag in options_of(name).keys() - DEEDS - ALIASES.keys():
            there.setdefault(flag, set()).add(name)
    assert there == listed, (
        "docs/options.md doesn't say which commands take an option, or not which subject it has"
    )


def test_an_option_means_the_same_everywhere() -> None:
    kinds: dict[str, set[tuple[object, ...]]] = {}
    for name in COMMANDS:
        for flag, option in options_of(name).items():
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


# -- messages ----------------------------------------------------------------------------------------------

FLAG = re.compile(r"(?<![\w-])-(?:[a-z]|-[a-z][a-z-]*)(?![\w-])")
TELL_OF_FLAGS = {
    *("ecodetect.errors", "ecodetect.notes"),  # how a parameter becomes one
    "ecodetect.training.processes",  # those of torchrun
}


def library() -> dict[str, ast.Module]:
    """The modules of `ecodetect/`, parsed."""
    modules = source_tree.modules().items()
    return {name: ast.parse(source) for name, (_, source) in modules if not name.startswith("ecodetect_cli")}


def every_flag() -> set[str]:
    """Those of all commands, long and short."""
    options = (each for name in COMMANDS for each in command(name).params if isinstance(each, click.Option))
    return {flag for option in options for flag in option.opts}


def test_the_library_spells_no_flag_of_the_command_line() -> None:
    flags = every_flag()
    spelt = [
        f"{module}, line {node.lineno}: {flag}"
        for module, tree in library().items()
        if module not in TELL_OF_FLAGS
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for flag in FLAG.findall(node.value)
        if flag in flags
    ]
    assert spelt == []


def constants(value: ast.expr) -> list[str]:
    """The texts that an expression can be: one, several in a tuple, or one of two."""
    parts = value.elts if isinstance(value, ast.Tuple) else [value]
    parts = [value.body, value.orelse] if isinstance(value, ast.IfExp) else parts
    return [each.value for each in parts if isinstance(each, ast.Constant) and isinstance(each.value, str)]


def test_a_parameter_that_would_help_is_an_option() -> None:
    named = {
        name
        for tree in library().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "parameter"
        for name in constants(node.value)
    }
    assert "gsd" in named
    assert {f"--{name.replace('_', '-')}" for name in named} <= every_flag()


def test_a_message_names_the_options_that_the_command_has() -> None:
    note = Note("a", "it has no CRS.", about="a.tif", parameter=("gsd", "out"))
    assert sentence(note, command("scan")) == "a.tif: it has no CRS (--gsd, --out)."
    assert sentence(note, command("check")) == "a.tif: it has no CRS (--gsd)."
    assert sentence(note, command("models")) == "a.tif: it has no CRS."
    error = UserError("Too many.", parameter="ignore_edge")
    assert sentence(error, command("evaluate")) == "Too many (--ignore-edge)."
    assert sentence(UserError("Too many."), command("evaluate")) == "Too many."


def test_a_note_in_json_names_the_option_too(tmp_path: Path, ecodetect: Run) -> None:
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, 200, 30, 60])
    picture.save(tmp_path / "a.png")
    notes = json.loads(ecodetect("info", tmp_path / "a.png", "--json").out)["notes"]
    (note,) = (note for note in notes if note["code"] == "colour-table")
    assert note.keys() == {"code", "kind", "about", "text"}
    assert note["text"].endswith("read band 1 (--bands).")
    line = next(
        each for each in ecodetect("info", tmp_path / "a.png").out.splitlines() if "colour table" in each
    )
    assert line.split(maxsplit=1)[1] == note["text"]


def test_what_would_help_is_said_as_the_commands_option(tmp_path: Path, ecodetect: Run) -> None:
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n", encoding="utf-8")
    assert "name the image (--image)." in ecodetect("convert", tmp_path / "a.txt", tmp_path / "a.geojson").err
    assert ecodetect("info", tmp_path / "a.txt").err.endswith("name the image.\n")
