"""An option that exists in one command exists, with the same meaning, in all that read the same thing."""

from __future__ import annotations

import re
from pathlib import Path

import click
from ecodetect_cli.main import COMMANDS, cli

PAGE = Path(__file__).parents[1] / "docs" / "options.md"
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
