"""The detectors: a table of names, each a file in this folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from inspect import cleandoc
from typing import Any

from ecodetect.detectors.protocol import Detector, Scene, read_options
from ecodetect.errors import UserError

# name -> module with `Options` and `build(options, scene)`; modules are imported when used.
TABLE: dict[str, str] = {
    "blobs": "ecodetect.detectors.blobs",
    "threshold": "ecodetect.detectors.threshold",
}


def known() -> dict[str, str]:
    """Names of all detectors, ours and those installed under the entry point `ecodetect.detectors`."""
    return {**{point.name: point.value for point in entry_points(group="ecodetect.detectors")}, **TABLE}


@dataclass(frozen=True, slots=True)
class Description:
    """A detector in words.

    purpose : one sentence.
    options : option name -> (default, meaning), as the docstring of its `Options` has them.
    """

    purpose: str
    options: Mapping[str, tuple[str, str]]


def describe(name: str) -> Description:
    """What a detector is for and what can be set.  Raises UserError for an unknown name."""
    module = _module(name)
    purpose = cleandoc(module.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    documented = cleandoc(module.Options.__doc__ or "")
    meanings = {
        option: meaning
        for names, meaning in re.findall(r"^(\w+(?:, \w+)*) : (.*(?:\n {2,}.*)*)", documented, re.MULTILINE)
        for option in names.split(", ")
    }
    options = {
        field.name: (_typed(field.default), " ".join(meanings.get(field.name, "").split()))
        for field in fields(module.Options)
    }
    return Description(purpose, options)


def _typed(value: Any) -> str:
    """A default as a user types it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def build(name: str, scene: Scene, options: Mapping[str, str] | None = None) -> Detector:
    """The detector `name` for a scene, with options as `name=value` texts.

    Raises UserError for an unknown name, naming the nearest, and for options it doesn't have.
    """
    module = _module(name)
    detector: Detector = module.build(read_options(module.Options, options or {}, name), scene)
    return detector


def _module(name: str) -> Any:
    table = known()
    if name not in table:
        near = get_close_matches(name, table, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"No detector named '{name}'; {hint}Known: {', '.join(sorted(table))}.")
    return import_module(table[name].partition(":")[0])
