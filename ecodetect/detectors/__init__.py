"""The detectors: a table of names, each a file in this folder."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points

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


def build(name: str, scene: Scene, options: Mapping[str, str] | None = None) -> Detector:
    """The detector `name` for a scene, with options as `name=value` texts.

    Raises UserError for an unknown name, naming the nearest, and for options it doesn't have.
    """
    table = known()
    if name not in table:
        near = get_close_matches(name, table, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"No detector named '{name}'; {hint}Known: {', '.join(sorted(table))}.")
    module = import_module(table[name].partition(":")[0])
    detector: Detector = module.build(read_options(module.Options, options or {}, name), scene)
    return detector
